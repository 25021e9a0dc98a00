"""Write docs/commands.md from the commands' own help; with --check, say whether it is what they say.

python docs/make_commands.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelpack.cli.main import COMMANDS, group

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """The help of every command, as a terminal of 80 columns shows it."""
    parts = ["# Commands\n\nMade by `python docs/make_commands.py` from what `--help` prints.\n"]
    root = click.Context(group, info_name="modelpack", terminal_width=80)
    for name in ("", *COMMANDS):
        command = group.get_command(root, name) if name else group
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=80) if name else root
        parts.append(f"## modelpack {name}".rstrip() + f"\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/commands.md is not what the commands say: run python docs/make_commands.py")
