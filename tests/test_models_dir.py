"""A models directory: planted links, odd names, owners and modes, and what Ollama expects of it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import stat
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import (
    SHARED,
    TINY,
    MemoryStore,
    bits,
    dying,
    everything,
    files_of,
    forked,
    needs_root,
    needs_shared,
    noise,
    tree,
    waited,
)

from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Taken, Unsupported
from modelpack.hands.scratch import SCRATCH
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.verbs.inspect import inspect
from modelpack.verbs.transfer import copy
from modelpack.words.blob import LICENSE, MIB, MODEL
from modelpack.words.digest import Digest
from modelpack.words.name import Name

assert ctypes, fcntl  # imported late by modelpack: a child that gave up its rights could not
assert resource


def load(store: MemoryStore, path: Path, *, replace: bool = False) -> list[str]:
    """Copy; the notes of the receipts."""
    return [one.note for one in copy(store, store.models(), ModelsDir(path, replace=replace))]


def manifest(path: Path, model: str = "tiny") -> Path:
    return path / "manifests" / "registry.ollama.ai" / "library" / model / "latest"


def test_the_files_are_where_ollama_looks(shelf: MemoryStore, tmp_path: Path) -> None:
    load(shelf, tmp_path / "models")
    want = {f"blobs/{Digest.of(raw).file_name}": raw for raw in shelf.bytes.values()}
    for model in shelf.models():
        want["/".join(("manifests", *model.name.parts))] = model.document.raw
    assert files_of(tmp_path / "models") == want
    assert set(os.listdir(tmp_path / "models")) == {"blobs", "manifests"}


def test_a_blob_that_no_model_here_names_is_not_believed(tiny: MemoryStore, tmp_path: Path) -> None:
    wrong = tmp_path / "models" / "blobs" / Digest.of(TINY[0][1]).file_name
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(bytes(len(TINY[0][1])))
    load(tiny, tmp_path / "models")
    assert bits(ModelsDir(tmp_path / "models")) == bits(tiny)


# --- links that somebody planted

PLANTED = [
    "blobs",
    "manifests",
    SCRATCH,
    "manifests/registry.ollama.ai",
    "manifests/registry.ollama.ai/library",
    "manifests/registry.ollama.ai/library/tiny",
    "manifests/registry.ollama.ai/library/tiny/latest",
    f"blobs/{Digest.of(TINY[0][1]).file_name}",
    f"blobs/{Digest.of(TINY[0][1])}",
]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_planted_links(
    planted: str, dangling: bool, replace: bool, tiny: MemoryStore, tmp_path: Path
) -> None:
    """Root writes nothing through them, and reads nothing through them either."""
    outside = tmp_path / "outside"
    load(tiny, outside / "whole")
    before = tree(outside)
    models = tmp_path / "models"
    path = models / planted
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "nowhere" if dangling else outside / "whole" / planted)
    with pytest.raises(Refused):
        load(tiny, models, replace=replace)
    assert tree(outside) == before
    assert not (tmp_path / "nowhere").exists()
    assert not manifest(models).exists() or planted.startswith("manifests")
    if planted != SCRATCH:
        loaded = MemoryStore()
        with contextlib.suppress(Refused):  # of the whole directory, or of its models
            for model in ModelsDir(models).models():
                with pytest.raises((Refused, NotFound)):
                    copy(ModelsDir(models), [model], loaded)
        assert loaded.kept == {}
    assert not [name for name in tree(models) if name.startswith(SCRATCH + "/")]


def test_a_link_that_the_user_named_is_followed(tiny: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "models").symlink_to("real")
    load(tiny, tmp_path / "models")
    assert bits(ModelsDir(tmp_path / "models")) == bits(ModelsDir(tmp_path / "real")) == bits(tiny)


def test_a_link_swapped_in_while_writing(tiny: MemoryStore, tmp_path: Path) -> None:
    """Everything goes relative to directories that were opened before."""
    models, outside = tmp_path / "models", tmp_path / "outside"
    outside.mkdir()
    model = tiny.models()[0]
    target = ModelsDir(models)
    with target.session([model]) as session:
        os.rename(models / "blobs", tmp_path / "moved")
        (models / "blobs").symlink_to(outside)
        for blob in model.blobs:
            with tiny.open(blob) as reader:
                session.put(blob, reader)
    assert os.listdir(outside) == []
    assert len(os.listdir(tmp_path / "moved")) == 4


ODD: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": lambda path: path.mkdir(),
    "empty directory tree": lambda path: (path / "sub").mkdir(parents=True),
}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("planted", PLANTED[-3:])
def test_odd_files(how: str, planted: str, tiny: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "models" / planted
    path.parent.mkdir(parents=True)
    ODD[how](path)
    began = time.monotonic()
    with pytest.raises(Refused):
        load(tiny, tmp_path / "models")
    with pytest.raises((Refused, Local)):
        load(tiny, tmp_path / "models", replace=True)
    assert ModelsDir(tmp_path / "models").models() == []
    assert time.monotonic() - began < 1


# --- names and manifests


def test_odd_names_do_not_hide_the_others(shelf: MemoryStore, tmp_path: Path) -> None:
    load(shelf, tmp_path)
    manifests = tmp_path / "manifests"
    library = manifests / "registry.ollama.ai" / "library"
    odd = [
        manifests / ".DS_Store",
        manifests / "._registry.ollama.ai",
        library / ".DS_Store",
        library / "full" / "._latest",
        library / "full" / ".DS_Store",
        library / "full" / "a\u202eb",
        library / "full" / os.fsdecode(b"\xff\xfe"),
        library / "full" / ("x" * 81),
        manifests / "registry.ollama.ai" / "loose",
    ]
    for path in odd:
        path.write_bytes(b"\x00\x05\x16\x07")
    (library / "broken").mkdir()
    broken = {
        "cut": b'{"schemaVersion":2',
        "empty": b"",
        "list": b"[]",
        "v1": b'{"schemaVersion":1}',
        "html": b"<html>",
    }
    for tag, raw in broken.items():
        (library / "broken" / tag).write_bytes(raw)
    (library / "broken" / "deep").mkdir()
    (library / "empty").mkdir()
    assert bits(ModelsDir(tmp_path)) == bits(shelf)
    wrong = [one for one in ModelsDir(tmp_path).scan() if isinstance(one, ModelpackError)]
    assert len(wrong) == len(odd) + len(broken) + 1
    assert all(error.where and error.what for error in wrong)
    more = MemoryStore()
    more.image("more", *TINY)
    load(more, tmp_path)
    assert bits(ModelsDir(tmp_path)) == bits(shelf) | bits(more)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 300, b'{"schemaVersion":2', b'{"schemaVersion":1}', b"[" * 5000]
)
def test_a_broken_manifest_can_be_replaced(raw: bytes, tiny: MemoryStore, tmp_path: Path) -> None:
    """A crash leaves an empty one, or one of zeros: not for ever."""
    load(tiny, tmp_path)
    manifest(tmp_path).write_bytes(raw)
    with pytest.raises(Taken):
        load(tiny, tmp_path)
    assert manifest(tmp_path).read_bytes() == raw
    load(tiny, tmp_path, replace=True)
    assert bits(ModelsDir(tmp_path)) == bits(tiny)


def test_a_manifest_of_5_gb(tiny: MemoryStore, tmp_path: Path) -> None:
    load(tiny, tmp_path)
    os.truncate(manifest(tmp_path), 5 * 10**9)
    tracemalloc.start()
    for replace in (False, True):
        with pytest.raises(Corrupt):
            load(tiny, tmp_path, replace=replace)
    assert isinstance(next(iter(ModelsDir(tmp_path).scan())), Corrupt)
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


def test_blobs_with_a_colon(shelf: MemoryStore, tmp_path: Path) -> None:
    """As very old Ollamas wrote them."""
    load(shelf, tmp_path)
    for name in os.listdir(tmp_path / "blobs"):
        os.rename(tmp_path / "blobs" / name, tmp_path / "blobs" / name.replace("-", ":"))
    assert bits(ModelsDir(tmp_path)) == bits(shelf)
    before = tree(tmp_path)
    shelf.opened.clear()
    load(shelf, tmp_path)
    assert (shelf.opened, tree(tmp_path)) == ([], before)
    more = MemoryStore()
    more.image("more", *TINY, (LICENSE, b"another"))
    load(more, tmp_path)
    assert bits(ModelsDir(tmp_path)) == bits(shelf) | bits(more)


def test_names_in_another_case(tiny: MemoryStore, tmp_path: Path) -> None:
    load(tiny, tmp_path)
    os.rename(manifest(tmp_path).parent, manifest(tmp_path, "TiNy").parent)
    store = ModelsDir(tmp_path)
    assert store.read(Name.parse("tiny")) is not None
    assert str(store.read(Name.parse("TINY:LATEST"))[0]) == "TiNy:latest"
    assert store.read(Name.parse("other")) is None
    assert store.read(Name.parse("tiny:other")) is None
    tiny.opened.clear()
    load(tiny, tmp_path)
    assert tiny.opened == []
    assert not manifest(tmp_path).exists()


def test_a_recipe_or_a_blob_without_digest(tmp_path: Path) -> None:
    store = MemoryStore()
    store.recipe("r", a=b"a")
    with pytest.raises(Unsupported, match="recipe"):
        load(store, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_blobs_are_fresh(tiny: MemoryStore, tmp_path: Path) -> None:
    """Ollama prunes what no manifest names once it is an hour old: not while a load finishes."""
    load(tiny, tmp_path)
    for blob in (tmp_path / "blobs").iterdir():
        os.utime(blob, (1, 1))
    more = MemoryStore()
    more.image("more", *TINY, (LICENSE, b"new"))
    began = time.time()
    load(more, tmp_path)
    wanted = {one.digest.file_name for one in more.models()[0].blobs if one.digest}
    assert len(wanted) == 5
    old = {blob.name for blob in (tmp_path / "blobs").iterdir() if blob.stat().st_mtime < began - 1}
    assert not old & wanted


@needs_shared
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_recorded_directories_are_only_read(version: str) -> None:
    assert SHARED is not None
    path = SHARED / "recorded" / f"models-{version}"
    before = tree(path)
    assert bits(ModelsDir(path))
    assert tree(path) == before


# --- a source that others write to


def seen(path: Path, *names: str) -> tuple[list[str], list[str], str]:
    """What `inspect` says: the models, what is wrong (with the file's name), and the remarks."""
    found = inspect(ModelsDir(path), names)
    wrong = [f"{type(one).__name__} {Path(one.where).name}: {one.what}" for one in found.problems]
    return [str(one.name) for one in found.models], wrong, " ".join(found.remarks)


def test_stray_files_are_a_remark_and_no_damage(tiny: MemoryStore, tmp_path: Path) -> None:
    load(tiny, tmp_path)
    manifests = tmp_path / "manifests"
    for path in (manifests / ".DS_Store", manifest(tmp_path).with_name("._latest")):
        path.write_bytes(b"\0\5\x16\7")
    os.mkfifo(manifest(tmp_path).with_name(".latest.swp"))  # not even opened
    models, wrong, remarks = seen(tmp_path)
    assert (models, wrong) == (["tiny:latest"], [])
    assert "3 files in manifests/ that are no manifests" in remarks
    assert "._latest" in remarks
    assert "keeps Ollama from removing unused blobs" in remarks
    strays = [one for one in ModelsDir(tmp_path).scan() if isinstance(one, Stray)]
    assert [bool(one.advice) for one in strays] == [False, True, True]  # only there Ollama looks
    assert bits(ModelsDir(tmp_path)) == bits(tiny)


def test_unfinished_and_forgotten_blobs_are_remarks(tiny: MemoryStore, tmp_path: Path) -> None:
    load(tiny, tmp_path)
    blobs = tmp_path / "blobs"
    for name in ("-partial", "-partial-0", "-partial-1", ""):
        (blobs / f"sha256-{'a' * 64}{name}").write_bytes(b"x")
    models, wrong, remarks = seen(tmp_path)
    assert (models, wrong) == (["tiny:latest"], [])
    assert "3 files in blobs/ of pulls that did not end" in remarks
    assert "1 file in blobs/ that no model here names" in remarks
    assert seen(tmp_path, "tiny")[2] == ""
    manifest(tmp_path, "other").parent.mkdir()
    manifest(tmp_path, "other").write_bytes(b"{")
    assert "names (a manifest that cannot be read may)" in seen(tmp_path)[2]
    shutil.rmtree(manifest(tmp_path, "other").parent)
    for blob in sorted(blobs.iterdir()):  # as very old Ollamas wrote them
        os.rename(blob, blob.with_name(blob.name.replace("-", ":", 1)))
    models, wrong, again = seen(tmp_path)
    assert (models, wrong, again) == (["tiny:latest"], [], remarks.replace("sha256-", "sha256:"))


BLOBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "NotFound blobs: the template blob sha256:{} is missing"),
    "cut": (lambda path: os.truncate(path, 3), "Corrupt sha256-{}: has 3 bytes, not 13"),
    "link": (
        lambda path: (path.rename(path.with_name("real")), path.symlink_to("real")),
        "Refused sha256-{}: is a symbolic link, not a plain file",
    ),
    "FIFO": (
        lambda path: (path.unlink(), os.mkfifo(path)),
        "Refused sha256-{}: is a FIFO, not a plain file",
    ),
}


