"""`restore.py`: the script that restores a bundle where there is no modelpack, the same in every bundle."""

from __future__ import annotations

from importlib import resources

from modelpack.words.digest import Digest


def script() -> bytes:
    """The bytes of the restore.py of this version."""
    return resources.files("modelpack").joinpath("receiver", "restore.py").read_bytes()


def script_digest() -> Digest:
    """Its SHA-256: what a host compares that keeps its own."""
    return Digest.of(script())
