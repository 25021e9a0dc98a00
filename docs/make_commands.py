"""Write docs/commands.md from the commands' own help; with --check, say whether it is what they say.

python docs/make_commands.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from modelpack.cli.main import group

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    """The help of every command, as a terminal of 80 columns shows it."""
    parts = ["# Commands\n\nMade by `python docs/make_commands.py` from what `--help` prints.\n"]
    for path, text in helps(group, click.Context(group, info_name="modelpack", terminal_width=80)):
        parts.append(f"## {path}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """How a command is called and its help, then those of its own commands."""
    yield context.command_path, command.get_help(context)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        own = command.get_command(context, name)
        assert own is not None
        yield from helps(own, click.Context(own, info_name=name, parent=context, terminal_width=80))


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/commands.md is not what the commands say: run python docs/make_commands.py")
