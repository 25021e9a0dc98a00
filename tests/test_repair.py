"""`repair`: what is bad is put back from elsewhere, what stood there is kept, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from conftest import (
    DIED,
    FULL,
    TINY,
    WEIGHTS,
    MemoryStore,
    bits,
    dying,
    files_of,
    forked,
    needs_root,
    needs_tar,
    noise,
    waited,
)
from depots import make, own_depot
from registries import docker_registry
from test_cli import modelpack

from modelpack.documents.model import Model
from modelpack.errors import Corrupt, Local, NotFound, Unreachable, Unsupported
from modelpack.hands.scratch import SCRATCH
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource
from modelpack.verbs.repair import Repaired, Spare, repair
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import LICENSE, MIB, MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader

BIG = FULL[0][1]
KINDS = ("models", "folder", "archive")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes here but us: the second look comes at once."""
    monkeypatch.setattr("modelpack.verbs.fsck._PAUSE", 0)


def store_at(path: Path, kind: str) -> ModelsDir | FolderBundle | Archive:
    return {"models": ModelsDir, "folder": FolderBundle, "archive": Archive}[kind](path)


def made(shelf: MemoryStore, path: Path, kind: str) -> Path:
    copy(shelf, shelf.models(), store_at(path, kind))
    return path


@pytest.fixture
def good(shelf: MemoryStore, quick: Path) -> Path:
    """A bundle with everything on the shelf: where right bytes are."""
    return made(shelf, quick / "good.tar", "archive")


@pytest.fixture
def models(shelf: MemoryStore, quick: Path) -> Path:
    return made(shelf, quick / "models", "models")


@pytest.fixture
def folder(shelf: MemoryStore, quick: Path) -> Path:
    return made(shelf, quick / "bundle", "folder")


@pytest.fixture
def tar(shelf: MemoryStore, quick: Path) -> Path:
    return made(shelf, quick / "b.tar", "archive")


def manifest(path: Path, model: str = "full") -> Path:
    return path / "manifests" / "registry.ollama.ai" / "library" / model / "latest"


def blob(path: Path, data: bytes = BIG) -> Path:
    digest = Digest.of(data)
    inside = path / "blobs" / "sha256"
    return inside / digest.hex if inside.is_dir() else path / "blobs" / digest.file_name


