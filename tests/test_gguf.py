"""The reader of GGUF headers: right on real files, and never surprised by any others."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf as gguf_py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents.config import ollama_config, remarks_on
from modelpack.documents.gguf import Gguf, Skipped, Split, read_gguf
from modelpack.documents.gguf_types import FILE_TYPES, TENSOR_TYPES, VALUE_TYPES
from modelpack.errors import Corrupt, ModelpackError, Unsupported
from modelpack.words.reader import BytesReader

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = next((path for path in (ROOT.parent / "shared",) if path.is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="../shared is not here")
READABLE = sorted(path for path in FIXTURES.glob("*.gguf") if "big-endian" not in path.name)
REAL = sorted((SHARED / "gguf").glob("*.gguf")) if SHARED else []

NUMBER = {name: number for number, name in VALUE_TYPES.items()}
CODES = {
    "uint8": "B",
    "int8": "b",
    "uint16": "H",
    "int16": "h",
    "uint32": "I",
    "int32": "i",
    "uint64": "Q",
    "int64": "q",
    "float32": "f",
    "float64": "d",
    "bool": "?",
}
HUGE = 1 << 62


def parse(data: bytes, size: int | None = None, arrays: bool = False) -> Gguf:
    return read_gguf(BytesReader(data), len(data) if size is None else size, arrays=arrays, where="it.gguf")


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def raw_value(kind: str, value: Any) -> bytes:
    return text(value) if kind == "string" else struct.pack(f"<{CODES[kind]}", value)


def pair(key: str, kind: str, value: Any) -> bytes:
    """A metadata pair; *kind* is `uint8`, `string`, …, or `[uint8]` for an array."""
    if kind[0] != "[":
        return text(key) + struct.pack("<I", NUMBER[kind]) + raw_value(kind, value)
    head = struct.pack("<IIQ", NUMBER["array"], NUMBER[kind[1:-1]], len(value))
    return text(key) + head + b"".join(raw_value(kind[1:-1], item) for item in value)


def line(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def build(
    pairs: Sequence[bytes] = (),
    lines: Sequence[bytes] = (),
    data: int = 0,
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A GGUF with *data* bytes of tensors; *counts* lies about the number of tensors and pairs."""
    head = struct.pack("<4sIQQ", b"GGUF", version, *(counts or (len(lines), len(pairs))))
    head += b"".join(pairs) + b"".join(lines)
    return head + bytes(-len(head) % alignment) + bytes(data) if lines else head


def everything(found: Gguf) -> None:
    """Ask *found* all that can be asked."""
    for name in dir(Gguf):
        if not name.startswith("_"):
            getattr(found, name)
    ollama_config(found)
    remarks_on(found)
    assert all(tensor.type_name for tensor in found.tensors)


class Endless:
    """*front*, then zeros to no end: a sparse file."""

    def __init__(self, front: bytes) -> None:
        self._front = BytesReader(front)
        self.calls: list[int] = []

    def readinto(self, into: memoryview, /) -> int:
        self.calls.append(len(into))
        count = self._front.readinto(into)
        if count == 0:
            into[:] = bytes(len(into))
            return len(into)
        return count


# --- real files


