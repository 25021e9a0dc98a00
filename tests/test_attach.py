"""What travels along in a bundle: restore.py and attachments, in every kind of bundle and back out of it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MemoryStore, age, dying, noise, sha256sum

from modelpack.documents.expects import Expected, Expects
from modelpack.documents.extras import Attachment, Extras, attachments_of
from modelpack.documents.layout import tar_layout
from modelpack.documents.oci import bundle
from modelpack.errors import Corrupt, NotFound, Refused, Taken, Usage
from modelpack.hands.bytes import StreamReader
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource, PipeTarget
from modelpack.stores.plain import PlainFolder
from modelpack.verbs import attach
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import LICENSE, MODEL, Blob
from modelpack.words.digest import Digest

SCRIPT = b"#!/usr/bin/env python3\nprint('restored')\n"
Bundle = Archive | FolderBundle


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.image("tiny", (MODEL, noise(3000)), (LICENSE, b"MIT\n"))
    found.image("other", (MODEL, noise(70_000, 1)), (LICENSE, b"MIT\n"))
    return found


@pytest.fixture
def extras(tmp_path: Path) -> Extras:
    """Three files: one large, one empty, one with the very bytes of a model's blob."""
    away = tmp_path / "desk"
    away.mkdir()
    (away / "OllamaSetup.exe").write_bytes(noise(300_001, 7))
    (away / "approval 2026.txt").write_bytes(b"")
    (away / "copy.bin").write_bytes(noise(3000))
    return Extras(SCRIPT, attach.attached(sorted(away.iterdir())))


def bytes_of(extras: Extras) -> dict[str, bytes]:
    return {one.name: Path(str(one.blob.key)).read_bytes() for one in extras.attachments}


def packed(kind: str, store: MemoryStore, path: Path, extras: Extras) -> Bundle:
    target: Bundle | PipeTarget
    if kind == "pipe":
        with path.open("wb") as file:
            copy(store, store.models(), PipeTarget(file.fileno(), extras=extras))
        return Archive(path)
    target = Archive(path, extras=extras) if kind == "archive" else FolderBundle(path, extras=extras)
    copy(store, store.models(), target)
    return target


def piped(path: Path) -> PipeSource:
    return PipeSource(StreamReader(os.open(path, os.O_RDONLY), path), path)


KINDS = pytest.mark.parametrize("kind", ["archive", "folder", "pipe"])


