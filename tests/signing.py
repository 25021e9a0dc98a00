"""Keys made for a test, who may sign with them, and a small set of volumes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from conftest import MemoryStore

from modelpack.documents.volumes import BLOCK_SIZE, Content, Descriptor, sums_of
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.transfer import copy
from modelpack.words.digest import Digest
from modelpack.words.volume import Volume, volume_name

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def keygen(*args: object) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, args)], check=True, stdin=subprocess.DEVNULL)


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key without a comment; its public half is PATH.pub."""
    keygen("-t", kind, "-N", passphrase, "-C", "", "-f", path)
    return path


def public(key: Path) -> str:
    """The public half of *key*, as it stands in an allowed_signers file."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def signers_file(path: Path, *lines: str) -> Path:
    """An allowed_signers file."""
    path.write_text("# who may sign\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@contextlib.contextmanager
def agent(*keys: Path) -> Iterator[Path]:
    """An ssh-agent that holds *keys*: its socket."""
    socket = keys[0].parent / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if socket.exists():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        environment = os.environ | {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", *map(str, keys)], env=environment, check=True)
        yield socket
    finally:
        process.terminate()
        process.wait()


def tar_of(path: Path, store: MemoryStore) -> Archive:
    copy(store, store.models(), Archive(path))
    return Archive(path)


def folder_of(path: Path, store: MemoryStore) -> FolderBundle:
    copy(store, store.models(), FolderBundle(path))
    return FolderBundle(path)


def set_of(folder: Path, store: MemoryStore, stem: str = "tiny") -> VolumeSet:
    """The bundle of *store* in one volume, put together by hand."""
    folder.mkdir()
    tar = tar_of(folder / "whole.tar", store)
    raw, fingerprint = tar.path.read_bytes(), tar.fingerprint
    tar.path.unlink()
    assert len(raw) < BLOCK_SIZE
    volume = Volume(1, volume_name(stem, 1), 0, len(raw), Digest.of(raw), (blake3(raw).digest(),))
    found = Descriptor(
        stem, fingerprint, len(raw), BLOCK_SIZE, (Content("documents", 0, len(raw)),), (volume,)
    )
    (folder / volume.name).write_bytes(raw)
    (folder / found.name).write_bytes(found.raw())
    (folder / f"{stem}.sha256").write_bytes(sums_of(found, {}))
    return VolumeSet([folder])
