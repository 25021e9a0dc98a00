"""The reader of safetensors headers: right on whole files, and never surprised by any others."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.documents.safetensors import HEADER_MOST, Safetensors, Tensor, read_safetensors, shards_of
from modelpack.errors import Corrupt, ModelpackError, Unsupported
from modelpack.words.reader import BytesReader

SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "BOOL": 1}
TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with just this header, whether it is true or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def safetensors(*tensors: tuple[str, str, tuple[int, ...]], **metadata: str) -> bytes:
    """A whole file of *tensors* (name, dtype, shape), as Hugging Face's writer makes it."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape in tensors:
        end = at + SIZES[dtype]
        for length in shape:
            end = at + (end - at) * length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    return file_of(raw + b" " * (-len(raw) % 8), bytes(at))


def parse(data: bytes, size: int | None = None) -> Safetensors:
    return read_safetensors(BytesReader(data), len(data) if size is None else size, "it.safetensors")


def test_a_file_as_written_by_hugging_face() -> None:
    found = parse(safetensors(("b", "BF16", (2, 3)), ("a", "F32", ()), ("none", "I8", (0, 7)), format="pt"))
    assert found.tensors == (
        Tensor("b", "BF16", (2, 3), 0, 12),
        Tensor("a", "F32", (), 12, 16),
        Tensor("none", "I8", (0, 7), 16, 16),
    )
    assert found.metadata == {"format": "pt"}
    assert found.parameter_count == 7


def test_tensors_come_in_the_order_of_their_data() -> None:
    header = {"late": TENSOR | {"data_offsets": [24, 48]}, "early": TENSOR}
    assert [one.name for one in parse(file_of(header, bytes(48))).tensors] == ["early", "late"]


def test_small_and_unknown_types() -> None:
    """Four bits make half a byte; a type of tomorrow is taken at its word."""
    header = {
        "four": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]},
        "new": {"dtype": "Q3_NEW", "shape": [5], "data_offsets": [3, 8]},
    }
    assert parse(file_of(header, bytes(8))).parameter_count == 11
    header["four"]["shape"] = [5]
    with pytest.raises(Corrupt, match="5 elements of F4, but 3 bytes"):
        parse(file_of(header, bytes(8)))


@pytest.mark.parametrize(
    ("lost", "says"), [(1, "missing"), (48, "missing"), (49, "would take"), (150, "would take")]
)
def test_a_cut_download_is_found(lost: int, says: str) -> None:
    """In its data (48 bytes), or in its header already."""
    whole = safetensors(("a", "F32", (2, 3)), ("b", "F32", (2, 3)))
    with pytest.raises(Corrupt, match=says) as caught:
        parse(whole[:-lost])
    assert "cut" in caught.value.advice
    assert caught.value.where == "it.safetensors"


def test_a_cut_file_says_how_much_is_missing() -> None:
    whole = safetensors(("a", "F32", (2, 3)))
    with pytest.raises(
        Corrupt, match=f"has {len(whole) - 5} bytes, .* end at byte {len(whole)}: 5 are missing"
    ):
        parse(whole[:-5])


def test_the_reader_ends_before_the_size_that_was_told() -> None:
    whole = safetensors(("a", "F32", (2, 3)))
    with pytest.raises(Corrupt, match="ends after 20 of"):
        parse(whole[:20], len(whole))


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": TENSOR, "b": TENSOR | {"data_offsets": [12, 36]}}, "overlaps"),
        ({"a": TENSOR, "b": TENSOR}, "overlaps"),
        ({"a": TENSOR | {"data_offsets": [1, 25]}}, "hole"),
        ({"a": TENSOR}, "goes on for 24 bytes"),
        ({"a": TENSOR | {"data_offsets": [0, 1 << 62]}}, "6 elements of F32"),
        ({"a": TENSOR | {"data_offsets": [24, 0]}}, "before it begins"),
        ({"a": TENSOR | {"shape": [2, 4]}}, "8 elements of F32, but 24 bytes"),
        ({"a": TENSOR | {"shape": [1 << 62, 1 << 62]}}, "more elements than can be"),
        ({"a": TENSOR | {"shape": [1 << 62, 2, 0], "data_offsets": [0, 0]}}, "more elements than can be"),
        ({"a": TENSOR | {"shape": [-2, -3]}}, "lacks a shape"),
        ({"a": TENSOR | {"shape": [2.0, 3]}}, "lacks a shape"),
        ({"a": TENSOR | {"shape": [True, 6]}}, "lacks a shape"),
        ({"a": TENSOR | {"shape": None}}, "lacks a shape"),
        ({"a": TENSOR | {"data_offsets": [0, 24, 24]}}, "lacks a shape"),
        ({"a": TENSOR | {"data_offsets": "24"}}, "lacks a shape"),
        ({"a": TENSOR | {"dtype": 7}}, "no dtype"),
        ({"a": {}}, "no dtype"),
        ({"a": [0, 24]}, "not described by an object"),
        ({"__metadata__": {"a": 1}}, "__metadata__"),
        ({"__metadata__": []}, "__metadata__"),
        (b'{"a": {"dtype": NaN}}', "its header is not JSON"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "its header is nested"),
        (b'{"\xff": 1}', "its header is not JSON"),
        (b"{}\0\0\0\0\0\0", "its header is not JSON"),
        (b"{" + b" " * 100, "its header is not JSON"),
    ],
)  # fmt: skip
def test_a_header_that_lies(header: object, says: str) -> None:
    with pytest.raises(Corrupt, match=says):
        parse(file_of(header, bytes(48)))