@pytest.mark.parametrize("how", BLOBS)
def test_a_wrong_blob_is_said_with_its_models(how: str, shelf: MemoryStore, tmp_path: Path) -> None:
    load(shelf, tmp_path)
    damage, says = BLOBS[how]
    digest = Digest.of(TINY[1][1])
    damage(tmp_path / "blobs" / digest.file_name)
    models, wrong, _ = seen(tmp_path)
    assert len(models) == 5
    assert wrong == [says.format(digest.hex) + " (used by Someone/Tiny:v1.5-q4_K, twin:latest)"]
    assert seen(tmp_path, "full")[1:] == ([], "")
    (blob,) = [one for one in ModelsDir(tmp_path).models()[-1].blobs if one.digest == digest]
    with pytest.raises((NotFound, Corrupt, Refused)):
        ModelsDir(tmp_path).open(blob)
    intact = MemoryStore()
    copy(ModelsDir(tmp_path), inspect(ModelsDir(tmp_path), ["full", "copy"]).models, intact)
    assert len(intact.kept) == 2


def test_odd_manifests_do_not_disturb_the_others(shelf: MemoryStore, tmp_path: Path) -> None:
    load(shelf, tmp_path)
    twin = manifest(tmp_path, "twin")
    os.truncate(manifest(tmp_path, "copy"), 5 * 10**9)  # sparse: not read
    (twin.with_name("link")).symlink_to("latest")
    os.mkfifo(twin.with_name("fifo"))
    (twin.with_name("folder")).mkdir()
    (twin.parent.with_name("linked")).symlink_to("twin")
    began = time.monotonic()
    tracemalloc.start()
    models, wrong, _ = seen(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()
    assert time.monotonic() - began < 2
    assert len(models) == 4
    assert wrong == [
        "Corrupt latest: is larger than 4.19 MB; no real one is",
        "Refused linked: is a symbolic link, not a directory",
        "Refused fifo: is a FIFO, not a plain file",
        "Refused folder: is a directory, not a plain file",
        "Refused link: a symbolic link stands where a real file or directory belongs",
    ]
    assert seen(tmp_path, "twin") == (["twin:latest"], [], "")
    with pytest.raises(Corrupt, match="larger"):
        seen(tmp_path, "copy")


def test_a_blob_of_two_sizes(tiny: MemoryStore, tmp_path: Path) -> None:
    """Nobody could say which of them to check."""
    load(tiny, tmp_path)
    said = json.loads(manifest(tmp_path).read_bytes())
    said["layers"].append(said["layers"][0] | {"size": 5})
    manifest(tmp_path).write_text(json.dumps(said))
    _, wrong, _ = seen(tmp_path)
    assert wrong == [f"Corrupt latest: names {said['layers'][0]['digest']} with two sizes"]


def test_names_that_differ_in_case_are_kept_apart(tmp_path: Path) -> None:
    for name, text in (("Tiny:latest", b"upper"), ("tiny:latest", b"lower"), ("tiny:LATEST", b"tag")):
        store = MemoryStore()
        model = store.image(name, TINY[0], (LICENSE, text))
        load(store, tmp_path / name)
        path = tmp_path / "models" / "manifests" / Path(*model.name.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.document.raw)
        shutil.copytree(tmp_path / name / "blobs", tmp_path / "models" / "blobs", dirs_exist_ok=True)
    store = ModelsDir(tmp_path / "models")
    assert [str(one.name) for one in store.models()] == ["Tiny:latest", "tiny:LATEST", "tiny:latest"]
    for one in store.models():
        assert store.read(one.name) == (one.name, one.document)
        assert seen(tmp_path / "models", str(one.name))[0] == [str(one.name)]
    assert len({one.document.id for one in store.models()}) == 3


@needs_root
@pytest.mark.parametrize("closed", ["manifests/registry.ollama.ai/library/twin", "blobs"])
def test_directories_that_cannot_be_read(closed: str, shelf: MemoryStore, open_place: Path) -> None:
    load(shelf, open_place)
    (open_place / closed).chmod(0)

    def work() -> None:
        os.setgid(777)
        os.setuid(777)
        models, wrong, _ = seen(open_place)
        assert (len(models), len(wrong)) == ((5, 1) if closed == "blobs" else (4, 1))
        assert wrong[0].startswith(f"Local {Path(closed).name}: permission denied")

    assert waited(forked(work)) == 0


def test_a_model_that_is_deleted_while_it_is_read(tiny: MemoryStore, tmp_path: Path) -> None:
    """What is open is read to its end; what is not says that it is gone."""
    load(tiny, tmp_path)
    store = ModelsDir(tmp_path)
    (model,) = store.models()
    weights, *rest = model.blobs
    with store.open(weights) as reader:
        start = bytearray(100)
        assert reader.readinto(memoryview(start)) == 100
        shutil.rmtree(tmp_path / "manifests")
        shutil.rmtree(tmp_path / "blobs")
        assert bytes(start) + everything(reader) == TINY[0][1]
    for blob in (weights, *rest):
        with pytest.raises(NotFound):
            store.open(blob)
    with pytest.raises(NotFound):
        copy(store, [model], MemoryStore())
    assert seen(tmp_path) == ([], [], "")


def test_manifests_that_vanish_while_they_are_listed(shelf: MemoryStore, tmp_path: Path) -> None:
    load(shelf, tmp_path)
    found = ModelsDir(tmp_path).scan()
    first = next(found)
    assert isinstance(first, Model)
    assert str(first.name) == "example.com:5000/ns/far:x"
    assert str(next(found).name) == "Someone/Tiny:v1.5-q4_K"
    assert str(next(found).name) == "copy:latest"
    shutil.rmtree(manifest(tmp_path, "full").parent)
    manifest(tmp_path, "twin").with_name("other").write_bytes(b"{}")
    assert str(next(found).name) == "twin:latest"
    manifest(tmp_path, "twin").with_name("other").unlink()
    assert list(found) == []


# --- owners and modes


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o750, 0o2775])
@pytest.mark.parametrize("made", [[], ["blobs", "manifests"]])
def test_owner_and_mode_follow_the_directory(
    mode: int, made: list[str], tiny: MemoryStore, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for path in (models, *(models / name for name in made)):
        path.mkdir()
        os.chown(path, 12345, 23456)
        path.chmod(mode)
    before = os.umask(0o077)
    try:
        notes = load(tiny, models)
    finally:
        os.umask(before)
    assert notes == [""]
    paths = [models, *models.rglob("*")]
    assert len(paths) == 11
    for path in paths:
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456), path
        assert stat.S_IMODE(found.st_mode) == (mode if path.is_dir() else mode & 0o666), path


