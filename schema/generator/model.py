# SPDX-License-Identifier: Apache-2.0
"""The schema files as objects; generator/check.py finds the mistakes in them."""
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

SIGNED = ("int", "int64")
UNSIGNED = {"uint8": 2**8 - 1, "uint16": 2**16 - 1, "uint32": 2**32 - 1, "uint64": 2**64 - 1, "size": 2**64 - 1}

# Words that cannot be a C++ identifier, and macros of old compilers.
RESERVED = {"int", "enum", "default", "delete", "new", "class", "struct", "union", "switch", "case", "auto", "bool",
            "char", "double", "float", "long", "short", "signed", "unsigned", "void", "static", "const", "operator",
            "register", "return", "template", "this", "throw", "try", "catch", "using", "virtual", "volatile", "while",
            "for", "if", "else", "do", "goto", "break", "continue", "explicit", "export", "extern", "friend", "inline",
            "mutable", "namespace", "private", "protected", "public", "sizeof", "typedef", "typeid", "typename",
            "true", "false", "nullptr", "unix", "linux", "and", "or", "not", "xor"}


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


class Item:
    """What definitions, members and values have in common."""

    def __init__(self, data):
        self.name = data["name"]
        self.doc = data.get("doc", "")
        self.features = data.get("features", [])
        self.since = data.get("since", "")
        self.condition = data.get("if")
        self.served = True  # load() finds out

    @property
    def cpp_name(self):
        return identifier(self.name)


class Member(Item):
    def __init__(self, data):
        super().__init__(data)
        self.type = data["type"]
        self.optional = data.get("optional", False)
        self.default = data.get("default")
        self.min = data.get("min")
        self.max = data.get("max")
        self.expects = data.get("expects")
        self.power_of_two = data.get("power-of-two", False)
        self.unit = data.get("unit", "")
        self.recursive = False  # of the type that it is a member of; check() finds out

    def comment(self):
        parts = [self.doc] if self.doc else []
        if self.unit:
            parts.append(f"[{self.unit}]")
        return "  // " + " ".join(parts) if parts else ""


class EnumValue(Item):
    def __init__(self, data):
        super().__init__({"name": data} if isinstance(data, str) else data)


class Definition(Item):
    def __init__(self, data, where):
        super().__init__(data)
        self.where = where
        self.kind = data["kind"]
        self.values = [EnumValue(value) for value in data.get("values", [])]
        self.members = [Member(member) for member in data.get("members", data.get("data", []))]
        self.like = data.get("like")
        self.retype = data.get("retype", {})
        self.tag = data.get("tag")
        self.branches = {case: [Member(m) for m in members] for case, members in data.get("branches", {}).items()}
        self.of = data.get("of", [])
        self.returns = data.get("returns")
        self.oob = data.get("oob", False)
        self.errors = data.get("errors", [])
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

    def all_members(self):
        return self.members + [m for members in self.branches.values() for m in members]

    def fail(self, text, item=None):
        raise SchemaError(f"{self.where}: {self.name}{'.' + item.name if item else ''}: {text}")


class Schema:
    def __init__(self, documents, definitions, conditions):
        self.documents = documents  # (path, what the file is about), in order
        self.definitions = definitions
        self.conditions = conditions  # name: what it means
        self.types = {d.name: d for d in definitions if d.kind not in ("command", "event")}

    def kind(self, kind):
        """Definitions of one kind, also those whose condition is off: their C++ types exist all the same."""
        return [d for d in self.definitions if d.kind == kind]

    def served(self, kind):
        return [d for d in self.kind(kind) if d.served]

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

    def items(self):
        """Everything that may have a condition."""
        for definition in self.definitions:
            yield definition
            yield from definition.all_members()
            yield from definition.values


def served(items):
    return [item for item in items if item.served]


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: {error}") from error


def load(paths, off=()):
    """The schema of all files; items whose condition is in `off` are there but not served."""
    from . import check  # it needs the classes above
    documents, definitions, conditions = [], [], {}
    for path in paths:
        document = read(path)
        check.document(document, path)
        documents.append((path, document["doc"]))
        for condition in document.get("conditions", []):
            conditions[condition["name"]] = condition["doc"]
        for data in document["definitions"]:
            check.definition_keys(data, path)
            definitions.append(Definition(data, path))
    schema = Schema(documents, definitions, conditions)
    check.schema(schema)
    for name in off:
        if name not in conditions:
            raise SchemaError(f"--off: unknown condition {name!r}, there is {', '.join(sorted(conditions)) or 'none'}")
    for item in schema.items():
        item.served = item.condition not in off
    return schema
