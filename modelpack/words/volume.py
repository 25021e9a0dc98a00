"""A volume: one of the files that a bundle's tar was cut into, and what its bytes come to."""

from __future__ import annotations

from dataclasses import dataclass

from modelpack.words.blob import MIB
from modelpack.words.digest import Digest

BLOCK_SIZE = 16 * MIB
"""Bytes of a block: hashed alone, so that damage has a place. A volume is whole blocks, save the last."""
MOST_VOLUMES = 999
"""The most volumes in a set: names end in three digits, and a shell sorts them (`cat STEM.tar.*`)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume number `n` (from 1): `size` bytes from `offset` of the tar on, in a file called `name`.

    `blocks` are the BLAKE3s (32 bytes each) of its blocks, in order; the last block may be short.
    """

    n: int
    name: str
    offset: int
    size: int
    sha256: Digest
    blocks: tuple[bytes, ...]


def volume_name(stem: str, n: int) -> str:
    """`STEM.tar.001`: what `cat STEM.tar.*` joins in order, and 7-Zip, too."""
    return f"{stem}.tar.{n:03}"
