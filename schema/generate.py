#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Generates C++ from the schema files: types, codec, command and event tables, introspection; and from the same source the
cases of the argument test, the reference for operators and the words of shell completion.

usage: generate.py [--off CONDITION]... OUTPUT_DIRECTORY SCHEMA.json...

The form of the schema files is described in schema/README.md. A mistake in them ends with exit status 1 and one line
"FILE: DEFINITION: what is wrong". What has a condition (`if`) that is named by --off is left out of everything that can be
seen at run time.
"""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from generator import cases, codec, introspection, model, reference, tables, types  # noqa: E402


def write_if_changed(path, text):
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n")[0])
    parser.add_argument("--off", action="append", default=[], metavar="CONDITION")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("schema", nargs="+")
    arguments = parser.parse_args(arguments)
    try:
        schema = model.load(arguments.schema, arguments.off)
    except model.SchemaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    write_if_changed(output / "types.h", types.header(schema))
    write_if_changed(output / "codec.h", codec.header(schema))
    write_if_changed(output / "codec.cpp", codec.source(schema))
    write_if_changed(output / "tables.h", tables.header())
    write_if_changed(output / "tables.cpp", tables.source(schema, introspection.text(schema)))
    write_if_changed(output / "argument_cases.json", cases.document(schema))
    write_if_changed(output / "qmp.md", reference.markdown(schema))
    write_if_changed(output / "colod-qmp.7", reference.man(schema))
    write_if_changed(output / "qmp-words", reference.words(schema))
    return 0


if __name__ == "__main__":
    sys.exit(main())
