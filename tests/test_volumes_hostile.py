"""Volumes and papers that were made to cost much, or to be taken for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from volume_sets import BLOCK, PER, Made, make_set

from modelpack.cli.verify import command
from modelpack.documents.sums import parse_sums
from modelpack.documents.volumes import Content, Descriptor
from modelpack.errors import Corrupt
from modelpack.verbs import volumes_look
from modelpack.verbs.volumes import State
from modelpack.verbs.volumes_look import touched
from modelpack.verbs.volumes_signed import verify_volume
from modelpack.words.digest import Digest
from modelpack.words.volume import Volume, volume_name


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_set(tmp_path / "set")


def test_no_more_of_a_file_is_hashed_than_a_volume_has(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = volumes_look.hash_blocks

    def hash_blocks(fd: int, size: int, *args: Any, **named: Any) -> None:
        sizes.append(size)
        real(fd, size, *args, **named)

    monkeypatch.setattr(volumes_look, "hash_blocks", hash_blocks)
    with made.path(2).open("ab") as file:
        file.truncate(1000 * BLOCK)
    one = verify_volume(made.path(2))
    assert (one.state, one.bad, one.read) == (State.DAMAGED, (), 1000 * BLOCK)
    assert sizes == [(PER + 1) * BLOCK]


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5)


@given(spans, st.sets(st.integers(0, 4)), st.integers(1, 40))
def test_whose_blocks_they_are(given: list[tuple[int, int]], bad: set[int], size: int) -> None:
    contents = tuple(Content(f"m{n}", at, length) for n, (at, length) in enumerate(given))
    blocks = (bytes(32),) * -(-size // 10)
    volume = Volume(2, volume_name("s", 2), 40, size, Digest.of(b""), blocks)
    descriptor = Descriptor("s", Digest.of(b""), 40 + size, 40, contents, (volume,), 10)
    bad = {index for index in bad if index < len(blocks)}
    bytes_of = {40 + at for index in bad for at in range(index * 10, min(index * 10 + 10, size))}
    due = {one.name for one in contents if bytes_of & set(range(one.offset, one.offset + one.size))}
    assert set(touched(descriptor, volume, tuple(bad))) == due


def test_sums_have_an_end() -> None:
    line = b"%064x  n%d\n"
    assert len(parse_sums(b"".join(line % (n, n) for n in range(1000)), "x")) == 1000
    for raw in (b"\n" * 100_001, b"%064x  " % 1 + b"n" * (16 << 20)):
        with pytest.raises(Corrupt, match="more"):
            parse_sums(raw, "x")


def test_a_volume_under_the_name_of_another_is_said_to_be(made: Made) -> None:
    made.path(2).rename(made.path(3))
    done = CliRunner().invoke(command, [str(made.path(3)), "-q"])
    assert done.exit_code == 0, done.output
    assert "misnamed: it is qwen.tar.002" in done.stdout


def test_without_a_descriptor_it_is_said_once(made: Made) -> None:
    (made.folder / made.descriptor.name).unlink()
    one = verify_volume(made.path(1))
    assert str(one.problem).count("could not be checked") == 1
