# SPDX-License-Identifier: Apache-2.0
"""Finds mistakes in schema files. Each is one line: FILE: DEFINITION.MEMBER: what is wrong."""
import re

from . import model

COMMON = {"kind", "name", "doc", "features", "since", "if"}
KEYS = {
    "enum": {"values"},
    "struct": {"members", "like", "retype"},
    "union": {"tag", "members", "branches"},
    "alternate": {"of"},
    "command": {"arguments", "returns", "oob", "errors"},
    "event": {"data"},
}
VALUE_KEYS = {"name": str, "doc": str, "features": list, "since": str, "if": str}
MEMBER_KEYS = {**VALUE_KEYS, "type": str, "optional": bool, "default": object, "min": int, "max": int, "expects": str,
               "power-of-two": bool, "unit": str}
FEATURES = {"unstable", "deprecated"}
ALTERNATIVES = {"str", "null", "bool", "int"}


def fail(*where, text):
    raise model.SchemaError(": ".join([where[0], ".".join(str(w) for w in where[1:]), text] if where[1:] else [where[0], text]))


def document(data, path):
    if not isinstance(data, dict) or not isinstance(data.get("definitions"), list):
        fail(path, text="must be an object with a list 'definitions'")
    if not data.get("doc"):
        fail(path, text="has no doc")
    for key in set(data) - {"doc", "definitions", "conditions"}:
        fail(path, text=f"unknown key {key!r}")
    for condition in data.get("conditions", []):
        if not isinstance(condition, dict) or set(condition) != {"name", "doc"}:
            fail(path, text="a condition has a name and a doc")


def keys(data, allowed, *where):
    for key, value in data.items():
        if key not in allowed:
            fail(*where, text=f"unknown key {key!r}")
        kind = allowed[key]
        if not isinstance(value, kind) or kind is int and isinstance(value, bool):
            fail(*where, text=f"{key!r} must be of type {kind.__name__}")


def member_keys(members, path, name):
    if not isinstance(members, list):
        fail(path, name, text="members must be a list")
    for member in members:
        if not isinstance(member, dict) or not isinstance(member.get("name"), str):
            fail(path, name, text="a member without a name")
        where = (path, name, member["name"])
        keys(member, MEMBER_KEYS, *where)
        if not member.get("type"):
            fail(*where, text="has no type")
        if ("min" in member) != ("max" in member):
            fail(*where, text="a range needs both 'min' and 'max'")
        if "min" in member and not member.get("expects"):
            fail(*where, text="a range needs its text in 'expects'")


def definition_keys(data, path):
    if not isinstance(data, dict):
        fail(path, text="a definition must be an object")
    kind, name = data.get("kind"), data.get("name")
    if not isinstance(name, str) or not name:
        fail(path, text="a definition without a name")
    if kind not in KEYS:
        fail(path, name, text=f"unknown kind {kind!r}")
    if not data.get("doc"):
        fail(path, name, text="has no doc")
    for key in sorted(set(data) - KEYS[kind] - COMMON):
        fail(path, name, text=f"unknown key {key!r}")
    keys({key: data[key] for key in VALUE_KEYS if key in data}, VALUE_KEYS, path, name)
    if kind == "enum" and not data.get("values"):
        fail(path, name, text="has no values")
    for value in data.get("values", []):
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            keys(value, VALUE_KEYS, path, name, value["name"])
        elif not isinstance(value, str):
            fail(path, name, text="a value must be a string, or an object with a name")
    branches = data.get("branches", {})
    if not isinstance(branches, dict):
        fail(path, name, text="branches must be an object")
    lists = [data.get("members", []), data.get("data", []), *branches.values()]
    if not isinstance(data.get("arguments", []), str):
        lists.append(data.get("arguments", []))
    for members in lists:
        member_keys(members, path, name)
    for error in data.get("errors", []):
        if not isinstance(error, dict) or not {"text", "when"} <= set(error) <= {"text", "when", "class"}:
            fail(path, name, text="an error has a text, a when, and perhaps a class")


def schema(everything):
    seen = set()
    for definition in everything.definitions:
        if definition.name in seen:
            definition.fail("defined twice")
        seen.add(definition.name)
        if definition.like:
            original = everything.types.get(definition.like)
            if original is None or original.kind != "struct" or original.like:
                definition.fail(f"no struct {definition.like!r} to be like")
            definition.members = [retyped(member, definition.retype) for member in original.members]
        types(everything, definition)
        names(definition)
        marks(everything, definition)
        for member in definition.all_members():
            ranges_and_default(everything, definition, member)
        if definition.kind == "union":
            union(everything, definition)
    for definition in everything.definitions:
        recursion(everything, definition)
        conditions_of_types(everything, definition)


