"""What a depot changes beside others, and what it need not read again: blobs that it has just hashed."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from depots import FIXTURES, MIB, ask, digest_of, make, push_blob, put, threads
from test_depot_registry import manifest_for, put_manifest

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.errors import NotFound
from modelpack.hands.disk import Folder
from modelpack.stores import models_dir
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MODEL
from modelpack.words.name import Name
from modelpack.words.reader import Reader

GGUF = (FIXTURES / "tiny-llama.gguf").read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def depot(path: Path) -> Depot:
    return Depot(path, writable=True)


@pytest.fixture
def url(depot: Depot) -> Iterator[str]:
    with running(depot) as url:
        yield url


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of blobs that a models directory reads to see whether they are right."""
    sizes: list[int] = []
    pour = models_dir.pour

    def counting(reader: Reader, size: int, *write: Any, **options: Any) -> object:
        if not write:  # the rest is hashed as it is written
            sizes.append(size)
        return pour(reader, size, *write, **options)

    monkeypatch.setattr(models_dir, "pour", counting)
    return sizes


def file_of(path: Path, data: bytes) -> Path:
    return path / "blobs" / digest_of(data).replace(":", "-")


# --- a load beside it


def test_no_blob_is_removed_that_a_load_is_just_naming(
    url: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load, as by another process, comes while a create removes what nobody named when it looked."""
    assert make(url, "old", system="S").status == 200
    old = ModelsDir(shutil.copytree(path, tmp_path / "copy"))
    digest = put(url, GGUF[:-1] + b"x")
    assert ask(url, "POST", "/api/create", {"model": "other", "files": {"o.gguf": digest}}).status == 200
    removing, named = threading.Event(), threading.Event()
    remove = Folder.remove

    def slow(folder: Folder, name: str) -> None:
        if folder.path.name == "blobs" and not removing.is_set():
            removing.set()
            named.wait(1)  # in vain where the load has to wait for us
        remove(folder, name)

    monkeypatch.setattr(Folder, "remove", slow)

    def replace_old(_number: int) -> None:
        ask(url, "POST", "/api/create", {"model": "old", "from": "other", "system": "X"})

    with threads(1, replace_old):
        assert removing.wait(10)
        (model,) = old.models()
        with contextlib.suppress(NotFound):  # "vanished meanwhile" is an honest answer
            copy(old, [replace(model, name=Name.parse("loaded"))], ModelsDir(path))
        named.set()
    store = ModelsDir(path)
    assert len(store.models()) >= 2
    assert store.look(store.models()) == ([], [])


def test_a_delete_takes_its_lock_and_lets_go_of_it(url: str, path: Path) -> None:
    for name in ("a", "b"):
        make(url, name, system=name)
    for name in ("a", "b"):
        assert ask(url, "DELETE", "/api/delete", {"model": name}).status == 200
    assert not list((path / "blobs").iterdir())


# --- what was hashed as it came


@pytest.mark.parametrize("way", ["parts", "one POST"])
def test_what_was_uploaded_is_not_read_again(url: str, hashed: list[int], way: str) -> None:
    upload = push_blob if way == "parts" else lambda url, _repository, data: put(url, data)
    for data in (GGUF, b"{}"):
        upload(url, "t/m", data)
    assert put_manifest(url, "t/m", "v1", manifest_for((MODEL, GGUF))).status == 201
    assert hashed == []


def test_a_create_does_not_read_it_again_either(url: str, hashed: list[int]) -> None:
    assert make(url, "m", system="S").status == 200
    assert hashed == []


def test_what_was_changed_since_is_read_and_refused(url: str, path: Path) -> None:
    for data in (GGUF, b"{}"):
        push_blob(url, "t/m", data)
    file = file_of(path, GGUF)
    before = file.stat()
    with file.open("r+b") as changed:
        changed.seek(-1, os.SEEK_END)
        changed.write(b"x")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert put_manifest(url, "t/m", "v1", manifest_for((MODEL, GGUF))).status == 400


def test_what_nobody_vouches_for_is_read_once(url: str, path: Path, hashed: list[int]) -> None:
    put(url, b"{}")
    file_of(path, GGUF).write_bytes(GGUF)  # as from a depot that was ended
    assert put_manifest(url, "t/m", "v1", manifest_for((MODEL, GGUF))).status == 201
    assert hashed == [len(GGUF)]


def test_others_need_not_wait_while_it_is_read(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(url, b"{}")
    file_of(path, GGUF).write_bytes(GGUF)
    reading, go_on = threading.Event(), threading.Event()
    pour = models_dir.pour

    def slow(reader: Reader, size: int) -> object:
        reading.set()
        assert go_on.wait(10)
        return pour(reader, size)

    monkeypatch.setattr(models_dir, "pour", slow)
    answers: list[int] = []

    def push(_number: int) -> None:
        answers.append(put_manifest(url, "t/m", "v1", manifest_for((MODEL, GGUF))).status)

    with threads(1, push):
        assert reading.wait(10)
        try:
            with threads(1, lambda _number: answers.append(len(put(url, b"meanwhile")))):
                pass
            assert answers == [len(digest_of(b""))]
        finally:
            go_on.set()
    assert answers[1:] == [201]


# --- memory


def test_chat_templates_are_not_kept(url: str, depot: Depot) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = {"general.architecture": "llama", "tokenizer.chat_template": "tools " + "t" * MIB}
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    data += b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in pairs.items())
    digest = put(url, data + b"\0" * 64)
    assert ask(url, "POST", "/api/create", {"model": "m", "files": {"m.gguf": digest}}).status == 200
    assert len(ask(url, "GET", "/api/tags").json["models"]) == 1
    shown = ask(url, "POST", "/api/show", {"model": "m"}).json
    assert shown["template"].startswith("tools t")
    kept = [facts.chat_template for facts in depot._models._facts.values()]
    assert kept == [""]
