# SPDX-License-Identifier: Apache-2.0
"""The reference for operators, as Markdown and as a manual page, and the words of shell completion."""
import json

from . import model

INTRO = [
    "`colod` listens on a control socket (`/run/colo/DOMAIN/qmp.sock` unless `qmp.socket` says otherwise). It greets with one "
    "line, expects `qmp_capabilities`, and then takes commands as JSON objects and answers each with one line:",
    None,
    "An answer is `return` or `error`; `id`, if the request had one, comes back. Events come in between. `coloctl qmp DOMAIN "
    "COMMAND [JSON]` does all of that for one command, `coloctl events DOMAIN` shows the events.",
]
DIALOGUE = [
    '<- {"QMP": {"version": {"qemu": {"major": 7, "minor": 0, "micro": 0}, "package": "..."}, "capabilities": ["oob"]}}',
    '-> {"execute": "qmp_capabilities"}',
    '<- {"return": {}}',
    '-> {"execute": "query-status", "id": 1}',
    '<- {"return": {"running": true, "singlestep": false, "status": "running"}, "id": 1}',
]
COMMON_ERRORS = [  # text, when
    ("Parameter 'PATH' is missing", "a mandatory argument is absent"),
    ("Parameter 'PATH' is unexpected", "there is no such argument"),
    ("Invalid parameter type for 'PATH', expected: TYPE", "the value has another JSON type; null is not the same as absent"),
    ("Parameter 'PATH' expects uint64", "an unsigned number is needed"),
    ("Parameter 'NAME' expects uint8_t", "the number is too large (uint16_t, uint32_t likewise)"),
    ("Parameter 'NAME' does not accept value 'X'", "the word is not among the values"),
    ("The command X has not been found", "there is no such command; class CommandNotFound"),
    ("The command X does not support OOB", "`exec-oob` for a command that may not overtake"),
]
TYPE_NOTES = {"size": "bytes, unsigned 64 bit", "int": "signed 64 bit", "int64": "signed 64 bit", "any": "any JSON value"}


def reachable(schema):
    """Names of the types that a client can meet, in schema order."""
    found = set()

    def visit(type_name):
        base = schema.types.get(model.element(type_name) or type_name)
        if base is None or base.name in found:
            return
        found.add(base.name)
        for member in model.served(base.all_members()):
            visit(member.type)
        for other in base.of:
            visit(other)

    for definition in schema.served("command") + schema.served("event"):
        for member in model.served(definition.members):
            visit(member.type)
        for name in (definition.argument_type, definition.returns):
            if name:
                visit(name)
    return [d for d in schema.types.values() if d.name in found and d.served]


