"""A real terminal for a command's stdout."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence

import pytest


def on_terminal(command: Sequence[str]) -> tuple[bytes, bytes]:
    """What *command* writes to a terminal, where line feeds become CR LF, and what to stderr."""
    ours, theirs = pytest.importorskip("pty").openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, timeout=30, check=True)
        finally:
            os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is the end: nobody has the other side open
            while piece := screen.read(65536):
                shown += piece
    return shown, done.stderr
