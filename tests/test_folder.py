"""A bundle in a folder: links and other odd files, several packs at once, and death at any moment."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import (
    DIED,
    FULL,
    TINY,
    MemoryStore,
    age,
    bits,
    bundle_bytes,
    dying,
    everything,
    files_of,
    forked,
    needs_root,
    noise,
    sha256sum,
    tree,
    waited,
)

from modelpack.documents.image import Image
from modelpack.documents.oci import blob_path
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Taken
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import check, pour
from modelpack.hands.scratch import FAT32_LARGEST, SCRATCH
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.transfer import copy, plan
from modelpack.words.blob import GIB, LICENSE, MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader, fill

Kind = type[FolderBundle] | type[ModelsDir] | type[Archive]
KINDS: list[Kind] = [FolderBundle, ModelsDir, Archive]
SHARED_KINDS: list[Kind] = [FolderBundle, ModelsDir]


def one(name: str, *layers: tuple[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.image(name, *(layers or TINY))
    return store


def bring(store: MemoryStore, kind: Kind, path: Path, *, replace: bool = False) -> None:
    copy(store, store.models(), kind(path, replace=replace))


def fits(path: Path) -> bool:
    """Whether the sums fit the bundle: SHA256SUMS, or the SHA256SUMS.new of a run that was killed.

    That one may have left README.txt as README.txt.new, too.
    """
    for name in ("SHA256SUMS", "SHA256SUMS.new"):
        for readme in (b"README.txt", b"README.txt.new"):
            lines = (path / name).read_bytes() if (path / name).exists() else b"none"
            lines = lines.replace(b"  README.txt\n", b"  " + readme + b"\n")
            check = ["sha256sum", "--quiet", "--strict", "-c", "-"]
            if subprocess.run(check, cwd=path, input=lines, capture_output=True).returncode == 0:
                return True
    return False


def leftovers(path: Path) -> list[str]:
    """Unfinished files, in *path* and beside it."""
    return [name for name in [*os.listdir(path.parent), *tree(path)] if "modelpack" in name]


# --- what a folder holds


def test_the_folder_is_what_the_tar_unpacks_to(shelf: MemoryStore, tmp_path: Path) -> None:
    bring(shelf, FolderBundle, tmp_path / "b")
    assert files_of(tmp_path / "b") == dict(bundle_bytes(shelf))
    assert sha256sum(tmp_path / "b").returncode == 0
    assert FolderBundle(tmp_path / "b").files() == {k: len(v) for k, v in bundle_bytes(shelf).items()}
    assert FolderBundle(tmp_path / "b").fingerprint == Digest.of(bundle_bytes(shelf)["index.json"])


def test_models_are_added_one_by_one(shelf: MemoryStore, tmp_path: Path) -> None:
    for model in shelf.models():
        copy(shelf, [model], FolderBundle(tmp_path / "b"))
        assert sha256sum(tmp_path / "b").returncode == 0
    assert files_of(tmp_path / "b") == dict(bundle_bytes(shelf))


def test_what_a_replaced_model_had_goes(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("a", (MODEL, b"GGUF old"), (LICENSE, b"MIT"))
    store.image("b", (MODEL, b"GGUF b"), (LICENSE, b"MIT"))
    bring(store, FolderBundle, tmp_path / "b")
    store.image("a", (MODEL, b"GGUF new"))
    bring(store, FolderBundle, tmp_path / "b", replace=True)
    assert files_of(tmp_path / "b") == dict(bundle_bytes(store))


def test_blobs_without_blake3_are_not_given_zeros(tiny: MemoryStore, tmp_path: Path) -> None:
    """Another tool's layout may have no such notes: nobody may take zeros for a hash, then."""
    bring(tiny, FolderBundle, tmp_path / "b")
    index = json.loads((tmp_path / "b" / "index.json").read_text())
    old = tmp_path / "b" / blob_path(Digest.parse(index["manifests"][0]["digest"]))
    manifest = json.loads(old.read_text())
    for layer in manifest["layers"]:
        del layer["annotations"]
    raw = json.dumps(manifest).encode()
    (tmp_path / "b" / blob_path(Digest.of(raw))).write_bytes(raw)
    index["manifests"][0] |= {"digest": str(Digest.of(raw)), "size": len(raw)}
    (tmp_path / "b" / "index.json").write_text(json.dumps(index))
    (tmp_path / "b" / "SHA256SUMS").unlink()
    assert bits(FolderBundle(tmp_path / "b")) == bits(tiny)
    tiny.image("more", *TINY, (LICENSE, b"MIT"))
    bring(tiny, FolderBundle, tmp_path / "b")
    assert bits(FolderBundle(tmp_path / "b")) == bits(tiny)
    for blob in FolderBundle(tmp_path / "b").models()[1].blobs:
        assert blob.blake3 is not None
    bring(FolderBundle(tmp_path / "b"), Archive, tmp_path / "b.tar")
    assert bits(Archive(tmp_path / "b.tar")) == bits(tiny)


