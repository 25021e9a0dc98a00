"""Steps that long work reports while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A new stretch of work begins: `doing` is a word for people ("hashing"), `total` its bytes."""

    doing: str
    total: int


@dataclass(frozen=True, slots=True)
class Moved:
    """`count` more bytes reached where they go: the medium, the server, the hasher."""

    count: int


@dataclass(frozen=True, slots=True)
class Said:
    """What the other side says it is doing, or why nothing seems to move: text from elsewhere."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the target that the user should know before the work begins: text from elsewhere."""

    text: str


Step = Stage | Moved | Said | Note
Report = Callable[[Step], None]
"""Called from any thread, and waited for: it should not block."""


def silent(_step: Step) -> None:
    """Report nothing."""
