"""What `load` says of its receipts: how well each blob is known, and what came of trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelpack.cli.talk import counted
from modelpack.cli.words import SAME
from modelpack.documents.receipt import Receipt, State
from modelpack.words.digest import Digest
from modelpack.words.text import size

_WORDS = {
    State.READ: "there before, read back and hashed",
    State.WRONG: "there before, read back: wrong",
    State.SIZED: "there before, by name and size alone: --prove reads them",
    State.NAMED: "there before, by name alone: --prove reads them back",
    State.UNSEEN: "not looked at: a model of the same meaning is there",
}


def ways_shown(receipts: Sequence[Receipt]) -> list[str]:
    """A line for each way by which models arrived, and what of them is the same.

    None of a model of which nothing is said to be the same: a note or an error says why.
    """
    lines = [f"{one.way}: {SAME[one.same, one.seen_whole]}" for one in receipts if one.same is not None]
    return list(dict.fromkeys(lines))


def states_shown(receipts: Sequence[Receipt]) -> list[str]:
    """A line for each way in which blobs that were there before are known, each blob once."""
    found: dict[State, dict[Digest | None, int]] = {}
    for receipt in receipts:
        for blob, state in receipt.states():
            if state in _WORDS:
                found.setdefault(state, {})[blob.digest] = blob.size
    return [
        f"{counted(len(blobs), 'blob')} ({size(sum(blobs.values()))}) {_WORDS[state]}"
        for state, blobs in sorted(found.items())
    ]


def unproven_shown(receipts: Sequence[Receipt]) -> Mapping[str, str]:
    """By model: what reading back could not prove."""
    return {str(one.name): one.unproven for one in receipts if one.unproven}


def tried_shown(receipts: Sequence[Receipt]) -> list[str]:
    """A line for each model that answered when it was tried."""
    lines = []
    for receipt in receipts:
        tried = receipt.tried
        if tried is None or not tried.ok:
            continue
        what = f"a vector of {tried.length} numbers"
        if tried.kind == "token":
            what = f"one token, {tried.text!r}"
        lines.append(f"{receipt.name} answers: {what}, after {tried.milliseconds / 1000:.1f} s")
    return lines
