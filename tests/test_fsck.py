"""`verify` of a models directory: what is damage, what is odd, and what only looks so for a moment."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FULL, TINY, WEIGHTS, MemoryStore, forked, needs_root, noise, waited
from test_cli import modelpack

from modelpack.errors import Corrupt, NotFound, Refused, Unchecked
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_fsck import Owner
from modelpack.verbs import fsck as module
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import Verdict, verify
from modelpack.words.blob import LICENSE, MIB, MODEL
from modelpack.words.digest import Digest


@pytest.fixture
def models(shelf: MemoryStore, quick: Path) -> Path:
    """A models directory with everything on the shelf in it."""
    copy(shelf, shelf.models(), ModelsDir(quick / "models"))
    return quick / "models"


def manifest(path: Path, model: str = "full") -> Path:
    return path / "manifests" / "registry.ollama.ai" / "library" / model / "latest"


def blob(path: Path, data: bytes = WEIGHTS) -> Path:
    return path / "blobs" / Digest.of(data).file_name


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    """Of every remark its kind, and what it is about."""
    return sorted((one.kind, Path(one.where).name) for one in verdict.remarks)


def unchecked(verdict: Verdict) -> list[str]:
    """What was not looked at; but for the rights, of which nothing is known where root runs the tests."""
    return [one for one in verdict.unchecked if not one.startswith("Rights:")]


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_good_directory_has_no_remarks(models: Path) -> None:
    found = verify(ModelsDir(models))
    assert (found.good, found.models, unchecked(found)) == (True, 5, [])
    assert kinds(found) == [("colon", "example.com:5000")]


DAMAGES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "flipped": (flip, Corrupt, "damaged"),
    "cut": (lambda path: os.truncate(path, 100), Corrupt, "has 100 bytes"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), Corrupt, "bytes, not"),
    "empty": (lambda path: path.write_bytes(b""), Corrupt, "has 0 bytes"),
    "gone": (Path.unlink, NotFound, "is missing"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_every_damage_of_a_blob_is_found(how: str, models: Path) -> None:
    damage, kind, says = DAMAGES[how]
    damage(blob(models))
    found = verify(ModelsDir(models))
    (problem,) = found.problems
    assert isinstance(problem, kind)
    assert says in problem.what
    assert "used by Someone/Tiny:v1.5-q4_K, twin:latest" in problem.what
    assert "modelpack repair" in problem.advice
    assert [one.digest for one, _ in found.bad] == [Digest.of(WEIGHTS)]


@pytest.mark.parametrize("which", ["blob", "blobs", "manifest", "model"])
def test_what_a_link_leads_to_is_not_called_damaged(which: str, models: Path) -> None:
    """Ollama follows it: nobody is told to move it away, or to repair it; and it is said once."""
    place = {
        "blob": blob(models),
        "blobs": models / "blobs",
        "manifest": manifest(models),
        "model": manifest(models).parent,
    }[which]
    place.rename(models.parent / "on another disk")
    place.symlink_to(models.parent / "on another disk")
    found = verify(ModelsDir(models))
    (problem,) = found.problems
    assert isinstance(problem, Unchecked)
    assert problem.where == str(place)
    assert "Ollama follows it" in problem.advice
    assert "repair" not in problem.advice
    assert "foreign" not in [one.kind for one in found.remarks]
    done = modelpack("verify", models, cwd=models)
    assert done.returncode == 11
    assert done.stderr.count(b"symbolic link") == 1


STANDING: dict[str, Callable[[Path], object]] = {
    "a symbolic link": lambda path: path.symlink_to("nothing"),
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
}


@pytest.mark.parametrize("what", STANDING)
@pytest.mark.parametrize("which", [blob, manifest])
def test_what_stands_in_the_way_is_to_be_moved_away(
    what: str, which: Callable[[Path], Path], models: Path
) -> None:
    which(models).unlink()
    STANDING[what](which(models))
    found = verify(ModelsDir(models))
    (problem,) = found.problems
    assert isinstance(problem, Refused)
    assert problem.advice.startswith("Move it away; then `modelpack repair`")


@pytest.mark.parametrize("what", ["a symbolic link", "a FIFO", "a plain file"])
@pytest.mark.parametrize("name", [".modelpack", ".modelpack/bad"])
def test_what_stands_for_our_own_directory(what: str, name: str, models: Path) -> None:
    """It blinds nobody: the rest is checked."""
    place = models / name
    place.parent.mkdir(exist_ok=True)
    STANDING.get(what, Path.touch)(place)
    flip(blob(models))
    found = verify(ModelsDir(models))
    assert [type(one) for one in found.problems] == [Corrupt]
    (remark,) = [one for one in found.remarks if one.where == str(place)]
    assert (remark.kind, remark.what) == ("foreign", f"is {what} where modelpack's own directory would be")


def test_each_blob_is_counted_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = verify(ModelsDir(models)).blobs
    flip(blob(models))
    meanwhile(monkeypatch, lambda: written(blob(models), blob(models).read_bytes()))
    assert verify(ModelsDir(models)).blobs == count


@pytest.mark.parametrize("raw", [b"", b"\0" * 300, b'{"schemaVersion":2', b"[" * 5000])
def test_a_manifest_that_cannot_be_read_is_damage(raw: bytes, models: Path) -> None:
    manifest(models).write_bytes(raw)
    found = verify(ModelsDir(models))
    assert [type(one) for one in found.problems] == [Corrupt]
    assert [str(name) for name, _ in found.torn] == ["full:latest"]
    assert found.models == 4


def test_what_is_odd_is_no_damage(models: Path) -> None:
    """Each kind of remark, made by hand; the directory is good all the same."""
    blobs, orphan = models / "blobs", noise(5000)
    blob(models, orphan).write_bytes(orphan)
    with (blobs / f"sha256-{'b' * 64}-partial").open("wb") as file:
        file.truncate(10**12)  # as Ollama does: it has holes
    (blobs / f"sha256-{'b' * 64}-partial-0").write_text("{}")
    (blobs / "notes.txt").write_bytes(b"hello")
    (blobs / "folder").mkdir()
    os.mkfifo(blobs / "fifo")
    (models / "manifests" / ".DS_Store").write_bytes(b"x")
    manifest(models).with_name("._latest").write_bytes(b"x")
    shutil.copytree(manifest(models, "twin").parent, manifest(models, "TWIN").parent)
    left = models / "manifests" / "127.0.0.1:4711" / "modelpack" / f"{'a' * 12}-{'b' * 32}"
    left.mkdir(parents=True)
    shutil.copy(manifest(models), left / "latest")
    (models / ".modelpack" / "bad").mkdir(parents=True)
    (models / ".modelpack" / "modelpack-0123").write_bytes(b"x")
    (models / ".modelpack" / "bad" / "sha256-x").write_bytes(b"x")
    template = blob(models, TINY[1][1])
    template.rename(template.with_name(template.name.replace("-", ":")))
    found = verify(ModelsDir(models))
    assert (found.problems, found.models, unchecked(found)) == ([], 7, [])
    assert kinds(found) == sorted(
        [
            ("orphan", Digest.of(orphan).file_name),
            ("partial", f"sha256-{'b' * 64}-partial"),
            ("partial", f"sha256-{'b' * 64}-partial-0"),
            ("foreign", "notes.txt"),
            ("foreign", "folder"),
            ("foreign", "fifo"),
            ("foreign", ".DS_Store"),
            ("bad-name", "._latest"),
            ("case", "latest"),
            ("temporary", "latest"),
            ("set-aside", "sha256-x"),
            ("unfinished", "modelpack-0123"),
            ("colon", template.name.replace("-", ":")),
            ("colon", "127.0.0.1:4711"),
            ("colon", "example.com:5000"),
        ]
    )
    by_kind = {one.kind: one for one in found.remarks}
    assert all(one.advice and one.where.startswith(str(models)) for one in found.remarks)
    assert by_kind["orphan"].size == 5000
    assert "new: a pull or load may be at work" in by_kind["orphan"].what
    assert sum(one.size for one in found.remarks if one.kind == "partial") < MIB
    assert "keeps Ollama from removing" in by_kind["bad-name"].advice
    before = time.time() - 7200
    os.utime(blob(models, orphan), (before, before))
    (old,) = [one for one in verify(ModelsDir(models)).remarks if one.kind == "orphan"]
    assert "new" not in old.what
    assert verify(ModelsDir(models), ["full"]).remarks == []


def test_a_colon_that_would_win(models: Path) -> None:
    """At its next start Ollama puts sha256:… in the place of sha256-…: it is said that both are there."""
    good = blob(models)
    good.with_name(good.name.replace("-", ":")).write_bytes(b"old")
    (remark,) = [one for one in verify(ModelsDir(models)).remarks if "sha256:" in one.where]
    assert remark.kind == "colon"
    assert f"in the place of {good.name}" in remark.what


def test_an_unreadable_manifest_may_name_an_orphan(models: Path) -> None:
    manifest(models).write_bytes(b"{")
    manifest(models, "copy").write_bytes(b"{")
    orphans = [one for one in verify(ModelsDir(models)).remarks if one.kind == "orphan"]
    assert orphans
    assert all("a manifest that cannot be read may" in one.what for one in orphans)


def test_a_name_alone(models: Path) -> None:
    """What is wrong with others does not touch the model that is asked for."""
    manifest(models).write_bytes(b"{")
    blob(models).unlink()
    store = ModelsDir(models)
    assert [str(name) for name, _ in verify(store, ["full"]).torn] == ["full:latest"]
    assert verify(store, ["copy"]).good
    assert not verify(store, ["twin"]).good
    with pytest.raises(NotFound):
        verify(store, ["other"])


# --- owners and modes


def test_what_the_owner_may() -> None:
    owner = Owner(Path("/"))
    owner.uid, owner._groups = 1000, {50}

    def may(uid: int, gid: int, mode: int, rights: int) -> bool:
        return owner.may(os.stat_result((mode, 0, 0, 0, uid, gid, 0, 0, 0, 0)), rights)

    assert may(1000, 0, stat.S_IFREG | 0o400, 4)
    assert not may(1000, 50, stat.S_IFREG | 0o044, 4)
    assert may(0, 50, stat.S_IFREG | 0o040, 4)
    assert not may(0, 50, stat.S_IFREG | 0o604, 4)
    assert may(0, 0, stat.S_IFREG | 0o004, 4)
    assert not may(0, 0, stat.S_IFREG | 0o640, 4)
    assert not may(1000, 0, stat.S_IFDIR | 0o600, 7)
    assert may(0, 0, stat.S_IFLNK, 4)


@needs_root
def test_files_that_the_service_cannot_read(shelf: MemoryStore, open_place: Path) -> None:
    path = open_place / "models"
    path.mkdir()
    os.chown(path, 54321, 54321)
    copy(shelf, shelf.models(), ModelsDir(path))
    assert [kind for kind, _ in kinds(verify(ModelsDir(path)))] == ["colon"]
    os.chown(blob(path), 0, 0)
    os.chmod(blob(path), 0o600)
    os.chown(manifest(path), 0, 0)
    os.chmod(manifest(path), 0o644)
    os.chmod(path / "blobs", 0o500)
    found = verify(ModelsDir(path))
    assert found.good
    said = {Path(one.where).name: one.what for one in found.remarks if one.kind == "rights"}
    assert said == {
        blob(path).name: "the directory's owner (54321) cannot read it",
        "latest": "the directory's owner (54321) cannot change it",
        "blobs": "the directory's owner (54321) cannot change it",
    }


@needs_root
def test_of_a_directory_of_root_s_the_rights_are_not_known(models: Path) -> None:
    """Made by `sudo load`: nothing there says who the service is."""
    (said,) = verify(ModelsDir(models)).unchecked
    assert said.startswith("Rights: root owns the directory")
    os.chown(models, 54321, 54321)
    assert verify(ModelsDir(models)).unchecked == []


@needs_root
def test_what_we_cannot_read_is_not_called_damaged(models: Path) -> None:
    os.chmod(blob(models), 0)
    for folder in (models.parent, models, models / "blobs"):
        os.chmod(folder, 0o755)

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        found = verify(ModelsDir(models))
        assert [type(one).__name__ for one in found.problems] == ["Local"]

    assert verify(ModelsDir(models)).good
    assert waited(forked(as_nobody)) == 0


# --- while others write


def meanwhile(monkeypatch: pytest.MonkeyPatch, *works: Callable[[], object]) -> None:
    """Do one of *works* after each look at which something seemed wrong."""
    left = list(works)
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: left.pop(0)() if left else None)


def written(path: Path, raw: bytes) -> None:
    """A new file of that name, by rename."""
    (path.with_name(".new")).write_bytes(raw)
    (path.with_name(".new")).rename(path)


def test_a_manifest_that_was_just_being_written(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/api/copy` empties a manifest before it writes it."""
    raw = manifest(models).read_bytes()
    manifest(models).write_bytes(b"")
    meanwhile(monkeypatch, lambda: manifest(models).write_bytes(raw))
    found = verify(ModelsDir(models))
    assert (found.problems, found.models, unchecked(found)) == ([], 5, [])


