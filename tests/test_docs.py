"""What the texts say is what the program does."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
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


def test_public_things_have_docstrings() -> None:
    """Every public module, class and function says what it is for."""
    for path in (ROOT / "modelpack").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        for owner, node in public(tree):
            protocol = owner == "Stream"  # what WSGI's body is like
            assert ast.get_docstring(node) or protocol, f"{path.name}:{node.lineno} {owner}.{node.name}"


def public(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    for one in ast.iter_child_nodes(node):
        if isinstance(one, ast.ClassDef | ast.FunctionDef) and not one.name.startswith("_"):
            yield owner, one
            if isinstance(one, ast.ClassDef):
                yield from public(one, one.name)
        elif isinstance(one, ast.If):
            yield from public(one, owner)


def test_no_text_tells_to_install_from_the_index() -> None:
    """`modelpack` on the package index is somebody else's: texts install the checkout only."""
    wrong = re.compile(r"pip install (?!-)['\"]?(ollama-)?modelpack\b")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "modelpack").rglob("*.py")):
        assert wrong.search(path.read_text(encoding="utf-8")) is None, path
