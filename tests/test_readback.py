"""`--read-back`: the medium is read and not the memory, or it is said that it could not be."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from conftest import noise
from volume_sets import make_set

from modelpack.cli.volumes_shown import memory_lines
from modelpack.errors import Local, NotFound
from modelpack.hands import readback
from modelpack.hands.readback import forget, forget_files, settle
from modelpack.verbs.volumes import State, verify_set
from modelpack.verbs.volumes_signed import verify_volume
from modelpack.words.blob import MIB

linux = pytest.mark.skipif(sys.platform != "linux", reason="page cache of Linux")


def in_memory(fd: int, offset: int) -> bool | None:
    """Whether a byte can be had without waiting; None where the file system does not say."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return None


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A file on a real disk, all of it in memory, and dirty; skipped where there is no such disk."""
    path = tmp_path / "file"
    path.write_bytes(noise(3 * MIB))
    fd = os.open(path, os.O_RDONLY)
    try:
        if sys.platform != "linux" or not in_memory(fd, 0):
            pytest.skip("no disk here that says what is in memory")
    finally:
        os.close(fd)
    return path


def test_what_memory_kept_is_dropped(on_disk: Path) -> None:
    fd = os.open(on_disk, os.O_RDONLY)
    try:
        assert in_memory(fd, 2 * MIB)
        assert forget(fd) == ""
        assert not in_memory(fd, 2 * MIB)
    finally:
        os.close(fd)


def test_files_are_forgotten_before_somebody_opens_them(on_disk: Path) -> None:
    assert forget_files([on_disk]) == {}
    with on_disk.open("rb") as file:
        assert not in_memory(file.fileno(), 2 * MIB)
    with pytest.raises(NotFound):
        forget_files([on_disk.parent / "nothing"])


@linux
def test_memory_that_holds_on_is_told(on_disk: Path) -> None:
    """As where another program has the file mapped and locked."""
    import ctypes
    import mmap

    fd = os.open(on_disk, os.O_RDWR)
    try:
        with mmap.mmap(fd, 0) as held:
            place = ctypes.addressof(ctypes.c_char.from_buffer(held))
            if ctypes.CDLL(None).mlock(ctypes.c_void_p(place), ctypes.c_size_t(3 * MIB)):
                pytest.skip("may not lock memory here")
            assert "another program" in forget(fd)
    finally:
        os.close(fd)


@linux
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no tmpfs")
def test_a_file_system_in_memory_has_no_medium(quick: Path) -> None:
    made = make_set(quick / "set")
    one = verify_volume(made.path(1), read_back=True)
    assert one.state is State.GOOD
    assert "lies in memory" in one.memory
    lines = list(memory_lines(verify_set([made.folder], read_back=True).copies))
    assert len(lines) == 1
    assert "5 volumes" in lines[0]


def test_verify_reads_back_from_a_disk(on_disk: Path) -> None:
    made = make_set(on_disk.parent / "set")
    found = verify_set([made.folder], read_back=True)
    assert found.good
    assert [one.memory for one in found.copies] == [""] * 5


def test_a_system_without_a_way_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with path.open("rb") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "sunos5")
        assert "no way" in forget(file.fileno())


def test_an_empty_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    with path.open("rb") as file:
        assert "memory" not in forget(file.fileno()) or sys.platform == "win32"


def test_files_and_their_folders_are_put_on_the_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}") if sys.platform == "linux" else str(len(synced)))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"x")
    settle(paths)
    if sys.platform == "linux":
        assert synced == [*map(str, paths), str(tmp_path)]
    else:
        assert len(synced) >= 2


def test_a_medium_that_does_not_take_it_is_not_safe_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    path = tmp_path / "x"
    path.write_bytes(b"x")
    monkeypatch.setattr(readback.os, "fsync", fsync)
    with pytest.raises(Local):
        settle([path])


def test_a_file_that_is_gone_is_not_safe(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        settle([tmp_path / "nothing"])