def retyped(member, table):
    copy = model.Member({"name": member.name, "type": member.type})
    copy.__dict__.update(member.__dict__)
    copy.type = table.get(member.type, member.type)
    return copy


def used_types(definition):
    """(type, member or None) of everything that a definition refers to."""
    used = [(m.type, m) for m in definition.all_members()] + [(t, None) for t in definition.of]
    return used + [(t, None) for t in (definition.returns, definition.argument_type) if t]


def types(everything, definition):
    for type_name, member in used_types(definition):
        base = model.element(type_name) or type_name
        if base not in model.BUILTINS and base not in everything.types:
            definition.fail(f"unknown type {type_name!r}", member)
    if definition.argument_type and everything.types[definition.argument_type].kind != "struct":
        definition.fail(f"arguments must be a struct, not {definition.argument_type!r}")
    if definition.kind == "alternate":
        for type_name in definition.of:
            if type_name not in ALTERNATIVES:
                definition.fail(f"an alternate cannot tell {type_name!r} from others")
        if len(set(definition.of)) != len(definition.of) or len(definition.of) < 2:
            definition.fail("an alternate needs two or more different types")


def names(definition):
    lists = [definition.members, definition.values]
    lists += [definition.members + members for members in definition.branches.values()]
    for items in lists:
        found = [item.name for item in items]
        for item in items:
            if found.count(item.name) > 1:
                definition.fail("a name is there twice", item)


def marks(everything, definition):
    for item in [definition, *definition.all_members(), *definition.values]:
        place = None if item is definition else item
        for feature in item.features:
            if feature not in FEATURES:
                definition.fail(f"unknown feature {feature!r}", place)
        if item.since and not re.fullmatch(r"\d+\.\d+", item.since):
            definition.fail(f"since {item.since!r} is no version", place)
        if item.condition is not None and item.condition not in everything.conditions:
            definition.fail(f"unknown condition {item.condition!r}", place)


def ranges_and_default(everything, definition, member):
    if member.min is not None:
        widest = model.UNSIGNED.get(member.type)
        if widest is None:
            definition.fail(f"a range of type {member.type!r}, which is no unsigned integer", member)
        if not 0 <= member.min <= member.max <= widest:
            definition.fail(f"the range {member.min} to {member.max} is empty or wider than {member.type}", member)
    elif member.power_of_two:
        definition.fail("a power of two needs a range", member)
    if member.default is None:
        return
    if not member.optional:
        definition.fail("a default of a member that is mandatory", member)
    if not fits(everything, member.type, member.default):
        definition.fail(f"the default {member.default!r} is no {member.type}", member)
    if member.min is not None and not member.min <= member.default <= member.max:
        definition.fail(f"the default {member.default} is outside the range", member)


def fits(everything, type_name, value):
    base = everything.types.get(type_name)
    if base is not None and base.kind == "enum":
        return any(v.name == value and v.condition is None for v in base.values)
    if base is not None and base.kind == "alternate":
        return any(fits(everything, t, value) for t in base.of)
    if type_name in model.UNSIGNED:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= model.UNSIGNED[type_name]
    if type_name in model.SIGNED:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, {"str": str, "bool": bool, "number": (int, float)}.get(type_name, ()))


def recursion(everything, definition):
    """A type may contain itself only directly, and optionally or in an array."""
    for member in definition.members:
        member.recursive = member.type == definition.name
        if member.recursive and not member.optional:
            definition.fail("contains itself without end", member)
    todo = [t for t in direct(everything, definition) if t is not definition]
    seen = set()
    while todo:
        current = todo.pop()
        for target in direct(everything, current):
            if target is definition:
                definition.fail(f"contains itself through {current.name!r}, which cannot be expressed")
            if target.name not in seen:
                seen.add(target.name)
                todo.append(target)


def direct(everything, definition):
    found = [everything.types.get(model.element(t) or t) for t, _ in used_types(definition)]
    return [d for d in found if d is not None]


def conditions_of_types(everything, definition):
    """What exists only on a condition may be used only on the same one."""
    for type_name, member in used_types(definition):
        base = everything.types.get(model.element(type_name) or type_name)
        if base is None or base.condition is None:
            continue
        if base.condition not in (definition.condition, member.condition if member else None):
            definition.fail(f"uses {base.name!r}, which exists only with {base.condition}", member)


def union(everything, definition):
    tag = next((m for m in definition.members if m.name == definition.tag), None)
    if tag is None or tag.optional or tag.condition or everything.types.get(tag.type) is None or \
            everything.types[tag.type].kind != "enum":
        definition.fail("the tag must be a mandatory enum among the members")
    if list(definition.branches) != [value.name for value in everything.types[tag.type].values]:
        definition.fail("branches must be exactly the values of the tag, in their order")
