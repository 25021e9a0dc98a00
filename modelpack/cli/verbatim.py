"""Text that is the result itself, as a Modelfile is: whole for files and pipes, harmless on a terminal."""

from __future__ import annotations

import sys

import click

from modelpack.cli.talk import warn
from modelpack.words.text import visible


def verbatim(text: str) -> None:
    """*text* on stdout, with a line feed at its end; as UTF-8 and as it is, unless a terminal would obey it.

    On a terminal, what it would obey or hide is written as escapes, and a warning says so.
    """
    shown = visible(text, lines=True) if sys.stdout.isatty() else text
    # Bytes: text would become \r\n on Windows, and another encoding where the environment says so.
    end = b"" if not text or shown.endswith("\n") else b"\n"
    click.echo(shown.encode("utf-8", "replace") + end, nl=False)
    if shown != text:
        warn("Characters that a terminal would hide or obey are written as escapes; a file gets them whole.")
