# SPDX-License-Identifier: Apache-2.0
"""argument_cases.json: for every command and every member of its arguments, at every depth, what must be refused and with
which words, and what must be accepted. Made from the schema, so that a new member is tested by existing.

A row is {command, kind, path, arguments, class, desc}: `arguments` is JSON text, because some of it is no good JSON;
`desc` is absent from rows of kind "accepted". Rows of kind "range" concern values that decode: only a handler refuses
them.
"""
import json

from . import model

FLOAT_LIMIT = 2**64  # the first integer that is read as a floating number
BOGUS = "bogus"


class Raw(str):
    """JSON text as it stands."""


def text(value):
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text(v) for v in value) + "]"
    return json.dumps(value)


# What is tried at every place: (JSON type, values)
SAMPLES = [("null", [None]), ("boolean", [False, True]), ("integer", [1, 0]), ("real", [1.5, Raw("1.0"), Raw("1e3")]),
           ("string", ["1", ""]), ("array", [[], [None]]), ("object", [{}, {"x": 1}])]


class Cases:
    def __init__(self, schema):
        self.schema = schema
        self.rows = []
        self.command = None

    def refuse(self, kind, path, arguments, desc):
        self.rows.append({"command": self.command, "kind": kind, "path": path, "arguments": text(arguments),
                          "class": "GenericError", "desc": desc})

    def accept(self, path, arguments):
        self.rows.append({"command": self.command, "kind": "accepted", "path": path, "arguments": text(arguments)})

    def definition(self, type_name):
        return self.schema.types.get(type_name)

    # Valid values

    def valid(self, type_name):
        inner = model.element(type_name)
        if inner:
            return [self.valid(inner)]
        if type_name in model.BUILTINS:
            return {"str": "x", "bool": True, "number": 1.5, "any": "x", "null": None}.get(type_name, 1)
        definition = self.definition(type_name)
        if definition.kind == "enum":
            return model.served(definition.values)[0].name
        if definition.kind == "alternate":
            return self.valid(definition.of[0])
        if definition.kind == "union":
            return self.valid_branch(definition, self.cases_of(definition)[0])
        return self.valid_object(definition.members)

    def valid_object(self, members):
        return {m.name: self.valid(m.type) for m in model.served(members) if not m.optional}

    def cases_of(self, definition):
        tag = next(m for m in definition.members if m.name == definition.tag)
        return [v.name for v in model.served(self.definition(tag.type).values)]

    def valid_branch(self, definition, case):
        result = self.valid_object(definition.members + definition.branches[case])
        result[definition.tag] = case
        return result

    # One value of one type

    def value(self, type_name, path, name, place, depth):
        definition = self.definition(type_name)
        inner = model.element(type_name)
        if type_name == "any":
            for _, values in SAMPLES:
                self.accept(path, place(values[0]))
            return
        if definition is not None and definition.kind == "alternate":
            self.alternate(definition, path, place)
            return
        if type_name in model.UNSIGNED or type_name in model.SIGNED:
            self.integer(type_name, path, name, place)
        elif type_name == "number":
            self.wrong(path, place, ("real", "integer"), "number")
        elif inner:
            self.wrong(path, place, ("array",), "array")
            self.array(inner, path, place, depth)
        elif definition is None:
            accepted = {"str": "string", "bool": "boolean", "null": "null"}[type_name]
            self.wrong(path, place, (accepted,), accepted)
        elif definition.kind == "enum":
            self.wrong(path, place, ("string",), "string")
            self.enum(definition, path, name, place)
        else:
            self.wrong(path, place, ("object",), "object")
            self.nested(definition, path, place, depth)

    def wrong(self, path, place, accepted, expected, desc=None):
        for json_type, values in SAMPLES:
            if json_type in accepted:
                continue
            for value in values:
                self.refuse(json_type, path, place(value),
                            desc or f"Invalid parameter type for '{path}', expected: {expected}")

    def integer(self, type_name, path, name, place):
        signed = type_name in model.SIGNED
        desc = f"Invalid parameter type for '{path}', expected: integer" if signed else f"Parameter '{path}' expects uint64"
        self.wrong(path, place, ("integer",), "integer", desc)
        highest = 2**63 - 1 if signed else 2**64 - 1
        for value in (highest + 1, FLOAT_LIMIT):
            self.refuse("above", path, place(value), desc)
        for value in (-2**63 - 1, -FLOAT_LIMIT):
            self.refuse("below", path, place(value), desc)
        if signed:
            for value in (-2**63, -1, 0, 2**63 - 1):
                self.accept(path, place(value))
            return
        width = model.UNSIGNED[type_name]
        for value in (0, 1, width):
            self.accept(path, place(value))
        if width < 2**64 - 1:
            for value in (width + 1, 2**64 - 1):
                self.refuse("above", path, place(value), f"Parameter '{name}' expects {type_name}_t")
            for value in (-1, -2**63):
                self.refuse("below", path, place(value), f"Parameter '{name}' expects {type_name}_t")
        else:
            for value in (-1, -2**63):  # wrap modulo 2^64, as old clients expect
                self.accept(path, place(value))

    def enum(self, definition, path, name, place):
        names = [v.name for v in model.served(definition.values)]
        first = names[0]
        unknown = {"", BOGUS, first.upper(), first + " ", first.replace("-", "_"), first[:-1]} - set(names)
        for value in sorted(unknown) + [v.name for v in definition.values if not v.served]:
            self.refuse("enum", path, place(value), f"Parameter '{name}' does not accept value '{value}'")
        for value in names:
            self.accept(path, place(value))

    def alternate(self, definition, path, place):
        types = {"str": "string", "bool": "boolean", "null": "null", "int": "integer"}
        accepted = tuple(types[t] for t in definition.of)
        self.wrong(path, place, accepted, definition.name)
        if "int" in definition.of:
            self.refuse("above", path, place(2**63), f"Invalid parameter type for '{path}', expected: {definition.name}")
        for type_name in definition.of:
            self.accept(path, place(self.valid(type_name)))

    def array(self, inner, path, place, depth):
        self.accept(path, place([]))
        self.accept(path, place([self.valid(inner), self.valid(inner)]))
        self.value(inner, path + "[0]", "null", lambda value: place([value]), depth)
        if inner != "any":  # later elements are looked at, too
            self.refuse("object", path + "[1]", place([self.valid(inner), {BOGUS: {}}]), self.refusal_of_object(inner, path + "[1]"))

    def refusal_of_object(self, type_name, path):
        """What is said about {"bogus": {}} at a place of that type."""
        definition = self.definition(type_name)
        if type_name in model.UNSIGNED:
            return f"Parameter '{path}' expects uint64"
        if definition is not None and definition.kind in ("struct", "union"):
            mandatory = [m for m in model.served(definition.members) if not m.optional]
            return f"Parameter '{path}.{mandatory[0].name}' is missing" if mandatory else f"Parameter '{path}.{BOGUS}' is unexpected"
        expected = {"str": "string", "bool": "boolean", "null": "null", "number": "number"}.get(type_name, "integer")
        if definition is not None:
            expected = "string" if definition.kind == "enum" else definition.name
        if model.element(type_name):
            expected = "array"
        return f"Invalid parameter type for '{path}', expected: {expected}"

    # Objects

    def nested(self, definition, path, place, depth):
        if depth.count(definition.name) > 1:  # a type that contains itself: once more is enough
            return
        depth = depth + [definition.name]
        if definition.kind == "struct":
            self.members(definition.members, path + ".", place, depth)
            return
        for case in self.cases_of(definition):
            tagged = {definition.tag: case}
            self.members(definition.members + definition.branches[case], path + ".", place, depth, tagged)
            others = {m.name: m for c, members in definition.branches.items() if c != case for m in members}
            own = {m.name for m in definition.members + definition.branches[case]}
            for name, member in others.items():
                if name not in own:
                    self.refuse("unexpected", f"{path}.{name}",
                                place({**self.valid_branch(definition, case), name: self.valid(member.type)}),
                                f"Parameter '{path}.{name}' is unexpected")

    def members(self, members, prefix, place, depth, tagged=None):
        """The members of one object; `tagged` is the tag of a union, which has been chosen."""
        tagged = tagged or {}
        there = model.served(members)
        base = {**self.valid_object(there), **tagged}
        self.accept(prefix, place(base))
        full = {**{m.name: self.valid(m.type) for m in there}, **tagged}
        if full != base:
            self.accept(prefix, place(full))
        self.unexpected(members, prefix, place, base, full)
        self.order(there, prefix, place, full, tagged)
        for member in there:
            path = prefix + member.name
            if not member.optional:
                self.refuse("missing", path, place({k: v for k, v in base.items() if k != member.name}),
                            f"Parameter '{path}' is missing")
            pair = f"{json.dumps(member.name)}: {text(full[member.name])}"
            self.refuse("duplicate", path, place(Raw("{" + pair + ", " + pair + "}")), "JSON parse error, duplicate key")
            if member.name in tagged:  # another value of the tag is another branch
                self.wrong(path, lambda v, n=member.name: place({**base, n: v}), ("string",), "string")
                self.refuse("enum", path, place({**base, member.name: BOGUS}),
                            f"Parameter '{member.name}' does not accept value '{BOGUS}'")
                continue
            self.value(member.type, path, member.name, lambda v, n=member.name: place({**base, n: v}), depth)

    def unexpected(self, members, prefix, place, base, full):
        for extra in (BOGUS, ""):
            for value in (1, None):
                self.refuse("unexpected", prefix + extra, place({extra: value, **full}), f"Parameter '{prefix}{extra}' is unexpected")
        for member in members:
            name = member.name if not member.served else member.name.upper()
            if name not in full:
                self.refuse("unexpected", prefix + name, place({**base, name: self.valid(member.type)}),
                            f"Parameter '{prefix}{name}' is unexpected")

    def order(self, there, prefix, place, full, tagged):
        """The first error in schema order wins, whatever the order on the wire; unexpected members come last."""
        wrong = {BOGUS: 1, **{m.name: {BOGUS: {}} for m in reversed(there)}, **tagged}
        first = next((m for m in there if m.type != "any" and m.name not in tagged), None)
        if first is None:
            return
        refusal = self.refusal_of_object(first.type, prefix + first.name)
        self.refuse("order", prefix + first.name, place(wrong), refusal)
        mandatory = next((m for m in there if not m.optional and m.name not in tagged), None)
        if mandatory is not None and there.index(mandatory) <= there.index(first):
            del wrong[mandatory.name]
            self.refuse("order", prefix + mandatory.name, place(wrong), f"Parameter '{prefix}{mandatory.name}' is missing")

    def ranges(self, members):
        base = self.valid_object(members)
        for member in model.served(members):
            if member.min is None:
                continue
            width = model.UNSIGNED[member.type]
            outside = [member.min - 1, 0, member.max + 1, width]
            if member.power_of_two:
                outside += [member.min // 2, member.min + 1, member.min * 3, member.max - 1]
            if width == 2**64 - 1:
                outside += [-1, -2**63]
            name = member.name.replace("-", "_")
            for value in sorted(set(outside)):
                wrapped = value % 2**64 if width == 2**64 - 1 else value
                inside = member.min <= wrapped <= member.max and not (member.power_of_two and wrapped & (wrapped - 1))
                if inside or not 0 <= wrapped <= width:  # too wide does not even decode
                    continue
                self.refuse("range", member.name, {**base, member.name: value}, f"Parameter '{name}' expects {member.expects}")

    def run(self):
        for command in self.schema.served("command"):
            self.command = command.name
            for json_type, values in SAMPLES:
                if json_type != "object":
                    for value in values:
                        self.refuse(json_type, "", value, "QMP input member 'arguments' must be an object")
            members = self.schema.arguments(command)
            self.members(members, "", lambda value: value, [])
            self.ranges(members)
        return self.rows


def rows(schema):
    return Cases(schema).run()


def document(schema):
    return "[\n" + ",\n".join(json.dumps(row) for row in rows(schema)) + "\n]\n"
