"""A short unified diff of two texts that nobody has bounded."""

from __future__ import annotations

import difflib
import re

from modelpack.words.blob import KIB

LINES = 40
"""Lines of a diff that are shown."""
LONGEST = 200
"""Characters of a line that are shown."""
_MOST_TEXT, _MOST_LINES = 64 * KIB, 1000
"""Beyond these no lines are compared: what difflib needs grows with the square of them, or worse."""
_CONTEXT = 2
# A chat template is often one line of thousands of characters: its statements are taken for lines then.
_STATEMENT = re.compile(r"(?<=[%}]\})")


def text_diff(before: str, after: str, lines: int = LINES) -> tuple[str, ...]:
    """The unified diff of two texts without its file names, at most *lines* lines and one that says of more.

    Lines longer than LONGEST are cut, behind the ends of statements first (`}}`, `%}`). Empty where the texts
    are too long to be compared by lines, or the same.
    """
    if max(len(before), len(after)) > _MOST_TEXT:
        return ()
    ours, theirs = _lines(before), _lines(after)
    if max(len(ours), len(theirs)) > _MOST_LINES:
        return ()
    found = list(difflib.unified_diff(ours, theirs, n=_CONTEXT, lineterm=""))[2:]
    shown = [_cut(line) for line in found[:lines]]
    if len(found) > lines:
        shown.append(f"… {len(found) - lines} more lines of this diff")
    return tuple(shown)


def _lines(text: str) -> list[str]:
    if not text:
        return []
    found: list[str] = []
    for line in text.split("\n"):
        found += [line] if len(line) <= LONGEST else [one for one in _STATEMENT.split(line) if one]
    return found


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST + 1 else f"{line[:LONGEST]}… ({len(line) - 1} characters)"