@pytest.mark.parametrize("path", [*READABLE, *REAL], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_reads_what_gguf_py_reads(path: Path) -> None:
    """Keys, types, values and their places, tensors and theirs are what llama.cpp's own package finds."""
    theirs = gguf_py.GGUFReader(path)
    data = path.read_bytes()
    ours = parse(data, arrays=True)
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, field in fields.items():
        contents = field.contents()
        assert ours.metadata[key] == (tuple(contents) if isinstance(contents, list) else contents), key
        assert ours.places[key].type == field.types[0].name.lower()
        assert ours.places[key].offset == field.offset + 8 + len(key.encode()) + 4
    assert [
        (tensor.name, list(tensor.shape), tensor.type, ours.data_offset + tensor.offset, tensor.size)
        for tensor in ours.tensors
    ] == [(t.name, t.shape.tolist(), int(t.tensor_type), t.data_offset, t.n_bytes) for t in theirs.tensors]
    assert ours.version == theirs.fields["GGUF.version"].contents()
    assert ours.alignment == theirs.alignment
    assert ours.end_checked
    if theirs.tensors:
        assert ours.data_offset == theirs.data_offset
        assert ours.tensors_offset == theirs.tensors[0].field.offset
    everything(ours)


@pytest.mark.parametrize("path", [*READABLE, *REAL], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_arrays_are_skipped_unless_asked_for(path: Path) -> None:
    """Unasked, arrays of strings and long ones say only what and how many they are; all else is the same."""
    data = path.read_bytes()
    whole, brief = parse(data, arrays=True), parse(data)
    assert brief.tensors == whole.tensors
    assert brief.places == whole.places
    for key, value in brief.metadata.items():
        if isinstance(value, Skipped):
            full = whole.metadata[key]
            assert isinstance(full, tuple)
            assert len(full) == value.count
            assert value.type == "string" or value.count > 1024
        else:
            assert value == whole.metadata[key]
            assert not (isinstance(value, tuple) and value and isinstance(value[0], str))


@needs_shared
def test_shared_files_are_there() -> None:
    """The files of ../shared were among those that were compared."""
    assert len(REAL) >= 11


def test_tiny_llama_in_words() -> None:
    """The properties of the model that can be run."""
    found = parse((FIXTURES / "tiny-llama.gguf").read_bytes())
    assert (found.architecture, found.name, found.file_type) == ("llama", "tiny", "F16")
    assert (found.context_length, found.embedding_length, found.parameter_count) == (256, 32, 37152)
    assert (found.version, found.alignment, found.size, found.end) == (3, 32, 80256, 80256)
    assert not found.has_chat_template
    assert found.split is None
    assert found.role == "model"
    assert found.metadata["tokenizer.ggml.tokens"] == Skipped("string", 258)
    assert found.tensors[0].type_name == "F16"
    with pytest.raises(TypeError):
        found.metadata["general.name"] = "another"  # type: ignore[index]


def test_roles_templates_and_shards() -> None:
    """Projector, adapter, chat template and shard are recognised."""
    found = {path.stem: parse(path.read_bytes()) for path in READABLE}
    assert found["tiny-mmproj"].role == "projector"
    assert found["tiny-lora"].role == "adapter"
    assert found["tiny-chat"].has_chat_template
    assert found["tiny-chat"].file_type == "Q8_0"
    assert found["tiny-vocab-v2"].version == 2
    assert found["tiny-vocab"].tensors == ()
    assert found["tiny-vocab"].end == found["tiny-vocab"].tensors_offset
    assert [found[f"tiny-llama-0000{no}-of-00003"].split for no in (1, 2, 3)] == [
        Split(no, 3, 21) for no in (0, 1, 2)
    ]
    assert found["tiny-llama-00002-of-00003"].architecture == "unknown"
    assert found["tiny-values"].file_type == "unknown"


@pytest.mark.parametrize(
    ("pairs", "role"),
    [
        ([("general.type", "string", "projector")], "projector"),
        ([("general.type", "string", "model")], "model"),
        ([("a.vision.block_count", "uint32", 1)], "projector"),
        ([("a.vision.block_count", "uint32", 1), ("a.block_count", "uint32", 1)], "model"),
        ([("a.has_audio_encoder", "bool", True)], "model"),
    ],
)
def test_projectors_as_ollama_tells_them(pairs: list[tuple[str, str, Any]], role: str) -> None:
    """`general.type`, or blocks that see and none that speak, make a projector (isProjectorGGUF)."""
    raw = [pair("general.architecture", "string", "a"), *(pair(*each) for each in pairs)]
    assert parse(build(raw)).role == role


def test_a_merged_file_is_no_shard() -> None:
    """After a merge `split.count` is 0, the other two stay: no shard. And Ollama's spelling counts too."""
    keys = [("split.no", "uint16", 0), ("split.count", "uint16", 0), ("split.tensors.count", "int32", 21)]
    assert parse(build([pair(*each) for each in keys])).split is None
    prefixed = [
        ("general.architecture", "string", "x"),
        ("x.split.count", "uint32", 2),
        ("x.split.no", "uint32", 1),
    ]
    assert parse(build([pair(*each) for each in prefixed])).split == Split(1, 2, None)
    for bad in ([("split.count", "uint16", 3)], [("split.count", "uint16", 3), ("split.no", "uint16", 3)]):
        with pytest.raises(Corrupt, match="one of 3 shards"):
            parse(build([pair(*each) for each in bad]))


def test_a_header_costs_little() -> None:
    """Pieces begin at 4 KiB and double to 1 MiB; of 80 KB with a header of 5.6 KB, 12 KiB are read."""
    reader = Endless((FIXTURES / "tiny-llama.gguf").read_bytes())
    read_gguf(reader, 80256)
    assert sum(reader.calls) <= 12 << 10
    big = build([pair("a", "[uint8]", bytes(5 << 20))])
    reader = Endless(big)
    read_gguf(reader, len(big))
    assert reader.calls[0] == 4096
    assert max(reader.calls) == 1 << 20
    assert len(reader.calls) < 20


def test_a_slow_reader_changes_nothing() -> None:
    """Bytes may come one by one."""

    class Slow(BytesReader):
        def readinto(self, into: memoryview, /) -> int:
            return super().readinto(into[:1])

    data = (FIXTURES / "tiny-values.gguf").read_bytes()
    assert read_gguf(Slow(data), len(data)) == parse(data)


def test_fixtures_are_what_make_py_makes() -> None:
    """`fixtures/make.py --check` agrees, and the folder stays small."""
    subprocess.run([sys.executable, FIXTURES / "make.py", "--check"], check=True, capture_output=True)
    assert sum(path.stat().st_size for path in FIXTURES.iterdir() if path.is_file()) < 1_000_000


def test_tables_agree_with_gguf_py() -> None:
    """Block and type sizes, and file types, are those of gguf-py (whose Q8_1 is 4 bytes too long)."""
    for kind, sizes in gguf_py.GGML_QUANT_SIZES.items():
        ours = TENSOR_TYPES[int(kind)]
        assert ours.name == kind.name
        assert (ours.block, ours.size) == sizes or kind.name == "Q8_1"
    for number, name in FILE_TYPES.items():
        assert gguf_py.LlamaFileType(number).name == f"MOSTLY_{name}"


# --- files made here

KINDS = [*CODES, "string"]


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind == "string":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    if kind == "bool":
        return st.booleans()
    if kind.startswith("float"):
        return st.floats(width=32 if kind == "float32" else 64, allow_nan=False)
    bits = 8 * struct.calcsize(CODES[kind])
    low = 0 if kind[0] == "u" else -(1 << bits - 1)
    return st.integers(low, low + (1 << bits) - 1)


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, tuple[str, Any]]:
    keys = draw(st.lists(st.text("abc.é", min_size=1, max_size=8), unique=True, max_size=8))
    found = {}
    for key in keys:
        kind = draw(st.sampled_from(KINDS))
        if draw(st.booleans()):
            found[key] = (f"[{kind}]", tuple(draw(st.lists(values_of(kind), max_size=5))))
        else:
            found[key] = (kind, draw(values_of(kind)))
    return found


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...], int]]:
    found = []
    for name in draw(st.lists(st.text("blk.0_w", max_size=8), unique=True, max_size=6)):
        kind = draw(st.sampled_from(sorted(TENSOR_TYPES)))
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        if TENSOR_TYPES[kind].block > 1:
            shape = [draw(st.integers(0, 2)) * TENSOR_TYPES[kind].block, *shape[:3]]
        found.append((name, tuple(shape), kind))
    return found


