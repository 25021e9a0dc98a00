"""Rows about sets and shards, for run.py."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from run import Bench

MIB = 1 << 20
MODELS, SHARDS = 10, 3

Command = Callable[..., Callable[[], None]]


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def make_shards(folder: Path, size: int) -> list[Path]:
    """SHARDS shards of a GGUF of about *size* bytes together, one tensor of noise in each."""
    folder.mkdir()
    elements = size // SHARDS // 2 // 32 * 32
    noise = bytearray(os.urandom(MIB))
    paths = []
    for number in range(SHARDS):
        facts = [
            _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
            _text("general.file_type") + struct.pack("<II", 4, 1),
            _text("llama.block_count") + struct.pack("<II", 4, 1),
        ]
        facts = (facts if number == 0 else []) + [
            _text("split.no") + struct.pack("<IH", 2, number),
            _text("split.count") + struct.pack("<IH", 2, SHARDS),
            _text("split.tensors.count") + struct.pack("<Ii", 5, SHARDS),
        ]
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(facts)) + b"".join(facts)
        head += _text(f"w{number}") + struct.pack("<IQIQ", 1, elements, 1, 0)
        path = folder / f"big-{number + 1:05}-of-{SHARDS:05}.gguf"
        with path.open("wb") as file:
            file.write(head + bytes(-len(head) % 32))
            left = elements * 2
            while left:
                noise[:8] = struct.pack("<Q", left)
                left -= file.write(noise[: min(left, MIB)])
        paths.append(path)
    return paths


def shards(
    bench: Bench, size: int, run: Command, modelpack: list[str], sha256: Callable[[Path], Callable[[], None]]
) -> None:
    """Merging while packing, against hashing and copying the same bytes."""
    folder = bench.folder / "shards"
    paths = make_shards(folder, size)
    out, copied = bench.folder / "merged.tar", bench.folder / "copied"

    def pack() -> None:
        out.unlink(missing_ok=True)
        run(*modelpack, "pack", paths[0], "-o", out, "-q")()

    def dd() -> None:
        copied.unlink(missing_ok=True)
        run("sh", "-c", f"cat {folder}/*.gguf | dd of={copied} bs=4M iflag=fullblock conv=fsync")()

    def hashed() -> None:
        for path in paths:
            sha256(path)()

    ours, copy, sha = bench.pairs(pack, dd, hashed)
    bench.row("pack of shards / max(SHA-256, dd conv=fsync)", ours, max(sha, copy), "<= 1.15")
    for path in (out, copied):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder)


def sets(bench: Bench, base: Path, run: Command, modelpack: list[str]) -> None:
    """Models that share a base, against the base alone."""
    folder = bench.folder / "set"
    for number in range(MODELS):
        (folder / f"m{number}").mkdir(parents=True)
        (folder / f"m{number}" / "Modelfile").write_text(f"FROM {base}\nSYSTEM number {number}\n")
    out, alone = bench.folder / "set.tar", bench.folder / "alone.tar"

    def pack_set() -> None:
        out.unlink(missing_ok=True)
        run(*modelpack, "pack", *sorted(folder.iterdir()), "-o", out, "-q")()

    def pack_one() -> None:
        alone.unlink(missing_ok=True)
        run(*modelpack, "pack", base, "-o", alone, "-q")()

    ours, one = bench.pairs(pack_set, pack_one)
    bench.row(f"pack of {MODELS} Modelfiles on a base / the base", ours, one, "<= 1.1")
    models = bench.folder / "set-models"
    run(*modelpack, "load", out, "--to", models, "-q")()

    def pack_installed() -> None:
        out.unlink(missing_ok=True)
        run(*modelpack, "pack", models, "-o", out, "-q")()

    ours, one = bench.pairs(pack_installed, pack_one)
    bench.row(f"pack of {MODELS} installed models / the base", ours, one, "<= 1.1")
    for path in (out, alone):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder)
    shutil.rmtree(models)
