"""What is said to people: in lines of their terminal, whole where none is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from terminals import on_terminal

from modelpack.cli.talk import leave_by
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Unchecked, Unsupported

SENTENCE = (
    "was there already; its blobs were not looked at, so that nothing is known of their bytes but names"
)
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
SCRIPT = f"""
import os, sys
if sys.argv[1] == "terminal":
    os.dup2(1, 2)
from modelpack.cli.talk import complain, talk, warn
from modelpack.errors import Local
talk({SENTENCE!r})
talk("    " + {SENTENCE!r})
talk("  " + {DIGEST!r})
talk("")
talk("not this", quiet=True)
warn({SENTENCE!r})
complain(Local({SENTENCE!r}, where="here", advice="use --no-listen-at-all or --an-other-option-with-hyphens"))
"""


def test_no_word_is_cut_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown, _ = on_terminal([sys.executable, "-c", SCRIPT, "terminal"])
    lines = shown.decode().split("\r\n")
    assert all(len(line) <= 40 or line.strip() == DIGEST for line in lines)
    assert lines.count(f"  {DIGEST}") == 1
    assert "" in lines[:-1]
    assert sum(line.startswith("    ") for line in lines) == 3
    said = " ".join(shown.decode().split())
    assert said.count(SENTENCE) == 4
    assert "use --no-listen-at-all or --an-other-option-with-hyphens" in said


def test_no_line_is_wrapped_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = subprocess.run([sys.executable, "-c", SCRIPT, ""], capture_output=True, check=True, timeout=30)
    assert done.stderr.decode().splitlines() == [
        SENTENCE,
        f"    {SENTENCE}",
        f"  {DIGEST}",
        "",
        f"warning: {SENTENCE}",
        f"modelpack: here: {SENTENCE}",
        "  use --no-listen-at-all or --an-other-option-with-hyphens",
    ]


@pytest.mark.parametrize(
    ("problems", "code"),
    [
        ([Unchecked("a link"), Corrupt("damaged")], 4),
        ([NotFound("gone"), Local("disk")], 4),
        ([Local("disk"), Unsupported("new")], 5),
        ([Unchecked("a link"), Local("disk")], 11),
        ([Local("disk")], 9),
    ],
)
def test_by_what_a_command_ends(problems: list[ModelpackError], code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        leave_by(problems)
    assert caught.value.code == code
