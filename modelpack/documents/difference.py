"""In what two sets of models differ: names and IDs first, then part by part what became of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.words.digest import Digest
from modelpack.words.name import Name

Blobs = Mapping[Digest, int]
"""Sizes in bytes, by digest."""


@dataclass(frozen=True)
class Entry:
    """A model as a side knows it: by its name and ID, None where the ID cannot be told.

    `size` is in bytes, of all blobs. `document` is the ID that it had before a server wrote the manifest of
    the same blobs anew, where somebody wrote that down.
    """

    name: Name
    id: Digest | None
    size: int | None = None
    document: Digest | None = None

    @property
    def ids(self) -> frozenset[Digest]:
        """What stands for this model: two entries that have one in common are the same model."""
        return frozenset(one for one in (self.id, self.document) if one is not None)

    def to_json(self) -> dict[str, Any]:
        """Digests as text, sizes in bytes."""
        return {
            "name": self.name.full,
            "id": str(self.id) if self.id is not None else None,
            "size": self.size,
        }


@dataclass(frozen=True)
class Lone:
    """A model that one side alone has under its name; `twins` are names of the same model on the other."""

    entry: Entry
    twins: tuple[Name, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As Entry, with `same_as`."""
        return self.entry.to_json() | {"same_as": [name.full for name in self.twins]}


@dataclass(frozen=True)
class Change:
    """A part of a model that differs: before and after as JSON has them, None where there was nothing.

    `part` is `weights`, `template`, `parameters`, `weights metadata`, …; `key` what of it, where it has keys.
    `note` says in words how they differ, where neither tells. `lines` are a unified diff, for people, cut
    where it is long. A text stands in `before` and `after` as an object of its `digest` and `size`.
    """

    part: str
    key: str = ""
    before: Any = None
    after: Any = None
    lines: tuple[str, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field, under its own name."""
        return {
            "part": self.part,
            "key": self.key,
            "before": self.before,
            "after": self.after,
            "lines": list(self.lines),
            "note": self.note,
        }


@dataclass(frozen=True)
class Changed:
    """Two models that are not the same, and what could be told of it; `unsure` says what could not be."""

    before: Entry
    after: Entry
    changes: tuple[Change, ...] = ()
    unsure: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "changes": [one.to_json() for one in self.changes],
            "not_compared": list(self.unsure),
        }


@dataclass(frozen=True)
class Difference:
    """What it takes to get from `a` to `b`, two places as they were named.

    `unsure` are sentences about models of which nobody can tell whether they are the same.
    """

    a: str
    b: str
    removed: tuple[Lone, ...] = ()
    added: tuple[Lone, ...] = ()
    renamed: tuple[tuple[Entry, Entry], ...] = ()
    changed: tuple[Changed, ...] = ()
    same: tuple[tuple[Entry, Entry], ...] = ()
    unsure: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything is known to differ."""
        return bool(self.removed or self.added or self.renamed or self.changed)

    def to_json(self) -> dict[str, Any]:
        """For scripts; `same` is null where nothing is known to differ, but not all could be compared."""
        return {
            "a": self.a,
            "b": self.b,
            "same": False if self.differs else None if self.unsure else True,
            "removed": [one.to_json() for one in self.removed],
            "added": [one.to_json() for one in self.added],
            "renamed": [{"before": one.to_json(), "after": two.to_json()} for one, two in self.renamed],
            "changed": [one.to_json() for one in self.changed],
            "unchanged": [two.to_json() for _, two in self.same],
            "not_compared": list(self.unsure),
        }


@dataclass(frozen=True)
class Matched:
    """The models of two sides by their names: `pairs` have one, the others stand alone."""

    pairs: tuple[tuple[Entry, Entry], ...]
    removed: tuple[Lone, ...]
    added: tuple[Lone, ...]
    renamed: tuple[tuple[Entry, Entry], ...]


def matched(a: Sequence[Entry], b: Sequence[Entry]) -> Matched:
    """Which of *a* stands for which of *b*: by name as Ollama compares it, without case; in order of names.

    Of those that are left, one on each side with the same ID were renamed.
    """
    left, right = list(a), list(b)
    pairs: list[tuple[Entry, Entry]] = []
    for key in (_full, _folded):  # a disk may hold names that differ in case alone: the same one goes first
        there: dict[str, list[Entry]] = {}
        for entry in right:
            there.setdefault(key(entry), []).append(entry)
        found = [(entry, there[key(entry)].pop(0)) for entry in left if there.get(key(entry))]
        taken = {id(entry) for pair in found for entry in pair}
        left = [entry for entry in left if id(entry) not in taken]
        right = [entry for entry in right if id(entry) not in taken]
        pairs += found
    renamed = list(_renamed(left, right))
    moved = {id(entry) for pair in renamed for entry in pair}
    return Matched(
        tuple(sorted(pairs, key=lambda pair: _folded(pair[0]))),
        _alone([entry for entry in left if id(entry) not in moved], b),
        _alone([entry for entry in right if id(entry) not in moved], a),
        tuple(renamed),
    )


def _renamed(left: Sequence[Entry], right: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    there = _by_id(right)
    taken: set[int] = set()
    for entry in sorted(left, key=_folded):
        found = [one for key in entry.ids for one in there.get(key, ()) if id(one) not in taken]
        if found:
            taken.add(id(found[0]))
            yield entry, found[0]


def _alone(entries: Sequence[Entry], others: Sequence[Entry]) -> tuple[Lone, ...]:
    there = _by_id(others)
    return tuple(
        Lone(entry, tuple(dict.fromkeys(one.name for key in entry.ids for one in there.get(key, ()))))
        for entry in sorted(entries, key=_folded)
    )


def _by_id(entries: Sequence[Entry]) -> dict[Digest, list[Entry]]:
    found: dict[Digest, list[Entry]] = {}
    for entry in sorted(entries, key=_folded):
        for key in entry.ids:
            found.setdefault(key, []).append(entry)
    return found


def _full(entry: Entry) -> str:
    return entry.name.full


def _folded(entry: Entry) -> str:
    return entry.name.folded


def compare_blobs(a: Blobs, b: Blobs, kinds: Mapping[Digest, str]) -> tuple[Change, ...]:
    """Blobs that one side alone has, where a side knows digests and no more; *kinds* as far as known.

    What the other side has in its place cannot be told: every blob is a Change of its own.
    """
    changes = [
        Change(kinds.get(digest, "blob"), "", before=blob_json(digest, a[digest]))
        for digest in a.keys() - b.keys()
    ]
    changes += [
        Change(kinds.get(digest, "blob"), "", after=blob_json(digest, b[digest]))
        for digest in b.keys() - a.keys()
    ]
    return tuple(
        sorted(changes, key=lambda one: (one.part, one.before is None, str(one.before or one.after)))
    )


def blob_json(digest: Digest | None, size: int | None, **more: str) -> dict[str, Any]:
    """A blob, or a text, as it stands in a Change."""
    return {"digest": str(digest) if digest is not None else None, "size": size} | {
        key: text for key, text in more.items() if text
    }
