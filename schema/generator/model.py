# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the schema files."""
import json

BUILTINS = {  # wire type: (C++ type, JSON type in the introspection, name there)
    "str": ("std::string", "string", "str"),
    "number": ("double", "number", "number"),
    "bool": ("bool", "boolean", "bool"),
    "null": ("std::nullptr_t", "null", "null"),
    "any": ("Value", "value", "any"),
    "int": ("std::int64_t", "int", "int"),
    "int64": ("std::int64_t", "int", "int"),
    "uint8": ("std::uint8_t", "int", "int"),
    "uint16": ("std::uint16_t", "int", "int"),
    "uint32": ("std::uint32_t", "int", "int"),
    "uint64": ("std::uint64_t", "int", "int"),
    "size": ("std::uint64_t", "int", "int"),
}

# Words that cannot be a C++ identifier, and macros of old compilers.
RESERVED = {"int", "enum", "default", "delete", "new", "class", "struct", "union", "switch", "case", "auto", "bool",
            "char", "double", "float", "long", "short", "signed", "unsigned", "void", "static", "const", "operator",
            "register", "return", "template", "this", "throw", "try", "catch", "using", "virtual", "volatile", "while",
            "for", "if", "else", "do", "goto", "break", "continue", "explicit", "export", "extern", "friend", "inline",
            "mutable", "namespace", "private", "protected", "public", "sizeof", "typedef", "typeid", "typename",
            "true", "false", "nullptr", "unix", "linux", "and", "or", "not", "xor"}

KEYS = {
    "enum": {"values"},
    "struct": {"members", "like", "retype"},
    "union": {"tag", "members", "branches"},
    "alternate": {"of"},
    "command": {"arguments", "returns", "oob", "features"},
    "event": {"data", "features"},
}
MEMBER_KEYS = {"name", "type", "optional", "doc", "default", "min", "max", "expects", "power-of-two", "unit", "features"}
FEATURES = {"unstable", "deprecated"}


class SchemaError(Exception):
    pass


def identifier(name):
    result = name.replace("-", "_")
    return result + "_" if result in RESERVED else result


def camel(name):
    words = name.replace("-", "_").split("_")
    return "".join(word[:1].upper() + (word[1:].lower() if word.isupper() else word[1:]) for word in words)


def element(type_name):
    """Element type of "[x]", else None."""
    return type_name[1:-1] if type_name.startswith("[") and type_name.endswith("]") else None


class Member:
    def __init__(self, data):
        self.name = data["name"]
        self.type = data["type"]
        self.optional = data.get("optional", False)
        self.doc = data.get("doc", "")
        self.default = data.get("default")
        self.min = data.get("min")
        self.max = data.get("max")
        self.expects = data.get("expects")
        self.power_of_two = data.get("power-of-two", False)
        self.unit = data.get("unit", "")
        self.features = data.get("features", [])
        self.recursive = False  # of the type that it is a member of; check() finds out

    @property
    def cpp_name(self):
        return identifier(self.name)

    def comment(self):
        parts = [self.doc] if self.doc else []
        if self.unit:
            parts.append(f"[{self.unit}]")
        return "  // " + " ".join(parts) if parts else ""


class EnumValue:
    def __init__(self, data):
        data = {"name": data} if isinstance(data, str) else data
        self.name = data["name"]
        self.doc = data.get("doc", "")
        self.features = data.get("features", [])

    @property
    def cpp_name(self):
        return identifier(self.name)


class Definition:
    def __init__(self, data, where):
        self.where = where
        self.kind = data["kind"]
        self.name = data["name"]
        self.doc = data["doc"]
        self.features = data.get("features", [])
        self.values = [EnumValue(value) for value in data.get("values", [])]
        self.members = [Member(member) for member in data.get("members", data.get("data", []))]
        self.like = data.get("like")
        self.retype = data.get("retype", {})
        self.tag = data.get("tag")
        self.branches = {case: [Member(m) for m in members] for case, members in data.get("branches", {}).items()}
        self.of = data.get("of", [])
        self.returns = data.get("returns")
        self.oob = data.get("oob", False)
        self.argument_type = None
        if self.kind == "command":
            arguments = data.get("arguments", [])
            if isinstance(arguments, str):
                self.argument_type = arguments
            else:
                self.members = [Member(member) for member in arguments]

    @property
    def cpp_name(self):
        return camel(self.name) if self.kind in ("command", "event") else self.name

    def fail(self, text):
        raise SchemaError(f"{self.where}: {self.name}: {text}")