@needs_root
@pytest.mark.parametrize(
    ("mode", "group", "says"),
    [
        (0o777, 23456, "the directory's owner (uid 12345) can read them"),
        (0o770, 777, "the directory's owner (uid 12345) can read them"),
        (0o733, 23456, "cannot read them"),
    ],
)
def test_where_the_owner_cannot_be_set(mode: int, group: int, says: str, open_place: Path) -> None:
    models = open_place / "models"
    models.mkdir()
    os.chown(models, 12345, group)
    models.chmod(mode)
    store = MemoryStore()
    store.image("m", *TINY)
    said, tell = os.pipe()

    def work() -> None:
        os.setgroups([])
        os.setgid(777)
        os.setuid(777)
        os.write(tell, "".join(load(store, models)).encode())

    status = waited(forked(work))
    os.close(tell)
    note = os.read(said, 10_000).decode()
    os.close(said)
    if mode == 0o733:  # a directory that may not even be listed cannot be opened
        assert (status, note) == (9, "")
        return
    assert status == 0
    assert says in note
    assert all(path.stat().st_uid == 777 for path in models.rglob("*"))

    def owner() -> None:
        os.setgroups([])
        os.setgid(group)
        os.setuid(12345)
        assert bits(ModelsDir(models)) == bits(store)

    assert waited(forked(owner)) == 0


@needs_root
def test_dying_between_file_and_owner(open_place: Path) -> None:
    """No file ever has its name before it has its owner."""
    store = MemoryStore()
    store.image("m", *TINY)
    for step in range(200):
        models = open_place / f"models-{step}"
        models.mkdir()
        os.chown(models, 12345, 23456)
        status = dying(lambda models=models: load(store, models), step)
        for path in models.rglob("*"):
            if path.is_file() and SCRATCH not in str(path):
                assert path.stat().st_uid == 12345, (step, path)
        if status == 0:
            break
    assert step > 20


def test_a_second_run_with_damage_between(tmp_path: Path) -> None:
    """A blob that vanished or shrank is brought again, though the manifest is there."""
    store = MemoryStore()
    store.image("m", (MODEL, noise(5000)), (LICENSE, b"MIT"))
    load(store, tmp_path)
    want = tree(tmp_path)
    weights = tmp_path / "blobs" / Digest.of(noise(5000)).file_name
    for damage in (weights.unlink, lambda: os.truncate(weights, 10)):
        damage()
        store.opened.clear()
        load(store, tmp_path)
        assert [blob.size for blob in store.opened] == [5000]
        assert tree(tmp_path) == want