@given(metadata(), tensors(), st.sampled_from([8, 32, 256]))
def test_round_trip(pairs: dict[str, tuple[str, Any]], table: Any, alignment: int) -> None:
    """What is written is read: any metadata, any tensors; and it ends where the last of them does."""
    lines, offset, end = [], 0, 0
    for name, shape, kind in table:
        lines.append(line(name, shape, kind, offset))
        elements = 1
        for count in shape:
            elements *= count
        size = elements // TENSOR_TYPES[kind].block * TENSOR_TYPES[kind].size
        end = offset + size
        offset = end + -end % alignment
    raw = [pair(key, *value) for key, value in pairs.items()]
    raw.append(pair("general.alignment", "uint32", alignment))
    data = build(raw, lines, end, alignment=alignment)
    found = parse(data, arrays=True)
    assert dict(found.metadata) == {key: value for key, (_, value) in pairs.items()} | {
        "general.alignment": alignment
    }
    assert [(each.name, each.shape, each.type) for each in found.tensors] == table
    assert found.end == len(data)
    everything(found)
    everything(parse(data))
    if end:
        with pytest.raises(Corrupt, match="1 are missing"):
            parse(data[:-1])


def test_invalid_utf8_is_kept_apart() -> None:
    """Bytes that are no UTF-8 are kept as surrogates: different keys stay different, the bytes come back."""
    data = build([pair("a\udcff", "string", "\udc80x"), pair("a\udcfe", "uint8", 1)])
    found = parse(data)
    assert list(found.metadata) == ["a\udcff", "a\udcfe"]
    assert found.text("a\udcff") == "\udc80x"


