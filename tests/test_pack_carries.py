"""What a packed bundle brings along; a signature of another archive; what `verify` sends elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MemoryStore, noise, sha256sum
from test_cli import modelpack

from modelpack.documents.extras import NONE, Extras
from modelpack.errors import Refused, Taken, Unsupported, Usage
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs.attach import attached, merged
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import LICENSE, MIB, MODEL


def model(name: str) -> MemoryStore:
    store = MemoryStore()
    store.image(name, (MODEL, noise(3000, name)), (LICENSE, b"MIT\n"))
    return store


def bundle(place: Path, name: str, **files: bytes) -> Path:
    """An archive of a model, with *files* attached under their names and `.txt`."""
    desk = place / f"desk-{name}"
    desk.mkdir()
    for called, raw in files.items():
        (desk / f"{called}.txt").write_bytes(raw)
    store, path = model(name), place / f"{name}.tar"
    copy(store, store.models(), Archive(path, extras=Extras(None, attached(sorted(desk.iterdir())))))
    return path


def there(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in (path / "attachments").iterdir()}


# --- what was attached to a SOURCE


def test_attachments_of_a_source_go_along(quick: Path) -> None:
    """Of a file, a folder and one of its models; once, and told."""
    bundle(quick, "a", scan=b"clean", same=b"=")
    bundle(quick, "b", approval=b"yes", same=b"=")
    (quick / "mine.txt").write_bytes(b"mine")
    done = modelpack("pack", "a.tar", "b.tar#b", "-o", "both", "--attach", "mine.txt", cwd=quick)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"3 attachments of the SOURCE travel along: same.txt, scan.txt, approval.txt\n"
    every = {"scan.txt": b"clean", "same.txt": b"=", "approval.txt": b"yes", "mine.txt": b"mine"}
    assert there(quick / "both") == every
    assert sha256sum(quick / "both").returncode == 0
    done = modelpack("pack", "both#a", "both#b", "-o", "again.tar", "--quiet", cwd=quick)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(Archive(quick / "again.tar").attachments()) == 4
    assert verify(Archive(quick / "again.tar")).good


def test_into_volumes_and_out_of_them(quick: Path) -> None:
    """And a volume that is made again from the same SOURCE is the same."""
    bundle(quick, "a", scan=b"clean")
    done = modelpack("pack", "a.tar", "-o", "set", "--volume-size", "16MiB", cwd=quick)
    assert done.returncode == 0, done.stderr
    before = (quick / "set" / "a.tar.001").read_bytes()
    (quick / "set" / "a.tar.001").unlink()
    done = modelpack("pack", "a.tar", "-o", "set", "--only", "1", cwd=quick)
    assert done.returncode == 0, done.stderr
    assert (quick / "set" / "a.tar.001").read_bytes() == before
    assert modelpack("pack", "set", "-o", "c", cwd=quick).returncode == 0
    assert there(quick / "c") == {"scan.txt": b"clean"}


def test_two_of_one_name(quick: Path) -> None:
    """Which one is meant is said by --attach."""
    bundle(quick, "a", scan=b"clean")
    bundle(quick, "b", SCAN=b"dirty")
    done = modelpack("pack", "a.tar", "b.tar", "-o", "c", cwd=quick)
    assert done.returncode == 2
    assert b"to a.tar and to b.tar" in done.stderr
    assert not (quick / "c").exists()
    (quick / "Scan.txt").write_bytes(b"both")
    done = modelpack("pack", "a.tar", "b.tar", "-o", "c", "--attach", "Scan.txt", cwd=quick)
    assert done.returncode == 0, done.stderr
    assert there(quick / "c") == {"Scan.txt": b"both"}


def test_what_a_pipe_brings_too_late_is_told(quick: Path) -> None:
    raw = bundle(quick, "a", scan=b"clean").read_bytes()
    done = modelpack("pack", "-", "-o", "c", cwd=quick, stdin=raw)
    assert done.returncode == 0, done.stderr
    assert b"What was attached to the bundle stays out" in done.stderr
    assert FolderBundle(quick / "c").attachments() == ()


def test_a_damaged_one_is_not_packed(quick: Path) -> None:
    path = bundle(quick, "a", scan=b"clean")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"clean", b"dirty"))
    done = modelpack("pack", "a.tar", "-o", "c.tar", cwd=quick)
    assert done.returncode == 4
    assert b"scan.txt" in done.stderr
    assert not (quick / "c.tar").exists()


def test_merged_keeps_what_is_given(quick: Path) -> None:
    (a,) = Archive(bundle(quick, "a", scan=b"1")).attachments()
    (b,) = Archive(bundle(quick, "b", scan=b"2")).attachments()
    assert merged([], [(a, "x"), (a, "y")]) == (a,)
    assert merged([b], [(a, "x")]) == (b,)
    with pytest.raises(Usage, match="to x and to y"):
        merged([], [(a, "x"), (b, "y")])


# --- a signature that lies there


@pytest.mark.parametrize("gone", [False, True])
def test_a_signature_of_another_archive_is_not_made_a_bad_one(gone: bool, quick: Path) -> None:
    """It is the user's: it neither vanishes nor stays beside what it is not of."""
    path, store = bundle(quick, "a"), model("b")
    before = path.read_bytes()
    signature = quick / "a.tar.sig"
    signature.write_bytes(b"signed")
    with pytest.raises(Taken):
        copy(store, store.models(), Archive(path))
    if gone:
        path.unlink()
    with pytest.raises(Refused, match="signature") as caught:
        copy(store, store.models(), Archive(path, replace=True))
    assert caught.value.where == str(signature)
    assert signature.read_bytes() == b"signed"
    assert gone or path.read_bytes() == before
    signature.rename(quick / "away")
    copy(store, store.models(), Archive(path, replace=True))
    assert verify(Archive(path)).good


def test_the_very_same_archive_keeps_its_signature(quick: Path) -> None:
    path, store = bundle(quick, "a"), model("a")
    path.with_name("a.tar.sig").write_bytes(b"signed")
    (receipt,) = copy(store, store.models(), Archive(path, replace=True))
    assert receipt.there


def test_a_signature_in_the_way_at_the_command(quick: Path) -> None:
    bundle(quick, "a")
    bundle(quick, "b")
    (quick / "a.tar.sig").write_bytes(b"signed")
    done = modelpack("pack", "b.tar", "-o", "a.tar", "--replace", cwd=quick)
    assert done.returncode == Refused.exit_code
    assert b"a.tar.sig" in done.stderr
    assert b"Move it away" in done.stderr


# --- a set as a library knows it


def test_verify_sends_a_set_to_verify_set(quick: Path) -> None:
    store = model("a")
    copy(store, store.models(), VolumesTarget(quick / "set", MIB, block_size=MIB, extras=NONE))
    with pytest.raises(Unsupported) as caught:
        verify(VolumeSet([quick / "set"]))
    assert "verify_set" in caught.value.advice