def test_a_manifest_that_is_written_again_and_again(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty at two looks, and not the same file: it is looked at a third time."""
    raw = manifest(models).read_bytes()
    manifest(models).write_bytes(b"")
    meanwhile(monkeypatch, lambda: written(manifest(models), b""), lambda: manifest(models).write_bytes(raw))
    assert verify(ModelsDir(models)).good


def test_a_model_that_went_and_came(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blob is missing at two looks, at each of which its manifest is another file."""
    blob(models).unlink()
    tiny = manifest(models).parents[2] / "Someone" / "Tiny" / "v1.5-q4_K"

    def again() -> None:
        for one in (manifest(models, "twin"), tiny):
            written(one, one.read_bytes())

    assert (models / "manifests" / "registry.ollama.ai") == manifest(models).parents[2]
    meanwhile(monkeypatch, again, lambda: written(blob(models), WEIGHTS))
    assert verify(ModelsDir(models)).good
    blob(models).unlink()
    meanwhile(monkeypatch, again)
    assert not verify(ModelsDir(models)).good


def test_a_model_of_a_manifest_that_came_late_is_checked(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raws = [manifest(models, name).read_bytes() for name in ("full", "copy")]
    for name in ("full", "copy"):
        manifest(models, name).write_bytes(b"")
    flip(blob(models, FULL[1][1]))  # of those two alone

    def came() -> None:
        for name, raw in zip(("full", "copy"), raws, strict=True):
            manifest(models, name).write_bytes(raw)

    meanwhile(monkeypatch, came)
    found = verify(ModelsDir(models))
    assert [type(one) for one in found.problems] == [Corrupt]
    assert "full:latest" in found.problems[0].what


def test_a_model_that_was_removed_meanwhile(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DELETE removes the blobs a moment before or after the manifest: neither is damage."""
    blob(models).unlink()

    def removed() -> None:
        manifest(models, "twin").unlink()
        shutil.rmtree(models / "manifests" / "registry.ollama.ai" / "Someone")

    meanwhile(monkeypatch, removed)
    found = verify(ModelsDir(models))
    assert (found.problems, found.models) == ([], 3)


@pytest.mark.parametrize("before", [Path.unlink, flip])
def test_a_blob_that_came_by_rename(
    before: Callable[[Path], None], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(blob(models))

    def came() -> None:
        (models / "new").write_bytes(WEIGHTS)
        (models / "new").rename(blob(models))

    meanwhile(monkeypatch, came)
    found = verify(ModelsDir(models))
    assert (found.problems, unchecked(found)) == ([], [])


def restless(found: Verdict) -> None:
    (problem,) = found.problems
    assert isinstance(problem, Unchecked)
    assert "changed at every look" in problem.what
    assert found.bad == []
    assert not found.good


def test_a_manifest_that_comes_between_mark_and_look(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it was not there just before: nobody knows that it is the same one."""
    monkeypatch.setattr(module, "manifest_marks", lambda _path: {})
    blob(models).unlink()
    restless(verify(ModelsDir(models)))


def test_a_blob_that_never_rests(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes at each look is neither damaged nor whole: it was not checked, and that is a problem."""
    count = verify(ModelsDir(models)).blobs
    flip(blob(models))
    place = blob(models)

    def again(_seconds: float) -> None:
        data = place.read_bytes()
        (models / "new").write_bytes(data)
        (models / "new").rename(place)

    monkeypatch.setattr(module.time, "sleep", again)
    found = verify(ModelsDir(models))
    restless(found)
    assert found.blobs == count
    done = modelpack("verify", models, cwd=models)
    assert done.returncode == 4  # at rest


def test_while_a_thread_loads_and_removes(shelf: MemoryStore, quick: Path) -> None:
    """Models come and go all the time: no look calls anything missing, damaged or an old orphan."""
    path = quick / "models"
    copy(shelf, shelf.models(), ModelsDir(path))
    stop = threading.Event()

    busy_model = MemoryStore()
    (model,) = [busy_model.image("busy", (MODEL, noise(2000, 1)), (LICENSE, noise(900, 2)))]

    def busy() -> None:  # as pull and DELETE do it: the manifest last, and first
        manifest(path, "busy").parent.mkdir()
        while not stop.is_set():
            for one in model.blobs:
                (path / "new").write_bytes(busy_model.bytes[one.digest])
                (path / "new").rename(blob(path, busy_model.bytes[one.digest]))
            (path / "new").write_bytes(model.document.raw)
            (path / "new").rename(manifest(path, "busy"))
            manifest(path, "copy").write_bytes(manifest(path, "full").read_bytes())  # empty, then written
            manifest(path, "busy").unlink()
            for one in model.blobs:
                blob(path, busy_model.bytes[one.digest]).unlink()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            found = verify(ModelsDir(path))
            assert [str(one) for one in found.problems] == []
            assert found.models >= 4
    finally:
        stop.set()
        thread.join()


def test_what_comes_meanwhile_is_no_orphan(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that came after the first look: its manifest may come after the last."""
    plain, data = module._Scan.of, noise(500)
    monkeypatch.setattr(
        module._Scan, "of", lambda store: (blob(models, data).write_bytes(data), plain(store))[1]
    )
    assert [one.kind for one in verify(ModelsDir(models)).remarks] == ["colon"]
    assert "orphan" in [one.kind for one in verify(ModelsDir(models)).remarks]


# --- what the command says


def test_the_command_tells_damage_from_what_is_odd(models: Path) -> None:
    for number in range(8):
        data = noise(1000, number)
        blob(models, data).write_bytes(data)
    done = modelpack("verify", models, cwd=models)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert sum(line.startswith("orphan: ") for line in lines) == 6
    assert any("8 files in all" in line for line in lines)
    assert sum("Ollama removes it at a start" in line for line in lines) == 1
    said = json.loads(modelpack("verify", models, "--json", cwd=models).stdout)
    assert sorted(one["kind"] for one in said["remarks"]) == ["colon", *["orphan"] * 8]
    blob(models).unlink()
    done = modelpack("verify", models, cwd=models)
    assert done.returncode == 4
    assert b"modelpack repair" in done.stderr