def test_without_blobs_its_documents_are_still_listed(tiny: MemoryStore, tmp_path: Path) -> None:
    bring(tiny, FolderBundle, tmp_path / "b")
    os.rename(tmp_path / "b" / "blobs", tmp_path / "gone")
    assert set(FolderBundle(tmp_path / "b").files()) == {
        "oci-layout",
        "index.json",
        "SHA256SUMS",
        "README.txt",
    }


def test_a_file_where_the_folder_should_be(tiny: MemoryStore, tmp_path: Path) -> None:
    for kind in SHARED_KINDS:
        (tmp_path / "file").write_text("mine")
        (tmp_path / "dangling").unlink(missing_ok=True)
        (tmp_path / "dangling").symlink_to("nowhere")
        with pytest.raises(Refused):
            bring(tiny, kind, tmp_path / "file")
        with pytest.raises(ModelpackError):
            bring(tiny, kind, tmp_path / "dangling")
        with pytest.raises((Refused, Local)):
            bring(tiny, kind, tmp_path / "file" / "below")
        assert (tmp_path / "file").read_text() == "mine"


# --- files that are something else

ODD: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("/etc/hostname"),
    "link to one of the right size": lambda path: path.symlink_to(path.parent / "saved"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "FIFO": os.mkfifo,
    "directory": lambda path: path.mkdir(),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "device": lambda path: os.mknod(path, 0o20666, os.makedev(1, 5)),
}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("which", ["weights", "manifest", "index.json", "SHA256SUMS"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_odd_files_in_a_bundle(
    how: str, which: str, tiny: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "device" and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    bring(tiny, FolderBundle, tmp_path / "b")
    index = json.loads((tmp_path / "b" / "index.json").read_text())
    place = {
        "weights": blob_path(tiny.models()[0].blobs[0].digest),
        "manifest": blob_path(Digest.parse(index["manifests"][0]["digest"])),
    }.get(which, which)
    path = tmp_path / "b" / place
    os.rename(path, path.parent / "saved")
    monkeypatch.chdir(path.parent)
    ODD[how](path)
    began = time.monotonic()
    store = MemoryStore()
    with pytest.raises((Refused, Local)):
        copy(FolderBundle(tmp_path / "b"), FolderBundle(tmp_path / "b").models(), store)
    assert store.kept == {}
    tiny.image("more", *TINY, (LICENSE, b"MIT"))
    with pytest.raises((Refused, Local)):
        bring(tiny, FolderBundle, tmp_path / "b")
    assert time.monotonic() - began < 2
    assert not [name for name in tree(tmp_path / "b") if SCRATCH in name]


@pytest.mark.parametrize(
    "planted", ["blobs", "blobs/sha256", SCRATCH, "SHA256SUMS.new", "oci-layout", "README.txt"]
)
def test_planted_links_are_not_written_through(planted: str, tiny: MemoryStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sha256").mkdir(parents=True)
    (outside / "file").write_text("mine")
    before = tree(outside)
    path = tmp_path / "b" / planted
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / "file" if "." in planted[1:] or planted == "oci-layout" else outside)
    with suppress(Refused):
        bring(tiny, FolderBundle, tmp_path / "b")
    assert tree(outside) == before
    if planted in ("blobs", "blobs/sha256", SCRATCH):
        assert not (tmp_path / "b" / "index.json").exists()


class Joined:
    def __init__(self, *readers: Reader) -> None:
        self._readers = list(readers)

    def readinto(self, into: memoryview, /) -> int:
        while self._readers:
            if count := self._readers[0].readinto(into):
                return count
            self._readers.pop(0)
        return 0


def test_changes_between_two_reads(tmp_path: Path) -> None:
    store = one("m", FULL[0])
    data = FULL[0][1]
    bring(store, FolderBundle, tmp_path / "b")
    blob = store.models()[0].blobs[0]
    path = tmp_path / "b" / blob_path(blob.digest)
    other = noise(len(data), "other")
    changes: list[Callable[[], object]] = [
        lambda: path.write_bytes(other),
        lambda: path.write_bytes(other + b"more"),
        lambda: os.truncate(path, 100_000),
        lambda: path.write_bytes(b""),
    ]
    for change in changes:
        with FolderBundle(tmp_path / "b").open(blob) as reader:
            fill(reader, piece := memoryview(bytearray(1000)))
            assert piece == data[:1000]
            change()
            with pytest.raises(Corrupt):
                check(blob, pour(Joined(BytesReader(data[:1000]), reader), blob.size))
        path.write_bytes(data)
    with FolderBundle(tmp_path / "b").open(blob) as reader:  # as another load does, which shares the blob
        reader.readinto(memoryview(bytearray(1000)))
        os.utime(path)
        assert everything(reader) == data[1000:]
    loose = tmp_path / "loose.gguf"
    for late in (lambda: loose.write_bytes(data), lambda: os.truncate(loose, len(data) + 1)):
        loose.write_bytes(data)
        os.utime(loose, (1, 1))
        with FileReader.at(loose) as reader:
            reader.readinto(memoryview(bytearray(1000)))
            late()
            with pytest.raises(Corrupt, match="changed while it was read"):
                everything(reader)
    for size in (0, 5, len(data) - 1, len(data) + 1):
        path.write_bytes((data + b"more")[:size])
        with pytest.raises(Corrupt):
            copy(FolderBundle(tmp_path / "b"), FolderBundle(tmp_path / "b").models(), MemoryStore())
    path.write_bytes(noise(len(data), "other"))
    for target in (MemoryStore(), ModelsDir(tmp_path / "models"), Archive(tmp_path / "b.tar")):
        with pytest.raises(Corrupt):
            copy(FolderBundle(tmp_path / "b"), FolderBundle(tmp_path / "b").models(), target)
    assert not (tmp_path / "b.tar").exists()
    assert files_of(tmp_path / "models").keys() <= {f"blobs/{store.models()[0].blobs[1].digest.file_name}"}


def test_a_blob_of_the_wrong_size_is_written_again(tiny: MemoryStore, tmp_path: Path) -> None:
    for kind in SHARED_KINDS:
        bring(tiny, kind, tmp_path / kind.__name__)
        want = tree(tmp_path / kind.__name__)
        path = next(
            one
            for one in (tmp_path / kind.__name__ / "blobs").rglob("*")
            if one.stat().st_size == len(TINY[0][1])
        )
        os.truncate(path, 7)
        assert len(plan(tiny, tiny.models(), kind(tmp_path / kind.__name__)).missing) == 1
        bring(tiny, kind, tmp_path / kind.__name__)
        assert tree(tmp_path / kind.__name__) == want


# --- several at once


@pytest.mark.parametrize("kind", SHARED_KINDS)
def test_several_processes_at_once(kind: Kind, quick: Path) -> None:
    """Models that share blobs; the directory does not exist yet; everybody gets there."""
    stores = [one(f"m{place}", FULL[2], FULL[6], (MODEL, noise(50_000, place))) for place in range(4)]
    everything_ = MemoryStore()
    for store in stores:
        everything_.bytes |= store.bytes
        everything_.kept |= store.kept
    for turn in range(12):
        path = quick / f"turn-{turn}"
        ready, go = os.pipe()

        def work(store: MemoryStore, path: Path = path, ready: int = ready) -> None:
            os.read(ready, 1)
            bring(store, kind, path)

        children = [forked(lambda store=store: work(store)) for store in stores]
        os.write(go, b"!!!!")
        assert [waited(child) for child in children] == [0, 0, 0, 0]
        os.close(ready)
        os.close(go)
        assert bits(kind(path)) == bits(everything_)
        assert leftovers(path) == []
        assert kind is ModelsDir or sha256sum(path).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_with_the_same_model(kind: Kind, quick: Path) -> None:
    store = one("m", FULL[2], (MODEL, noise(50_000)))
    for turn in range(8):
        path = quick / f"turn-{turn}"
        children = [forked(lambda path=path: bring(store, kind, path)) for _ in range(3)]
        ended = [waited(child) for child in children]
        assert 0 in ended
        assert set(ended) <= (
            {0, 6} if kind is Archive else {0}
        )  # an archive appears once: the others say so
        assert bits(kind(path)) == bits(store)
        assert leftovers(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_with_one_name(kind: Kind, quick: Path) -> None:
    """One of them gets it, the others are told; nothing is half of each."""
    stores = [one("M" if place else "m", (MODEL, noise(30_000, place))) for place in range(3)]
    for turn in range(8):
        path = quick / f"turn-{turn}"
        children = [forked(lambda store=store, path=path: bring(store, kind, path)) for store in stores]
        ended = [waited(child) for child in children]
        assert sorted(ended) == [0, 6, 6]
        assert list(bits(kind(path)).values()) == list(bits(stores[ended.index(0)]).values())
        assert leftovers(path) == []


def test_reading_while_others_pack(quick: Path) -> None:
    """A reader between two renames sees the old bundle or the new one."""
    path = quick / "b"
    bring(one("first"), FolderBundle, path)

    def pack() -> None:
        for turn in range(40):
            bring(one("again", *TINY, (LICENSE, noise(50, turn))), FolderBundle, path, replace=True)

    child = forked(pack)
    seen = set()
    ended = 0
    while not ended:
        ended = os.waitpid(child, os.WNOHANG)[0]
        models = FolderBundle(path).models()
        seen.add(models[-1].document.id)
        assert str(models[0].name) == "first:latest"
    assert len(seen) > 3


# --- death


def states(kind: Kind, path: Path) -> object:
    """What looks whole there; raises where something does and is not."""
    try:
        return bits(kind(path))
    except NotFound:
        assert kind is not ModelsDir
        assert not (path / "index.json").exists()
        return {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replace", [False, True])
def test_dying_at_every_step(kind: Kind, replace: bool, quick: Path) -> None:
    old = one("m" if replace else "old")
    new = one("m", *TINY[:2], (MODEL, b"GGUF of the new one"))
    begin = quick / "begin"
    if kind is not Archive or replace:
        bring(old, kind, begin)
    before = bits(old) if begin.exists() else {}
    after = bits(new) if replace or kind is Archive else before | bits(new)
    saw_old = saw_new = 0
    for step in range(1000):
        path = quick / f"step-{step}"
        if begin.is_dir():
            subprocess.run(["cp", "-a", begin, path], check=True)
        elif begin.exists():
            path.write_bytes(begin.read_bytes())
        status = dying(lambda path=path: bring(new, kind, path, replace=replace), step)
        assert status in (0, DIED)
        found = states(kind, path)
        assert found in (before, after), step
        saw_old += found == before
        saw_new += found == after
        assert kind is not FolderBundle or not path.exists() or fits(path), step
        if kind is ModelsDir:
            assert all(not isinstance(each, ModelpackError) for each in ModelsDir(path).scan())
        age(quick)
        bring(new, kind, path, replace=replace)
        assert bits(kind(path)) == after
        assert kind is not FolderBundle or sha256sum(path).returncode == 0, step
        if leftovers(path):  # there was nothing to do but to sweep: whoever writes next does it
            assert found == after
            more = one("more")
            more.bytes |= new.bytes
            copy(more, [*new.models(), *more.models()], kind(path, replace=True))
        assert leftovers(path) == [], step
        if status == 0:
            break
    assert saw_old > 5
    assert saw_new >= 1
    assert step > (8 if kind is Archive else 20)


@pytest.mark.parametrize("kind", SHARED_KINDS)
def test_killed_at_random_moments(kind: Kind, quick: Path) -> None:
    old = one("old")
    new = MemoryStore()
    for place in range(3):
        new.image(f"new{place}", FULL[0], (MODEL, noise(1_500_000, place)))
    path = quick / "place"
    bring(old, kind, path)
    began = time.monotonic()
    bring(new, kind, quick / "measured")
    lasts = time.monotonic() - began
    dice = random.Random(5)
    killed = 0
    for _ in range(30):
        child = forked(lambda: bring(new, kind, path))
        time.sleep(dice.random() * lasts * 1.1)
        os.kill(child, signal.SIGKILL)
        killed += waited(child) == -signal.SIGKILL
        found = states(kind, path)
        assert isinstance(found, dict)
        assert found.items() <= (bits(old) | bits(new)).items()
        assert kind is ModelsDir or fits(path)
        age(path)
        if dice.random() < 0.3:
            subprocess.run(["rm", "-r", path], check=True)
            bring(old, kind, path)
    assert killed > 10
    bring(new, kind, path)
    assert bits(kind(path)) == bits(old) | bits(new)
    assert leftovers(path) == []


class Slow(MemoryStore):
    """Brings a little at a time, for ever."""

    def open(self, blob: Blob, offset: int = 0):
        store = self

        class Reader:
            def __enter__(self) -> Reader:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def readinto(self, into: memoryview, /) -> int:
                time.sleep(0.02)
                into[:10] = store.bytes[blob.digest][:10]
                return 10

        return Reader()


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c(kind: Kind, quick: Path) -> None:
    store = Slow()
    store.image("m", FULL[0], (MODEL, noise(1_000_000)), (LICENSE, noise(10_000)))
    path = quick / "place"
    child = forked(lambda: bring(store, kind, path))
    end = time.monotonic() + 5
    while time.monotonic() < end and not any("modelpack-" in str(each) for each in quick.rglob("*")):
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(child, signal.SIGINT)
    began = time.monotonic()
    assert waited(child) == 130
    assert time.monotonic() - began < 2
    assert states(kind, path) == {}
    assert leftovers(path) == []


# --- disks that are full, small, closed


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_too_small(kind: Kind, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = one("m", FULL[0])
    path = small_disk / "place"
    with pytest.raises(Local, match="are needed there and") as caught:
        bring(store, kind, path)
    assert "Free some room" in caught.value.advice
    assert not [name for name in tree(small_disk) if os.path.isfile(small_disk / name)]
    # somebody else fills it meanwhile
    monkeypatch.setattr(Folder, "room", lambda _: None)
    with pytest.raises(Local, match="no space left"):
        bring(store, kind, path)
    assert states(kind, path) == {}
    assert leftovers(path) == []
    bring(one("small"), kind, path)
    with pytest.raises(Local, match="no space left"):
        bring(store, kind, path, replace=True)
    assert bits(kind(path)) == bits(one("small"))
    assert leftovers(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_mounted_read_only(kind: Kind, small_disk: Path) -> None:
    bring(one("there"), kind, small_disk / "there")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("new", "there"):
        with pytest.raises(Local) as caught:
            bring(one("m"), kind, small_disk / name, replace=True)
        assert "read-only" in str(caught.value)
    assert bits(kind(small_disk / "there")) == bits(one("there"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_on_the_size_of_files(kind: Kind, quick: Path) -> None:
    """As of RLIMIT_FSIZE: told before the first byte."""
    store = one("m", FULL[0])

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(Local) as caught:
            bring(store, kind, quick / "place")
        assert "FAT32" in caught.value.advice

    assert waited(forked(work)) == 0
    assert states(kind, quick / "place") == {}
    assert leftovers(quick / "place") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_system_without_large_files(
    kind: Kind, tiny: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT32 is not to be had here: a file system that refuses what it refuses."""
    monkeypatch.setattr(Folder, "room", lambda _: None)
    plain = os.ftruncate

    def truncate(fd: int, size: int) -> None:
        if size > FAT32_LARGEST:
            raise OSError(27, "File too large")
        plain(fd, size)

    monkeypatch.setattr(os, "ftruncate", truncate)
    model = tiny.models()[0]
    blob = Blob(5 * GIB, MODEL, Digest.of(b"huge"), Digest("blake3", "5" * 64))
    tiny.bytes[blob.digest] = b""
    image = Image.compose(model.blobs[-1], [blob])
    tiny.kept = {"m": type(model)(model.name, image)}
    with pytest.raises(Local) as caught:
        bring(tiny, kind, tmp_path / "place")
    assert "FAT32" in caught.value.advice
    assert states(kind, tmp_path / "place") == {}
    assert leftovers(tmp_path / "place") == []


@needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_of_somebody_else(kind: Kind, open_place: Path) -> None:
    def work() -> None:
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        bring(one("m"), kind, open_place / "place")

    assert waited(forked(work)) == 9
    assert os.listdir(open_place) == []


def test_names_go_by_path_where_directories_cannot_be_opened(tmp_path: Path) -> None:
    """As on Windows: the same answers without descriptors of directories."""
    root = Folder(tmp_path, None)
    made = root.folder("made", create=True)
    fd = made.create("file")
    os.write(fd, b"data")
    os.close(fd)
    assert made.read("file", 10) == b"data"
    assert (made.names(), made.file_size("file")) == (["file"], 4)
    made.rename("file", root, "moved")
    (tmp_path / "link").symlink_to(tmp_path / "made")
    for name in ("moved", "link"):
        with pytest.raises(Refused):
            root.folder(name, create=True)
        with pytest.raises(Refused):
            root.folder(name)
    with pytest.raises(NotFound):
        root.folder("nowhere")
    with pytest.raises(Refused):
        root.create("moved")
    for bad in ("", ".", "..", "a/b", "a\0b"):
        with pytest.raises(Refused):
            root.stat(bad)


def test_a_taken_name_is_not_replaced_by_rename(tmp_path: Path) -> None:
    """Where there are hard links, and where there are none (FAT, exFAT)."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    plain = os.link
    with Folder.at(tmp_path) as folder:
        for link in (plain, _no_links):
            os.link = link
            try:
                with pytest.raises(Refused, match="appeared meanwhile"):
                    folder.rename("a", folder, "b", replace=False)
                folder.rename("a", folder, "c", replace=False)
                folder.rename("c", folder, "a", replace=False)
            finally:
                os.link = plain
    assert files_of(tmp_path) == {"a": b"a", "b": b"b"}


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_taken_is_said_before_a_byte_is_read(tiny: MemoryStore, tmp_path: Path) -> None:
    for kind in SHARED_KINDS:
        bring(tiny, kind, tmp_path / kind.__name__)
        other = one("tiny", FULL[0])
        with pytest.raises(Taken):
            bring(other, kind, tmp_path / kind.__name__)
        assert other.opened == []