def flip(path: Path, at: int | None = None) -> None:
    """Change one byte, in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 if at is None else at)
        was = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([was[0] ^ 1]))


def mend(store: Source, *sources: Source, names: Sequence[str] = ()) -> Repaired:
    return repair(store, [Spare(f"source {n}", one) for n, one in enumerate(sources)], names)


def set_aside(path: Path) -> list[bytes]:
    """What is kept of damaged files."""
    return sorted(one.read_bytes() for one in (path / SCRATCH).rglob("*") if one.is_file())


def whole(path: Path, kind: str, shelf: MemoryStore) -> bool:
    """Whether everything on the shelf is at *path* again, and nothing is wrong there."""
    store = store_at(path, kind)
    return bits(store) == bits(shelf) and verify(store_at(path, kind)).good


# --- each kind of damage

DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, 100),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["models", "folder"])
def test_a_bad_blob_is_put_back(how: str, kind: str, shelf: MemoryStore, good: Path, quick: Path) -> None:
    path = made(shelf, quick / "x", kind)
    before = files_of(path)
    DAMAGES[how](blob(path))
    bad = blob(path).read_bytes() if blob(path).exists() else None
    assert not verify(store_at(path, kind)).good
    done = mend(store_at(path, kind), Archive(good))
    assert done.good
    (one,) = done.mended
    assert (one.kind, one.name, one.bytes, one.source) == ("blob", str(Digest.of(BIG)), len(BIG), "source 0")
    assert "full:latest" in one.users
    assert whole(path, kind, shelf)
    after = files_of(path)
    assert {name: raw for name, raw in after.items() if not name.startswith(SCRATCH)} == before
    assert set_aside(path) == ([bad] if bad is not None else [])
    assert (one.aside != "") == (bad is not None)
    assert not one.aside or Path(one.aside).read_bytes() == bad
    again = mend(store_at(path, kind), Archive(good))
    assert (again.good, again.mended) == (True, [])
    assert files_of(path) == after


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_store_is_not_touched(kind: str, shelf: MemoryStore, quick: Path) -> None:
    """Nor are the sources asked for anything."""

    class Silent(MemoryStore):
        def models(self) -> Sequence[Model]:
            raise AssertionError

    path = made(shelf, quick / "x", kind)
    before = [(one, one.stat().st_mtime_ns, one.stat().st_ino) for one in sorted(path.rglob("*"))]
    done = mend(store_at(path, kind), Silent())
    assert (done.good, done.mended) == (True, [])
    assert before == [(one, one.stat().st_mtime_ns, one.stat().st_ino) for one in sorted(path.rglob("*"))]


def test_everything_at_once(models: Path, shelf: MemoryStore, good: Path) -> None:
    for one in (models / "blobs").iterdir():
        one.unlink()
    done = mend(ModelsDir(models), Archive(good))
    assert done.good
    assert len(done.mended) == len(list((models / "blobs").iterdir()))
    assert whole(models, "models", shelf)
    assert not (models / SCRATCH).exists()
    shutil.rmtree(models / "blobs")
    assert mend(ModelsDir(models), Archive(good)).good
    assert whole(models, "models", shelf)


@pytest.mark.parametrize("raw", [b"", b"\0" * 300, b'{"schemaVersion":2'])
def test_a_bad_manifest_is_put_back_by_its_name(
    raw: bytes, models: Path, shelf: MemoryStore, good: Path
) -> None:
    """Verbatim, last of all, with what its model misses; the bad one is kept."""
    manifest(models).write_bytes(raw)
    manifest(models, "copy").write_bytes(raw)
    flip(blob(models, FULL[1][1]))  # no manifest that can be read names it
    blob(models, FULL[2][1]).unlink()
    done = mend(ModelsDir(models), Archive(good))
    assert done.good
    assert sorted(one.kind for one in done.mended) == ["blob", "blob", "manifest", "manifest"]
    assert whole(models, "models", shelf)
    assert set_aside(models).count(raw) == 2
    assert {one.name for one in done.mended if one.kind == "manifest"} == {"full:latest", "copy:latest"}


def test_a_manifest_that_nobody_has(models: Path, good: Path, quick: Path) -> None:
    manifest(models, "full").write_bytes(b"{")
    other = MemoryStore()
    other.image("other", *TINY)
    done = mend(ModelsDir(models), other)
    assert [type(one) for one in done.left] == [Corrupt]
    assert "none of the sources has a model of the name full:latest" in done.left[0].advice
    assert manifest(models).read_bytes() == b"{"
    assert not (models / SCRATCH).exists()


@pytest.mark.parametrize("how", ["gone", "flipped"])
def test_a_manifest_whose_blobs_nobody_has_stays_as_it_is(how: str, models: Path, shelf: MemoryStore) -> None:
    """No name comes back before its bytes."""
    for name in ("full", "copy"):
        manifest(models, name).write_bytes(b"{")
    DAMAGES[how](blob(models, FULL[1][1]))
    shelf.bytes[Digest.of(FULL[1][1])] = b"x" * len(FULL[1][1])
    done = mend(ModelsDir(models), shelf)
    assert [Path(one.where).parent.name for one in done.left] == ["copy", "full"]
    assert done.mended == []
    assert manifest(models).read_bytes() == b"{"
    assert blob(models, FULL[1][1]).exists() == (how == "flipped")


def test_a_colon_blob_does_not_come_back(models: Path, shelf: MemoryStore, good: Path) -> None:
    """Ollama would rename the bad one over the good one at its next start."""
    colon = blob(models).with_name(blob(models).name.replace("-", ":"))
    blob(models).rename(colon)
    flip(colon)
    bad = colon.read_bytes()
    assert mend(ModelsDir(models), Archive(good)).good
    assert not colon.exists()
    assert set_aside(models) == [bad]
    assert whole(models, "models", shelf)


def test_links_and_odd_things_are_left_alone(models: Path, good: Path) -> None:
    blob(models).rename(models.parent / "elsewhere")
    blob(models).symlink_to(models.parent / "elsewhere")
    done = mend(ModelsDir(models), Archive(good))
    assert [type(one).__name__ for one in done.left] == ["Unchecked"]
    assert blob(models).is_symlink()
    assert (models.parent / "elsewhere").read_bytes() == BIG


def test_one_model_alone(models: Path, good: Path) -> None:
    flip(blob(models))
    blob(models, WEIGHTS).unlink()
    done = mend(ModelsDir(models), Archive(good), names=["twin"])
    assert [one.name for one in done.mended] == [str(Digest.of(WEIGHTS))]
    assert not verify(ModelsDir(models), ["full"]).good
    manifest(models, "copy").write_bytes(b"{")
    assert mend(ModelsDir(models), Archive(good), names=["copy"]).good
    assert verify(ModelsDir(models)).good


@needs_root
def test_owner_and_mode_are_the_directory_s(shelf: MemoryStore, quick: Path, good: Path) -> None:
    path = quick / "owned"
    path.mkdir(mode=0o750)
    os.chown(path, 54321, 54322)
    copy(shelf, shelf.models(), ModelsDir(path))
    flip(blob(path))
    manifest(path, "twin").write_bytes(b"{")
    assert mend(ModelsDir(path), Archive(good)).good
    for one in path.rglob("*"):
        found = one.stat()
        assert (found.st_uid, found.st_gid) == (54321, 54322), one
        mode = 0o750 if one.is_dir() else 0o640
        assert stat.S_IMODE(found.st_mode) == mode, one


# --- sources


class Lying(MemoryStore):
    """Has everything, and every byte of it is wrong."""

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        self.opened.append(blob)
        return _just(BytesReader(b"\0" * blob.size, offset))


class Breaking(MemoryStore):
    """Breaks after a few bytes, as a pulled drive or a lost connection does."""

    error: Exception = Unreachable("lost")

    @contextmanager
    def open(self, blob: Blob, offset: int = 0) -> Iterator[Reader]:
        self.opened.append(blob)
        yield self

    def readinto(self, into: memoryview, /) -> int:
        raise self.error


@contextmanager
def _just(reader: Reader) -> Iterator[Reader]:
    yield reader


def like(kind: type[MemoryStore], shelf: MemoryStore) -> MemoryStore:
    """A store of *kind* that says it has all of the *shelf*."""
    store = kind()
    store.bytes, store.kept = shelf.bytes, shelf.kept
    return store


@pytest.mark.parametrize("error", [Unreachable("lost"), Local("i/o error"), Corrupt("ends"), NotFound("no")])
@pytest.mark.parametrize("kind", KINDS)
def test_the_next_source_is_asked(
    kind: str, error: Exception, shelf: MemoryStore, good: Path, quick: Path
) -> None:
    path = made(shelf, quick / "x", kind)
    damaged(path, kind)
    breaking = like(Breaking, shelf)
    breaking.error = error
    little = MemoryStore()
    little.image("little", *TINY)
    done = mend(store_at(path, kind), little, like(Lying, shelf), breaking, Archive(good))
    assert done.good
    assert [one.source for one in done.mended if one.kind == "blob"] == ["source 3"]
    assert breaking.opened
    assert whole(path, kind, shelf)


def damaged(path: Path, kind: str) -> None:
    """Damage the large blob there."""
    if kind == "archive":
        flip(path, path.read_bytes().index(BIG) + len(BIG) // 2)
    else:
        flip(blob(path))


@pytest.mark.parametrize("kind", KINDS)
def test_no_source_has_it(kind: str, shelf: MemoryStore, quick: Path) -> None:
    """Nothing changes, and it is said why of each source; the good blobs of a liar are taken nowhere."""
    path = made(shelf, quick / "x", kind)
    damaged(path, kind)
    before = files_of(path) if path.is_dir() else path.read_bytes()
    done = mend(store_at(path, kind), like(Lying, shelf))
    assert not done.good
    assert done.mended == []
    assert "Not repaired: source 0: " in done.left[0].advice
    assert "damaged" in done.left[0].advice
    little = MemoryStore()
    little.image("little", *TINY)
    done = mend(store_at(path, kind), little)
    assert [type(one) for one in done.left] == [Corrupt]
    assert "none of the sources has it" in done.left[0].advice
    assert before == (files_of(path) if path.is_dir() else path.read_bytes())
    assert sorted(one.name for one in quick.iterdir()) == ["x"]


def test_what_can_be_put_back_is(models: Path, shelf: MemoryStore) -> None:
    flip(blob(models))
    flip(blob(models, WEIGHTS))
    little = MemoryStore()
    little.image("little", *TINY)
    done = mend(ModelsDir(models), little)
    assert [one.name for one in done.mended] == [str(Digest.of(WEIGHTS))]
    assert len(done.left) == 1
    assert verify(ModelsDir(models), ["twin"]).good


def test_a_source_that_is_gone_is_asked_once(models: Path, shelf: MemoryStore) -> None:
    for one in (models / "blobs").iterdir():
        one.unlink()
    gone = like(Breaking, shelf)
    done = mend(ModelsDir(models), gone)
    assert len(done.left) > 5
    assert len(gone.opened) <= 3  # as many as were begun at once


def test_another_models_directory_and_a_loose_file(models: Path, shelf: MemoryStore, quick: Path) -> None:
    other = made(shelf, quick / "other", "models")
    flip(blob(models))
    assert mend(ModelsDir(models), ModelsDir(other)).good
    (quick / "tiny.gguf").write_bytes(WEIGHTS)
    flip(blob(models, WEIGHTS))
    assert mend(ModelsDir(models), LooseGguf(quick / "tiny.gguf")).good
    assert whole(models, "models", shelf)


def test_what_cannot_be_a_source_or_repaired(models: Path, good: Path) -> None:
    with pytest.raises(Unsupported, match="comes once"):
        Spare("-", PipeSource(BytesReader(b""), "-"))
    with pytest.raises(Unsupported, match="neither a models directory nor a bundle"):
        mend(MemoryStore(), Archive(good))
    with pytest.raises(NotFound):
        mend(ModelsDir(models / "nothing"), Archive(good))
    with pytest.raises(NotFound):
        mend(ModelsDir(models / "blobs"), Archive(good))


def test_a_registry(models: Path, shelf: MemoryStore) -> None:
    with docker_registry() as registry:
        target = f"oci://{registry.server}/ns"
        cwd = models.parent
        made(shelf, cwd / "good.tar", "archive")
        pushed = modelpack("load", "good.tar", "full", "--to", target, "--plain-http", cwd=cwd)
        assert pushed.returncode == 0, pushed.stderr
        flip(blob(models))
        blob(models, FULL[2][1]).unlink()
        manifest(models).write_bytes(b"")
        done = modelpack("repair", "models", "--from", f"{target}/full", "--plain-http", cwd=cwd)
        assert done.returncode == 0, done.stderr
    assert whole(models, "models", shelf)


@pytest.mark.parametrize("pick", ["", "#a"])
def test_a_server(pick: str, quick: Path) -> None:
    """Another server's models are read back for it; of the one that is damaged itself nothing is believed."""
    with own_depot(quick / "depot") as own:
        make(own.url, "a", system="one")
        make(own.url, "b", template="{{ .Prompt }}")
        shutil.copytree(quick / "depot", quick / "models")
        before = files_of(quick / "models")
        for one in (quick / "models" / "blobs").iterdir():
            flip(one)
        if pick:  # what only b has
            for one in (quick / "models" / "manifests").rglob("b"):
                shutil.rmtree(one)
        done = modelpack("repair", "models", "--from", own.url + pick, cwd=quick)
        assert done.returncode == 0, done.stderr
        assert modelpack("verify", "models", cwd=quick).returncode == 0
        if not pick:
            after = files_of(quick / "models")
            assert {name: raw for name, raw in after.items() if not name.startswith(SCRATCH)} == before
            flip(next((quick / "depot" / "blobs").iterdir()))
            done = modelpack("repair", "depot", "--from", own.url, cwd=quick)
            assert done.returncode == 4, done.stdout
            assert b"damaged" in done.stderr


