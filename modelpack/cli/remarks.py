"""What is odd and no damage, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelpack.cli.talk import counted
from modelpack.verbs.verdict import Remark
from modelpack.words.text import size

_SHOWN = 5  # remarks of a kind


def remark_lines(remarks: Sequence[Remark]) -> Iterator[str]:
    """*remarks* by their kind: a few of each, how many more there are, and what to do about them."""
    kinds: dict[tuple[str, str], list[Remark]] = {}
    for one in remarks:
        kinds.setdefault((one.kind, one.advice), []).append(one)
    for (kind, advice), some in kinds.items():
        for one in some[:_SHOWN]:
            yield f"{kind}: {one.where}: {one.what}"
        if len(some) > _SHOWN:
            total = sum(one.size for one in some)
            together = f", {size(total)} together" if total else ""
            yield f"{kind}: … {counted(len(some), 'file')} in all{together} (--json lists them)"
        if advice:
            yield f"  {advice}"
