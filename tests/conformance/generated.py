# SPDX-License-Identifier: Apache-2.0
"""Requests that follow from the schema files: every wrong argument of every command that the reference has, too."""
import glob
import json
import os

SIGNED = {"int", "int64"}
UNSIGNED = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "size": 64}
SAMPLES = (("null", "null"), ("boolean", "false"), ("integer", "1"), ("real", "1.5"), ("string", '"1"'), ("array", "[]"),
           ("object", "{}"))


class Schema:
    def __init__(self, folder):
        self.definitions, self.commands, self.events = {}, [], []
        for name in sorted(glob.glob(os.path.join(folder, "*.json"))):
            with open(name, encoding="utf-8") as file:
                for definition in json.load(file)["definitions"]:
                    self.definitions[definition["name"]] = definition
                    if os.path.basename(name) == "extensions.json":
                        continue
                    if definition["kind"] == "command":
                        self.commands.append(definition["name"])
                    if definition["kind"] == "event":
                        self.events.append(definition["name"])

    def members(self, definition, where):
        members = definition.get(where, [])
        if isinstance(members, str):
            return self.members(self.definitions[members], "members")
        if "like" in definition:
            retype = definition.get("retype", {})
            return [{**member, "type": retype.get(member["type"], member["type"])}
                    for member in self.members(self.definitions[definition["like"]], "members")]
        return members

    def kind(self, name):
        return self.definitions.get(name, {}).get("kind")

    def valid(self, name):
        """JSON text of some value that the type allows."""
        if name.startswith("["):
            return f"[{self.valid(name[1:-1])}]"
        if name in SIGNED or name in UNSIGNED or name == "number":
            return "1"
        if name in ("str", "bool", "any", "null"):
            return {"str": '"x"', "bool": "true"}.get(name, "null")
        definition = self.definitions[name]
        if definition["kind"] == "enum":
            first = definition["values"][0]
            return json.dumps(first if isinstance(first, str) else first["name"])
        if definition["kind"] == "alternate":
            return "null"
        return self.object(self.members(definition, "members"), {})

    def object(self, members, instead, left_out=None):
        """Text of an object with all mandatory members; `instead` adds or replaces some."""
        texts = {member["name"]: self.valid(member["type"]) for member in members if not member.get("optional")}
        texts.update(instead)
        return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items() if name != left_out) + "}"


def wrong_values(schema, name, place):
    """(label, text of the arguments) for every kind of wrong value at a place; place(text) gives the arguments."""
    accepted = {"str": "string", "bool": "boolean"}.get(name)
    if schema.kind(name) == "enum":
        accepted = "string"
    elif name in SIGNED or name in UNSIGNED:
        accepted = "integer"
    elif name.startswith("["):
        accepted = "array"
    elif accepted is None:
        accepted = "object"
    for sample, text in SAMPLES:
        if sample == accepted or schema.kind(name) == "alternate" and sample in ("null", "string"):
            continue
        yield sample, place(text)
    if accepted == "integer" and schema.kind(name) is None:
        yield "real-integer", place("1.0")
        yield "too-large", place("18446744073709551616")
        yield "too-small", place("-9223372036854775809")
        if name in SIGNED:
            yield "above-signed", place("9223372036854775808")
        elif UNSIGNED[name] < 64:
            for value in (1 << UNSIGNED[name], -1, (1 << 64) - 1):
                yield f"width:{value}", place(str(value))
    if schema.kind(name) == "enum":
        for unknown in ("", "bogus", "NONE"):
            yield f"value:{unknown}", place(json.dumps(unknown))
    if name.startswith("["):
        for label, text in wrong_values(schema, name[1:-1], lambda inner: place(f"[{inner}]")):
            yield f"[0].{label}", text
    if schema.kind(name) == "struct":
        yield from wrong_members(schema, schema.members(schema.definitions[name], "members"), place)


def wrong_members(schema, members, place):
    yield "unexpected", place(schema.object(members, {"bogus": "1"}))
    for member in members:
        if not member.get("optional"):
            yield f"{member['name']}:missing", place(schema.object(members, {}, member["name"]))
        for label, text in wrong_values(schema, member["type"],
                                        lambda inner, name=member["name"]: place(schema.object(members, {name: inner}))):
            yield f"{member['name']}:{label}", text


def argument_errors(schema):
    """One step for each; none of them reaches a command."""
    for command in schema.commands:
        members = schema.members(schema.definitions[command], "arguments")
        for label, text in wrong_members(schema, members, lambda inner: inner):
            yield {"label": f"{command}/{label}", "send": f'{{"execute": "{command}", "arguments": {text}}}'}


def parameter_limits(schema):
    """Both sides of every border, one after the other, and what is in force then."""
    borders = (-1, 0, 1, 2, 5, 9, 10, 20, 21, 50, 99, 100, 101, 255, 256, 1000, 1001, 4095, 4096, 4097, 8192, 10000, 10001, 65536,
               100000, 100001, 2000000, 2000001, 1 << 32, 1 << 63, (1 << 64) - 1)
    for member in schema.members(schema.definitions["MigrateSetParameters"], "members"):
        if member["type"] not in UNSIGNED:
            continue
        for value in borders:
            yield {"label": f"{member['name']}={value}", "send": '{"execute": "migrate-set-parameters", "arguments": {%s: %d}}'
                   % (json.dumps(member["name"]), value)}
        yield {"label": f"{member['name']}:after", "send": '{"execute": "query-migrate-parameters"}'}
        yield {"label": f"{member['name']}:restored", "send": '{"execute": "migrate-set-parameters", "arguments": {%s: %d}}'
               % (json.dumps(member["name"]), member.get("default", 0))}


def capability_pairs(schema):
    """Every capability alone and with every other one, then off again."""
    names = [value if isinstance(value, str) else value["name"] for value in schema.definitions["MigrationCapability"]["values"]]
    def request(pairs):
        listed = ", ".join('{"capability": "%s", "state": %s}' % (name, state) for name, state in pairs)
        return '{"execute": "migrate-set-capabilities", "arguments": {"capabilities": [%s]}}' % listed
    for i, first in enumerate(names):
        for second in names[i:]:
            pair = (first,) if first == second else (first, second)
            yield {"label": "+".join(pair), "send": request([(name, "true") for name in pair])}
            yield {"label": "+".join(pair) + ":off", "send": request([(name, "false") for name in pair])}


GENERATORS = {"argument-errors": argument_errors, "parameter-limits": parameter_limits, "capability-pairs": capability_pairs}
