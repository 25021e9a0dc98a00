"""What the texts say is what the program does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import modelpack

ROOT = Path(__file__).parents[1]


def test_commands_are_documented_as_they_are() -> None:
    """docs/commands.md is what --help prints."""
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "docs/make_commands.py", "--check"], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_there() -> None:
    """Every name in __all__ can be imported, has a docstring, and is known to type checkers."""
    text = (ROOT / "modelpack" / "__init__.py").read_text(encoding="utf-8")
    typed = set(re.findall(r"import \w+ as (\w+)", text))
    assert typed == set(modelpack.__all__) - {"__version__"}
    for name in typed:
        assert getattr(modelpack, name).__doc__ or name == "Report"


def test_no_text_tells_to_install_from_the_index() -> None:
    """`modelpack` on the package index is somebody else's: texts install the checkout only."""
    wrong = re.compile(r"pip install (?!-)['\"]?(ollama-)?modelpack\b")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "modelpack").rglob("*.py")):
        assert wrong.search(path.read_text(encoding="utf-8")) is None, path
