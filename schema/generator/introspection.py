# SPDX-License-Identifier: Apache-2.0
"""The answer of query-qmp-schema.

The introspected schema hides what clients must not depend on: names of objects, enums and alternates are numbers, all
integers are "int", and only types that a command or an event can reach appear.
"""
import json

from . import model

class Introspection:
    def __init__(self, schema):
        self.schema = schema
        self.entities = []
        self.names = {}
        self.empty = self.reserve("no members")
        self.add(self.empty, "object", members=[])

    def number(self):
        return str(len(self.names))

    def reserve(self, key):
        self.names[key] = self.number()
        return self.names[key]

    def add(self, name, meta_type, features=(), **rest):
        entity = {"name": name, "meta-type": meta_type, **rest}
        if features:
            entity["features"] = list(features)
        self.entities.append(entity)

    def reference(self, type_name):
        inner = model.element(type_name)
        if inner:
            target = self.reference(inner)
            name = f"[{target}]"
            if name not in self.names:
                self.names[name] = name
                self.add(name, "array", **{"element-type": target})
            return name
        if type_name in model.BUILTINS:
            _, json_type, name = model.BUILTINS[type_name]
            if name not in self.names:
                self.names[name] = name
                self.add(name, "builtin", **{"json-type": json_type})
            return name
        if type_name not in self.names:
            self.define(self.schema.types[type_name])
        return self.names[type_name]

    def define(self, definition):
        name = self.reserve(definition.name)
        if definition.kind == "enum":
            values = model.served(definition.values)
            members = [{"name": v.name, **({"features": v.features} if v.features else {})} for v in values]
            self.add(name, "enum", definition.features, members=members, values=[v.name for v in values])
        elif definition.kind == "alternate":
            members = [{"type": self.reference(t)} for t in definition.of]
            self.add(name, "alternate", definition.features, members=members)
        elif definition.kind == "union":
            tag = next(m for m in definition.members if m.name == definition.tag)
            cases = [v.name for v in model.served(self.schema.types[tag.type].values)]
            variants = [{"case": case, "type": self.new_object(definition.branches[case], (definition.name, case))}
                        for case in cases]
            self.add(name, "object", definition.features, members=self.members(definition.members), tag=definition.tag,
                     variants=variants)
        else:
            self.add(name, "object", definition.features, members=self.members(definition.members))

    def members(self, members):
        result = []
        for member in model.served(members):
            entry = {"name": member.name, "type": self.reference(member.type)}
            if member.optional:
                entry["default"] = None
            if member.features:
                entry["features"] = member.features
            result.append(entry)
        return result

    def new_object(self, members, key):
        if not model.served(members):
            return self.empty
        name = self.reserve(str(key))
        self.add(name, "object", members=self.members(members))
        return name

    def run(self):
        for command in self.schema.served("command"):
            arguments = (self.reference(command.argument_type) if command.argument_type
                         else self.new_object(command.members, command.name))
            rest = {"arg-type": arguments, "ret-type": self.reference(command.returns) if command.returns else self.empty}
            if command.oob:
                rest["allow-oob"] = True
            self.add(command.name, "command", command.features, **rest)
        for event in self.schema.served("event"):
            self.add(event.name, "event", event.features, **{"arg-type": self.new_object(event.members, event.name)})
        return self.entities


def text(schema):
    return json.dumps(Introspection(schema).run(), separators=(",", ":"))
