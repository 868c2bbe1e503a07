#!/usr/bin/env python3
"""Takes the quick start out of README.md, for tests/tools/quick_start_in_root.sh.

    quick_start.py shell README               prints the shell commands
    quick_start.py source README              prints the shell commands of "From source", without their comments
    quick_start.py program README             prints the shell commands that build the program alone
    quick_start.py capability README          prints the shell commands that let Kamailio change nftables
    quick_start.py configure README CONFIG    puts the lines for kamailio.cfg into CONFIG, where README says
    quick_start.py prometheus README CONFIG   puts the lines of "Prometheus and Grafana" into CONFIG

The quick start is the chapter "Protected in three lines": its first shell block and its first block without a
language.
"""

import re
import sys

START = "Protected in three lines"
SOURCE = "From source"
PROGRAM = "The program apiban"
CAPABILITY = "nft"
PROMETHEUS = "Prometheus and Grafana"


def blocks(readme, chapter):
    """The fenced blocks of a chapter: (language, text)."""
    with open(readme, encoding="utf-8") as file:
        text = file.read()
    # The number of a chapter may change.
    parts = re.split(rf"^##+ (?:[\d.]+ )?{re.escape(chapter)}$", text, maxsplit=1, flags=re.MULTILINE)
    if len(parts) != 2:
        sys.exit(f"{readme}: there is no chapter {chapter!r}")
    body = re.split(r"\n##+ ", parts[1], maxsplit=1)[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)


def block(readme, chapter, language):
    found = [text for kind, text in blocks(readme, chapter) if kind == language]
    if not found:
        sys.exit(f"{readme}: {chapter!r} has no block of kind {language!r}")
    return found[0]


def configure(path, module_lines, statements=""):
    """Module lines go behind the last loadmodule, the statements to the beginning of request_route."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    last = max(index for index, line in enumerate(lines) if line.startswith("loadmodule"))
    # A loadmodule line may stand between #!ifdef and #!endif.
    while last + 1 < len(lines) and lines[last + 1].startswith("#!endif"):
        last += 1
    route = next(index for index, line in enumerate(lines) if re.match(r"request_route\s*{", line))
    lines[route + 1 : route + 1] = statements.rstrip("\n").split("\n")
    lines[last + 1 : last + 1] = module_lines.rstrip("\n").split("\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


match sys.argv[1:]:
    case ["shell", readme]:
        print(block(readme, START, "sh"), end="")
    case ["source", readme]:
        print(re.sub(r" +#.*", "", block(readme, SOURCE, "sh")), end="")
    case ["program", readme]:
        print(block(readme, PROGRAM, "sh"), end="")
    case ["capability", readme]:
        print(block(readme, CAPABILITY, "sh"), end="")
    case ["configure", readme, path]:
        module_lines, body = block(readme, START, "").split("request_route {\n", 1)
        configure(path, module_lines, body.rsplit("}", 1)[0])
    case ["prometheus", readme, path]:
        configure(path, block(readme, PROMETHEUS, ""))
    case _:
        sys.exit(__doc__)
