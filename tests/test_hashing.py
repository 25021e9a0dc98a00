"""Bytes poured through the ring: right hashes, no hanging thread, bounded memory."""

from __future__ import annotations

import gc
import hashlib
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3
from conftest import everything, forked, noise, waited
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import Corrupt, NotFound
from modelpack.hands import hashing
from modelpack.hands.hashing import BLOCK, BUFFERS, Counted, Verified, blamed, check, pour
from modelpack.words.blob import MIB, MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader

EDGE = 64 * 1024
SIZES = sorted(
    {0, 1, 63, 64, 65, MIB - 1, MIB, MIB + 1}
    | {MIB + EDGE + near for near in (-1, 0, 1)}
    | {many * EDGE + near for many in (17, BUFFERS * 5, BUFFERS * 5 + 1) for near in (-1, 0, 1)}
)


class Boom(Exception):
    pass


def sums(data: bytes) -> tuple[Digest, Digest]:
    return Digest("sha256", hashlib.sha256(data).hexdigest()), Digest("blake3", blake3(data).hexdigest())


@pytest.fixture(autouse=True)
def no_thread_stays() -> object:
    """Every thread that a test starts has ended with it."""
    before = threading.active_count()
    yield
    end = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before


class Bits:
    """Brings *most* bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._reader, self._most = BytesReader(data), most

    def readinto(self, into: memoryview, /) -> int:
        return self._reader.readinto(into[: self._most])


@pytest.mark.parametrize("size", SIZES)
def test_around_the_edges_of_blocks(size: int) -> None:
    data = noise(size)
    kept = bytearray()
    found = pour(BytesReader(data), size, kept.extend, blake3=True, block=EDGE)
    assert (found.sha256, found.blake3) == sums(data)
    assert bytes(kept) == data
    assert pour(BytesReader(data), size, block=EDGE).sha256 == sums(data)[0]
    found = pour(BytesReader(data), size, sha256=False, blake3=True, threads=2, block=EDGE)
    assert (found.sha256, found.blake3) == (None, sums(data)[1])


@pytest.mark.parametrize("near", [-1, 0, 1])
@pytest.mark.parametrize("blocks", [1, BUFFERS])
def test_around_the_edges_of_real_blocks(blocks: int, near: int) -> None:
    data = noise(blocks * BLOCK + near)
    found = pour(BytesReader(data), len(data), blake3=True)
    assert (found.sha256, found.blake3) == sums(data)


@settings(max_examples=40, deadline=None)
@given(st.integers(MIB + 1, MIB + 400_000), st.integers(1, 200_000), st.sampled_from([4096, 50_000, 2 * MIB]))
def test_readers_that_bring_little(size: int, most: int, block: int) -> None:
    data = noise(size)
    kept = bytearray()
    found = pour(Bits(data, most + 500), size, kept.extend, blake3=True, block=block)
    assert (found.sha256, found.blake3) == sums(data)
    assert bytes(kept) == data


@pytest.mark.parametrize("size", [10, MIB, 3 * MIB, 9 * MIB])
@pytest.mark.parametrize("short", [1, 5, 10])
def test_an_early_end(size: int, short: int) -> None:
    with pytest.raises(Corrupt, match=f"ends after {size - short} of {size} bytes"):
        pour(BytesReader(noise(size - short)), size, blake3=True, where="here", block=EDGE)


def test_no_byte_too_many_is_read() -> None:
    for size in (10, 3 * MIB):
        data = noise(size + 10)
        reader = BytesReader(data)
        kept = bytearray()
        pour(reader, size, kept.extend, block=EDGE)
        assert bytes(kept) == data[:size]
        assert everything(reader) == data[size:]


class RaisingAt:
    def __init__(self, data: bytes, at: int, error: BaseException) -> None:
        self._reader, self._left, self._error = BytesReader(data), at, error

    def readinto(self, into: memoryview, /) -> int:
        if self._left <= 0:
            raise self._error
        count = self._reader.readinto(into[: self._left])
        self._left -= count
        return count


@pytest.mark.parametrize("error", [Boom(), KeyboardInterrupt(), NotFound("gone"), MemoryError()])
@pytest.mark.parametrize("at", [0, 100, MIB, 2 * MIB + 7])
@pytest.mark.parametrize("size", [500, 3 * MIB])
def test_readers_that_raise(size: int, at: int, error: BaseException) -> None:
    began = time.monotonic()
    with pytest.raises(type(error)) as caught:
        pour(RaisingAt(noise(size), min(at, size - 1), error), size, lambda _: None, blake3=True, block=EDGE)
    assert caught.value is error
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("at", [0, 1, 17, 31])
@pytest.mark.parametrize("slow", [0.0, 0.01])
def test_writers_that_raise(at: int, slow: float) -> None:
    size = 32 * EDGE
    count = 0

    def write(data: memoryview) -> None:
        nonlocal count
        if count == at:
            raise Boom
        count += 1
        time.sleep(slow)

    with pytest.raises(Boom):
        pour(BytesReader(noise(size)), size, write, blake3=True, block=EDGE)
    assert count == at


def test_both_raise() -> None:
    def write(_: memoryview) -> None:
        raise Boom

    for _ in range(50):
        with pytest.raises((Boom, NotFound)):
            pour(RaisingAt(noise(3 * MIB), MIB, NotFound("gone")), 3 * MIB, write, block=EDGE)


def test_a_writer_that_is_slow_gets_everything_in_order() -> None:
    data = noise(40 * EDGE)
    kept = bytearray()

    def write(piece: memoryview) -> None:
        time.sleep(0.002)
        kept.extend(piece)

    assert pour(BytesReader(data), len(data), write, block=EDGE).sha256 == sums(data)[0]
    assert bytes(kept) == data


def test_several_at_once() -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(
            pool.map(lambda seed: pour(BytesReader(noise(2 * MIB, seed)), 2 * MIB, block=EDGE), range(12))
        )
    assert [one.sha256 for one in found] == [sums(noise(2 * MIB, seed))[0] for seed in range(12)]


class Zeros:
    """As many zeros as anybody wants, for nothing."""

    def readinto(self, into: memoryview, /) -> int:
        return len(into)


def test_memory_is_bounded() -> None:
    """1 GiB through the ring takes little more than its four buffers."""

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pour(Zeros(), 1 << 30, sha256=False, write=len)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 24 * 1024, (before, after)

    assert waited(forked(work)) == 0


def test_memory_is_given_back() -> None:
    """After failures, too: many in a row do not add up."""

    def fail() -> None:
        with pytest.raises(Boom):
            pour(RaisingAt(noise(MIB), MIB - 1, Boom()), 8 * MIB)

    def work() -> None:
        fail()
        gc.collect()
        before = resident()
        for _ in range(12):
            fail()
        gc.collect()
        assert resident() - before < 40 * MIB

    assert waited(forked(work)) == 0


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_check() -> None:
    data = b"data"
    found = hashing.Hashes(*sums(data))
    blob = Blob(4, MODEL, key="k", title="t")
    known = check(blob, found)
    assert (known.digest, known.blake3, known.key, known.title) == (*sums(data), "k", "t")
    assert check(known, found) == known
    for wrong in (Blob(4, MODEL, Digest.of(b"x")), Blob(4, MODEL, known.digest, Digest("blake3", "5" * 64))):
        with pytest.raises(Corrupt, match="is damaged"):
            check(wrong, found)
    assert check(wrong, hashing.Hashes(found.sha256, None)).digest == known.digest


@pytest.mark.parametrize("most", [1, 7, 4096, 10**6])
def test_verified_withholds_the_last_piece(most: int) -> None:
    data = noise(5000)
    blob = Blob(5000, MODEL, Digest.of(data))
    assert everything(Verified(Bits(data, most), blob)) == data
    assert everything(Verified(Bits(data + b"more", most), blob)) == data
    wrong: list[Callable[[], bytes]] = [
        lambda: data[:-1] + b"!",
        lambda: b"!" + data[1:],
        lambda: data[:-1],
        lambda: b"",
    ]
    for make in wrong:
        moved: list[int] = []
        with pytest.raises(Corrupt):
            everything(Counted(Verified(Bits(make(), most), blob), moved.append))
        assert sum(moved) < 5000
    empty = Blob(0, MODEL, Digest.of(b""))
    assert everything(Verified(BytesReader(b""), empty)) == b""
    with pytest.raises(Corrupt):
        Verified(BytesReader(b""), Blob(0, MODEL, Digest.of(b"x")))


def test_counted_and_blamed() -> None:
    moved: list[int] = []
    assert everything(Counted(BytesReader(b"12345"), moved.append)) == b"12345"
    assert moved == [5]
    for where, want in (("", "there"), ("here", "here")):
        with pytest.raises(NotFound) as caught, blamed("there"):
            raise NotFound("gone", where=where)
        assert caught.value.where == want
