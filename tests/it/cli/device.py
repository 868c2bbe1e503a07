"""A firewall or a router as it looks through ssh and scp: device.py FOLDER ssh|scp ARGUMENT...

FOLDER holds what it has: running and startup (a member a line), var (files that were copied to it). If FOLDER has a file
"away" nobody answers. If it has "cut" the connection ends after as many lines as stand there.
"""

import ipaddress
import pathlib
import sys

FOLDER = pathlib.Path(sys.argv[1])
WORDS = sys.argv[2:]


def held(name):
    path = FOLDER / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def keep(name, members):
    (FOLDER / name).write_text("".join(f"{member}\n" for member in members))


def network(words):
    """A member as an ASA takes it, in one spelling."""
    if words[0] == "host" and len(words) == 2:
        return str(ipaddress.ip_network(ipaddress.ip_address(words[1])))
    return str(ipaddress.ip_network("/".join(words)))


class Asa:
    """The command line of an ASA: exec mode, configuration mode, and the mode of an object group in use."""

    def __init__(self):
        self.mode = "exec"

    def line(self, line):
        words = line.split()
        members = held("running")
        if self.mode == "exec" and words == ["configure", "terminal"]:
            self.mode = "config"
        elif self.mode == "exec" and words == ["write", "memory"]:
            keep("startup", members)
        elif self.mode != "exec" and words == ["end"]:
            self.mode = "exec"
        elif self.mode != "exec" and words == ["object-group", "network", "apiban"]:
            self.mode = "group"
        elif self.mode == "group" and words[:1] == ["network-object"]:
            member = network(words[1:])
            if member in members:
                return f"Adding obj ({line.strip()}) to grp (apiban) failed; object already exists"
            keep("running", members + [member])
        elif self.mode == "group" and words[:2] == ["no", "network-object"]:
            member = network(words[2:])
            if member not in members:
                return f"Removing obj ({line.strip()}) from grp (apiban) failed; object does not exist"
            if members == [member]:
                return "Removing the last object from object-group (apiban) not allowed, it is being used"
            members.remove(member)
            keep("running", members)
        else:
            return "ERROR: % Invalid input detected at '^' marker."
        return ""


def asa():
    session, left = Asa(), int(held("cut")[0]) if held("cut") else None
    for line in sys.stdin:
        if left == 0:
            sys.exit("Connection to firewall closed by remote host.")
        left = None if left is None else left - 1
        said = session.line(line)
        if said:
            with open(FOLDER / "said", "a") as said_file:
                print(said, file=said_file)


def junos(command):
    """What follows one another in the command line of Junos. Nothing is in force before the commit."""
    candidate = None
    for part in (part.split() for part in command.split(";")):
        if part == ["configure", "private"]:
            candidate = held("running")
        elif part[:2] == ["load", "set"]:
            path = FOLDER / part[2].lstrip("/")
            for words in (line.split() for line in path.read_text().splitlines()):
                assert words[1:4] == ["policy-options", "prefix-list", "apiban"], words
                if words[0] == "delete" and len(words) == 4:
                    candidate = []
                elif words[0] == "set" and len(words) == 5:
                    candidate.append(str(ipaddress.ip_network(words[4])))
                else:
                    sys.exit(f"syntax error: {words}")
        elif part == ["commit", "and-quit"]:
            keep("running", candidate)
        else:
            sys.exit(f"unknown command: {part}")


def main():
    if (FOLDER / "away").exists():
        print("connect to host device port 22: Connection refused", file=sys.stderr)
        sys.exit(255)
    if WORDS == ["ssh", "-T", "admin@firewall"]:
        asa()
    elif WORDS[:3] == ["ssh", "-T", "admin@router"] and len(WORDS) == 4:
        junos(WORDS[3])
    elif WORDS[:2] == ["scp", "-q"] and len(WORDS) == 4 and WORDS[3].startswith("admin@router:/var/tmp/"):
        target = FOLDER / WORDS[3].split(":/")[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(pathlib.Path(WORDS[2]).read_bytes())
    else:
        sys.exit(f"not for this device: {WORDS}")


main()
