#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a guide of this directory as a manual page. usage: guide.py LOWDOWN GUIDE.md PAGE BRIEF"""
import re
import subprocess
import sys


def page(lowdown, guide, name, brief):
    with open(guide, encoding="utf-8") as file:
        text = re.sub(r"<!--.*?-->\n", "", file.read(), flags=re.DOTALL)
    # The title becomes what man(1) and apropos(1) want to see first.
    title, _, rest = text.partition("\n")
    if not title.startswith("# "):
        sys.exit(f"{guide} does not begin with a title")
    text = f"# NAME\n\n{name} - {brief}\n\n{rest}"
    text = re.sub(r"^## ", "# ", text, flags=re.MULTILINE)
    done = subprocess.run([lowdown, "-s", "-tman", "-m", f"title: {name.upper()}", "-m", "section: 7", "-m", "source: COLO"],
                          input=text, stdout=subprocess.PIPE, check=True, text=True)
    # Headings in one line: that is what apropos(1) looks for.
    return re.sub(r"^\.(S[HS])\n(.*)$", r".\1 \2", done.stdout, flags=re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.stdout.write(page(*sys.argv[1:]))
