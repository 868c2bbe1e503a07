#!/usr/bin/env python3
"""Takes the quick start out of README.md, for tests/tools/quick_start_in_root.sh.

    quick_start.py shell README               prints the shell commands
    quick_start.py configure README CONFIG    puts the lines for kamailio.cfg into CONFIG, where README says

The chapter is "Protected in three lines": its first shell block and its first block without a language.
"""

import re
import sys

CHAPTER = "## Protected in three lines"


def blocks(readme):
    """The fenced blocks of the chapter: (language, text)."""
    with open(readme, encoding="utf-8") as file:
        text = file.read()
    chapter = text.split(CHAPTER + "\n", 1)
    if len(chapter) != 2:
        sys.exit(f"{readme}: there is no chapter {CHAPTER!r}")
    return re.findall(r"^```(\w*)\n(.*?)^```$", chapter[1].split("\n## ", 1)[0], re.DOTALL | re.MULTILINE)


def block(readme, language):
    found = [text for kind, text in blocks(readme) if kind == language]
    if not found:
        sys.exit(f"{readme}: {CHAPTER!r} has no block of kind {language!r}")
    return found[0]


def configure(readme, path):
    """Module lines go behind the last loadmodule, the statements to the beginning of request_route."""
    head, body = block(readme, "").split("request_route {\n", 1)
    statements = body.rsplit("}", 1)[0]
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    last = max(index for index, line in enumerate(lines) if line.startswith("loadmodule"))
    # A loadmodule line may stand between #!ifdef and #!endif.
    while last + 1 < len(lines) and lines[last + 1].startswith("#!endif"):
        last += 1
    route = next(index for index, line in enumerate(lines) if re.match(r"request_route\s*{", line))
    lines[route + 1 : route + 1] = statements.rstrip("\n").split("\n")
    lines[last + 1 : last + 1] = head.rstrip("\n").split("\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


if sys.argv[1] == "shell":
    print(block(sys.argv[2], "sh"), end="")
else:
    configure(sys.argv[2], sys.argv[3])
