"""Tables of docs/fidelity*.md: lines of at most 120 columns, between marks that a suite finds again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

WIDTH = 120


class Notes:
    """Reasons too long for a cell: it holds a number, the reason stands below the table."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    def lines(self) -> str:
        """A list that Markdown numbers alike."""
        return "".join(f"{number}. {text}\n" for text, number in self._numbers.items())


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """*rows*, the head first, as a table whose columns stand one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = rows
    lines = [head, ["-" * width for width in widths], *body]
    text = ""
    for cells in lines:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        line = f"| {' | '.join(padded)} |"
        assert len(line) <= WIDTH, line
        text += f"{line}\n"
    return text


def write_or_compare(page: Path, mark: str, table: str) -> None:
    """Put *table* between `<!-- mark -->` and `<!-- end -->` where asked to; else it has to stand there."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(f"<!-- {mark} -->\n")
    there, ended, after = rest.partition("<!-- end -->\n")
    assert found, f"{page} has no place for {mark!r}"
    assert ended, f"{page}: {mark!r} has no end"
    table = f"\n{table}\n"
    if os.environ.get("MODELPACK_WRITE_DOCS"):
        page.write_text(f"{before}<!-- {mark} -->\n{table}<!-- end -->\n{after}", encoding="utf-8")
    elif there != table:
        pytest.fail(f"docs/{page.name} does not say what happens:\n{table}")
