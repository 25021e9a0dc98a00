"""What was found of volumes, in words: a table, and a line to read out on the telephone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from modelpack.cli.remarks import remark_lines
from modelpack.cli.talk import (
    bundle_lines,
    complain,
    counted,
    error_json,
    leave_by,
    result,
    result_json,
    table,
)
from modelpack.errors import Corrupt, Unchecked
from modelpack.hands.slices_copies import need_of
from modelpack.verbs.trust import Signed
from modelpack.verbs.volumes import Looked, Set, State
from modelpack.words.text import size


def show_one(one: Looked, *, as_json: bool) -> None:
    """What a volume alone is."""
    if as_json:
        result_json(one_json(one))
    else:
        number = f"volume {one.volume.n}" if one.volume is not None else "-"
        for line in table([[number, str(one.path), *_words(one)]]):
            result(line)
        for line in memory_lines([one]):
            result(line)
        if one.volume is not None and one.volume.name != one.path.name:
            result(f"misnamed: it is {one.volume.name}")
    problem = one.problem
    if isinstance(problem, Unchecked):
        raise problem
    leave_by([problem] if problem is not None else [])


def show_set(what: str, found: Set, *, as_json: bool, signed: Signed | None = None) -> None:
    """What is there of a set, copy by copy, and what is needed."""
    if as_json:
        result_json(set_json(found) | {"signature": signed.to_json() if signed is not None else None})
    else:
        for line in bundle_lines(what, found.descriptor.bundle):
            result(line)
        if signed is not None:
            for line in signed.shown():
                result(line)
        for line in table(list(_rows(found))):
            result(line)
        for line in [*remark_lines(found.remarks), *memory_lines(found.copies)]:
            result(line)
        for sentence in found.unchecked:
            result(f"not checked: {sentence}")
        total = len(found.descriptor.volumes)
        result(f"{total - len(found.need)} of {counted(total, 'volume')} can be had whole")
        if found.need:
            result(need_of(found.need))
    for problem in found.problems:
        complain(problem)
    _leave(found)


def _leave(found: Set) -> None:
    lost = set(found.need) - set(found.unsure)
    if lost or any(not isinstance(one, Unchecked) for one in found.problems):
        raise SystemExit(Corrupt.exit_code)
    if found.unsure or found.problems:
        raise SystemExit(Unchecked.exit_code)


def _rows(found: Set) -> Iterable[list[str]]:
    for volume in found.descriptor.volumes:
        copies = found.of(volume)
        if not copies:
            yield [str(volume.n), volume.name, str(State.MISSING), size(volume.size)]
        for one in copies:
            yield [str(volume.n), str(one.path), *_words(one)]
    for one in found.copies:
        if one.volume is None:
            yield ["-", str(one.path), *_words(one)]


def _words(one: Looked) -> list[str]:
    """The state, and what more there is to say of it."""
    more = [one.why] if one.why else []
    if one.bad and one.volume is not None:
        more.append(blocks(one.bad, len(one.volume.blocks)))
    if one.unread:
        more.append(f"{counted(len(one.unread), 'block')} the medium does not give back")
    if one.models:
        more.append(f"of {', '.join(one.models[:3])}{', …' if len(one.models) > 3 else ''}")
    if not more:
        more.append(size(one.volume.size) if one.volume is not None else "")
    return [str(one.state), "; ".join(more)]


def blocks(bad: Sequence[int], count: int) -> str:
    """`blocks 3-5, 9 (from 0) of 255`; a few runs of them."""
    runs: list[list[int]] = []
    for index in bad:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:5])
    return f"blocks {shown}{', …' if len(runs) > 5 else ''} (from 0) of {count}"


def memory_lines(copies: Sequence[Looked]) -> Iterable[str]:
    """Which files may have been read from memory, where the medium was asked for."""
    for why, count in Counter(one.memory for one in copies if one.memory).items():
        yield f"not checked: that {counted(count, 'volume')} came from the medium, not from memory: {why}."


def one_json(one: Looked) -> dict[str, Any]:
    """A copy of a volume, for scripts; blocks are counted from 0."""
    return {
        "path": str(one.path),
        "state": one.state.name.lower(),
        "volume": one.volume.n if one.volume is not None else None,
        "name": one.volume.name if one.volume is not None else None,
        "size": one.volume.size if one.volume is not None else None,
        "bad_blocks": list(one.bad),
        "unread_blocks": list(one.unread),
        "models": list(one.models),
        "why": one.why,
        "perhaps_from_memory": one.memory or None,
    }


def set_json(found: Set) -> dict[str, Any]:
    """A set, for scripts."""
    return {
        "good": found.good,
        "set": str(found.descriptor.id),
        "fingerprint": str(found.descriptor.bundle),
        "stem": found.descriptor.stem,
        "volumes": len(found.descriptor.volumes),
        "need": list(found.need),
        "unsure": list(found.unsure),
        "copies": [one_json(one) for one in found.copies],
        "problems": [error_json(one) for one in found.problems],
        "unchecked": found.unchecked,
        "remarks": [
            {"kind": one.kind, "what": one.what, "where": one.where, "advice": one.advice}
            for one in found.remarks
        ],
    }
