"""The archive is arithmetic: held against what Python's tarfile and GNU tar make of it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from blake3 import blake3
from conftest import FULL, TINY, MemoryStore, files_of, needs_tar, noise, sha256sum
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents.image import Image
from modelpack.documents.layout import BLOCK, END, Layout, tar_layout
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import bundle
from modelpack.documents.tarheader import Header, parse_header
from modelpack.errors import Refused
from modelpack.stores.archive import Archive
from modelpack.words.blob import GIB, LICENSE, MODEL, PARAMS, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name


def settled(store: MemoryStore) -> list[Model]:
    known = {
        blob.id: Blob(
            blob.size,
            blob.media_type,
            Digest.of(store.bytes[blob.id]),
            Digest("blake3", blake3(store.bytes[blob.id]).hexdigest()),
        )
        for blob in blobs_of(store.models())
    }
    return [model.settled(known) for model in store.models()]


def written(layout: Layout, store: MemoryStore) -> bytes:
    """The archive, piece by piece at its offset."""
    made = bytearray(layout.size)
    for piece in layout.pieces:
        content = piece.content
        raw = content if isinstance(content, bytes) else store.bytes[content.digest]
        assert len(raw) == piece.length
        made[piece.offset : piece.offset + piece.length] = raw
    return bytes(made)


def assert_no_gap(layout: Layout) -> None:
    offset = 0
    for piece in layout.pieces:
        assert piece.offset == offset
        offset += piece.length
    assert offset == layout.size
    assert offset % BLOCK == 0


LAYERS = st.lists(
    st.tuples(
        st.sampled_from([MODEL, PARAMS, LICENSE]),
        st.one_of(st.binary(max_size=40), st.integers(0, 3 * BLOCK).map(noise)),
    ),
    max_size=4,
)
NAMES = st.from_regex(r"[a-z0-9_]([a-z0-9_.-]{0,12})(:[a-z0-9_]{1,5})?", fullmatch=True)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, LAYERS, min_size=1, max_size=3))
def test_tarfile_reads_what_was_laid_out(wanted: dict[str, list[tuple[str, bytes]]]) -> None:
    store = MemoryStore()
    for name, layers in wanted.items():
        store.image(name, *layers)
    contents = bundle(settled(store))
    layout = tar_layout(contents)
    assert_no_gap(layout)
    made = written(layout, store)
    assert made.endswith(END)
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
        assert [one.name for one in members] == [one.path for one in contents.members]
        for member, one in zip(members, contents.members, strict=True):
            raw = one.content if isinstance(one.content, bytes) else store.bytes[one.content.digest]
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == raw
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname, member.type) == ("", "", tarfile.REGTYPE)
    kinds = [isinstance(one.content, Blob) for one in contents.members]
    assert kinds == sorted(kinds), "documents come first"
    for blob, offset in layout.offsets().items():
        assert made[offset : offset + len(store.bytes[blob])] == store.bytes[blob]


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.integers(0, 3), st.text(max_size=20))
def test_lengths_do_not_depend_on_hashes(layers: list[tuple[str, bytes]], unread: int, title: str) -> None:
    sizes = [len(raw) for _, raw in layers[:unread]]
    if len(set(sizes)) != len(sizes) or len({raw for _, raw in layers}) != len(layers):
        return  # then the archive hashes first, as its takes_unread says
    store = MemoryStore()
    loose = store.image("loose", *layers, unread=unread)
    before = tar_layout(bundle([loose]))
    after = tar_layout(bundle(settled(store)))
    assert [(one.offset, one.length) for one in before.pieces] == [
        (one.offset, one.length) for one in after.pieces
    ]
    assert before.size == after.size


def test_the_same_input_gives_the_same_bytes(shelf: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = written(tar_layout(bundle(settled(shelf))), shelf)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    monkeypatch.setenv("USER", "somebody")
    again = MemoryStore()
    again.image("full", *FULL)
    again.image("Someone/Tiny:v1.5-q4_K", *TINY)
    again.image("twin", *TINY, (LICENSE, b"MIT"))
    again.kept |= {key: one for key, one in shelf.kept.items() if key not in again.kept}
    again.bytes |= shelf.bytes
    assert written(tar_layout(bundle(settled(again))), again) == made


@needs_tar
def test_gnu_tar_reads_what_was_laid_out(shelf: MemoryStore, tmp_path: Path) -> None:
    contents = bundle(settled(shelf))
    (tmp_path / "b.tar").write_bytes(written(tar_layout(contents), shelf))
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(["tar", "xf", "../b.tar"], cwd=out, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    want = {
        one.path: one.content if isinstance(one.content, bytes) else shelf.bytes[one.content.digest]
        for one in contents.members
    }
    assert files_of(out) == want
    assert sha256sum(out).returncode == 0
    index = subprocess.run(["tar", "xOf", "b.tar", "index.json"], cwd=tmp_path, capture_output=True).stdout
    assert Digest.of(index) == contents.fingerprint
    assert (out / "SHA256SUMS").read_bytes().isascii()
    listed = [line[66:] for line in (out / "SHA256SUMS").read_text().splitlines()]
    assert listed == sorted(listed, key=os.fsencode)
    assert set(listed) == set(want) - {"SHA256SUMS"}


SIZES = [8 * GIB - 513, 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 70 * GIB + 7, 1 << 45]


def huge(size: int) -> tuple[list[Model], Layout]:
    store = MemoryStore()
    model = store.image("huge", (MODEL, b"x"), (LICENSE, b"MIT"))
    document = model.document
    assert isinstance(document, Image)
    blob = Blob(size, MODEL, Digest.of(b"huge"), Digest("blake3", "5" * 64))
    image = Image.compose(document.config, (blob, *document.layers[1:]))
    models = [Model(model.name, image)]
    return models, tar_layout(bundle(models))


@pytest.mark.parametrize("size", SIZES)
def test_sizes_beyond_eleven_octal_digits(size: int) -> None:
    _, layout = huge(size)
    assert_no_gap(layout)
    place = next(i for i, one in enumerate(layout.pieces) if one.length == size)
    header = layout.pieces[place - 1].content
    assert isinstance(header, bytes)
    if size < 8 * GIB:
        parsed = parse_header(header, "here")
        assert parsed is not None
        assert parsed.size == size
    else:  # extended header, its record, then the header proper
        assert len(header) == 3 * BLOCK
        assert header[156:157] == b"x"
        assert header[BLOCK:].startswith(f"{len(str(size)) + 9} size={size}\n".encode())
        assert tarfile.TarInfo.frombuf(header[2 * BLOCK :], "utf-8", "strict").type == tarfile.REGTYPE


@pytest.mark.parametrize("size", SIZES[:4])
def test_sparse_archives_beyond_8_gib(size: int) -> None:
    """Written with holes for the blob, and read by three readers."""
    models, layout = huge(size)
    blob = models[0].blobs[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "b.tar")
        with path.open("wb") as file:
            for piece in layout.pieces:
                if isinstance(piece.content, bytes):
                    file.seek(piece.offset)
                    file.write(piece.content)
            file.truncate(layout.size)
        want = {one.path: one.size for one in bundle(models).members}
        with tarfile.open(path) as tar:
            assert {one.name: one.size for one in tar.getmembers()} == want
        archive = Archive(path)
        assert {name: length for name, (_, length) in archive.members.items()} == want
        with archive.open(blob, size - 3) as reader:
            assert reader.readinto(memoryview(bytearray(10))) == 3
        assert archive.models()[0].document.raw == models[0].document.raw
        done = subprocess.run(["tar", "tvf", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert {line.split()[5]: int(line.split()[2]) for line in done.stdout.splitlines()} == want


def test_headers_come_back() -> None:
    for member in bundle(huge(5)[0]).members:
        layout = tar_layout(bundle(huge(5)[0]))
        headers = [
            parse_header(piece.content[:BLOCK], "here")
            for piece in layout.pieces
            if isinstance(piece.content, bytes) and piece.content[257:262] == b"ustar"
        ]
        assert Header(member.path, member.size, "0") in headers


def test_too_much_for_one_bundle(tiny: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.models()[0]
    for name in ("tiny", "TINY"):
        with pytest.raises(Refused, match="two models have the name"):
            bundle([model, Model(Name.parse(name), model.document)])
    many = [Blob(1, LICENSE, Digest("sha256", f"{number:064x}")) for number in range(20_000)]
    with pytest.raises(Refused, match="larger than 4 MiB"):
        bundle([Model(model.name, Image.compose(many[0], many[1:]))])
    bundle([model])
    monkeypatch.setattr("modelpack.documents.oci.MOST_MEMBERS", 5)
    with pytest.raises(Refused, match="too many"):
        bundle([model])


def test_a_blob_that_is_another_models_document(tiny: MemoryStore) -> None:
    """Two members of one name would make a tar that nobody reads."""
    tiny.image("holder", (LICENSE, tiny.models()[0].document.raw))
    with pytest.raises(Refused):
        bundle(settled(tiny))
