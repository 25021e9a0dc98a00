"""Volume sets of any bytes, small blocks and all, for tests of what checks and mends them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3
from conftest import noise

from modelpack.documents.volumes import Content, Descriptor, sums_of
from modelpack.hands import system
from modelpack.words.blob import KIB
from modelpack.words.digest import Digest
from modelpack.words.volume import Volume, volume_name

BLOCK = 4 * KIB
PER = 4
"""Blocks of a volume, but for the last."""


@dataclass(frozen=True)
class Made:
    """A set in a folder, and the tar that it is the parts of."""

    folder: Path
    descriptor: Descriptor
    tar: bytes

    def path(self, n: int) -> Path:
        return self.folder / self.descriptor.volumes[n - 1].name

    def right(self, n: int) -> bytes:
        volume = self.descriptor.volumes[n - 1]
        return self.tar[volume.offset : volume.offset + volume.size]


def make_set(
    folder: Path,
    seed: object = 0,
    *,
    stem: str = "qwen",
    size: int = 4 * PER * BLOCK + 1000,
    papers: bool = True,
) -> Made:
    """A set of five volumes, the last one short, of two models and the documents before them."""
    tar = noise(size, seed)
    folder.mkdir(parents=True, exist_ok=True)
    most = PER * BLOCK
    volumes = []
    for n, offset in enumerate(range(0, size, most), start=1):
        part = tar[offset : offset + most]
        blocks = tuple(blake3(part[at : at + BLOCK]).digest() for at in range(0, len(part), BLOCK))
        volumes.append(Volume(n, volume_name(stem, n), offset, len(part), Digest.of(part), blocks))
        (folder / volumes[-1].name).write_bytes(part)
    contents = (
        Content("documents", 0, BLOCK // 2),
        Content("alpha:latest", BLOCK // 2, 2 * most),
        Content("beta:8b", 2 * most, size - 2 * most - 500),
    )
    descriptor = Descriptor(stem, Digest.of(tar[:100]), size, most, contents, tuple(volumes), BLOCK)
    if papers:
        texts = {"README.txt": b"Read me.\n", "restore.py": b"print('restored')\n"}
        for name, raw in texts.items():
            (folder / name).write_bytes(raw)
        (folder / descriptor.name).write_bytes(descriptor.raw())
        sums = sums_of(descriptor, {name: Digest.of(raw) for name, raw in texts.items()})
        (folder / f"{stem}.sha256").write_bytes(sums)
    return Made(folder, descriptor, tar)


def flip(path: Path, *places: int) -> None:
    """Turn one bit of the bytes at *places* of the file."""
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place] ^= 1
    path.write_bytes(raw)


def failing(monkeypatch: pytest.MonkeyPatch, when: Callable[[Path, int], int | None]) -> None:
    """Have reads fail as a medium does: *when(path, offset)* gives an errno, or None."""
    real = system.read_into

    def read_into(fd: int, into: memoryview, offset: int) -> int:
        number = when(Path(os.readlink(f"/proc/self/fd/{fd}")), offset)
        if number is not None:
            raise OSError(number, os.strerror(number))
        return real(fd, into, offset)

    monkeypatch.setattr(system, "read_into", read_into)
