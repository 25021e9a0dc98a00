"""Repair of a volume set from other copies of it: volumes block by block, papers whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelpack.errors import NotFound
from modelpack.verbs.collect import collect
from modelpack.verbs.repair_spares import Mended, Repaired
from modelpack.verbs.trust import Signed
from modelpack.verbs.volumes import size_of
from modelpack.verbs.volumes_look import touched
from modelpack.words.report import Report, silent


def repair_volumes(
    folder: Path,
    spares: Sequence[Path],
    stem: str | None = None,
    report: Report = silent,
    *,
    signed: Signed | None = None,
) -> Repaired:
    """Put back what is bad in the set in *folder*, from *spares*: folders with volumes, or the whole tar.

    Any block that is right in one of them will do, and in the damaged volume itself. What stood there is kept
    aside. Where the set was *signed* well, its papers are those that were. What could not be put back is in
    `left`; its blocks that could be found are kept for the next time. Raises as `collect` does.
    """
    done = collect(spares, folder, report, stem, notes=False, signed=signed)
    result = Repaired(done.descriptor.bundle)
    for name in done.papers:
        result.mended.append(Mended("document", name, size_of(folder / name), "other copies"))
    for part in done.made:
        volume = part.volume
        others = [one for one in part.sources if Path(one) != folder / volume.name]
        users = ", ".join(touched(done.descriptor, volume, range(len(volume.blocks)))[:3])
        result.mended.append(
            Mended("volume", volume.name, part.written, ", ".join(others), part.aside, users)
        )
    for n in done.need:
        volume = done.descriptor.volumes[n - 1]
        lost = len(done.begun.get(n, volume.blocks))
        count = f"{lost} of {len(volume.blocks)} blocks"
        result.left.append(
            NotFound(
                f"none of the sources has {count} of volume {n}",
                where=folder / volume.name,
                advice=f"Bring another copy, or make it again: pack --only {n}.",
            )
        )
    result.left += done.wrong
    return result