def test_an_unknown_tensor_type_is_no_error() -> None:
    """Its size is not known, so the end is a lower bound, and says that it is."""
    found = parse(build([], [line("a", (32,), 99, 0), line("b", (4,), 0, 32)], 48))
    assert [tensor.size for tensor in found.tensors] == [None, 16]
    assert found.tensors[0].type_name == "unknown"
    assert not found.end_checked
    assert found.end == len(build([], [line("a", (32,), 99, 0), line("b", (4,), 0, 32)], 48))
    everything(found)


def test_odd_headers_are_fine() -> None:
    """No metadata, a name that is a number, a context length that is a string: nothing is said then."""
    empty = parse(build())
    assert (empty.architecture, empty.name, empty.file_type) == ("unknown", "", "unknown")
    assert (empty.context_length, empty.embedding_length, empty.parameter_count) == (None, None, 0)
    odd = [
        pair("general.name", "uint8", 1),
        pair("general.architecture", "bool", True),
        pair("unknown.context_length", "string", "many"),
        pair("unknown.embedding_length", "bool", True),
        pair("tokenizer.chat_template", "[string]", ["a"]),
        pair("general.file_type", "uint64", 1),
    ]
    found = parse(build(odd))
    assert (found.architecture, found.name, found.file_type) == ("unknown", "", "unknown")
    assert (found.context_length, found.embedding_length) == (None, None)
    assert not found.has_chat_template


