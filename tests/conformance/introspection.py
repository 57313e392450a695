# SPDX-License-Identifier: Apache-2.0
"""Compares two answers of query-qmp-schema by what they mean: the names of types are arbitrary."""


def features(entity):
    return {"features": sorted(entity["features"])} if entity.get("features") else {}


class Meaning:
    def __init__(self, answer):
        self.entities = {entity["name"]: entity for entity in answer}
        if len(self.entities) != len(answer):
            raise ValueError("a name occurs twice")

    def of(self, name, above=()):
        """The type, spelled out; one that contains itself is cut where it repeats."""
        if name in above:
            return "itself"
        entity, above = self.entities[name], above + (name,)
        kind = entity["meta-type"]
        if kind == "builtin":
            return {"builtin": name, "json": entity["json-type"]}
        if kind == "array":
            return {"array": self.of(entity["element-type"], above), "named": name == f"[{entity['element-type']}]"}
        if kind == "enum":
            members = [{"name": member["name"], **features(member)} for member in entity["members"]]
            return {"enum": sorted(members, key=lambda m: m["name"]), "values": sorted(entity["values"]), **features(entity)}
        if kind == "alternate":
            return {"alternate": [self.of(member["type"], above) for member in entity["members"]], **features(entity)}
        result = {"object": sorted(({**member, "type": self.of(member["type"], above)} for member in entity["members"]),
                                   key=lambda m: m["name"]), **features(entity)}
        if "tag" in entity:
            result["tag"] = entity["tag"]
            result["variants"] = sorted(({"case": v["case"], "type": self.of(v["type"], above)} for v in entity["variants"]),
                                        key=lambda v: v["case"])
        return result

    def top(self, name):
        entity = self.entities.get(name)
        if entity is None:
            return None
        result = {"meta-type": entity["meta-type"], "arguments": self.of(entity["arg-type"]), **features(entity)}
        if entity["meta-type"] == "command":
            result["returns"] = self.of(entity["ret-type"])
            result["oob"] = entity.get("allow-oob", "absent")
        return result


def compare_schema(ours, theirs, names):
    """(where, ours, theirs) for every command and event; arguments and results apart, so that a difference has a place."""
    our, their = Meaning(ours), Meaning(theirs)
    for name in names:
        a, b = our.top(name), their.top(name)
        if a is None or b is None:
            yield f"schema/{name}", a, b
            continue
        for part in sorted(a.keys() | b.keys()):
            yield f"schema/{name}/{part}", a.get(part), b.get(part)