# --- bundles: their documents


@pytest.mark.parametrize("name", ["README.txt", "oci-layout", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_small_files_of_a_folder(how: str, name: str, folder: Path, shelf: MemoryStore) -> None:
    """They follow from the rest: no source is needed for them."""
    before = files_of(folder)
    DAMAGES[how](folder / name)
    bad = verify(FolderBundle(folder))
    done = mend(FolderBundle(folder))
    assert done.good
    if how == "gone" and name == "SHA256SUMS":  # as a tool leaves it that knows nothing of it: no damage
        assert bad.good
        assert done.mended == []
        return
    assert [(one.kind, one.name) for one in done.mended] == [("document", name)]
    after = files_of(folder)
    assert {one: raw for one, raw in after.items() if not one.startswith(SCRATCH)} == before
    assert whole(folder, "folder", shelf)


def documents(folder: Path) -> list[str]:
    """The manifests and documents of the models, by path."""
    return sorted(FolderBundle(folder).contents.documents)


def test_documents_come_from_another_bundle(folder: Path, good: Path, shelf: MemoryStore) -> None:
    """Every one of them, each damaged alone, and then all together; by digest, not by place."""
    fingerprint = FolderBundle(folder).fingerprint
    names = documents(folder)
    for name in names:
        flip(folder / name)
        assert not verify(FolderBundle(folder)).good
        done = mend(FolderBundle(folder), Archive(good))
        assert (done.good, [one.name for one in done.mended], done.fingerprint) == (True, [name], fingerprint)
    for name in names:
        (folder / name).unlink()
    flip(blob(folder))
    done = mend(FolderBundle(folder), Archive(good))
    assert done.good
    assert len(done.mended) == len(names) + 1
    assert whole(folder, "folder", shelf)
    assert FolderBundle(folder).fingerprint == fingerprint


def test_an_image_comes_from_a_models_directory(folder: Path, models: Path, shelf: MemoryStore) -> None:
    for model in FolderBundle(folder).models():
        flip(folder / "blobs" / "sha256" / model.document.id.hex)
        break
    assert mend(FolderBundle(folder), ModelsDir(models)).good
    assert whole(folder, "folder", shelf)


@pytest.mark.parametrize("how", DAMAGES)
def test_an_index_comes_from_the_same_bundle(how: str, folder: Path, good: Path, shelf: MemoryStore) -> None:
    """SHA256SUMS says which one it was."""
    fingerprint = FolderBundle(folder).fingerprint
    DAMAGES[how](folder / "index.json")
    with pytest.raises(Corrupt, match="nothing to go by"):
        mend(FolderBundle(folder))
    done = mend(FolderBundle(folder), Archive(good))
    assert (done.good, done.fingerprint) == (True, fingerprint)
    assert whole(folder, "folder", shelf)


def test_nothing_to_go_by(folder: Path, shelf: MemoryStore, quick: Path) -> None:
    """An index of another bundle is none of this one; and without index and sums nobody knows anything."""
    little = MemoryStore()
    little.image("little", *TINY)
    other = made(little, quick / "little.tar", "archive")
    flip(folder / "index.json", 5)
    before = files_of(folder)
    with pytest.raises(Corrupt, match="nothing to go by"):
        mend(FolderBundle(folder), Archive(other))
    assert files_of(folder) == before


def test_both_index_and_sums_are_gone(folder: Path, good: Path) -> None:
    for name in ("index.json", "SHA256SUMS"):
        (folder / name).unlink()
    with pytest.raises(Corrupt, match="nothing to go by"):
        mend(FolderBundle(folder), Archive(good))


# --- bundles: archives


def anywhere(tar: Path) -> dict[str, int]:
    """Places in the tar to damage: what they are, and where."""
    members = Archive(tar).members
    raw = tar.read_bytes()
    first = min(offset for path, (offset, _) in members.items() if path.startswith("blobs/"))
    places = {"large blob": raw.index(BIG) + 1000, "document": first + 5}
    places |= {path: members[path][0] + 3 for path in ("README.txt", "oci-layout", "SHA256SUMS")}
    places |= {"header of a blob": raw.index(BIG) - 400, "padding": raw.index(BIG) + len(BIG) + 1}
    return places | {"end": len(raw) - 600}


@pytest.mark.parametrize("what", ["large blob", "README.txt", "SHA256SUMS", "oci-layout", "document",
                                  "header of a blob", "padding", "end"])  # fmt: skip
def test_an_archive_is_written_anew(what: str, tar: Path, good: Path, shelf: MemoryStore) -> None:
    before, other = tar.read_bytes(), tar.with_name("other.tar")
    copy(Archive(good), Archive(good).models(), FolderBundle(other))
    os.chmod(tar, 0o640)
    flip(tar, anywhere(tar)[what])
    bad = tar.read_bytes()
    assert not verify(Archive(tar)).good
    done = mend(Archive(tar), FolderBundle(other))
    assert done.good
    assert len(done.mended) == 1
    assert tar.read_bytes() == before
    assert stat.S_IMODE(tar.stat().st_mode) == 0o640
    (aside,) = {one.aside for one in done.mended}
    assert Path(aside).read_bytes() == bad
    assert Path(aside).parent == tar.parent
    assert not [one for one in tar.parent.iterdir() if one.name.startswith(".")]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_cut_archive(share: float, tar: Path, models: Path) -> None:
    """Its documents come first: what is left says what is missing, and a models directory has that."""
    before = tar.read_bytes()
    os.truncate(tar, int(len(before) * share))
    assert mend(Archive(tar), ModelsDir(models)).good
    assert tar.read_bytes() == before


def test_an_archive_without_its_documents(tar: Path, good: Path, models: Path) -> None:
    os.truncate(tar, 3000)
    with pytest.raises(Corrupt, match="nothing to go by"):
        mend(Archive(tar), ModelsDir(models))
    assert tar.stat().st_size == 3000


def test_an_archive_under_a_link(tar: Path, models: Path, shelf: MemoryStore) -> None:
    link = tar.with_name("link.tar")
    link.symlink_to(tar.name)
    damaged(tar, "archive")
    assert mend(Archive(link), ModelsDir(models)).good
    assert link.is_symlink()
    assert whole(tar, "archive", shelf)


@needs_tar
def test_a_tar_that_another_tool_wrote(folder: Path, models: Path, shelf: MemoryStore) -> None:
    """Its members are found by their headers; what comes is in modelpack's order, of the same fingerprint."""
    tar = folder.with_name("foreign.tar")
    subprocess.run(["tar", "cf", tar, "-C", folder, "."], check=True)
    fingerprint = Archive(tar).fingerprint
    damaged(tar, "archive")
    assert mend(Archive(tar), ModelsDir(models)).good
    assert Archive(tar).fingerprint == fingerprint
    assert whole(tar, "archive", shelf)


# --- this machine


def test_a_full_disk(small_disk: Path, quick: Path) -> None:
    """There is room for one copy and not for two: what was there is still there, to the byte."""
    store = MemoryStore()
    store.image("m", (MODEL, noise(1_200_000)), (LICENSE, b"MIT"))
    path, good = made(store, small_disk / "models", "models"), made(store, quick / "good.tar", "archive")
    flip(blob(path, noise(1_200_000)))
    before = files_of(path)
    with pytest.raises(Local, match="free"):
        mend(ModelsDir(path), Archive(good))
    assert files_of(path) == before
    assert not (path / SCRATCH).exists()


def test_a_disk_that_fills_in_the_middle(
    models: Path, good: Path, shelf: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small ones are there by then and stay; of the large one nothing changed."""
    monkeypatch.setattr("modelpack.hands.scratch.check_room", lambda *_: None)
    monkeypatch.setattr("modelpack.verbs.repair_bench.HANDS", 1)
    flip(blob(models))
    bad = blob(models).read_bytes()
    blob(models, FULL[2][1]).unlink()
    plain = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > MIB:
            raise OSError(28, "No space left on device")
        return plain(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    done = mend(ModelsDir(models), Archive(good))
    monkeypatch.undo()
    assert any(isinstance(one, Local) for one in done.left)
    assert blob(models).read_bytes() == bad
    assert not set_aside(models)
    assert mend(ModelsDir(models), Archive(good)).good
    assert whole(models, "models", shelf)


def test_a_file_system_without_links(
    models: Path, good: Path, shelf: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT and exFAT are: the bad file moves."""

    def no(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no)
    flip(blob(models))
    bad = blob(models).read_bytes()
    assert mend(ModelsDir(models), Archive(good)).good
    assert set_aside(models) == [bad]
    assert whole(models, "models", shelf)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_every_step(kind: str, shelf: MemoryStore, quick: Path) -> None:
    """As by kill -9: what is there is the bad file or the good one, and the next run finishes."""
    small = MemoryStore()
    small.image("a", (MODEL, BIG[:200_000]), (LICENSE, b"MIT"))
    small.image("b", (MODEL, WEIGHTS), (LICENSE, b"other"))
    good = made(small, quick / "good.tar", "archive")
    template = made(small, quick / "template", kind)
    if kind == "archive":
        flip(template, template.read_bytes().index(BIG[:200_000]) + 500)
    else:
        flip(blob(template, BIG[:200_000]))
        blob(template, WEIGHTS).unlink()
    if kind == "models":
        manifest(template, "b").write_bytes(b"{")
    bad = template.read_bytes() if kind == "archive" else blob(template, BIG[:200_000]).read_bytes()
    for step in range(200):
        path = quick / "x"
        if kind == "archive":
            shutil.copy(template, path)
        else:
            shutil.copytree(template, path)
        died = dying(lambda path=path: mend(store_at(path, kind), Archive(good)), step)  # type: ignore[misc]
        there = path if kind == "archive" else blob(path, BIG[:200_000])
        now = there.read_bytes()
        assert now == bad or (len(now) == len(bad) and verify(store_at(path, kind), ["a"]).good), step
        if died != DIED:
            assert died == 0
            break
        done = mend(store_at(path, kind), Archive(good))
        assert done.left == [], step
        assert whole(path, kind, small), step
        if kind == "archive":
            path.unlink()
        else:
            shutil.rmtree(path)
    assert step > 10


def test_two_repairs_at_once(models: Path, good: Path, shelf: MemoryStore) -> None:
    """The second waits, looks, and finds nothing to do."""
    flip(blob(models))
    bad = blob(models).read_bytes()
    done: list[Repaired] = []
    threads = [
        threading.Thread(target=lambda: done.append(mend(ModelsDir(models), Archive(good)))) for _ in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(len(one.mended) for one in done) == [0, 0, 1]
    assert set_aside(models) == [bad]
    assert whole(models, "models", shelf)


def test_while_another_process_loads(models: Path, good: Path, shelf: MemoryStore) -> None:
    """Loads go on while blobs are damaged and put back; nothing is lost on either side."""
    more = MemoryStore()
    for number in range(12):
        more.image(f"more-{number}", (MODEL, noise(300_000, number)), (LICENSE, b"MIT"))
    child = forked(lambda: [copy(more, [one], ModelsDir(models)) for one in more.models()])
    for number in range(6):
        flip(blob(models), 1000 + number)
        assert mend(ModelsDir(models), Archive(good)).good
    assert waited(child) == 0
    assert verify(ModelsDir(models)).good
    assert bits(ModelsDir(models)) == bits(shelf) | bits(more)


def test_a_manifest_that_somebody_else_puts_right(models: Path, shelf: MemoryStore) -> None:
    """While blobs come, Ollama pulls a newer model of that name: that one stays."""
    manifest(models).write_bytes(b"{")
    blob(models, FULL[2][1]).unlink()
    newer = manifest(models, "twin").read_bytes()

    class Meanwhile(MemoryStore):
        def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
            manifest(models).write_bytes(newer)
            return super().open(blob, offset)

    done = mend(ModelsDir(models), like(Meanwhile, shelf))
    assert done.good
    assert manifest(models).read_bytes() == newer
    assert set_aside(models) == []


# --- what is wrong with the target is not put on a source


@pytest.mark.parametrize("kind", ["models", "folder"])
def test_our_own_directory_is_a_link(kind: str, shelf: MemoryStore, quick: Path, good: Path) -> None:
    path = made(shelf, quick / "x", kind)
    flip(blob(path))
    (path / SCRATCH).mkdir()
    (quick / "victim").mkdir()
    (path / SCRATCH / "bad").symlink_to(quick / "victim")
    second = like(Breaking, shelf)
    done = mend(store_at(path, kind), Archive(good), second)
    (left,) = done.left
    assert left.advice.startswith(f"Not repaired: {path / SCRATCH / 'bad'}: is a symbolic link")
    assert not second.opened
    assert list((quick / "victim").iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_what_stands_in_the_way(make: Callable[[Path], object], models: Path, good: Path) -> None:
    """Left as it is; nobody is sent to the same repair again."""
    for place in (blob(models), manifest(models)):
        place.unlink()
        make(place)
        (left,) = mend(ModelsDir(models), Archive(good), names=["full"]).left
        assert left.advice.startswith("Move it away; then")
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        else:
            place.unlink()
        assert mend(ModelsDir(models), Archive(good)).good or place == manifest(models)  # nobody knows it now


# --- a manifest by its name


def torn(models: Path, shelf: MemoryStore, *contents: bytes) -> list[Spare]:
    """A model m whose manifest says nothing any more; sources with other models of that name, by content."""
    stores = []
    for content in contents:
        stores.append(MemoryStore())
        stores[-1].image("m", (MODEL, content), (LICENSE, b"MIT"))
    copy(stores[0], stores[0].models(), ModelsDir(models))
    manifest(models, "m").write_bytes(b"")
    return [Spare(f"source {n}", one) for n, one in enumerate(stores)]


def test_of_several_the_one_whose_blobs_are_here(models: Path, shelf: MemoryStore) -> None:
    spares = torn(models, shelf, b"GGUF the one", b"GGUF another")
    done = repair(ModelsDir(models), spares[::-1])
    assert done.good
    (one,) = done.mended
    assert (one.kind, one.source, one.doubt) == ("manifest", "source 0", "")
    assert one.users == spares[0].models[0].document.id.short


def test_what_comes_by_its_name_alone_is_doubted(models: Path, shelf: MemoryStore) -> None:
    one, another = torn(models, shelf, b"GGUF the one", b"GGUF another")
    for blob_ in one.models[0].blobs:
        assert blob_.digest is not None
        (models / "blobs" / blob_.digest.file_name).unlink()
    done = repair(ModelsDir(models), [another])
    assert done.good
    (doubt,) = [each.doubt for each in done.mended if each.kind == "manifest"]
    assert doubt == f"by its name alone: nothing here says that it was {another.models[0].document.id.short}"
    manifest(models, "m").write_bytes(b"{")
    for blob_ in another.models[0].blobs:
        assert blob_.digest is not None
        (models / "blobs" / blob_.digest.file_name).unlink()
    (doubt,) = [
        each.doubt for each in repair(ModelsDir(models), [one, another]).mended if each.kind == "manifest"
    ]
    assert f"it may have been {another.models[0].document.id.short} from source 1" in doubt


# --- the command


def test_the_command(models: Path, good: Path, shelf: MemoryStore) -> None:
    cwd = good.parent
    done = modelpack("repair", "models", "--from", "good.tar", cwd=cwd)
    assert (done.returncode, done.stdout) == (0, b"good: nothing to repair\n")
    flip(blob(models))
    blob(models, WEIGHTS).unlink()
    done = modelpack("repair", "models", "--from", "good.tar", cwd=cwd)
    assert done.returncode == 0
    assert b"from good.tar" in done.stdout
    assert b"good: 2 repairs" in done.stdout
    assert b"kept aside: " in done.stderr
    assert modelpack("verify", "models", cwd=cwd).returncode == 0
    flip(blob(models))
    said = json.loads(modelpack("repair", "models", "--from", "good.tar", "--json", cwd=cwd).stdout)
    assert said["good"] is True
    (one,) = said["repaired"]
    assert (one["kind"], one["name"]) == ("blob", str(Digest.of(BIG)))
    assert (cwd / one["aside"]).is_file()


def test_what_the_command_leaves(models: Path, shelf: MemoryStore) -> None:
    """4 where nothing could be put back, 8 where something could, 2 without a source."""
    cwd = models.parent
    (cwd / "tiny.gguf").write_bytes(WEIGHTS)
    flip(blob(models))
    done = modelpack("repair", "models", "--from", "tiny.gguf", cwd=cwd)
    assert done.returncode == 4
    assert b"none of the sources has it" in done.stderr
    flip(blob(models, WEIGHTS))
    done = modelpack("repair", "models", "--from", "tiny.gguf", cwd=cwd)
    assert done.returncode == 8
    assert b"1 repair, 1 problem left" in done.stdout
    assert modelpack("repair", "models", cwd=cwd).returncode == 2
    assert modelpack("repair", "models", "--from", "nothing", cwd=cwd).returncode == 3
    assert modelpack("repair", "tiny.gguf", "--from", "models", cwd=cwd).returncode == 5
