"""What came of a blob from afar before the line broke is taken up by the next run, and never believed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from conftest import MemoryStore, age, bits, forked, noise, tree, waited

from modelpack.errors import Corrupt, Local, Refused, Unreachable
from modelpack.stores import Reader, Target
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MIB, MODEL, TEMPLATE, Blob
from modelpack.words.reader import BytesReader

SIZE = 5 * MIB
BIG = noise(SIZE)
KINDS = {"archive": Archive, "folder": FolderBundle, "directory": ModelsDir}
Kind = Callable[[Path], Target]


class FarAway(MemoryStore):
    """A store at the other end of a bad line: it breaks after `breaks` bytes of the large blob."""

    breaks: int | None = None
    error: type[Exception] = Unreachable
    given = 0

    def afar(self) -> bool:
        return True

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        if blob.size < SIZE:
            return super().open(blob, offset)
        return self._line(self.bytes[blob.digest], offset)

    @contextlib.contextmanager
    def _line(self, data: bytes, offset: int) -> Iterator[Reader]:
        inner = BytesReader(data, offset)
        far, place = self, offset

        class Line:
            def readinto(self, into: memoryview, /) -> int:
                nonlocal place
                if far.breaks is not None and place >= far.breaks:
                    raise far.error("the line broke")
                count = inner.readinto(into[:100_000])
                place += count
                far.given += count
                return count

        yield Line()


@pytest.fixture
def far() -> FarAway:
    store = FarAway()
    store.image("m", (MODEL, BIG), (TEMPLATE, b"{{ .Prompt }}"))
    return store


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


def bring(store: FarAway, target: Target) -> Sequence[object]:
    return copy(store, store.models(), target)


def left_in(folder: Path) -> list[str]:
    return [name for name in tree(folder) if "modelpack" in name]


def test_the_next_run_asks_for_the_rest_only(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks = 3 * MIB + 5
    with pytest.raises(Unreachable, match="broke") as caught:
        bring(far, kind(tmp_path / "x"))
    assert "Run it again" in caught.value.advice
    assert left_in(tmp_path)
    far.breaks, far.given = None, 0
    receipt = copy(far, far.models(), kind(tmp_path / "x"))[0]
    assert far.given == SIZE - 3 * MIB
    assert receipt.id == far.models()[0].document.id
    assert bits(kind(tmp_path / "x")) == bits(far)  # type: ignore[arg-type]
    assert not left_in(tmp_path)


def test_ctrl_c_keeps_it_too(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks, far.error = 2 * MIB, KeyboardInterrupt  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        bring(far, kind(tmp_path / "x"))
    far.breaks, far.given = None, 0
    bring(far, kind(tmp_path / "x"))
    assert far.given == SIZE - 2 * MIB


def test_kill_9_keeps_it_too(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    class Dies(Exception):
        def __init__(self, *_: object) -> None:
            time.sleep(0.5)  # what came before is being written
            os.kill(os.getpid(), signal.SIGKILL)

    far.breaks, far.error = 2 * MIB + 7, Dies
    assert waited(forked(lambda: bring(far, kind(tmp_path / "x")))) == -signal.SIGKILL
    age(tmp_path)
    far.breaks = None
    bring(far, kind(tmp_path / "x"))
    assert SIZE - 2 * MIB <= far.given < SIZE
    assert bits(kind(tmp_path / "x")) == bits(far)  # type: ignore[arg-type]


def test_what_was_kept_is_not_believed(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks = 3 * MIB
    with pytest.raises(Unreachable):
        bring(far, kind(tmp_path / "x"))
    for path in (one for one in tmp_path.rglob("*") if "kept-" in one.name):
        with path.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(b"another" * 10)
    far.breaks, far.given = None, 0
    bring(far, kind(tmp_path / "x"))
    assert far.given == SIZE + SIZE - 3 * MIB  # the rest, and then all of it
    assert bits(kind(tmp_path / "x")) == bits(far)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [Corrupt, Local])
def test_of_a_source_that_is_wrong_nothing_is_kept(
    error: type[Exception], far: FarAway, kind: Kind, tmp_path: Path
) -> None:
    far.breaks, far.error = 3 * MIB, error
    with pytest.raises(error):
        bring(far, kind(tmp_path / "x"))
    assert not left_in(tmp_path)


def test_a_side_that_says_no_for_a_while_costs_nothing(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks, far.error = 3 * MIB, Refused
    with pytest.raises(Refused):
        bring(far, kind(tmp_path / "x"))
    far.breaks, far.given = None, 0
    bring(far, kind(tmp_path / "x"))
    assert far.given == SIZE - 3 * MIB


def test_a_part_that_is_too_long_is_cut(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks = 3 * MIB
    with pytest.raises(Unreachable):
        bring(far, kind(tmp_path / "x"))
    for path in (one for one in tmp_path.rglob("*") if "kept-" in one.name):
        os.truncate(path, 8 * MIB)
    far.breaks = None
    bring(far, kind(tmp_path / "x"))
    assert bits(kind(tmp_path / "x")) == bits(far)  # type: ignore[arg-type]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 8 * MIB]


def test_two_runs_at_once_do_not_share_it(far: FarAway, kind: Kind, tmp_path: Path) -> None:
    far.breaks = 3 * MIB
    with pytest.raises(Unreachable):
        bring(far, kind(tmp_path / "x"))
    far.breaks = None
    children = [forked(lambda: bring(far, kind(tmp_path / "x"))) for _ in range(3)]
    ended = [waited(child) for child in children]
    assert 0 in ended
    assert set(ended) <= {0, 6}  # an archive appears once: the others say so
    assert bits(kind(tmp_path / "x")) == bits(far)  # type: ignore[arg-type]


def test_an_archive_keeps_nothing_of_other_models(far: FarAway, tmp_path: Path) -> None:
    far.breaks = 3 * MIB
    with pytest.raises(Unreachable):
        bring(far, Archive(tmp_path / "x"))
    age(tmp_path)
    other = FarAway()
    other.image("other", (MODEL, b"small"))
    bring(other, Archive(tmp_path / "x"))
    assert not left_in(tmp_path)


def test_a_part_that_nobody_takes_up_goes_after_a_week(far: FarAway, tmp_path: Path) -> None:
    far.breaks = 3 * MIB
    with pytest.raises(Unreachable):
        bring(far, FolderBundle(tmp_path / "x"))
    other = FarAway()
    other.image("other", (MODEL, b"small"))
    bring(other, FolderBundle(tmp_path / "x"))
    assert left_in(tmp_path)
    for path in (one for one in tmp_path.rglob("*") if "kept-" in one.name):
        os.utime(path, (time.time() - 8 * 24 * 3600,) * 2)
    other.image("third", (MODEL, b"as small"))
    copy(other, other.models()[1:], FolderBundle(tmp_path / "x"))
    assert not left_in(tmp_path)
