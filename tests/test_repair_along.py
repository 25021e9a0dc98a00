"""`repair` of a bundle with restore.py, attachments, texts of another modelpack: they stay what they are."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MemoryStore, files_of, needs_tar, noise, sha256sum
from test_attach import SCRIPT, Bundle, Extras, packed, tar_without
from test_cli import modelpack

from modelpack.documents.expects import Expected, Expects
from modelpack.documents.oci import blob_path
from modelpack.documents.sums import readable_sums
from modelpack.errors import NotFound, Unsupported
from modelpack.hands.scratch import SCRATCH
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs import attach
from modelpack.verbs.repair import Repaired, Spare, repair
from modelpack.verbs.script import script
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import LICENSE, MIB, MODEL
from modelpack.words.digest import Digest

WEIGHTS = noise(70_000, 1)
OLD = b"What an older modelpack said of the bundle.\n"
SETUP = "attachments/OllamaSetup.exe"
TWO = pytest.mark.parametrize("kind", ["archive", "folder"])


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.image("tiny", (MODEL, noise(3000)), (LICENSE, b"MIT\n"))
    found.image("other", (MODEL, WEIGHTS), (LICENSE, b"MIT\n"))
    return found


@pytest.fixture
def extras(quick: Path) -> Extras:
    """A script and a README.txt of another version, and three files."""
    away = quick / "desk"
    away.mkdir()
    (away / "OllamaSetup.exe").write_bytes(noise(30_001, 7))
    (away / "approval 2026.txt").write_bytes(b"")
    (away / "copy.bin").write_bytes(noise(3000))
    return Extras(SCRIPT, attach.attached(sorted(away.iterdir())), OLD)


def flip(path: Path, place: int, bit: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= bit
    path.write_bytes(raw)


def whole(path: Path) -> dict[str, bytes]:
    """Every byte there but what a repair keeps aside."""
    if path.is_dir():
        return {name: raw for name, raw in files_of(path).items() if not name.startswith(SCRATCH)}
    return {"": path.read_bytes()}


def at(path: Path) -> Bundle:
    return FolderBundle(path) if path.is_dir() else Archive(path)


def spoil(path: Path, member: str, place: int = 3, bit: int = 1) -> None:
    """Turn a bit of the file *member* of the bundle."""
    file = path / member if path.is_dir() else path
    flip(file, place if path.is_dir() else Archive(path).members[member][0] + place, bit)


def mend(path: Path, *sources: Path) -> Repaired:
    return repair(at(path), [Spare(one.name, at(one)) for one in sources])


@TWO
def test_an_undamaged_bundle_is_left_as_it_is(
    kind: str, store: MemoryStore, extras: Extras, quick: Path
) -> None:
    """Byte for byte, time for time: what another modelpack wrote is no damage."""
    path = packed(kind, store, quick / "b", extras).path
    assert (at(path).read("README.txt", 1000), at(path).read("restore.py", 1000)) == (OLD, SCRIPT)
    before = whole(path), path.stat().st_mtime_ns, sorted(quick.iterdir())
    done = mend(path)
    assert (done.good, done.mended) == (True, [])
    assert (whole(path), path.stat().st_mtime_ns, sorted(quick.iterdir())) == before


@TWO
@pytest.mark.parametrize(
    "member",
    [SETUP, "attachments/copy.bin", "restore.py", "README.txt", "SHA256SUMS", "weights", "oci-layout"],
)
def test_what_is_damaged_comes_from_a_bundle_that_has_it(
    kind: str, member: str, store: MemoryStore, extras: Extras, quick: Path
) -> None:
    """And all the rest is as it was, the sums among it, whatever was damaged."""
    good = packed("archive", store, quick / "good.tar", extras).path
    path = packed(kind, store, quick / "b", extras).path
    before = whole(path)
    place = blob_path(Digest.of(WEIGHTS)) if member == "weights" else member
    spoil(path, place)
    assert not verify(at(path)).good
    done = mend(path, good)
    assert done.left == []
    (one,) = done.mended
    assert whole(path) == before
    assert verify(at(path)).good
    if member.startswith("attachments/"):
        assert (one.kind, one.name, one.source) == ("attachment", member, "good.tar")
    if kind == "folder":
        assert Path(one.aside).is_file()


@TWO
@pytest.mark.parametrize("member", [SETUP, "restore.py", "README.txt"])
def test_what_nobody_has_stays_as_it_is(
    kind: str, member: str, store: MemoryStore, extras: Extras, quick: Path
) -> None:
    """Nothing of this modelpack's takes its place; the sums do not come to agree with the damage."""
    other = packed("archive", store, quick / "other.tar", Extras(script())).path
    path = packed(kind, store, quick / "b", extras).path
    spoil(path, member)
    before = whole(path)
    done = mend(path, other)
    (left,) = done.left
    assert left.what == f"{member} is damaged"
    assert "none of the sources has it" in left.advice
    assert done.mended == []
    assert whole(path) == before