# --- what it is instead


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", Corrupt, "is empty"),
        (b"GG", Corrupt, "ends after 2 bytes"),
        (b"GGUF\x03", Corrupt, "its version"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", Corrupt, "Git LFS"),
        (b"<!DOCTYPE html><html>", Corrupt, "web page"),
        (b"\xef\xbb\xbf\n <?xml version='1.0'?>", Corrupt, "web page or XML"),
        (b'{"error":"Access denied"}', Corrupt, "JSON"),
        (b"Entry not found", Corrupt, "plain text"),
        (bytes(600), Corrupt, "zeros"),
        (b"\x00\x01\x02\x03rest", Corrupt, "with 00 01 02 03"),
        (struct.pack("<Q", 40) + b'{"a":{}}' + b" " * 40, Unsupported, "safetensors"),
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", Unsupported, "PyTorch"),
        (b"PK\x03\x04" + bytes(26) + b"model.gguf", Unsupported, "zip"),
        (b"\x80\x02\x8a\x0al\xfc", Unsupported, "pickle"),
        (b"\x1f\x8b\x08\x00", Unsupported, "gzip"),
        (b"\x28\xb5\x2f\xfd\x00", Unsupported, "zstd"),
        (b"oci-layout".ljust(257, b"\0") + b"ustar\x0000", Unsupported, "tar"),
        (b"lmgg" + bytes(20), Unsupported, "GGML"),
        (b"fmgg\x01\x00\x00\x00", Unsupported, "GGMF"),
        (b"tjgg\x03\x00\x00\x00", Unsupported, "GGJT"),
        (b"algg\x01\x00\x00\x00", Unsupported, "GGLA"),
        (b"FUGG\x00\x00\x00\x03", Unsupported, "big-endian"),
        (build(version=1), Unsupported, "version 1 "),
        (build(version=0), Corrupt, "version 0"),
        (build(version=4), Unsupported, "version 4"),
        ((FIXTURES / "tiny-vocab-big-endian.gguf").read_bytes(), Unsupported, "big-endian"),
    ],
)
def test_other_files_are_named(data: bytes, error: type[ModelpackError], words: str) -> None:
    """What is not a GGUF that can be read is called by its name, with its place and what to do."""
    with pytest.raises(error, match=words) as caught:
        parse(data)
    assert type(caught.value) is error
    assert caught.value.where == "it.gguf"
    assert caught.value.advice


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (build([pair("a", "uint8", 1), pair("a", "uint8", 1)]), "'a' twice"),
        (build([pair("", "uint8", 1)]), "empty metadata key"),
        (build([pair("general.alignment", "uint32", 0)]), "alignment"),
        (build([pair("general.alignment", "uint32", 48)]), "alignment"),
        (build([pair("general.alignment", "uint64", 32)]), "alignment"),
        (build([text("a") + struct.pack("<IB", 13, 0)], counts=(0, 1)), "type 13"),
        (build([text("a") + struct.pack("<IIQ", 9, 77, 0)]), "type 77"),
        (build([pair("k" * 65536, "uint8", 1)]), "65536 bytes long"),
        # after so much, the buffer is large enough to hold the key
        (
            build(
                [*(pair(k, "[uint8]", bytes(30_000)) for k in "abcdefghijkl"), pair("k" * 65536, "uint8", 1)]
            ),
            "65536 bytes long",
        ),
        (build([], [line("a", (4,), 0, 0), line("a", (4,), 0, 32)], 64), "'a' twice"),
        (build([], [line("a", (1,) * 5, 0, 0)], 64), "5 dimensions"),
        (build([], [line("a", (1 << 32, 1 << 31), 0, 0)], 64), "more elements"),
        (build([], [line("a", (1 << 63, 0), 0, 0)], 64), "more elements"),
        (build([], [line("a", (33,), 8, 0)], 64), "multiple of 32"),
        (build([], [line("a", (), 8, 0)], 64), "multiple of 32"),
        (build([], [line("a", (4,), 0, 16)], 64), "lies at 16"),
        (build([], [line("a", (4,), 0, 64)], 64), "80 are missing|16 are missing"),
        (build([], [line("a", (1 << 40,), 0, 0)], 64), "are missing"),
        (build([], [line("a", (4,), 99, 1 << 40)], 64), "are missing"),
        (build(counts=(1 << 63, 0)), "a table of 9223372036854775808 tensors"),
        (build(counts=(0, 1 << 63)), "metadata of 9223372036854775808 keys"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, words: str) -> None:
    """Each rule that is broken is Corrupt, and says so."""
    with pytest.raises(Corrupt, match=words) as caught:
        parse(data)
    assert caught.value.where == "it.gguf"
    assert caught.value.advice


def test_arrays_of_arrays_are_unsupported() -> None:
    """The format allows them; llama.cpp and Ollama do not, so nor does this, at any depth."""
    with pytest.raises(Unsupported, match="array of arrays"):
        parse(build([text("a") + struct.pack("<IIQ", 9, 9, 1)]))


# --- hostile files


def hostile() -> dict[str, bytes]:
    """Headers that tell lengths which are not there, or should not be."""
    made = {}
    for length in (1 << 24, 1 << 31, 1 << 40, (1 << 62) - 1, 1 << 63, (1 << 64) - 1):
        word = struct.pack("<Q", length)
        made[f"key {length}"] = build([word])
        made[f"string {length}"] = build([text("a") + struct.pack("<I", 8) + word])
        for kind in range(13):
            made[f"array of {kind} {length}"] = build([text("a") + struct.pack("<II", 9, kind) + word])
        made[f"second string {length}"] = build([text("a") + struct.pack("<IIQQ", 9, 8, 2, 0) + word])
        made[f"name {length}"] = build([], [word])
        made[f"dimensions {length}"] = build([], [text("a") + struct.pack("<I", min(length, 0xFFFFFFFF))])
        made[f"tensors {length}"] = build(counts=(length, 0))
        made[f"pairs {length}"] = build(counts=(0, length))
    return made


