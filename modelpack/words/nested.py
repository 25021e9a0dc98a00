"""How deep values lie within values: what walks through JSON from elsewhere needs an end to it."""

from __future__ import annotations

from typing import Any

DEEPEST = 100
"""More than any real document needs (they are four or five deep), and far less than Python's stack bears."""


def is_deep(value: object) -> bool:
    """Whether *value*, of JSON, has lists and maps within each other more than `DEEPEST` deep."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below = (each.values() if isinstance(each, dict) else each for each in level)
        level = [one for each in below for one in each if isinstance(one, dict | list)]
        if not level:
            return False
    return True