class Schema:
    def __init__(self, definitions):
        self.definitions = definitions
        self.types = {d.name: d for d in definitions if d.kind not in ("command", "event")}

    def kind(self, kind):
        return [d for d in self.definitions if d.kind == kind]

    def cpp_type(self, type_name):
        inner = element(type_name)
        if inner:
            return f"std::vector<{self.cpp_type(inner)}>"
        return BUILTINS[type_name][0] if type_name in BUILTINS else type_name

    def member_type(self, member):
        plain = self.cpp_type(member.type)
        if member.recursive:
            return f"OptionalBox<{plain}>"
        return f"std::optional<{plain}>" if member.optional else plain

    def arguments(self, command):
        """Members of a command's arguments."""
        return self.types[command.argument_type].members if command.argument_type else command.members


def check_keys(data, where):
    kind = data.get("kind")
    name = data.get("name", "?")
    if kind not in KEYS:
        raise SchemaError(f"{where}: {name}: unknown kind {kind!r}")
    if not data.get("doc"):
        raise SchemaError(f"{where}: {name}: has no doc")
    unknown = set(data) - KEYS[kind] - {"kind", "name", "doc"}
    if unknown:
        raise SchemaError(f"{where}: {name}: unknown key {sorted(unknown)[0]!r}")
    lists = [data.get("members", []), data.get("data", []), *data.get("branches", {}).values()]
    if isinstance(data.get("arguments", []), list):
        lists.append(data.get("arguments", []))
    for member in (m for members in lists for m in members):
        unknown = set(member) - MEMBER_KEYS
        if unknown:
            raise SchemaError(f"{where}: {name}.{member.get('name')}: unknown key {sorted(unknown)[0]!r}")
        if "min" in member and not member.get("expects"):
            raise SchemaError(f"{where}: {name}.{member.get('name')}: a range needs its text in 'expects'")


def load(paths):
    definitions = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError) as error:
            raise SchemaError(f"{path}: {error}") from error
        for data in document["definitions"]:
            check_keys(data, path)
            definitions.append(Definition(data, path))
    schema = Schema(definitions)
    check(schema)
    return schema


def check(schema):
    seen = set()
    for definition in schema.definitions:
        if definition.name in seen:
            definition.fail("defined twice")
        seen.add(definition.name)
        if definition.like:
            original = schema.types.get(definition.like)
            if original is None or original.kind != "struct" or original.like:
                definition.fail(f"no struct {definition.like!r} to be like")
            definition.members = [retyped(member, definition.retype) for member in original.members]
        check_types(schema, definition)
        check_recursion(definition)
        for feature in definition.features + [f for m in definition.members for f in m.features]:
            if feature not in FEATURES:
                definition.fail(f"unknown feature {feature!r}")
        if definition.kind == "union":
            check_union(schema, definition)


def retyped(member, table):
    copy = Member({"name": member.name, "type": member.type})
    copy.__dict__.update(member.__dict__)
    copy.type = table.get(member.type, member.type)
    return copy


def check_types(schema, definition):
    used = [m.type for m in definition.members]
    used += [m.type for members in definition.branches.values() for m in members]
    used += definition.of + ([definition.returns] if definition.returns else [])
    used += [definition.argument_type] if definition.argument_type else []
    for type_name in used:
        base = element(type_name) or type_name
        if base not in BUILTINS and base not in schema.types:
            definition.fail(f"unknown type {type_name!r}")
    names = [m.name for m in definition.members] + [v.name for v in definition.values]
    if len(names) != len(set(names)):
        definition.fail("a name is there twice")


def check_recursion(definition):
    """A type may contain itself only directly and optionally."""
    for member in definition.members:
        member.recursive = member.type == definition.name
        if member.recursive and not member.optional:
            definition.fail(f"contains itself without end in {member.name!r}")


def check_union(schema, definition):
    tag = next((m for m in definition.members if m.name == definition.tag), None)
    if tag is None or tag.optional or schema.types.get(tag.type) is None or schema.types[tag.type].kind != "enum":
        definition.fail("the tag must be a mandatory enum among the members")
    cases = {value.name for value in schema.types[tag.type].values}
    if set(definition.branches) != cases:
        definition.fail("branches must be exactly the values of the tag")
