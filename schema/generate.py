#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Generates C++ from the schema files: types, codec, command and event tables, introspection.

usage: generate.py OUTPUT_DIRECTORY SCHEMA.json...

The form of the schema files is described in schema/README.md. A mistake in them ends with exit status 1 and one line
"FILE: DEFINITION: what is wrong".
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from generator import codec, introspection, model, types  # noqa: E402


def write_if_changed(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main(arguments):
    if len(arguments) < 2:
        sys.stderr.write(__doc__)
        return 2
    output = pathlib.Path(arguments[0])
    try:
        schema = model.load(arguments[1:])
    except model.SchemaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    output.mkdir(parents=True, exist_ok=True)
    write_if_changed(output / "types.h", types.header(schema))
    write_if_changed(output / "codec.h", codec.header(schema))
    write_if_changed(output / "codec.cpp", codec.source(schema))
    write_if_changed(output / "tables.h", introspection.header())
    write_if_changed(output / "tables.cpp", introspection.source(schema))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
