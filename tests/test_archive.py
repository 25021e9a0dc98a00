"""A bundle in one file: damaged in every way, made by others, and by somebody who means harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    TINY,
    MemoryStore,
    age,
    bits,
    bundle_bytes,
    files_of,
    needs_skopeo,
    needs_tar,
    noise,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents.contents import parse_index, read_contents
from modelpack.documents.gojson import canonical_json, go_json, parse_object, parse_value
from modelpack.documents.layout import BLOCK
from modelpack.documents.oci import blob_path
from modelpack.documents.tarheader import Members, parse_header
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Taken, Unsupported
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import FILE, LICENSE, MIB, MODEL
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader

Build = Callable[[tarfile.TarFile], object]


def small() -> MemoryStore:
    store = MemoryStore()
    store.image("m", (MODEL, b"GGUF"), config=b"{}")
    return store


def packed(store: MemoryStore, path: Path) -> bytes:
    copy(store, store.models(), Archive(path))
    return path.read_bytes()


def tar_of(files: Mapping[str, bytes], *more: tarfile.TarInfo, **options: Any) -> bytes:
    """A tar of *files* and of empty members *more*, by Python's tarfile."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", **options) as tar:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
        for one in more:
            tar.addfile(one)
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def raw_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header of any nonsense, with a right checksum."""
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0")
    head += b"00000000000\0" + b" " * 8 + kind + bytes(100) + b"ustar\x0000"
    head = head.ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def both(tmp_path: Path, raw: bytes) -> list[Source]:
    """*raw* as a file and as a pipe."""
    path = tmp_path / "given.tar"
    path.write_bytes(raw)
    return [Archive(path), PipeSource(BytesReader(raw))]


def refused(source: Source, *kinds: type[ModelpackError]) -> ModelpackError:
    """What is raised where a load of *source* is tried; nothing may arrive."""
    store = MemoryStore()
    with pytest.raises(kinds or (ModelpackError,)) as caught:
        copy(source, source.models(), store)
    assert store.kept == {}
    assert str(caught.value)
    return caught.value


# --- damage


def test_cut_anywhere(tmp_path: Path) -> None:
    """At every byte, as a file and as a pipe: Corrupt, and no model."""
    path = tmp_path / "b.tar"
    whole = packed(small(), path)
    for length in range(len(whole) - 1, -1, -1):
        os.truncate(path, length)
        store = MemoryStore()
        for source in (Archive(path), PipeSource(BytesReader(whole[:length]))):
            with pytest.raises(Corrupt) as caught:
                copy(source, source.models(), store)
            assert "is cut" in caught.value.what or length < BLOCK
        assert store.kept == {}


class InTurn(MemoryStore):
    """Without threads, which cost more than all the rest here."""

    def in_order(self) -> bool:
        return True


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_one_byte_flipped_anywhere(way: str, quick: Path) -> None:
    """Refused, or the very same model arrives."""
    path = quick / "b.tar"
    store = small()
    whole = packed(store, path)
    want = bits(store)
    arrived = 0
    fd = os.open(path, os.O_RDWR)

    def source() -> Source:
        return Archive(path) if way == "file" else PipeSource(BytesReader(os.pread(fd, len(whole), 0)))

    for at in range(len(whole)):
        os.pwrite(fd, bytes([whole[at] ^ (1 + at * 37 % 255)]), at)
        target = InTurn()
        try:
            given = source()
            copy(given, given.models(), target)
        except (Corrupt, Unsupported):
            assert target.kept == {}, at
        else:
            assert bits(target) == want, at
            arrived += 1
            if at % 53 == 0:
                given = source()
                onto_disk = ModelsDir(quick / f"models-{at}")
                copy(given, given.models(), onto_disk)
                assert bits(onto_disk) == want, at
        os.pwrite(fd, whole[at : at + 1], at)
    os.close(fd)
    assert path.read_bytes() == whole
    padding = sum(-len(raw) % BLOCK for raw in bundle_bytes(store).values())
    assert padding <= arrived < len(whole) / 1.5


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_of_any_kind(data: st.DataObject) -> None:
    """Pieces lost, doubled, swapped, overwritten: refused, or the very same model."""
    store = small()
    files = bundle_bytes(store)
    whole = tar_of(files, format=tarfile.USTAR_FORMAT)
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(broken) - 1))
        end = data.draw(st.integers(begin, min(len(broken), begin + 1500)))
        piece = bytes(broken[begin:end])
        match data.draw(st.sampled_from(["lose", "double", "zero", "noise"])):
            case "lose":
                del broken[begin:end]
            case "double":
                broken[begin:begin] = piece
            case "zero":
                broken[begin:end] = bytes(len(piece))
            case "noise":
                broken[begin:end] = noise(len(piece), begin)
        if not broken:
            break
    source = PipeSource(BytesReader(bytes(broken)))
    target = MemoryStore()
    try:
        copy(source, source.models(), target)
    except ModelpackError:
        assert target.kept == {}
    else:
        assert bits(target) in (bits(store), {})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=BLOCK * 3))
def test_any_bytes_at_all(raw: bytes) -> None:
    members = Members("here")
    with contextlib.suppress(Corrupt, Unsupported):
        for offset in range(0, len(raw), BLOCK):
            block = raw[offset : offset + BLOCK]
            parse_header(block, "here")
            members.step(block)
    with contextlib.suppress(ModelpackError):
        PipeSource(BytesReader(raw)).models()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_extended_header(raw: bytes) -> None:
    members = Members("here")
    header = members.step(raw_header(b"PaxHeaders/x", b"%011o" % len(raw), b"x"))
    assert header is not None
    with contextlib.suppress(Corrupt, Unsupported):
        members.note(header, raw)
        members.step(raw_header(b"x", b"0"))


def test_nothing_to_read(tmp_path: Path) -> None:
    for raw in (b"", b"<!DOCTYPE html><html>" * 100, bytes(10240), b"version https://git-lfs", noise(5000)):
        for source in both(tmp_path, raw):
            refused(source, Corrupt, NotFound)
    refused(Archive(tmp_path / "nowhere.tar"), NotFound)
    refused(Archive(tmp_path), Refused)
    os.mkfifo(tmp_path / "fifo.tar")
    refused(Archive(tmp_path / "fifo.tar"), Refused)


@pytest.mark.parametrize("path", ["index.json", "config", "document", "weights", "manifest"])
def test_a_file_missing(path: str, tmp_path: Path) -> None:
    store = small()
    files = dict(bundle_bytes(store))
    entry = json.loads(files["index.json"])["manifests"][0]
    model = store.models()[0]
    layers = {
        "config": model.blobs[1].digest,
        "weights": model.blobs[0].digest,
        "document": model.document.id,
        "manifest": Digest.parse(entry["digest"]),
    }
    del files[blob_path(layers[path]) if path in layers else path]
    archive, pipe = both(tmp_path, tar_of(files))
    refused(archive, NotFound)
    refused(pipe, NotFound, Corrupt)


# --- made by others


@needs_tar
@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
@pytest.mark.parametrize("how", [["."], ["--sort=name", "."], ["--numeric-owner", "--no-recursion", "ALL"]])
def test_tars_by_gnu_tar(form: str, how: list[str], tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("a", *TINY)
    store.image("b/c:d", *TINY, (LICENSE, b""))
    copy(store, store.models(), FolderBundle(tmp_path / "b"))
    if how[-1] == "ALL":
        names = sorted(files_of(tmp_path / "b"), reverse=True)
        how = [*how[:-1], *names]
    made = tmp_path / "b.tar"
    subprocess.run(["tar", "-H", form, "-cf", made, "-C", tmp_path / "b", *how], check=True)
    for source in (Archive(made), PipeSource(BytesReader(made.read_bytes()))):
        assert bits(source) == bits(store)
    (tmp_path / "again.tar").write_bytes(made.read_bytes() + bytes(5 * BLOCK))
    assert bits(Archive(tmp_path / "again.tar")) == bits(store)
    for length in (len(made.read_bytes()) // 2, 700, 511, 10240):
        if length < len(made.read_bytes()) - 10240:
            (tmp_path / "cut.tar").write_bytes(made.read_bytes()[:length])
            refused(Archive(tmp_path / "cut.tar"), Corrupt)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("order", [1, -1])
def test_tars_by_python(form: int, order: int, tmp_path: Path) -> None:
    store = small()
    files = dict(list(bundle_bytes(store).items())[::order])
    named = {("./" + name if form == tarfile.GNU_FORMAT else name): raw for name, raw in files.items()}
    extra = [
        member("blobs/", tarfile.DIRTYPE),
        member("./", tarfile.DIRTYPE),
        member("a/" + "long" * 50),
        member("déjà vu"),
        member("empty"),
    ]
    if form == tarfile.USTAR_FORMAT:
        extra.pop(2)
    elif form == tarfile.PAX_FORMAT:
        extra[-1].pax_headers = {"comment": "x" * 3000, "mtime": "1.5", "uname": "é"}
    raw = tar_of(named, *extra, format=form, encoding="utf-8")
    if form == tarfile.PAX_FORMAT:
        raw = tar_of(named, *extra, format=form, pax_headers={"comment": "global"})
    for source in both(tmp_path, raw):
        assert bits(source) == bits(store)


def test_sizes_in_extended_headers_and_in_binary(tmp_path: Path) -> None:
    """What tools write for sizes from 8 GiB on is read for small ones, too."""
    store = small()
    for way in ("pax", "binary"):
        made = bytearray()
        for name, raw in bundle_bytes(store).items():
            if way == "pax":
                record = b"%d size=%d\n" % (8 + len(str(len(raw))), len(raw))
                record = b"%d size=%d\n" % (len(record), len(raw))
                made += raw_header(b"PaxHeaders/x", b"%011o" % len(record), b"x") + record.ljust(BLOCK, b"\0")
                made += raw_header(name.encode(), b"00000000000")
            else:
                made += raw_header(name.encode(), b"\x80" + len(raw).to_bytes(11, "big"))
            made += raw + bytes(-len(raw) % BLOCK)
        made += bytes(2 * BLOCK)
        with tarfile.open(fileobj=io.BytesIO(bytes(made))) as tar:
            assert {one.name: one.size for one in tar} == {
                name: len(raw) for name, raw in bundle_bytes(store).items()
            }
        for source in both(tmp_path, bytes(made)):
            assert bits(source) == bits(store)


def test_blobs_first_can_be_read_in_a_file_only(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, noise(5 * MIB)))
    archive, pipe = both(tmp_path, tar_of(dict(list(bundle_bytes(store).items())[::-1])))
    assert bits(archive) == bits(store)
    assert "do not come first" in refused(pipe, Unsupported).what


@needs_tar
def test_sparse_members_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    for name, raw in bundle_bytes(small()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    with (folder / "holes").open("wb") as file:
        file.truncate(MIB)
    for form in (["-H", "gnu"], ["-H", "posix"], ["-H", "posix", "--sparse-version=0.0"]):
        subprocess.run(["tar", "-S", *form, "-cf", tmp_path / "s.tar", "-C", folder, "."], check=True)
        refused(Archive(tmp_path / "s.tar"), Unsupported, Corrupt)


# --- made to harm

HOSTILE: dict[str, Sequence[tarfile.TarInfo]] = {
    "up": [member("../evil")],
    "up, later": [member("blobs/../../evil")],
    "up, at the end": [member("blobs/..")],
    "absolute": [member("/etc/passwd")],
    "Windows": [member("..\\evil")],
    "symbolic link": [member("blobs/sha256/x", tarfile.SYMTYPE, "/etc/passwd")],
    "link to a directory, then through it": [member("d", tarfile.SYMTYPE, "/tmp"), member("d/evil")],
    "hard link": [member("x", tarfile.LNKTYPE, "index.json")],
    "character device": [member("x", tarfile.CHRTYPE)],
    "block device": [member("x", tarfile.BLKTYPE)],
    "FIFO": [member("x", tarfile.FIFOTYPE)],
    "continuation of another volume": [member("x", b"M")],
    "unknown": [member("x", b"Z")],
    "doubles": [member("x"), member("x")],
    "double of the index": [member("index.json")],
    "double in disguise": [member("./index.json")],
    "double by slashes": [member("blobs//sha256/./x"), member("blobs/sha256/x")],
    "long name up": [member("a/" * 100 + "../" * 120 + "evil")],
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hostile_members(how: str, form: int, tmp_path: Path) -> None:
    files = bundle_bytes(small())
    for source in both(tmp_path, tar_of(files, *HOSTILE[how], format=form)):
        refused(source, Corrupt)
    assert not (tmp_path.parent / "evil").exists()


RECORDS = {
    "size that is no number": b"? size=abc\n",
    "size in other digits": "? size=²³\n".encode(),
    "size in Arabic digits": "? size=٣٤\n".encode(),
    "negative size": b"? size=-5\n",
    "no size": b"? size=\n",
    "size with an underscore": b"? size=1_0\n",
    "size with a space": b"? size= 1\n",
    "huge size": b"? size=9999999999999999999\n",
    "size beyond all": b"? size=" + b"9" * 31 + b"\n",
    "size of 2**62": b"? size=4611686018427387905\n",
    "length too long": b"99 path=x\n",
    "length too short": b"3 path=x\n",
    "length zero": b"0 path=x\n",
    "negative length": b"-9 path=x\n",
    "length in other digits": "²³ path=x\n".encode(),
    "no length": b"path=x\n",
    "no equals": b"? pathxx\n",
    "no newline": b"9 path=xx",
    "a path up": b"? path=../evil\n",
    "an absolute path": b"? path=/a/b/c\n",
    "a path with a zero": b"? path=a\x00bc\n",
    "sparse": b"? GNU.sparse.major=1\n",
}


@pytest.mark.parametrize("how", RECORDS)
def test_hostile_extended_headers(how: str, tmp_path: Path) -> None:
    record = RECORDS[how]
    if record.startswith(b"? "):  # all but the length is wrong
        record = b"%d %s" % (len(record), record[2:])
        record = b"%d %s" % (len(record), record.partition(b" ")[2])
    made = raw_header(b"PaxHeaders/x", b"%011o" % len(record), b"x") + record.ljust(BLOCK, b"\0")
    made += raw_header(b"x", b"00000000000") + tar_of(bundle_bytes(small()))
    for source in both(tmp_path, made):
        refused(source, Corrupt, Unsupported)


SIZES = {
    "negative": b"\xff" * 12,
    "negative small": b"\xff" * 11 + b"\xfe",
    "beyond 63 bits": b"\x80\0\0\0\xff" + b"\xff" * 7,
    "2**62 and one": b"\x80\0\0\0\x40\0\0\0\0\0\0\x01",
    "2**62": b"\x80\0\0\0\x40\0\0\0\0\0\0\0",
    "letters": b"0000000000x\0",
    "hexadecimal": b"0x10\0\0\0\0\0\0\0\0",
    "minus": b"-0000000001\0",
    "nine": b"00000000009\0",
    "more than there is": b"77777777777\0",
    "two numbers": b"0001 00001\0\0",
}


@pytest.mark.parametrize("how", SIZES)
@pytest.mark.parametrize("kind", [b"0", b"x", b"L"])
def test_hostile_sizes(how: str, kind: bytes, tmp_path: Path) -> None:
    made = raw_header(b"x", SIZES[how], kind) + tar_of(bundle_bytes(small()))
    for source in both(tmp_path, made):
        refused(source, Corrupt, Unsupported)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_huge_extended_headers(kind: bytes, tmp_path: Path) -> None:
    size = 70 * 1024
    made = raw_header(b"x", b"%011o" % size, kind) + bytes(size + -size % BLOCK)
    for source in both(tmp_path, made + tar_of(bundle_bytes(small()))):
        refused(source, Corrupt)


def test_a_hundred_thousand_members(tmp_path: Path) -> None:
    made = raw_header(b"d/", b"00000000000", b"5") * (Members.LIMIT + 1) + tar_of(bundle_bytes(small()))
    for source in both(tmp_path, made):
        assert "100000" in refused(source, Corrupt).what


def test_an_index_of_5_gb(tmp_path: Path) -> None:
    size = 5 * 10**9
    path = tmp_path / "b.tar"
    with path.open("wb") as file:
        file.write(raw_header(b"index.json", b"%011o" % size))
        file.truncate(BLOCK + size + -size % BLOCK + 2 * BLOCK)
    tracemalloc.start()
    refused(Archive(path), Corrupt)
    with path.open("rb") as file:
        head = file.read(MIB)
    refused(PipeSource(BytesReader(head)), Corrupt, Unsupported)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


# --- documents that lie


def with_index(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """*files* with another index, and no sums that could tell."""
    index = json.loads(files["index.json"]) | changes
    return {k: v for k, v in files.items() if k != "SHA256SUMS"} | {"index.json": canonical_json(index)}


def test_what_a_newer_modelpack_wrote(tmp_path: Path) -> None:
    """Named before anything is called missing."""
    files = {"index.json": bundle_bytes(small())["index.json"]}
    for notes in (
        {"dev.ollama-modelpack.format": "2"},
        {"dev.ollama-modelpack.format": "1", "dev.ollama-modelpack.needs": "volumes"},
        {"dev.ollama-modelpack.needs": "delta, volumes"},
    ):
        for source in both(tmp_path, tar_of(with_index(files, annotations=notes))):
            refused(source, Unsupported)


def relaid(store: MemoryStore, change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    """A bundle whose OCI manifest was changed, with everything that refers to it made to fit."""
    files = dict(bundle_bytes(store))
    index = json.loads(files["index.json"])
    entry = index["manifests"][0]
    old = blob_path(Digest.parse(entry["digest"]))
    manifest = json.loads(files.pop(old))
    change(manifest)
    raw = canonical_json(manifest)
    entry["digest"], entry["size"] = str(Digest.of(raw)), len(raw)
    files[blob_path(Digest.of(raw))] = raw
    return with_index(files, manifests=[entry])


def test_manifest_and_document_contradict_each_other(tmp_path: Path) -> None:
    store = small()
    nobodys = {"mediaType": LICENSE, "digest": str(Digest.of(b"")), "size": 0}
    for change in (
        lambda it: it["layers"].pop(),
        lambda it: it["layers"].append(nobodys),
        lambda it: it["layers"].append(it["layers"][0]),
        lambda it: it["layers"].append(it["layers"][0] | {"size": 99}),
        lambda it: it["layers"][0].update(size=5),
        lambda it: it["layers"][0].update(size=-4),
        lambda it: it["layers"][0].update(size=4.0),
        lambda it: it["layers"][0].update(size=True),
        lambda it: it["layers"][0].update(size=1 << 80),
        lambda it: it["layers"][0].update(digest="sha256:" + "0" * 64),
        lambda it: it["layers"][0].update(digest="sha512:" + "0" * 128),
        lambda it: it["layers"][0].update(annotations={"a": 1}),
        lambda it: it["layers"][0].update(annotations={"dev.ollama-modelpack.blake3": "xyz"}),
        lambda it: it["layers"][0].update(annotations={"dev.ollama-modelpack.blake3": "5" * 64}),
        lambda it: it["layers"][0].update(mediaType=None),
        lambda it: it["layers"][0].update(urls=["http://elsewhere/"]),
        lambda it: it["config"].update(size=1),
        lambda it: it["config"].update(size=1 << 40),
        lambda it: it["config"].update(mediaType="application/vnd.ollama-modelpack.image.v2+json"),
        lambda it: it["config"].update(mediaType="application/vnd.ollama-modelpack.recipe.v1+json"),
        lambda it: it.update(config=None),
        lambda it: it.update(layers={}),
        lambda it: it.update(layers=[1]),
    ):
        for source in both(tmp_path, tar_of(relaid(store, change))):
            refused(source, Corrupt, Unsupported)
    whole = relaid(store, lambda _: None)
    for source in both(tmp_path, tar_of(whole)):
        assert bits(source) == bits(store)


def test_a_recipe_with_more_or_less_than_it_names(tmp_path: Path) -> None:
    store = MemoryStore()
    store.recipe("r", a=b"aaa", b=b"bbbb")
    nobodys = {"mediaType": FILE, "digest": str(Digest.of(b"aaa" * 2)), "size": 6}
    for change in (lambda it: it["layers"].pop(), lambda it: it["layers"].append(nobodys)):
        for source in both(tmp_path, tar_of(relaid(store, change))):
            refused(source, Corrupt)


def test_entries_of_the_index_that_lie(tmp_path: Path) -> None:
    files = bundle_bytes(small())
    entry = json.loads(files["index.json"])["manifests"][0]
    ref = "org.opencontainers.image.ref.name"
    for entries in (
        [entry, entry],
        [entry, entry | {"annotations": {ref: "REGISTRY.ollama.ai/library/M"}}],
        [entry | {"size": entry["size"] + 1}],
        [entry | {"size": 1 << 50}],
        [entry | {"digest": "sha256:" + "0" * 63}],
        [entry | {"digest": None}],
        [entry | {"annotations": {ref: "../../etc/passwd"}}],
        [entry | {"annotations": {ref: "a\u202eb"}}],
        [entry | {"annotations": {ref: ["m"]}}],
        [entry | {"annotations": {ref: "m"}}, entry | {"size": 1, "annotations": {ref: "n"}}],
    ):
        for source in both(tmp_path, tar_of(with_index(files, manifests=entries))):
            refused(source, Corrupt, NotFound)


@pytest.mark.parametrize("depth", [*range(50, 160, 10), *range(300, 1100, 7), 20_000, 400_000])
def test_nested_documents(depth: int) -> None:
    """Whatever the depth: read, or Corrupt; what was read can be told of and written again."""
    for inner in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        raw = b'{"schemaVersion":2,"manifests":[{"mediaType":' + inner + b"}]}"
        try:
            index = parse_index(raw, "here")
            canonical_json(list(index.foreign))
        except Corrupt:
            pass
        with pytest.raises((Corrupt, Unsupported)):
            parse_index(raw.replace(b"manifests", b"annotations"), "here")
        with contextlib.suppress(Corrupt):
            Digest.parse(parse_value(inner, "here"))


def test_numbers_and_texts_that_json_should_not_have(tmp_path: Path) -> None:
    for raw in (
        b"NaN",
        b"Infinity",
        b"-1e999",
        b"1e999",
        b"\xff",
        b'"\x00"',
        b"1" * 5000,
        b"",
        b"[1,]",
        b"\xef\xbb\xbf1",
    ):
        with pytest.raises(Corrupt):
            parse_value(raw, "here")
    with pytest.raises(Corrupt):
        parse_object(b"[]", "here")
    with pytest.raises(Corrupt):
        parse_object(b'{"a":"' + b"x" * (4 * MIB) + b'"}', "here")
    assert go_json({"a": "<&>\u2028\ud800\U0001f600\x7f\b\f\n"}) == (
        b'{"a":"\\u003c\\u0026\\u003e\\u2028\\ufffd\xf0\x9f\x98\x80\x7f\\b\\f\\n"}'
    )


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=12), some, max_size=3),
        max_leaves=12,
    )
)
def test_any_index_is_read_or_refused(value: Any) -> None:
    keys = ["manifests", "annotations", "mediaType", "schemaVersion"]
    raw = json.dumps(dict.fromkeys(keys, value)).encode()
    with contextlib.suppress(ModelpackError):
        canonical_json(list(parse_index(raw, "here").foreign))
    with contextlib.suppress(ModelpackError):
        read_contents(lambda _path, _most: json.dumps(value).encode(), "here")


def test_expect_comes_before_parsing(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(tar_of({"index.json": b"not even JSON"}))
    expect = Digest.of(b"another")
    with pytest.raises(Refused, match="not the bundle that was expected"):
        Archive(path, expect=expect).models()
    with pytest.raises(Refused):
        PipeSource(BytesReader(path.read_bytes()), expect=expect).models()
    store = small()
    packed(store, tmp_path / "real.tar")
    fingerprint = Archive(tmp_path / "real.tar").fingerprint
    assert bits(Archive(tmp_path / "real.tar", expect=fingerprint)) == bits(store)


# --- as a target


def test_replacing_by_one_of_its_models_writes_just_that(tmp_path: Path) -> None:
    store = MemoryStore()
    one, two = store.image("one", *TINY), store.image("two", (MODEL, b"GGUF two"))
    three = store.image("three", (MODEL, b"GGUF three"))
    path = tmp_path / "b.tar"
    copy(store, [one, two], Archive(path))
    with pytest.raises(Taken):
        copy(store, [one], Archive(path))
    copy(store, [one], Archive(path, replace=True))
    assert list(bits(Archive(path))) == [one.name.full]
    copy(store, [one, three], Archive(path, replace=True))
    assert list(bits(Archive(path))) == [one.name.full, three.name.full]
    copy(store, [three, one], Archive(path, replace=True))
    assert list(bits(Archive(path))) == [three.name.full, one.name.full]


def test_the_same_archive_object_reads_and_writes(tmp_path: Path) -> None:
    store = small()
    archive = Archive(tmp_path / "b.tar")
    copy(store, store.models(), archive)
    assert bits(archive) == bits(store)
    before = archive.path.stat()
    copy(store, store.models(), archive)
    assert archive.path.stat() == before


def test_something_else_in_its_place(tmp_path: Path) -> None:
    store = small()
    (tmp_path / "folder.tar").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / "null.tar").symlink_to("/dev/null")
    (tmp_path / "dangling.tar").symlink_to("nowhere")
    (tmp_path / "notes.tar").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    for name in ("folder.tar", "fifo.tar", "null.tar", "dangling.tar", "notes.tar"):
        for replace in (False, True):
            if (name, replace) == ("notes.tar", True):
                continue
            with pytest.raises((Refused, NotFound)):
                copy(store, store.models(), Archive(tmp_path / name, replace=replace))
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "notes.tar").read_text() == "mine"
    with pytest.raises(NotFound):
        copy(store, store.models(), Archive(tmp_path / "no" / "b.tar"))
    with pytest.raises((Local, Refused)):
        copy(store, store.models(), Archive(tmp_path / "notes.tar" / "b.tar"))


def test_appeared_meanwhile(tmp_path: Path) -> None:
    store = small()
    path = tmp_path / "b.tar"
    model = copy(store, store.models(), MemoryStore())[0].model

    def be_slow() -> None:
        with Archive(path).session([model]) as session:
            for blob in model.blobs:
                session.put(blob, BytesReader(store.bytes[blob.digest]))
            path.write_text("somebody else's")
            session.commit(model)

    with pytest.raises(Refused):
        be_slow()
    assert os.listdir(tmp_path) == ["b.tar"]
    assert path.read_text() == "somebody else's"


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".b.tar.modelpack-0123456789abcdef").write_bytes(b"left")
    (tmp_path / ".c.tar.modelpack-0123456789abcdef").write_bytes(b"another's")
    age(tmp_path)
    packed(small(), tmp_path / "b.tar")
    assert sorted(os.listdir(tmp_path)) == [".c.tar.modelpack-0123456789abcdef", "b.tar"]


def test_what_stands_after_the_end(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("m", *TINY)
    copy(store, store.models(), Archive(tmp_path / "b.tar"))
    with (tmp_path / "b.tar").open("ab") as file:
        file.write(bytes(9 * 1024))  # as GNU tar fills it up
    assert verify(Archive(tmp_path / "b.tar")).good
    with (tmp_path / "b.tar").open("ab") as file:
        file.write(b"x")
    assert "after its end" in verify(Archive(tmp_path / "b.tar")).problems[0].what


@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f4e6"])
def test_a_name_as_long_as_a_name_may_be(letter: str, tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("m", *TINY)
    name = letter * (250 // len(letter.encode())) + ".tar"
    copy(store, store.models(), Archive(tmp_path / name))
    assert os.listdir(tmp_path) == [name]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        packed(small(), tmp_path / "b.tar")
    finally:
        os.umask(before)
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o640


# --- skopeo


@needs_skopeo
def test_skopeo_carries_a_bundle_there_and_back(tmp_path: Path) -> None:
    """Every manifest and blob bit for bit, and our reader reads what skopeo wrote."""
    store = MemoryStore()
    store.image("m", *TINY, (LICENSE, b"MIT"))
    store.image("host.example:5000/ns/other:v1", (MODEL, noise(3000)))
    copy(store, store.models(), FolderBundle(tmp_path / "folder"))
    copy(store, store.models(), Archive(tmp_path / "b.tar"))
    shutil.copytree(tmp_path / "folder", tmp_path / "work")
    index = json.loads((tmp_path / "folder" / "index.json").read_text())
    for number, entry in enumerate(index["manifests"]):
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        for way, place in (("oci", "folder"), ("oci-archive", "b.tar")):
            there, back = tmp_path / f"there-{way}-{number}", tmp_path / f"back-{way}-{number}.tar"
            skopeo(f"{way}:{tmp_path / place}:{name}", f"oci:{there}:{name}")
            skopeo(f"oci:{there}:{name}", f"oci-archive:{back}:{name}")
            kept = {k: v for k, v in files_of(tmp_path / "folder").items() if k.startswith("blobs/")}
            carried = {k: v for k, v in files_of(there).items() if k.startswith("blobs/")}
            assert carried.items() <= kept.items()
            want = {k: v for k, v in bits(store).items() if k == name}
            assert bits(FolderBundle(there)) == want
            assert bits(Archive(back)) == want
            skopeo(f"oci-archive:{back}:{name}", f"oci:{tmp_path / 'all'}:{name}")
    assert bits(FolderBundle(tmp_path / "all")) == bits(store)
    kept = {k: v for k, v in files_of(tmp_path / "folder").items() if k.startswith("blobs/")}
    assert {k: v for k, v in files_of(tmp_path / "all").items() if k.startswith("blobs/")} == kept


@needs_skopeo
def test_foreign_images_are_left_alone(tmp_path: Path) -> None:
    """A layout that holds another tool's image takes our model, and the image can still be copied out."""
    made = MemoryStore()
    made.image("theirs", (MODEL, b"GGUF theirs"))
    copy(made, made.models(), FolderBundle(tmp_path / "theirs"))
    path = tmp_path / "theirs" / "index.json"
    index = json.loads(path.read_text())
    entry = index["manifests"][0]
    manifest = json.loads((tmp_path / "theirs" / blob_path(Digest.parse(entry["digest"]))).read_text())
    manifest["artifactType"] = "application/vnd.somebody.else"
    raw = json.dumps(manifest).encode()
    (tmp_path / "theirs" / blob_path(Digest.of(raw))).write_bytes(raw)
    entry |= {
        "digest": str(Digest.of(raw)),
        "size": len(raw),
        "artifactType": "application/vnd.somebody.else",
    }
    entry["annotations"]["org.opencontainers.image.ref.name"] = "theirs"
    path.write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (tmp_path / "theirs" / "SHA256SUMS").unlink()
    bundle = FolderBundle(tmp_path / "theirs")
    assert bundle.models() == ()
    store = MemoryStore()
    store.image("ours", *TINY)
    for name in ("ours", "ours"):
        new = store.image(name, *TINY, (LICENSE, noise(10, len(store.bytes))))
        copy(store, [new], FolderBundle(tmp_path / "theirs", replace=True))
    assert bits(FolderBundle(tmp_path / "theirs")) == bits(store)
    assert FolderBundle(tmp_path / "theirs").contents.index.foreign == (entry,)
    skopeo(f"oci:{tmp_path / 'theirs'}:theirs", f"oci:{tmp_path / 'out'}:theirs")
    assert (tmp_path / "out" / blob_path(Digest.of(raw))).read_bytes() == raw


def skopeo(source: str, target: str) -> None:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", source, target], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
