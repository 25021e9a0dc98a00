"""Shards of a GGUF: merged while they are read, to the bytes that `llama-gguf-split --merge` writes."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import FIXTURES, SHARED, everything, needs_shared, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents import shards
from modelpack.documents.config import human_number
from modelpack.documents.gguf import read_gguf
from modelpack.documents.shards import Shard, merge, shard_name
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import pour
from modelpack.stores.files_parts import MergedShards, WholeFile, find_family
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader

U16, U32, I32, BOOL, TEXT, U64 = 2, 4, 5, 7, 8, 10
WIDTH = {U16: "H", U32: "I", I32: "i", U64: "Q", BOOL: "?"}
F32, F16, Q8_0, Q4_K, I8 = 0, 1, 8, 12, 24
TYPES = {F32: (1, 4), F16: (1, 2), Q8_0: (32, 34), Q4_K: (256, 144), I8: (1, 1)}


class Line(NamedTuple):
    """A tensor: its line in the table, and its bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    data: bytes


def tensor(name: str, shape: Sequence[int], kind: int = F16) -> Line:
    block, size = TYPES[kind]
    count = 1
    for one in shape:
        count *= one
    return Line(name, tuple(shape), kind, noise(count // block * size, name))


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: int | str) -> bytes:
    raw = text(value) if isinstance(value, str) else struct.pack(f"<{WIDTH[kind]}", value)
    return text(key) + struct.pack("<I", kind) + raw


def gguf(
    pairs: Sequence[bytes], lines: Sequence[Line], alignment: int = 32, version: int = 3, pad: bytes = b"\0"
) -> bytes:
    """A GGUF; *pad* is what stands between tensors."""
    head = struct.pack("<4sIQQ", b"GGUF", version, len(lines), len(pairs)) + b"".join(pairs)
    body = b""
    for line in lines:
        head += text(line.name) + struct.pack(f"<I{len(line.shape)}Q", len(line.shape), *line.shape)
        head += struct.pack("<IQ", line.type, len(body))
        body += line.data + pad * (-len(line.data) % alignment)
    return head + bytes(-len(head) % alignment) + body


def numbers(no: int, count: int, tensors: int, prefix: str = "", kind: int = U16) -> list[bytes]:
    """What tells a shard from a whole file, in the order of gguf-py."""
    return [
        pair(f"{prefix}split.no", kind, no),
        pair(f"{prefix}split.count", kind, count),
        pair(f"{prefix}split.tensors.count", I32, tensors),
    ]


FACTS = [
    pair("general.architecture", TEXT, "llama"),
    pair("llama.block_count", U32, 1),
    pair("general.name", TEXT, "Tiny ü"),
    pair("llama.is_odd", BOOL, 1),
]
GROUPS = [
    [tensor("a", [3, 5]), tensor("b", [64, 2], Q8_0), tensor("c", [7], F32)],
    [tensor("d", [1], I8), tensor("e", [256, 3], Q4_K)],
    [tensor("f", [5, 1, 1, 1], I8), tensor("g", [4, 1, 2], F32), tensor("h", [33], I8)],
]


def family(
    groups: Sequence[Sequence[Line]] = GROUPS,
    facts: Sequence[bytes] = FACTS,
    at: int = len(FACTS),
    version: int = 3,
    alignment: int = 32,
    pad: bytes = b"\0",
    stem: str = "x",
) -> dict[str, bytes]:
    """The files of a model cut into *groups*; the numbers stand before fact number *at*."""
    stated = [] if alignment == 32 else [pair("general.alignment", U32, alignment)]
    made = {}
    for no, group in enumerate(groups):
        own = numbers(no, len(groups), sum(map(len, groups)))
        pairs = [*facts[:at], *own, *facts[at:], *stated] if no == 0 else [*own, *stated]
        name = f"{stem}-{no + 1:05}-of-{len(groups):05}.gguf"
        made[name] = gguf(pairs, group, alignment, version, pad)
    return made


def whole(
    groups: Sequence[Sequence[Line]] = GROUPS,
    facts: Sequence[bytes] = FACTS,
    at: int = len(FACTS),
    alignment: int = 32,
) -> bytes:
    """What such a family is together."""
    no, _, tensors = numbers(0, 0, sum(map(len, groups)))
    stated = [] if alignment == 32 else [pair("general.alignment", U32, alignment)]
    lines = []
    for line in (line for group in groups for line in group):
        shape = list(line.shape) or [1]
        while len(shape) > 1 and shape[-1] == 1:
            del shape[-1]
        lines.append(line._replace(shape=tuple(shape)))
    end = pair("split.count", U16, 0)
    return gguf([*facts[:at], no, tensors, *facts[at:], *stated, end], lines, alignment)


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def read(part: MergedShards, offset: int = 0, most: int = MIB) -> bytes:
    """The rest of *part* from *offset* on, in pieces of *most* bytes."""
    got, piece = bytearray(), memoryview(bytearray(most))
    with part.open(offset) as reader:
        while count := reader.readinto(piece):
            got += piece[:count]
    return bytes(got)


def sums(files: dict[str, bytes]) -> tuple[Digest, ...]:
    return tuple(map(Digest.of, files.values()))


# --- the bytes


@needs_shared
def test_the_vector_of_the_facts() -> None:
    assert SHARED is not None
    paths = find_family(SHARED / "gguf" / "tiny-llama-00002-of-00003.gguf")
    assert paths is not None
    part = MergedShards(paths)
    with part.open() as reader:
        hashes = pour(reader, part.size)
    assert hashes.sha256 is not None
    assert hashes.sha256.hex == "a088629706c10d95c86d08c05d5dcad8322260aa3b77bcfcf263e1e5d74c01d0"
    assert part.learned() == tuple(Digest.of(path.read_bytes()) for path in paths)


# SHA-256 of what llama-gguf-split --merge (llama.cpp b10488, built here from tools/gguf-split) made of them.
ORACLE = {
    "fixtures": "beee93052285b65fee7ee5c70db6ae7aa5e37476649291fae6b60006af587942",
    "odd": "92db097728bb30a68aae1a34af29f4e270f463cd609f9756f70970b7499659fe",
    "facts first": "552a659e37a1f54041ecc3b4ad0803506b664b372570a6767d4d6fd2eedc447a",
    "no tensors in the first": "92db097728bb30a68aae1a34af29f4e270f463cd609f9756f70970b7499659fe",
    "version 2": "92db097728bb30a68aae1a34af29f4e270f463cd609f9756f70970b7499659fe",
    "one of one": "947bd58544f9e0b8016818c447eedb5cb9865b9f40379792a482bb5b0b39a767",
    "dirty padding": "92db097728bb30a68aae1a34af29f4e270f463cd609f9756f70970b7499659fe",
}


def oracle_family(which: str) -> dict[str, bytes]:
    """The files of one of the families of ORACLE."""
    if which == "fixtures":
        return {path.name: path.read_bytes() for path in sorted(FIXTURES.glob("tiny-llama-0*.gguf"))}
    return {
        "odd": family(),
        "facts first": family(at=0),
        "no tensors in the first": family([[], *GROUPS]),
        "version 2": family(version=2),
        "one of one": family(GROUPS[:1]),
        "dirty padding": family(pad=b"\xff"),
    }[which]


@pytest.mark.parametrize("which", ORACLE)
def test_the_same_bytes_as_llama_gguf_split(which: str, quick: Path) -> None:
    files = oracle_family(which)
    part = MergedShards(written(quick, files))
    assert hashlib.sha256(read(part)).hexdigest() == ORACLE[which]
    assert part.learned() == sums(files)
    assert part.shards == len(files)


def test_fixtures_merged_say_what_the_whole_file_says(quick: Path) -> None:
    paths = find_family(FIXTURES / "tiny-llama-00001-of-00003.gguf")
    assert paths is not None
    part = MergedShards(paths)
    one = WholeFile(FIXTURES / "tiny-llama.gguf").gguf
    assert part.title == "tiny-llama.gguf"
    assert part.gguf.split is None
    assert part.gguf.parameter_count == one.parameter_count
    assert human_number(part.gguf.parameter_count) == "37K"
    assert dict(one.metadata).items() <= dict(part.gguf.metadata).items()
    assert [line.name for line in part.gguf.tensors] == [line.name for line in one.tensors]


@st.composite
def models(draw: st.DrawFn) -> tuple[list[list[Line]], int, int, int, bytes]:
    shape = {
        F32: st.lists(st.integers(1, 5), max_size=4),
        F16: st.lists(st.integers(1, 5), min_size=1, max_size=4),
        Q8_0: st.builds(lambda rest: [64, *rest], st.lists(st.integers(1, 3), max_size=2)),
        I8: st.lists(st.integers(0, 70), min_size=1, max_size=1),
    }
    kinds = draw(st.lists(st.lists(st.sampled_from(list(shape)), max_size=4), min_size=1, max_size=4))
    groups = [
        [tensor(f"{no}.{place}", draw(shape[kind]), kind) for place, kind in enumerate(some)]
        for no, some in enumerate(kinds)
    ]
    pad = draw(st.sampled_from([b"\0", b"\xa5"]))
    return (
        groups,
        draw(st.integers(0, len(FACTS))),
        draw(st.sampled_from([2, 3])),
        draw(st.sampled_from([8, 32, 64])),
        pad,
    )


@given(model=models(), cut=st.integers(0, 2000), tail=st.integers(0, 50), most=st.sampled_from([1, 3, 4096]))
@settings(max_examples=60, deadline=None)
def test_any_family(
    model: tuple[list[list[Line]], int, int, int, bytes], cut: int, tail: int, most: int
) -> None:
    """From the start and from anywhere, in pieces of any size, with bytes behind the last tensor."""
    groups, at, version, alignment, pad = model
    files = family(groups, at=at, version=version, alignment=alignment, pad=pad)
    files = {name: data + noise(tail) for name, data in files.items()}
    expected = whole(groups, at=at, alignment=alignment)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
        part = MergedShards(written(Path(made), files)[::-1])
        assert part.size == len(expected)
        assert read(part, cut, most) == expected[cut:]
        assert part.learned() == (() if cut else sums(files))
        assert read(part) == expected
        assert part.learned() == sums(files)
        assert read(part, len(expected) // 2) == expected[len(expected) // 2 :]
        assert part.learned() == sums(files), "still"
        assert part.gguf == read_gguf(BytesReader(expected), len(expected))


@pytest.mark.parametrize(("prefix", "kind"), [("llama.", U16), ("", U32), ("llama.", U64)])
def test_numbers_as_other_writers_keep_them(prefix: str, kind: int, quick: Path) -> None:
    """Ollama's own writer puts the architecture before them; the type stays what it is."""
    architecture = pair("general.architecture", TEXT, "llama")
    files = {
        f"x-{no + 1:05}-of-00003.gguf": gguf([architecture, *numbers(no, 3, 8, prefix, kind)], group)
        for no, group in enumerate(GROUPS)
    }
    no, _, tensors = numbers(0, 3, 8, prefix, kind)
    end = pair(f"{prefix}split.count", kind, 0)
    lines = whole()[whole().index(text("a") + struct.pack("<I", 2)) :]
    part = MergedShards(written(quick, files))
    got = read(part)
    assert got.startswith(
        struct.pack("<4sIQQ", b"GGUF", 3, 8, 4) + b"".join([architecture, no, tensors, end]) + text("a")
    )
    assert got[part.gguf.data_offset :] == lines[-len(got) + part.gguf.data_offset :]
    assert part.gguf.split is None


# --- reading


def test_every_offset_and_any_buffer(quick: Path) -> None:
    part = MergedShards(written(quick, family(pad=b"\xff")))
    expected = whole()
    for offset in (*range(0, len(expected) + 2, 7), len(expected)):
        assert read(part, offset) == expected[offset:]
    for most in (1, 3, 4096, 10 * MIB):
        assert read(part, 0, most) == expected


def test_an_offset_reads_no_more_than_it_must(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = written(quick, family())
    part = MergedShards(paths)
    opened: list[tuple[Path, int]] = []
    plain = WholeFile.open

    def noted(self: WholeFile, offset: int = 0) -> FileReader:
        opened.append((self.path, offset))
        return plain(self, offset)

    expected, third = whole(), WholeFile(paths[2]).gguf
    monkeypatch.setattr(WholeFile, "open", noted)
    part.size  # noqa: B018
    opened.clear()
    assert read(part, len(expected) - 96 + 4) == expected[-92:]
    assert opened == [(paths[2], third.data_offset + third.tensors[1].offset + 4)]


def test_a_call_brings_all_that_there_is_room_for(quick: Path) -> None:
    part = MergedShards(written(quick, family()))
    with part.open() as reader:
        assert reader.readinto(memoryview(bytearray(0))) == 0
        assert reader.readinto(memoryview(bytearray(part.size - 1))) == part.size - 1
        assert part.learned() == ()
        assert reader.readinto(memoryview(bytearray(50))) == 1
        assert len(part.learned()) == 3, "known without asking for more"
        assert reader.readinto(memoryview(bytearray(50))) == 0


def test_a_reader_that_was_left_early_learned_nothing(quick: Path) -> None:
    part = MergedShards(written(quick, family()))
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with part.open() as reader:
        reader.readinto(memoryview(bytearray(part.size - 40)))
    assert part.learned() == ()
    assert not fds or len(os.listdir("/proc/self/fd")) == fds


def test_two_threads_at_once(quick: Path) -> None:
    files = family()
    part = MergedShards(written(quick, files))
    got: list[bytes] = []
    turn = threading.Barrier(2)

    def work() -> None:
        turn.wait()
        for _ in range(10):
            got.append(read(part, 0, 100))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [whole()] * 20
    assert part.learned() == sums(files)


def test_large_shards_take_little_memory(quick: Path) -> None:
    groups = [[Line(f"{no}", (12 * MIB + 5,), I8, bytes(12 * MIB + 5))] for no in range(3)]
    files = family(groups)
    part = MergedShards(written(quick, files))
    expected = hashlib.sha256(whole(groups)).hexdigest()
    learned = sums(files)
    del groups, files
    tracemalloc.start()
    try:
        with part.open() as reader:
            found = pour(reader, part.size, overlap=False)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    assert found.sha256 == Digest("sha256", expected)
    assert part.learned() == learned


@pytest.mark.parametrize("touched", [0, 1, 2])
def test_a_shard_that_changes(touched: int, quick: Path) -> None:
    """Between its header and its bytes, or under the reader."""
    paths = written(quick, family())
    part = MergedShards(paths)
    part.size  # noqa: B018
    with part.open() as reader:
        reader.readinto(memoryview(bytearray(part.size - 40)))
        os.utime(paths[touched], ns=(1, 1))
        if touched == 2:
            with pytest.raises(Corrupt, match="changed") as caught:
                everything(reader)
            assert caught.value.where == str(paths[2])
            assert part.learned() == ()
    with part.open() as reader, pytest.raises(Corrupt, match="changed since") as caught:
        everything(reader)
    assert caught.value.where == str(paths[touched])
    assert part.learned() == ()


# --- what is no family


def raised(files: dict[str, bytes], folder: Path, kind: type[ModelpackError] = Corrupt) -> str:
    """What is said of *files*; it comes from every question."""
    part = MergedShards(written(folder, files))
    with pytest.raises(kind) as caught:
        part.open()
    with pytest.raises(kind):
        part.gguf  # noqa: B018
    assert caught.value.where.startswith(str(folder))
    assert caught.value.advice
    return str(caught.value)


ONE, TWO, THREE = family()


def renamed(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return dict(zip(names, files.values(), strict=True))


def changed(at: str, pairs: Sequence[bytes], group: int, **options: int) -> dict[str, bytes]:
    """The family with another file at *at*."""
    return {**family(), at: gguf(pairs, GROUPS[group], **options)}


FOREIGN: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "a copy under another name": (
        lambda: {**family(), TWO: family()[ONE]},
        f"{TWO} and {ONE} both say that they are shard 1",
    ),
    "names exchanged": (
        lambda: renamed(family(), ONE, THREE, TWO),
        f"{TWO} says that it is shard 3 of 3, unlike its name",
    ),
    "another count": (
        lambda: changed(TWO, numbers(1, 4, 8), 1),
        f"{TWO} says that it is shard 2 of 4, unlike its name",
    ),
    "a whole file under a shard's name": (
        lambda: {**family(), TWO: gguf(FACTS, [tensor("z", [3])])},
        f"{TWO} is a shard by its name, but does not say which one inside",
    ),
    "shards under other names": (
        lambda: renamed(family(), "a.gguf", "b.gguf", "c.gguf"),
        "a.gguf is a shard, but not by its name",
    ),
    "two families": (
        lambda: renamed(family(), ONE, TWO, "y-00003-of-00003.gguf"),
        f"y-00003-of-00003.gguf is not of the family of {ONE}",
    ),
    "the same tensor twice": (
        lambda: {**family(), TWO: gguf(numbers(1, 3, 8), GROUPS[0])},
        f"{ONE} and {TWO} both have tensor 'a'",
    ),
    "another number of tensors": (
        lambda: changed(THREE, numbers(2, 3, 9), 2),
        f"{THREE} counts 9 tensors in all shards, but there are 8",
    ),
    "fewer tensors": (
        lambda: {**family(), THREE: gguf(numbers(2, 3, 8), GROUPS[2][:2])},
        f"{ONE} counts 8 tensors in all shards, but there are 7",
    ),
    "another architecture": (
        lambda: changed(TWO, [pair("general.architecture", TEXT, "qwen3"), *numbers(1, 3, 8)], 1),
        f"{TWO} is of another model than {ONE}: 'general.architecture' differs",
    ),
    "the same number in another type": (
        lambda: changed(TWO, [pair("llama.block_count", U64, 1), *numbers(1, 3, 8)], 1),
        f"{TWO} is of another model than {ONE}: 'llama.block_count' differs",
    ),
    "another version": (
        lambda: {**family(), TWO: family(version=2)[TWO]},
        f"{TWO} is a GGUF of version 2, but {ONE} of version 3",
    ),
    "another alignment": (
        lambda: {**family(), TWO: family(alignment=64)[TWO]},
        f"{TWO} has the alignment 64, but {ONE} has 32",
    ),
    "an alignment that would fill the disk": (
        lambda: family([[tensor("a", [3])], [tensor("b", [3])]], alignment=1 << 20),
        "has the alignment 1048576; no real one is above 65536",
    ),
    "a shard that is cut": (
        lambda: {**family(), THREE: family()[THREE][:-32]},
        "its tensors end at byte",
    ),
    "a gap between tensors": (
        lambda: {**family(), TWO: family()[TWO].replace(struct.pack("<IQ", Q4_K, 32), GAP) + bytes(32)},
        f"{TWO}: tensor 'e' lies at 64 instead of 32",
    ),
}
GAP = struct.pack("<IQ", Q4_K, 64)


@pytest.mark.parametrize("which", FOREIGN)
def test_shards_that_are_no_family(which: str, quick: Path) -> None:
    make, expected = FOREIGN[which]
    assert expected in raised(make(), quick)


def test_the_same_metadata_again_is_no_harm(quick: Path) -> None:
    """Also where a number in it is not equal to itself."""
    facts = [*FACTS, text("nan") + struct.pack("<If", 6, float("nan"))]
    files = {**family(facts=facts), TWO: gguf([*facts, *numbers(1, 3, 8)], GROUPS[1])}
    assert read(MergedShards(written(quick, files))) == whole(facts=facts)


def test_a_tensor_of_a_type_that_nobody_knows(quick: Path) -> None:
    files = changed(TWO, numbers(1, 3, 7), 1)
    files[TWO] = files[TWO].replace(struct.pack("<IQ", Q4_K, 32), struct.pack("<IQ", 999, 32))
    assert f"{TWO}: tensor 'e' is of type 999" in raised(files, quick, Unsupported)


def test_too_many_tensors(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_TENSORS_MOST", 7)
    assert "tensor 'h' is one of more than 7" in raised(family(), quick)


def test_nothing_at_all() -> None:
    with pytest.raises(NotFound):
        merge([], "here")


def test_shards_in_any_order_and_missing_ones() -> None:
    given = [
        Shard(name, len(data), read_gguf(BytesReader(data), len(data)), data)
        for name, data in family().items()
    ]
    assert merge(given[::-1], "here") == merge(given, "here")
    with pytest.raises(NotFound) as caught:
        merge(given[1:2], "here")
    assert str(caught.value).startswith(f"here: {ONE}, {THREE} are missing\n")


def test_a_family_is_found_beside_each_of_it(quick: Path) -> None:
    paths = written(quick, family())
    assert find_family(paths[0]) == find_family(paths[2]) == paths
    assert find_family(quick / "x.gguf") is None
    paths[1].unlink()
    with pytest.raises(NotFound) as caught:
        find_family(paths[2])
    assert str(caught.value).startswith(f"{quick}: {TWO} is missing\n")
    with pytest.raises(NotFound, match=r"0020-of-00099\.gguf and 79 more are missing"):
        find_family(quick / "y-00001-of-00099.gguf")
    with pytest.raises(NotFound):
        find_family(quick / "no-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tiny-llama-00001-of-00003.gguf", ("tiny-llama", 0, 3)),
        ("a-00002-of-00002-00065535-00003-of-65535.gguf", ("a-00002-of-00002-00065535", 2, 65535)),
        ("x-00001-of-00001.gguf", ("x", 0, 1)),
        ("x-00000-of-00003.gguf", None),
        ("x-00004-of-00003.gguf", None),
        ("x-00001-of-65536.gguf", None),
        ("-00001-of-00003.gguf", None),
        ("x-00001-of-00003.gguf\n", None),
        ("x-00001-of-00003.GGUF", None),
        ("x-٠٠٠٠١-of-00003.gguf", None),
        ("x-001-of-003.gguf", None),
        ("x.gguf", None),
    ],
)
def test_names_of_shards(name: str, found: tuple[str, int, int] | None) -> None:
    assert shard_name(name) == found


# --- one file


def test_a_whole_file(quick: Path) -> None:
    path = quick / "real.gguf"
    path.write_bytes(whole())
    link = quick / "link.gguf"
    link.symlink_to(path)
    one, other = WholeFile(path), WholeFile(link)
    assert one.key == other.key
    assert (one.title, other.title) == ("real.gguf", "link.gguf")
    assert (other.size, other.shards, other.learned()) == (len(whole()), 0, ())
    assert other.gguf.parameter_count == WholeFile(path).gguf.parameter_count
    with other.open(100) as reader:
        assert everything(reader) == whole()[100:]
    path.write_bytes(whole() + b"\0")
    with pytest.raises(Corrupt, match="changed since its header was read"):
        other.open()


def test_keys_of_families(quick: Path) -> None:
    """The same for the same files, and another for a shard alone."""
    paths = written(quick, family())
    (quick / "beside").mkdir()
    links = [quick / "beside" / path.name for path in paths]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path)
    assert MergedShards(paths).key == MergedShards(links[::-1]).key
    assert len({MergedShards(paths).key, WholeFile(paths[0]).key}) == 2