@KINDS
def test_a_bundle_carries_them(kind: str, store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """They are listed, read and whole; `tar` and `sha256sum -c` agree; its fingerprint is as without them."""
    made = packed(kind, store, tmp_path / "b", extras)
    assert made.read("restore.py", 1000) == SCRIPT
    assert {one.name: one.blob.digest for one in made.attachments()} == {
        one.name: one.blob.digest for one in extras.attachments
    }
    verdict = verify(made)
    assert (verdict.problems, verdict.unchecked, verdict.remarks) == ([], [], [])
    assert verdict.blobs == len({blob.digest for one in made.models() for blob in one.blobs}) + 3
    assert made.fingerprint == bundle(made.models()).fingerprint
    if kind == "folder":
        where = tmp_path / "b"
    else:
        where = tmp_path / "out"
        where.mkdir()
        subprocess.run(["tar", "xf", tmp_path / "b", "-C", where], check=True)
    assert sha256sum(where).returncode == 0
    assert {one.name: one.read_bytes() for one in (where / "attachments").iterdir()} == bytes_of(extras)
    lines = (where / "SHA256SUMS").read_text().splitlines()
    assert sum("  attachments/" in line or line.endswith("  restore.py") for line in lines) == 4


def test_a_file_and_a_pipe_are_the_same(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """Byte for byte, on any day: documents first, attachments last of all."""
    first = packed("archive", store, tmp_path / "a.tar", extras)
    packed("pipe", store, tmp_path / "b.tar", extras)
    for one in extras.attachments:
        os.utime(str(one.blob.key), (0, 0))
    packed("archive", store, tmp_path / "c.tar", Extras(SCRIPT, extras.attachments[::-1]))
    raw = (tmp_path / "a.tar").read_bytes()
    assert raw == (tmp_path / "b.tar").read_bytes() == (tmp_path / "c.tar").read_bytes()
    names = list(first.files())
    assert names[:5] == ["oci-layout", "index.json", "SHA256SUMS", "README.txt", "restore.py"]
    assert all(name.startswith("blobs/") for name in names[5:-3])
    assert [name.partition("/")[2] for name in names[-3:]] == [one.name for one in extras.attachments]
    assert len(raw) == tar_layout(bundle(first.models(), extras=extras)).size


def test_a_pipe_may_be_a_function(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    into = io.BytesIO()
    copy(store, store.models(), PipeTarget(lambda data: (into.write(data), None)[1], extras=extras))
    packed("archive", store, tmp_path / "a.tar", extras)
    assert into.getvalue() == (tmp_path / "a.tar").read_bytes()


def test_packed_again(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """The same is there already; with another attachment it is another bundle."""
    packed("archive", store, tmp_path / "a.tar", extras)
    (first, _) = copy(store, store.models(), Archive(tmp_path / "a.tar", extras=extras))
    assert first.there
    with pytest.raises(Taken):
        copy(store, store.models(), Archive(tmp_path / "a.tar", extras=Extras(SCRIPT)))


def test_skopeo_copies_it(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """What a foreign tool makes of an OCI layout: the models, whole."""
    packed("archive", store, tmp_path / "a.tar", extras)
    packed("folder", store, tmp_path / "b", extras)
    name = store.models()[0].name.full
    for place in (f"oci-archive:{tmp_path}/a.tar:{name}", f"oci:{tmp_path}/b:{name}"):
        into = tmp_path / f"by-skopeo-{place.partition(':')[0]}"
        done = subprocess.run(
            ["skopeo", "copy", "--insecure-policy", place, f"oci:{into}:{name}"],
            capture_output=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        assert verify(FolderBundle(into)).good


# --- what is wrong with one


@KINDS
@pytest.mark.parametrize("path", ["restore.py", "README.txt", "attachments/OllamaSetup.exe"])
def test_a_flipped_byte_is_damage(
    kind: str, path: str, store: MemoryStore, extras: Extras, tmp_path: Path
) -> None:
    made = packed(kind, store, tmp_path / "b", extras)
    if isinstance(made, Archive):
        flip(made.path, made.members[path][0] + 5)
    else:
        flip(made.path / path, 5)
    again = type(made)(made.path)
    (problem,) = verify(again).problems
    assert isinstance(problem, Corrupt)
    assert path in problem.what
    if not path.startswith("attachments/"):
        with pytest.raises(Corrupt, match=path):
            attach.stripped(again)
    copy(again, again.models(), ModelsDir(tmp_path / "models"))  # the models are whole


@KINDS
def test_a_stripped_script_is_a_remark(kind: str, store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """Stations between networks take scripts out: nothing is damaged by it."""
    made = packed(kind, store, tmp_path / "b", extras)
    if isinstance(made, Archive):
        tar_without(made.path, "restore.py", "README.txt")
    else:
        (made.path / "restore.py").unlink()
        (made.path / "README.txt").unlink()
    again = type(made)(made.path)
    verdict = verify(again)
    assert verdict.good
    assert [(one.kind, one.where) for one in verdict.remarks] == [
        ("stripped", "README.txt"),
        ("stripped", "restore.py"),
    ]
    assert attach.stripped(again) == ("README.txt", "restore.py")
    if kind == "pipe":
        assert attach.stripped(piped(made.path)) == ("README.txt", "restore.py")


@KINDS
def test_a_lost_attachment_is_missed(kind: str, store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    made = packed(kind, store, tmp_path / "b", extras)
    if isinstance(made, Archive):
        tar_without(made.path, "attachments/copy.bin")
    else:
        (made.path / "attachments" / "copy.bin").unlink()
    again: Bundle | PipeSource = piped(made.path) if kind == "pipe" else type(made)(made.path)
    if not isinstance(again, PipeSource):
        (problem,) = verify(again).problems
        assert isinstance(problem, NotFound)
    with pytest.raises(NotFound, match=r"copy\.bin"), attach.returned(again, tmp_path / "out"):
        copy(again, again.models(), PlainFolder(tmp_path / "out", again))
    assert len(list((tmp_path / "out" / "attachments").iterdir())) == 2


@KINDS
def test_with_a_damaged_index_the_sums_still_tell(
    kind: str, store: MemoryStore, extras: Extras, tmp_path: Path
) -> None:
    made = packed(kind, store, tmp_path / "b", extras)
    for path in ("index.json", "attachments/copy.bin"):
        if isinstance(made, Archive):
            flip(made.path, made.members[path][0] + 20)
        else:
            flip(made.path / path, 20)
    verdict = verify(type(made)(made.path))
    assert [one.what for one in verdict.problems if "copy.bin" in one.what] == [
        "attachments/copy.bin is damaged"
    ]
    assert not any("Setup" in one.what for one in verdict.problems)


def tar_without(path: Path, *names: str) -> None:
    """What a station does that takes files out of a tar."""
    rest = path.with_name("rest")
    with tarfile.open(path) as old, tarfile.open(rest, "w", format=tarfile.USTAR_FORMAT) as new:
        for one in old:
            if one.name not in names:
                new.addfile(one, old.extractfile(one))
    rest.replace(path)


def test_a_foreign_bundle_is_read_as_before(store: MemoryStore, tmp_path: Path) -> None:
    """Without extras nothing of them is there; a restore.py that nobody lists is a stranger."""
    made = packed("folder", store, tmp_path / "b", Extras())
    assert made.attachments() == ()
    assert attach.stripped(made) == ()
    assert not (tmp_path / "b" / "attachments").exists()
    (tmp_path / "b" / "restore.py").write_bytes(b"import os")
    verdict = verify(made)
    assert verdict.good
    assert "restore.py" in verdict.unchecked[0]


@pytest.mark.parametrize(
    "path",
    ["attachments/../index.json", "attachments/a/b", "attachments/", "attachments/CON", "attachments/\u00e4",
     "attachments/.x", f"attachments/{'x' * 89}", "attachments", "Attachments/x"],
)  # fmt: skip
def test_names_of_others_are_not_believed(path: str) -> None:
    assert attachments_of({path: Digest.of(b"")}) == ()


def test_two_names_that_are_one_on_some_disks() -> None:
    found = attachments_of({"attachments/B": Digest.of(b"1"), "./attachments/b": Digest.of(b"2")})
    assert len(found) == 1


# --- a folder that grows


def names_in(made: Bundle) -> list[str]:
    return [one.name for one in made.attachments()]


def small(tmp_path: Path, name: str, raw: bytes) -> tuple[Attachment, ...]:
    place = tmp_path / Digest.of(raw).short
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(raw)
    return attach.attached([place / name])


def test_a_folder_keeps_what_it_has(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """The script stays where none comes, else it is replaced; attachments add up."""
    one, two = store.models()
    path = tmp_path / "b"
    copy(store, [one], FolderBundle(path, extras=extras))
    copy(store, [two], FolderBundle(path))
    made = FolderBundle(path)
    assert len(made.models()) == 2
    assert (path / "restore.py").read_bytes() == SCRIPT
    assert len(names_in(made)) == 3
    more = Extras(b"# newer\n", small(tmp_path, "scan.pdf", b"clean"))
    copy(store, [two], FolderBundle(path, extras=more))
    made = FolderBundle(path)
    assert (path / "restore.py").read_bytes() == b"# newer\n"
    assert names_in(made) == ["OllamaSetup.exe", "approval 2026.txt", "copy.bin", "scan.pdf"]
    assert verify(made).good
    assert sha256sum(path).returncode == 0
    (receipt,) = copy(store, [two], FolderBundle(path, extras=more))
    assert receipt.there


def test_a_name_is_taken(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "b"
    copy(store, store.models(), FolderBundle(path, extras=Extras(None, small(tmp_path, "a.txt", b"1"))))
    other = Extras(None, small(tmp_path, "A.txt", b"22"))
    with pytest.raises(Taken, match=r"attachments/a\.txt"):
        copy(store, store.models(), FolderBundle(path, extras=other))
    copy(store, store.models(), FolderBundle(path, extras=other, replace=True))
    assert [one.name for one in (path / "attachments").iterdir()] == ["A.txt"]
    assert sha256sum(path).returncode == 0


def test_growing_makes_nothing_whole(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """A damaged attachment, a lost one: the sums still say what they were. A changed script stays out."""
    one, two = store.models()
    path = tmp_path / "b"
    copy(store, [one], FolderBundle(path, extras=extras))
    flip(path / "attachments" / "copy.bin", 3)
    (path / "attachments" / "OllamaSetup.exe").unlink()
    copy(store, [two], FolderBundle(path))
    problems = sorted(problem.what for problem in verify(FolderBundle(path)).problems)
    assert problems == ["attachments/OllamaSetup.exe is missing", "attachments/copy.bin is damaged"]
    flip(path / "restore.py", 3)
    with pytest.raises(Corrupt, match=r"restore\.py"):
        copy(store, [one], FolderBundle(path, extras=Extras(None, small(tmp_path, "x", b"x"))))
    copy(store, [two], FolderBundle(path, extras=extras))
    (problem,) = verify(FolderBundle(path)).problems  # as of blobs, what is there counts by its size
    assert problem.what == "attachments/copy.bin is damaged"


def test_a_signed_folder_does_not_grow(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    one, two = store.models()
    path = tmp_path / "b"
    copy(store, [one], FolderBundle(path, extras=extras))
    (path / "SHA256SUMS.sig").write_bytes(b"signed")
    assert verify(FolderBundle(path)).unchecked == []
    before = (path / "SHA256SUMS").read_bytes()
    copy(store, [one], FolderBundle(path, extras=extras))
    with pytest.raises(Refused, match="signed"):
        copy(store, [one, two], FolderBundle(path))
    with pytest.raises(Refused, match="signed"):
        copy(store, [one], FolderBundle(path, extras=Extras(b"# newer\n")))
    assert (path / "SHA256SUMS").read_bytes() == before


def test_a_killed_pack_leaves_a_whole_folder(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """Whenever it dies, what the documents list is there and whole; the next run finishes it."""
    one, two = store.models()
    more = Extras(b"# newer\n", small(tmp_path, "scan.pdf", b"clean"))
    for after in range(0, 200, 3):
        path = tmp_path / f"b{after}"
        copy(store, [one], FolderBundle(path, extras=extras))

        def work(path: Path = path) -> None:
            copy(store, [one, two], FolderBundle(path, extras=more))

        died = dying(work, after)
        assert verify(FolderBundle(path)).problems == []
        if not died:
            break
        age(path, path / ".modelpack")
        work()
        assert verify(FolderBundle(path)).problems == []
        assert sha256sum(path).returncode == 0
        assert len(names_in(FolderBundle(path))) == 4
    else:
        pytest.fail("it never got to its end")


def test_what_a_killed_pack_left_is_taken_up(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """README.txt and restore.py get their names after the sums: until then they are there as .new."""
    path = tmp_path / "b"
    copy(store, store.models(), FolderBundle(path, extras=extras))
    for names in (["README.txt"], ["README.txt", "restore.py"]):
        for name in names:
            (path / name).rename(path / f"{name}.new")
            (path / name).write_bytes(b"of the pack before")
        assert verify(FolderBundle(path)).problems == []
        assert attach.stripped(FolderBundle(path)) == ()
        copy(store, store.models(), FolderBundle(path, extras=extras))
        assert sha256sum(path).returncode == 0
        assert not list(path.glob("*.new"))


# --- out of it again


@KINDS
def test_unpack_gives_them_back(kind: str, store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """Beside one model or several; a second time they stay; nothing else takes them for a model."""
    made = packed(kind, store, tmp_path / "b", extras)

    def unpack(count: int, into: Path, replace: bool = False) -> list[str]:
        source: Bundle | PipeSource = piped(made.path) if kind == "pipe" else made
        plain = PlainFolder(into, source, replace=replace)
        with attach.returned(source, into, replace=replace) as back:
            copy(source, source.models()[:count], plain)
        return sorted(one.name for one in back)

    for count in (1, 2):
        into = tmp_path / f"out{count}"
        for _ in range(2):
            assert unpack(count, into) == [one.name for one in extras.attachments]
            there = {one.name: one.read_bytes() for one in (into / "attachments").iterdir()}
            assert there == bytes_of(extras)
        assert len(PlainFolder(into).models()) == count
        assert list(PlainFolder(into).changes()) == []
        (into / "attachments" / "copy.bin").write_bytes(b"mine")
        with pytest.raises(Taken, match="another file"):
            unpack(count, into)
        assert (into / "attachments" / "copy.bin").read_bytes() == b"mine"
        unpack(count, into, replace=True)
        assert (into / "attachments" / "copy.bin").read_bytes() == noise(3000)


def test_a_pipe_without_a_single_blob(store: MemoryStore, extras: Extras, tmp_path: Path) -> None:
    """A delta of nothing but what is there: the attachments follow the documents at once."""
    (one, _) = store.models()
    away = Expects.of([Expected(blob.digest, blob.size, one.name, one.document.id) for blob in one.blobs])
    (large,) = small(tmp_path, "A.iso", bytes(5 << 20))  # and is no document, in front as it is
    extras = Extras(SCRIPT, (large, *extras.attachments))
    copy(store, [one], Archive(tmp_path / "b.tar", expects=away, extras=extras))
    tar_without(tmp_path / "b.tar", "restore.py")
    source = piped(tmp_path / "b.tar")
    assert attach.stripped(source) == ("restore.py",)
    with attach.returned(source, tmp_path / "out") as back:
        assert list(source.passing(())) == []
    assert {one.name: (tmp_path / "out" / one.path).read_bytes() for one in back} == bytes_of(extras)


def test_a_model_called_attachments_gets_another_folder(extras: Extras, tmp_path: Path) -> None:
    store = MemoryStore()
    for name in ("attachments", "tiny"):
        store.image(name, (MODEL, noise(100, name)))
    made = packed("folder", store, tmp_path / "b", extras)
    with attach.returned(made, tmp_path / "out"):
        copy(made, made.models(), PlainFolder(tmp_path / "out", made))
    assert len(PlainFolder(tmp_path / "out").models()) == 2
    assert len(list((tmp_path / "out" / "attachments").iterdir())) == 3


@KINDS
def test_a_damaged_attachment_is_not_unpacked(
    kind: str, store: MemoryStore, extras: Extras, tmp_path: Path
) -> None:
    made = packed(kind, store, tmp_path / "b", extras)
    if isinstance(made, Archive):
        flip(made.path, made.members["attachments/copy.bin"][0])
    else:
        flip(made.path / "attachments" / "copy.bin", 0)
    source: Bundle | PipeSource = piped(made.path) if kind == "pipe" else made
    with pytest.raises(Corrupt, match=r"copy\.bin"), attach.returned(source, tmp_path / "out"):
        copy(source, source.models(), PlainFolder(tmp_path / "out", source))
    assert not (tmp_path / "out" / "attachments" / "copy.bin").exists()


# --- what cannot be attached


def test_names_that_do_not_travel(tmp_path: Path) -> None:
    for name in ("Übung.pdf", "a" * 89, ".hidden", "-x", "CON.txt", "a:b", "ends."):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(Usage) as caught:
            attach.attached([tmp_path / name])
        suggested = caught.value.advice.rpartition("such as ")[2].split("'")[1]
        (tmp_path / suggested).write_bytes(b"x")
        assert attach.attached([tmp_path / suggested])


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, error in ((tmp_path, Usage), (tmp_path / "gone", NotFound), (tmp_path / "fifo", Refused)):
        with pytest.raises(error):
            attach.attached([path])


def test_two_files_of_one_name(tmp_path: Path) -> None:
    both = (*small(tmp_path, "a.txt", b"1"), *small(tmp_path, "A.TXT", b"2"))
    with pytest.raises(Usage, match="two attachments"):
        Extras(None, both)


@KINDS
@pytest.mark.parametrize("after", [b"y", b"xyz", b""])
def test_a_file_that_changes_is_noticed(kind: str, after: bytes, store: MemoryStore, tmp_path: Path) -> None:
    """Hashed first, copied later: what was not hashed does not come along, and nothing looks whole."""
    (path,) = small(tmp_path, "a.txt", b"xz")
    Path(str(path.blob.key)).write_bytes(after)
    with pytest.raises(Corrupt, match=r"a\.txt"):
        packed(kind, store, tmp_path / "b", Extras(None, (path,)))
    if kind == "archive":
        assert not (tmp_path / "b").exists()
    if kind == "folder":
        assert not (tmp_path / "b" / "index.json").exists()
    if kind == "pipe":
        with pytest.raises(Corrupt):
            _ = Archive(tmp_path / "b").contents


def test_a_large_one_has_its_size_in_the_tar(store: MemoryStore, tmp_path: Path) -> None:
    """From 8 GiB on eleven octal digits do not hold it; every offset is arithmetic all the same."""
    blob = Blob(9 << 30, "x", Digest.of(b""))
    far: Callable[[], object] = tmp_path.stat
    extras = Extras(SCRIPT, (Attachment("big.iso", blob, far),))  # type: ignore[arg-type]
    layout = tar_layout(bundle(store.models(), extras=extras))
    assert layout.places() == {"attachments/big.iso": layout.size - 1024 - (9 << 30)}
    raw = b"".join(one.content for one in layout.pieces if isinstance(one.content, bytes))
    assert b"size=9663676416" in raw