@pytest.mark.parametrize("claimed", [None, HUGE], ids=["its size", "a sparse file"])
@pytest.mark.parametrize("arrays", [False, True])
def test_hostile_lengths_cost_nothing(claimed: int | None, arrays: bool) -> None:
    """However long a thing says it is, little memory and time goes into finding out that it lies."""
    for name, data in hostile().items():
        if claimed and (str(1 << 24) in name):
            continue  # a file that large may really have these: see the next test
        reader = Endless(data) if claimed else BytesReader(data)
        tracemalloc.start()
        begun = time.monotonic()
        with pytest.raises(ModelpackError):
            read_gguf(reader, claimed or len(data), arrays=arrays)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20, name
        assert time.monotonic() - begun < 2, name


def test_memory_is_bounded_where_the_bytes_are_there() -> None:
    """A sparse file that has all it says: what is skipped takes no memory, what is kept is bounded."""
    long = struct.pack("<Q", 1 << 24)
    skipped = build([text("a") + struct.pack("<II", 9, 0) + long])
    tracemalloc.start()
    found = read_gguf(Endless(skipped), len(skipped) + (1 << 24))
    assert found.metadata["a"] == Skipped("uint8", 1 << 24)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    with pytest.raises(Corrupt, match="fill the memory"):
        read_gguf(Endless(skipped), HUGE, arrays=True)
    many = build(
        [text(f"{number:07}") + struct.pack("<IQ", 8, 1 << 20) + bytes(1 << 20) for number in range(70)]
    )
    with pytest.raises(Corrupt, match="fill the memory"):
        parse(many)
    endless = build(counts=(0, 1), pairs=[text("a") + struct.pack("<IIQ", 9, 8, 1 << 25)])
    with pytest.raises(Corrupt, match="longer than"):
        read_gguf(Endless(endless), HUGE)


BASES = [path.read_bytes()[:8192] for path in READABLE]
NUMBERS = st.sampled_from(
    [0, 1, 8, 9, 13, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
)
EDITS = st.one_of(st.binary(max_size=12), NUMBERS.map(lambda number: struct.pack("<Q", number)))


@settings(max_examples=400)
@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.integers(0, 6000), EDITS, st.integers(0, 12)), max_size=4),
    st.integers(0, 8192),
    st.sampled_from([None, 0, 100, 1 << 20, HUGE]),
    st.booleans(),
)
def test_damaged_files(
    base: bytes, edits: list[tuple[int, bytes, int]], cut: int, claimed: int | None, arrays: bool
) -> None:
    """Whatever is changed, put in, taken out or cut off, only errors of modelpack come of it."""
    data = bytearray(base)
    for at, new, old in edits:
        data[at : at + old] = new
    raw = bytes(data[: len(data) if cut > 4096 else cut])
    with contextlib.suppress(ModelpackError):
        everything(parse(raw, claimed, arrays))


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes(data: bytes, honest: bool) -> None:
    """Random bytes, as a file or after a good beginning, are told or refused."""
    with contextlib.suppress(ModelpackError):
        everything(parse(data if honest else struct.pack("<4sIQQ", b"GGUF", 3, 2, 2) + data))


def test_every_cut_and_every_huge_number() -> None:
    """Each cut of a file is Corrupt; a huge number at each place of its header raises nothing foreign."""
    data = (FIXTURES / "tiny-values.gguf").read_bytes()
    whole = parse(data)
    for size in range(whole.end):
        with pytest.raises(Corrupt):
            parse(data[:size])
        with pytest.raises(Corrupt):  # the same, where the file was longer a moment ago
            read_gguf(BytesReader(data[: min(size, whole.tensors_offset)]), len(data))
    for at in range(4, whole.data_offset):
        for number in (1 << 63, (1 << 64) - 1, 1 << 32, 0):
            changed = data[:at] + struct.pack("<Q", number) + data[at + 8 :]
            with contextlib.suppress(ModelpackError):
                everything(parse(changed))
