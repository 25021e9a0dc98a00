"""Media: packing into volumes, checking one, loading from them, and a bundle that restores itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from modelpack.documents.volumes import PRESETS, Descriptor
from modelpack.hands.readback import forget_files
from modelpack.words.blob import GIB, KIB, MIB
from modelpack.words.digest import Digest
from modelpack.words.volume import Volume

RESTORE = Path(__file__).resolve().parents[1] / "modelpack" / "receiver" / "restore.py"
_BLOCK = 16 * MIB


class Table(Protocol):
    """What of `run.Bench` is used here."""

    folder: Path

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None: ...

    def pairs(self, *works: Callable[[], None], before: Callable[[], object] = ...) -> list[float]: ...


def media(
    bench: Table,
    source: Path,
    size: int,
    run: Callable[..., Callable[[], None]],
    modelpack: list[str],
    peak: Callable[..., float],
) -> None:
    """All rows, of the bundle *source*, which has *size* bytes and knows its digests."""
    folder = bench.folder
    one, cut, there = folder / "m-one.tar", folder / "m-set", folder / "m-there"
    volume = str(max(_BLOCK, min(PRESETS["dvd"], size // 2 // _BLOCK * _BLOCK)))
    pack_one = [*modelpack, "pack", source, "-o", one, "-q"]
    pack_cut = [*modelpack, "pack", source, "-o", cut, "--volume-size", volume, "--stem", "m", "-q"]

    def clear() -> None:
        one.unlink(missing_ok=True)
        for each in (cut, there):
            shutil.rmtree(each, ignore_errors=True)

    def emptied() -> None:
        shutil.rmtree(there, ignore_errors=True)

    ours, yard = bench.pairs(run(*pack_cut), run(*pack_one), before=clear)
    bench.row("pack into volumes / into one tar", ours, yard, "<= 1.1")
    clear()
    run(*pack_cut)()
    run(*pack_one)()
    first = next(iter(sorted(cut.glob("*.001"))))
    ours, yard = bench.pairs(run(*modelpack, "verify", first, "-q"), run("b3sum", first))
    bench.row("verify of one volume / b3sum", ours, yard, "<= 1.2")

    ours, yard = bench.pairs(
        run(*modelpack, "verify", first, "--read-back", "-q"),
        run("b3sum", first),
        before=lambda: forget_files([first]),
    )
    bench.row("… from the medium, not from memory / b3sum", ours, yard, "<= 1.2")

    ours, yard = bench.pairs(
        run(*modelpack, "load", cut, "--to", there, "-q"),
        run(*modelpack, "load", one, "--to", there, "-q"),
        before=emptied,
    )
    bench.row("load from volumes / from the tar", ours, yard, "<= 1.1")

    def by_hand() -> None:
        there.mkdir()
        subprocess.run(["tar", "xf", one, "-C", there], check=True)
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=there, check=True)

    restore = run(sys.executable, "-I", RESTORE, "--from", one, "--to", there)
    ours, yard = bench.pairs(restore, by_hand, before=emptied)
    bench.row("restore.py / tar x, sha256sum", ours, yard, "<= 2")
    bench.row("descriptor of 42 GB (KiB)", len(_descriptor().raw()) / KIB, 128, "<= 1", "K")
    for what, command in (
        ("packing into volumes", pack_cut),
        ("a load from volumes", [*modelpack, "load", cut, "--to", there, "-q"]),
    ):
        if "pack" in command:
            shutil.rmtree(cut)
        shutil.rmtree(there, ignore_errors=True)
        bench.row(f"peak memory of {what} (MiB)", peak(*command), 120, "<= 1", "M")
    clear()


def _descriptor() -> Descriptor:
    """That of a set of 42 GB on discs."""
    total, step = 42 * GIB, PRESETS["bd25"]
    volumes = []
    for number, offset in enumerate(range(0, total, step), 1):
        length = min(step, total - offset)
        hashes = tuple(
            Digest.of(f"{number} {block}".encode()).hex.encode()[:32] for block in range(-(-length // _BLOCK))
        )
        name = f"m.tar.{number:03}"
        volumes.append(Volume(number, name, offset, length, Digest.of(name.encode()), hashes))
    return Descriptor("m", Digest.of(b"m"), total, step, (), tuple(volumes))