def test_an_empty_tensor_may_lie_between_others() -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}
    later = TENSOR | {"data_offsets": [24, 48]}
    assert len(parse(file_of({"a": TENSOR, "b": later, "c": empty}, bytes(48))).tensors) == 3


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", Corrupt, "is empty"),
        (b"\x10\0\0", Corrupt, "does not begin as a safetensors file does, but with 10 00 00"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", Corrupt, "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", Corrupt, "web page"),
        (b'{"error": "Repository not found"}', Corrupt, "is JSON"),
        (b"Entry not found", Corrupt, "plain text"),
        (bytes(600), Corrupt, "zeros"),
        (b"GGUF\3\0\0\0" + bytes(90), Unsupported, "is a GGUF, not a safetensors file"),
        (b"PK\3\4" + bytes(26) + b"archive/data.pkl", Unsupported, "PyTorch"),
        (b"\x80\x02}q\0", Unsupported, "pickle"),
        (b"\x1f\x8b\x08\0", Unsupported, "gzip"),
        (b"\xff" * 8 + b'{"a": 1}', Corrupt, "does not begin as a safetensors file does"),
        (file_of({}, length=99_999_999), Corrupt, "its header would take 99999999 bytes"),
        (file_of(b"[1]"), Corrupt, "does not begin as a safetensors file does"),
    ],
)
def test_what_is_no_safetensors_file_is_told(data: bytes, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(data)


def test_no_length_is_believed() -> None:
    """A huge header is refused before it is read, and what would fill memory before it is parsed."""
    with pytest.raises(Unsupported, match="a header of 25000001 bytes"):
        parse(file_of(b"{" + b" " * 600, length=HEADER_MOST + 1), 1 << 40)
    many = b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"
    long_numbers = b'{"a":{"dtype":"F32","shape":[' + b",".join([b"9" * 4000] * 2000) + b"]}}"
    tracemalloc.start()
    began = time.process_time()
    for header in (many, long_numbers):
        with pytest.raises(Corrupt, match=r"elements; no real|lacks a shape"):
            parse(file_of(header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20
    assert time.process_time() - began < 10


@given(st.binary(max_size=200))
def test_no_bytes_surprise_it(data: bytes) -> None:
    with contextlib.suppress(ModelpackError):
        parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "F4", "other", ""]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), JSON, max_size=3), st.binary(max_size=40)
)
def test_no_header_surprises_it(header: dict[str, object], data: bytes) -> None:
    with contextlib.suppress(ModelpackError):
        parse(file_of(header, data))


SOME = st.lists(
    st.tuples(
        st.text(max_size=5).filter(lambda name: name != "__metadata__"),
        st.sampled_from(sorted(SIZES)),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
    ),
    max_size=6,
    unique_by=lambda one: one[0],
)


@given(SOME, st.dictionaries(st.sampled_from(["format", "total"]), st.text(max_size=5)), st.data())
def test_what_is_written_is_read(
    tensors: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str], data: st.DataObject
) -> None:
    """And one byte less or more is Corrupt, whichever byte it is."""
    raw = safetensors(*tensors, **metadata)
    found = parse(raw)
    assert {(one.name, one.dtype, one.shape) for one in found.tensors} == set(tensors)
    assert found.metadata == metadata
    assert sum(one.end - one.begin for one in found.tensors) == len(raw) - 8 - int.from_bytes(
        raw[:8], "little"
    )
    with pytest.raises(Corrupt):
        parse(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(Corrupt):
        parse(raw + b"\0")


def test_an_index_names_its_shards() -> None:
    assert shards_of(b'{"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}', "x") == {
        "1.safetensors"
    }
    for wrong in (b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}', b"[]", b"<html>"):
        with pytest.raises(Corrupt) as caught:
            shards_of(wrong, "model.safetensors.index.json")
        assert caught.value.where == "model.safetensors.index.json"