def notes(item):
    """'Since 2.8; unstable.' and the like."""
    parts = [f"since {item.since}"] if item.since else []
    parts += item.features
    if getattr(item, "oob", False):
        parts.append("may be sent with `exec-oob`")
    if item.condition:
        parts.append(f"only with {item.condition}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def default_text(member):
    return json.dumps(member.default) if member.default is not None else ""


def meaning(schema, member):
    """Everything about a member but its name and type."""
    parts = [member.doc] if member.doc else []
    base = schema.types.get(member.type)
    if base is not None and base.kind == "enum" and len(base.values) <= 4:
        parts.append(" or ".join(v.name for v in model.served(base.values)))
    if member.min is not None:
        unit = f" {member.unit}" if member.unit else ""
        parts.append(f"{member.min} to {member.max}{unit}" + (", a power of two" if member.power_of_two else ""))
    elif member.unit:
        parts.append(f"in {member.unit}")
    if member.features:
        parts.append(", ".join(member.features))
    if member.since:
        parts.append(f"since {member.since}")
    if member.condition:
        parts.append(f"only with {member.condition}")
    return "; ".join(parts)


class Markdown:
    def __init__(self, schema):
        self.schema = schema
        self.lines = []

    def type(self, type_name):
        inner = model.element(type_name)
        if inner:
            return f"array of {self.type(inner)}"
        return f"[{type_name}](#{type_name.lower()})" if type_name in self.schema.types else type_name

    def members(self, members, arguments):
        there = model.served(members)
        if not there:
            return
        defaults = arguments or any(m.default is not None for m in there)
        head = ["argument" if arguments else "member", "type"] + (["default"] if defaults else []) + ["meaning"]
        self.lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for member in there:
            default = default_text(member) or ("optional" if member.optional else "**mandatory**" if arguments else "")
            kind = self.type(member.type) + ("" if defaults or not member.optional else ", optional")
            cells = [f"`{member.name}`", kind] + ([default] if defaults else []) + [meaning(self.schema, member)]
            self.lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")

    def head(self, item):
        title = f"Event {item.name}" if item.kind == "event" else item.name  # there is a command stop, too
        self.lines += ["", f"### {title}", "", item.doc]
        if notes(item):
            self.lines[-1] += f" *{notes(item)}*"

    def command(self, definition):
        self.head(definition)
        if definition.argument_type:
            self.lines += ["", f"Arguments: the members of [{definition.argument_type}](#{definition.argument_type.lower()})."]
        else:
            self.members(definition.members, True)
        if definition.returns:
            self.lines += ["", f"Returns: {self.type(definition.returns)}."]
        if definition.errors:
            self.lines += ["", "| error | when |", "|---|---|"]
            for error in definition.errors:
                when = error["when"] + (f" (class {error['class']})" if "class" in error else "")
                self.lines.append(f"| `{error['text']}` | {when} |")

    def datatype(self, definition):
        self.head(definition)
        if definition.kind == "enum":
            self.lines += ["", "| value | meaning |", "|---|---|"]
            for value in model.served(definition.values):
                text = "; ".join(part for part in (value.doc, notes(value).rstrip(".").lower() if notes(value) else "") if part)
                self.lines.append(f"| `{value.name}` | {text} |")
        elif definition.kind == "alternate":
            self.lines += ["", "One of: " + ", ".join(definition.of) + "."]
        else:
            self.members(definition.members, False)
            tag = next((m for m in definition.members if m.name == definition.tag), None)
            for value in model.served(self.schema.types[tag.type].values) if tag else []:
                branch = definition.branches[value.name]
                self.lines += ["", f"With `{tag.name}` = `{value.name}`" + (":" if branch else ": nothing more.")]
                self.members(branch, False)

    def contents(self):
        for path, doc in self.schema.documents:
            names = [d.name for d in self.schema.served("command") if d.where == path]
            links = ", ".join(f"[{name}](#{name.lower()})" for name in names)
            if names:
                self.lines.append(f"| {doc.split('. ')[0].rstrip('.')} | {links} |")
        links = ", ".join(f"[{d.name}](#event-{d.name.lower()})" for d in self.schema.served("event"))
        self.lines.append(f"| Events | {links} |")

    def run(self):
        self.lines = ["<!-- SPDX-License-Identifier: Apache-2.0 -->",
                      "<!-- Generated from schema/*.json by schema/generate.py; scripts/update-reference writes it anew. -->",
                      "# The control interface of colod", ""]
        for text in INTRO:
            self.lines += [*(["    " + line for line in DIALOGUE] if text is None else [text]), ""]
        self.lines += ["| about | commands |", "|---|---|"]
        self.contents()
        self.lines += ["", "## Errors of every command", "",
                       "Unless it says otherwise the class is `GenericError`. Arguments are checked before anything happens, in the "
                       "order in which they are listed here. PATH is the way to the value, such as `capabilities[0].state`; NAME is "
                       "its last member.", "", "| error | when |", "|---|---|"]
        self.lines += [f"| `{text}` | {when} |" for text, when in COMMON_ERRORS]
        self.lines += ["", "## Commands"]
        for path, doc in self.schema.documents:
            commands = [d for d in self.schema.served("command") if d.where == path]
            if commands:
                self.lines += ["", f"*{doc}*"]
            for definition in commands:
                self.command(definition)
        self.lines += ["", "## Events"]
        for definition in self.schema.served("event"):
            self.head(definition)
            self.members(definition.members, False)
        self.lines += ["", "## Types", "", "Numbers: " + ", ".join(f"`{n}` ({t})" for n, t in TYPE_NOTES.items()) + "; `uint8`, "
                       "`uint16`, `uint32` and `uint64` are unsigned of so many bits. A number with a fraction or an exponent is "
                       "never an integer."]
        for definition in reachable(self.schema):
            self.datatype(definition)
        return "\n".join(self.lines) + "\n"


def troff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\\&" + text if text[:1] in (".", "'") else text


class Man:
    def __init__(self, schema):
        self.schema = schema
        self.lines = []

    def add(self, *lines):
        self.lines += lines

    def members(self, members):
        for member in model.served(members):
            kind = member.type + (", default " + default_text(member) if member.default is not None else
                                  ", optional" if member.optional else "")
            self.add(".TP", f"\\fB{troff(member.name)}\\fR ({troff(kind)})", troff(meaning(self.schema, member)) or "\\&")

    def head(self, item):
        self.add(f".SS {troff(item.name)}", troff(item.doc + (" " + notes(item) if notes(item) else "")))

    def command(self, definition):
        self.head(definition)
        if definition.argument_type:
            self.add(".PP", f"Arguments: the members of {troff(definition.argument_type)}.")
        self.members(definition.members)
        if definition.returns:
            self.add(".PP", f"Returns {troff(definition.returns)}.")
        for error in definition.errors:
            self.add(".TP", f"\\(lq{troff(error['text'])}\\(rq", troff(error["when"]))

    def datatype(self, definition):
        self.head(definition)
        if definition.kind == "enum":
            for value in model.served(definition.values):
                text = "; ".join(part for part in (value.doc, notes(value).lower().rstrip(".")) if part)
                self.add(".TP", f"\\fB{troff(value.name)}\\fR", troff(text) or "\\&")
        elif definition.kind == "alternate":
            self.add(".PP", "One of: " + troff(", ".join(definition.of)) + ".")
        self.members(definition.members)
        tag = next((m for m in definition.members if m.name == definition.tag), None)
        for value in model.served(self.schema.types[tag.type].values) if tag else []:
            self.add(".PP", troff(f"With {tag.name} = {value.name}:"))
            self.members(definition.branches[value.name])

    def run(self):
        self.add('.\\" SPDX-License-Identifier: Apache-2.0', '.\\" Generated by schema/generate.py from schema/*.json. Do not edit.',
                 '.TH COLOD\\-QMP 7 "" "colo" "COLO protection of virtual machines"', ".SH NAME",
                 "colod\\-qmp \\- the control interface of colod", ".SH DESCRIPTION")
        for text in INTRO:
            self.add(*([".PP", ".nf", ".RS", *[troff(line) for line in DIALOGUE], ".RE", ".fi", ".PP"] if text is None else [troff(text)]))
        self.add(".SH ERRORS OF EVERY COMMAND")
        for text, when in COMMON_ERRORS:
            self.add(".TP", f"\\(lq{troff(text)}\\(rq", troff(when))
        self.add(".SH COMMANDS")
        for definition in self.schema.served("command"):
            self.command(definition)
        self.add(".SH EVENTS")
        for definition in self.schema.served("event"):
            self.head(definition)
            self.members(definition.members)
        self.add(".SH TYPES")
        for definition in reachable(self.schema):
            self.datatype(definition)
        self.add(".SH SEE ALSO", "\\fBcoloctl \\-\\-help\\fR")
        return "\n".join(self.lines) + "\n"


def markdown(schema):
    return Markdown(schema).run()


def man(schema):
    return Man(schema).run()


def words(schema):
    """Variables of the completion script of bash."""
    def names(items):
        return " ".join(item.name for item in items)

    capabilities = schema.types.get("MigrationCapability")
    parameters = schema.types.get("MigrateSetParameters")
    values = []
    for member in model.served(parameters.members) if parameters else []:
        base = schema.types.get(member.type)
        if member.type == "bool":
            values.append(f'    ["{member.name}"]="on off"')
        elif base is not None and base.kind == "enum":
            values.append(f'    ["{member.name}"]="{names(model.served(base.values))}"')
    lines = ["# shellcheck shell=bash disable=SC2034", f'_coloctl_qmp_commands="{names(schema.served("command"))}"',
             f'_coloctl_capabilities="{names(model.served(capabilities.values)) if capabilities else ""}"',
             f'_coloctl_parameters="{names(model.served(parameters.members)) if parameters else ""}"',
             "declare -gA _coloctl_values=(", *values, ")"]
    return "\n".join(lines) + "\n"