@TWO
def test_a_lost_attachment(kind: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    good = packed("folder", store, quick / "good", extras).path
    path = packed(kind, store, quick / "b", extras).path
    before = whole(path)
    if kind == "folder":
        shutil.rmtree(path / "attachments")
    else:
        tar_without(path, *(one.path for one in extras.attachments))
    (left, *_) = mend(path).left
    assert isinstance(left, NotFound)
    done = mend(path, good)
    assert done.good
    assert sorted(one.name for one in done.mended if one.kind == "attachment") == [
        one.path for one in extras.attachments
    ]
    assert whole(path) == before


@TWO
def test_it_comes_from_a_set_too_and_never_damaged(
    kind: str, store: MemoryStore, extras: Extras, quick: Path
) -> None:
    bad = packed("folder", store, quick / "bad", extras).path
    spoil(bad, SETUP, 9)
    copy(store, store.models(), VolumesTarget(quick / "set", MIB, block_size=MIB, extras=extras))
    path = packed(kind, store, quick / "b", extras).path
    before = whole(path)
    spoil(path, SETUP)
    spares = [Spare("bad", FolderBundle(bad)), Spare("set", VolumeSet([quick / "set"]))]
    done = repair(at(path), spares)
    assert done.left == []
    assert [one.source for one in done.mended] == ["set"]
    assert whole(path) == before


@TWO
def test_stripped_texts(kind: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    """What nobody has any more is no damage, and no reason to leave a blob as it is."""
    path = packed(kind, store, quick / "b", extras).path
    sums = at(path).read("SHA256SUMS", MIB)
    if kind == "folder":
        (path / "restore.py").unlink()
        (path / "README.txt").unlink()
    else:
        tar_without(path, "restore.py", "README.txt")
    assert mend(path).mended == []
    spoil(path, blob_path(Digest.of(WEIGHTS)))
    done = repair(at(path), [Spare("store", store)])
    assert done.good
    again = at(path)
    assert verify(again).good
    assert again.read("SHA256SUMS", MIB) == sums
    assert not {"README.txt", "restore.py"} & again.files().keys()
    assert len(again.attachments()) == 3


@TWO
def test_a_text_of_this_modelpack_needs_no_source(
    kind: str, store: MemoryStore, extras: Extras, quick: Path
) -> None:
    path = packed(kind, store, quick / "b", Extras(script(), extras.attachments)).path
    before = whole(path)
    for member in ("restore.py", "README.txt"):
        spoil(path, member, 40)
    assert mend(path).good
    assert whole(path) == before


@TWO
def test_sums_that_are_damaged_anywhere(kind: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    """A flipped digit, name or line end: they are put together again as they were."""
    good = packed("archive", store, quick / "good.tar", extras).path
    path = packed(kind, store, quick / "b", extras).path
    before = whole(path)
    raw = at(path).read("SHA256SUMS", MIB)
    wrong = []
    for place in range(0, len(raw), 3):
        bit = 1 if place % 2 else 0x10  # another hex digit, or none
        spoil(path, "SHA256SUMS", place, bit)
        done = mend(path, good)
        if not done.good or whole(path) != before:
            wrong.append((place, raw[max(0, place - 20) : place + 20], done.left))
            shutil.copy(good, path)
        for one in (*quick.glob("b.bad-*"), *(path / SCRATCH / "bad").glob("*")):
            one.unlink()
    assert wrong == []


@TWO
def test_sums_that_are_gone_altogether(kind: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    """What lies there is all that anybody knows then: none of it gets lost."""
    path = packed(kind, store, quick / "b", extras).path
    before = whole(path)
    size = len(at(path).read("SHA256SUMS", MIB))
    if kind == "folder":
        (path / "SHA256SUMS").write_bytes(bytes(size))
    else:
        with path.open("r+b") as file:
            file.seek(Archive(path).members["SHA256SUMS"][0])
            file.write(bytes(size))
    assert mend(path).good
    assert whole(path) == before


def test_a_stranger_is_not_taken_in(store: MemoryStore, extras: Extras, quick: Path) -> None:
    """A restore.py that nobody lists is none of the bundle's, however the sums are damaged."""
    path = packed("folder", store, quick / "b", Extras(None, extras.attachments, OLD)).path
    before = whole(path)
    (path / "restore.py").write_bytes(b"import os")
    (path / "attachments" / "more.exe").write_bytes(b"MZ")
    spoil(path, "SHA256SUMS", before["SHA256SUMS"].index(b"  blobs/") - 9)
    assert mend(path).good
    assert (path / "SHA256SUMS").read_bytes() == before["SHA256SUMS"]


@pytest.mark.parametrize("what", ["blob", "cut", "header", "attachment"])
def test_an_archive_keeps_all_of_it(what: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    good = packed("folder", store, quick / "good", extras).path
    path = packed("archive", store, quick / "b.tar", extras).path
    before = whole(path)
    weights = Archive(path).members[blob_path(Digest.of(WEIGHTS))][0]
    damage: dict[str, Callable[[], object]] = {
        "blob": lambda: flip(path, weights + 5),
        "cut": lambda: os.truncate(path, weights + 5),
        "header": lambda: flip(path, weights - 400),
        "attachment": lambda: flip(path, Archive(path).members[SETUP][0] - 400),
    }
    damage[what]()
    done = mend(path, good)
    assert done.good
    assert whole(path) == before


def test_behind_a_damaged_header_attachments_are_found(
    store: MemoryStore, extras: Extras, quick: Path
) -> None:
    """Where they begin is arithmetic: no other bundle is needed."""
    path = packed("archive", store, quick / "b.tar", extras).path
    before = whole(path)
    flip(path, Archive(path).members[blob_path(Digest.of(WEIGHTS))][0] - 400)
    assert repair(Archive(path), [Spare("store", store)]).left == []
    assert whole(path) == before


@TWO
def test_a_delta_keeps_what_it_expects(kind: str, store: MemoryStore, extras: Extras, quick: Path) -> None:
    one = store.models()[0]
    away = [blob for blob in one.blobs if blob.size == 3000]
    expects = Expects.of([Expected(blob.digest, blob.size, one.name, one.document.id) for blob in away])
    path = quick / "b"
    target: Bundle = (
        Archive(path, expects=expects, extras=extras)
        if kind == "archive"
        else FolderBundle(path, expects=expects, extras=extras)
    )
    copy(store, store.models(), target)
    before = whole(path)
    assert mend(path).mended == []
    spoil(path, blob_path(Digest.of(WEIGHTS)))
    assert repair(at(path), [Spare("store", store)]).good
    assert whole(path) == before
    assert at(path).contents.delta == expects


def test_a_bundle_of_before_there_were_extras(store: MemoryStore, quick: Path) -> None:
    """Its README.txt says other things than ours: a damaged blob is no reason to write it anew."""
    for kind in ("archive", "folder"):
        path = packed(kind, store, quick / kind, Extras(None, (), OLD)).path
        before = whole(path)
        spoil(path, blob_path(Digest.of(WEIGHTS)))
        assert repair(at(path), [Spare("store", store)]).good
        assert whole(path) == before


@needs_tar
def test_sums_of_another_hand(store: MemoryStore, extras: Extras, quick: Path) -> None:
    """In another order, with `./`, with a file more: right as they are; in a tar that file is not lost."""
    path = packed("folder", store, quick / "b", extras).path
    (path / "NOTES").write_bytes(b"of a newer modelpack")
    lines = (path / "SHA256SUMS").read_text().splitlines()
    lines = [f"{line[:66]}./{line[66:]}" for line in lines[::-1]] + [
        f"{Digest.of(b'of a newer modelpack').hex} *NOTES"
    ]
    (path / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    before = whole(path)
    assert mend(path).mended == []
    spoil(path, blob_path(Digest.of(WEIGHTS)))
    subprocess.run(["tar", "cf", quick / "b.tar", "--exclude", SCRATCH, "-C", path, "."], check=True)
    assert repair(at(path), [Spare("store", store)]).good
    assert whole(path) == before
    before = whole(quick / "b.tar")
    with pytest.raises(Unsupported, match="NOTES"):
        repair(at(quick / "b.tar"), [Spare("store", store)])
    assert whole(quick / "b.tar") == before


def test_what_a_killed_pack_left_is_no_damage(store: MemoryStore, extras: Extras, quick: Path) -> None:
    path = packed("folder", store, quick / "b", extras).path
    for name in ("README.txt", "restore.py"):
        (path / name).rename(path / f"{name}.new")
        (path / name).write_bytes(b"of the pack before")
    before = whole(path)
    assert mend(path).mended == []
    assert whole(path) == before


def test_at_the_command(store: MemoryStore, extras: Extras, quick: Path) -> None:
    packed("archive", store, quick / "good.tar", extras)
    path = packed("folder", store, quick / "b", extras).path
    spoil(path, SETUP)
    done = modelpack("repair", "b", "--from", "good.tar", cwd=quick)
    assert done.returncode == 0, done.stderr
    assert SETUP.encode() in done.stdout
    assert sha256sum(path).returncode == 0


def test_lines_that_can_be_read() -> None:
    digest = Digest.of(b"")
    raw = b"nonsense\n" + f"{digest.hex}  ./a\n{digest.hex} *b\n".encode() + b"\xff" * 70
    assert readable_sums(raw) == {"a": digest, "b": digest}
