"""`verify` of volumes: each alone, in any order, whatever its name; and all of a set in several folders."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MemoryStore, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_sets import BLOCK, PER, Made, failing, flip, make_set

from modelpack.cli.verify import command as verify_command
from modelpack.cli.volumes_shown import blocks, set_json
from modelpack.documents.volumes import sums_of
from modelpack.errors import (
    Corrupt,
    ModelpackError,
    NotFound,
    Refused,
    Unchecked,
    Unexpected,
    Unsupported,
    Usage,
)
from modelpack.hands.blocks import hash_blocks
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs.transfer import copy
from modelpack.verbs.volumes import State, check_documents, is_volumes, verify_set
from modelpack.verbs.volumes_look import judge
from modelpack.verbs.volumes_papers import papers
from modelpack.verbs.volumes_signed import verify_volume
from modelpack.words.blob import LICENSE, MODEL
from modelpack.words.digest import Digest

linux = pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_set(tmp_path / "set")


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_volume_alone_is_good(made: Made, n: int) -> None:
    for other in made.descriptor.volumes:
        if other.n != n:
            made.path(other.n).unlink()
    one = verify_volume(made.path(n))
    assert (one.state, one.volume, one.bad) == (State.GOOD, made.descriptor.volumes[n - 1], ())
    assert one.problem is None


def test_a_renamed_volume_is_known_by_its_bytes(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "download (3).bin"
    path.parent.mkdir()
    shutil.move(made.path(3), path)
    one = verify_volume(path, [made.folder])
    assert one.state is State.GOOD
    assert one.volume == made.descriptor.volumes[2]


def test_damage_is_told_with_its_blocks_and_models(made: Made) -> None:
    flip(made.path(3), 0, 2 * BLOCK + 5)
    one = verify_volume(made.path(3))
    assert (one.state, one.bad, one.models) == (State.DAMAGED, (0, 2), ("alpha:latest", "beta:8b"))
    assert isinstance(one.problem, Corrupt)


def test_damage_of_the_first_bytes_is_damage_of_the_documents(made: Made) -> None:
    flip(made.path(1), 7)
    assert verify_volume(made.path(1)).models == ("documents", "alpha:latest")


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5), place=st.integers(0, PER * BLOCK - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_damage_in_its_block(
    tmp_path_factory: pytest.TempPathFactory, n: int, place: int, bit: int
) -> None:
    made = make_set(tmp_path_factory.mktemp("flip"))
    raw = bytearray(made.right(n))
    place %= len(raw)
    raw[place] ^= 1 << bit
    made.path(n).write_bytes(raw)
    one = verify_volume(made.path(n))
    assert (one.state, one.bad) == (State.DAMAGED, (place // BLOCK,))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 1, PER * BLOCK - 1])
def test_a_cut_volume_is_short(made: Made, size: int) -> None:
    os.truncate(made.path(2), size)
    one = verify_volume(made.path(2))
    assert one.state is State.SHORT
    assert one.bad == tuple(range(size // BLOCK, PER))
    assert f"{size} of {PER * BLOCK} bytes" in one.why


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("more", [1, BLOCK, 3 * BLOCK])
def test_a_volume_with_something_behind_it_is_damaged_and_has_every_block(
    made: Made, n: int, more: int
) -> None:
    with made.path(n).open("ab") as file:
        file.write(b"x" * more)
    one = verify_volume(made.path(n))
    assert (one.state, one.bad) == (State.DAMAGED, ())
    assert f"{more} bytes too many" in one.why


def test_zeros_in_the_middle_are_damage(made: Made) -> None:
    raw = bytearray(made.right(2))
    raw[BLOCK : 3 * BLOCK] = bytes(2 * BLOCK)
    made.path(2).write_bytes(raw)
    assert verify_volume(made.path(2)).bad == (1, 2)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_stick_with_less_room_than_it_says_is_damaged_not_foreign(made: Made, byte: bytes) -> None:
    made.path(2).write_bytes(byte * PER * BLOCK)
    one = verify_volume(made.path(2))
    assert (one.state, one.bad) == (State.DAMAGED, (0, 1, 2, 3))


def test_a_volume_of_another_set_of_the_same_name_is_not_of_this_set(made: Made, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", seed=1)
    shutil.copy(other.path(2), made.path(2))
    one = verify_volume(made.path(2))
    assert (one.state, one.volume) == (State.FOREIGN, None)
    assert isinstance(one.problem, Refused)
    assert verify_set([made.folder]).need == (2,)


def test_a_volume_of_another_run_of_the_same_set_is_good(made: Made, tmp_path: Path) -> None:
    shutil.copy(make_set(tmp_path / "again").path(2), made.path(2))
    assert verify_volume(made.path(2)).state is State.GOOD


def test_any_other_file_is_not_of_this_set(made: Made) -> None:
    path = made.folder / "holiday.jpg"
    path.write_bytes(b"x" * 10_000)
    assert verify_volume(path).state is State.FOREIGN


def test_without_a_descriptor_nothing_is_known(made: Made, tmp_path: Path) -> None:
    (made.folder / made.descriptor.name).unlink()
    one = verify_volume(made.path(1))
    assert one.state is State.UNCHECKED
    assert isinstance(one.problem, Unchecked)
    with pytest.raises(Unchecked, match="there is no"):
        verify_set([made.folder])


def test_a_damaged_descriptor_says_nothing_of_a_volume(made: Made) -> None:
    (made.folder / made.descriptor.name).write_bytes(b"{")
    assert verify_volume(made.path(1)).state is State.UNCHECKED
    with pytest.raises(Corrupt):
        verify_set([made.folder])


def test_a_descriptor_of_a_newer_format_is_unsupported(made: Made) -> None:
    path = made.folder / made.descriptor.name
    path.write_bytes(path.read_bytes().replace(b"volumes/1", b"volumes/2"))
    with pytest.raises(Unsupported):
        verify_volume(made.path(1))
    with pytest.raises(Unsupported):
        verify_set([made.folder])


def test_of_several_sets_in_one_folder_a_volume_finds_its_own(made: Made) -> None:
    other = make_set(made.folder, seed=1, stem="zephyr")
    for one in (made, other):
        assert verify_volume(one.path(2)).volume == one.descriptor.volumes[1]
    with pytest.raises(Usage, match="2 different sets"):
        verify_set([made.folder])
    assert verify_set([made.folder], "zephyr").descriptor == other.descriptor
    assert verify_set([made.folder], "zephyr").good


def test_a_whole_set_is_good(made: Made) -> None:
    found = verify_set([made.folder])
    assert found.good
    assert [one.state for one in found.copies] == [State.GOOD] * 5
    assert found.remarks == []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_each_volume_that_is_missing_is_needed(made: Made, n: int) -> None:
    made.path(n).unlink()
    assert verify_set([made.folder]).need == (n,)


def test_what_is_needed_is_one_line(made: Made, tmp_path: Path) -> None:
    made.path(3).unlink()
    flip(made.path(5), 1)
    found = verify_set([made.folder])
    assert found.need == (3, 5)
    assert not found.good


def test_swapped_volumes_are_good_and_misnamed(made: Made) -> None:
    made.path(2).rename(made.folder / "x")
    made.path(5).rename(made.path(2))
    (made.folder / "x").rename(made.path(5))
    found = verify_set([made.folder])
    assert found.need == ()
    assert sorted(one.kind for one in found.remarks) == ["misnamed", "misnamed"]


def test_a_doubled_volume_is_two_copies(made: Made) -> None:
    shutil.copy(made.path(2), made.folder / "copy of 2")
    found = verify_set([made.folder])
    assert [one.state for one in found.of(made.descriptor.volumes[1])] == [State.GOOD] * 2


def test_two_damaged_copies_are_one_good_one(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(made.folder, other)
    flip(made.path(2), 0)
    flip(other / made.path(2).name, PER * BLOCK - 1)
    assert verify_set([made.folder]).need == (2,)
    assert verify_set([made.folder, other]).need == ()
    flip(other / made.path(2).name, 1)  # now the first block is bad in both
    assert verify_set([made.folder, other]).need == (2,)


def test_volumes_in_several_folders_are_one_set(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.move(made.path(4), other)
    assert verify_set([made.folder]).need == (4,)
    assert verify_set([made.folder, other]).good is True


def test_foreign_files_are_named_and_not_used(made: Made) -> None:
    (made.folder / "._qwen.tar.001").write_bytes(b"Mac OS X")
    (made.folder / "._qwen.volumes.json").write_bytes(b"Mac OS X")
    (made.folder / "System Volume Information").mkdir()
    (made.folder / "json.py").write_bytes(b"raise SystemExit('owned')")
    found = verify_set([made.folder])
    assert found.good
    named = {Path(one.where).name for one in found.remarks if one.kind == "foreign"}
    assert named >= {"._qwen.tar.001", "System Volume Information", "json.py"}


def test_stripped_papers_are_a_remark(made: Made) -> None:
    (made.folder / "restore.py").unlink()
    (made.folder / "README.txt").unlink()
    found = verify_set([made.folder])
    assert found.good
    assert [one.kind for one in found.remarks] == ["stripped", "stripped"]


@pytest.mark.parametrize("name", ["restore.py", "README.txt"])
def test_changed_papers_are_refused(made: Made, name: str) -> None:
    (made.folder / name).write_bytes(b"print('owned')\n")
    found = verify_set([made.folder])
    assert not found.good
    assert isinstance(found.problems[0], Refused)
    assert name in found.problems[0].where


def test_a_descriptor_that_was_changed_well_is_noticed(made: Made) -> None:
    """Every volume would be damaged by it: the sums say who is wrong."""
    other = make_set(made.folder.parent / "other", seed=1)
    shutil.copy(other.folder / other.descriptor.name, made.folder)
    found = verify_set([made.folder])
    assert any("does not agree with the descriptor" in one.what for one in found.problems)


def test_of_two_descriptors_of_a_name_the_sums_vouch_for_one(made: Made, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", seed=1)
    for n in range(1, 6):
        other.path(n).unlink()
    (other.folder / "qwen.sha256").unlink()
    found = verify_set([other.folder, made.folder])
    assert found.descriptor == made.descriptor
    assert found.need == ()
    assert any("another set" in one.what for one in found.problems)


def test_two_sets_of_one_name_are_refused(made: Made, tmp_path: Path) -> None:
    other = make_set(tmp_path / "other", seed=1)
    with pytest.raises(Usage, match="2 different sets"):
        verify_set([made.folder, other.folder])


def test_sums_that_are_damaged_are_a_problem(made: Made) -> None:
    (made.folder / "qwen.sha256").write_bytes(b"nonsense\n")
    found = verify_set([made.folder])
    assert found.need == ()
    assert isinstance(found.problems[0], Corrupt)


@linux
def test_a_sector_that_cannot_be_read_is_a_bad_block(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(
        monkeypatch,
        lambda path, at: errno.EIO if path == made.path(2) and BLOCK <= at < 2 * BLOCK else None,
    )
    found = verify_set([made.folder])
    (one,) = found.of(made.descriptor.volumes[1])
    assert (one.state, one.bad, one.unread) == (State.DAMAGED, (1,), (1,))
    assert found.need == (2,)


@linux
@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV])
def test_a_drive_that_vanishes_is_not_damage(
    made: Made, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    gone = False

    def when(path: Path, offset: int) -> int | None:
        nonlocal gone
        gone |= path == made.path(3) and offset >= 2 * BLOCK
        return number if gone else None

    failing(monkeypatch, when)
    found = verify_set([made.folder])
    states = [one.state for one in found.copies]
    assert states == [State.GOOD] * 2 + [State.UNCHECKED] * 3
    assert found.need == found.unsure == (3, 4, 5)
    assert isinstance(found.copies[2].problem, Unchecked)


def test_a_drive_that_is_pulled_between_two_volumes_is_not_damage(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names were listed; the files are gone when they are opened."""
    from modelpack.verbs import volumes

    real = volumes.look

    def look(path: Path, *rest: object, **more: object) -> object:
        if path == made.path(4):
            shutil.rmtree(made.folder)
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(volumes, "look", look)
    found = verify_set([made.folder])
    assert [one.state for one in found.copies] == [State.GOOD] * 3 + [State.UNCHECKED] * 2
    assert found.unsure == (4, 5)


def test_a_folder_that_is_not_there_is_not_found(made: Made) -> None:
    with pytest.raises(NotFound):
        verify_set([made.folder, made.folder / "nowhere"])


def test_a_link_is_not_a_volume(made: Made, tmp_path: Path) -> None:
    shutil.move(made.path(2), tmp_path / "x")
    made.path(2).symlink_to(tmp_path / "x")
    found = verify_set([made.folder])
    assert found.need == (2,)
    assert any(isinstance(one, Refused) for one in found.problems)


def test_sha256_is_held_against_too(made: Made) -> None:
    volumes = list(made.descriptor.volumes)
    assert verify_volume(made.path(2), sha256=True).state is State.GOOD
    import dataclasses

    volumes[1] = dataclasses.replace(volumes[1], sha256=volumes[0].sha256)
    wrong = dataclasses.replace(made.descriptor, volumes=tuple(volumes))
    (made.folder / wrong.name).write_bytes(wrong.raw())
    assert verify_volume(made.path(2)).state is State.GOOD
    # Its own sums say that the descriptor is damaged, and not the volume; where they do not:
    assert verify_volume(made.path(2), sha256=True).state is State.UNCHECKED
    (made.folder / f"{wrong.stem}.sha256").write_bytes(sums_of(wrong, {}))
    assert verify_volume(made.path(2), sha256=True).state is State.DAMAGED


@given(
    st.lists(st.one_of(st.none(), st.binary(min_size=32, max_size=32)), max_size=8), st.integers(0, 40_000)
)
def test_judging_any_hashes_ends_in_a_state(
    tmp_path_factory: pytest.TempPathFactory, hashes: list[bytes | None], size: int
) -> None:
    descriptor = make_set(tmp_path_factory.getbasetemp() / "judged").descriptor
    for name in ("x", descriptor.volumes[1].name):
        state, volume, bad, _ = judge(descriptor, hashes, size, name)
        assert state is not State.GOOD
        assert volume is None or set(bad) <= set(range(len(volume.blocks)))


def test_blocks_are_hashed_by_several_hands_in_any_order(tmp_path: Path) -> None:
    made = make_set(tmp_path)
    path = tmp_path / "tar"
    path.write_bytes(made.tar)
    due = [block for one in made.descriptor.volumes for block in one.blocks]
    fd = os.open(path, os.O_RDONLY)
    try:
        for hands, whole in ((1, False), (4, False), (4, True), (1, True)):
            got: dict[int, tuple[bytes | None, bytes]] = {}
            hash_blocks(
                fd, len(made.tar), BLOCK, lambda i, d, data, got=got: got.update({i: (d, bytes(data))}),  # type: ignore[misc]
                path, hands=hands, whole=whole,
            )  # fmt: skip
            assert [got[i][0] for i in range(len(due))] == due
            if whole:
                assert b"".join(got[i][1] for i in range(len(due))) == made.tar
    finally:
        os.close(fd)


def test_what_is_taken_for_volumes(made: Made, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "renamed").write_bytes(b"")
    assert is_volumes(made.folder)
    assert is_volumes(made.path(1))
    assert is_volumes(made.folder / made.descriptor.name)
    assert is_volumes(made.folder / "restore.py")  # a descriptor lies beside it
    assert not is_volumes(tmp_path / "b.tar", [made.folder])
    assert not is_volumes(tmp_path / "renamed")
    assert is_volumes(tmp_path / "renamed", [made.folder])
    assert not is_volumes(tmp_path)
    assert not is_volumes(tmp_path / "nowhere")


def test_runs_of_blocks_are_short_to_read() -> None:
    assert blocks((3, 4, 5, 9), 255) == "blocks 3-5, 9 (from 0) of 255"


def test_json_has_every_state(made: Made) -> None:
    made.path(1).unlink()
    flip(made.path(2), 0)
    value = set_json(verify_set([made.folder]))
    assert value["need"] == [1, 2]
    assert [one["state"] for one in value["copies"]] == ["damaged", "good", "good", "good"]


def test_cat_and_sha256sum_say_the_same(made: Made) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "qwen.sha256"], cwd=made.folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    joined = subprocess.run("cat qwen.tar.*", cwd=made.folder, shell=True, capture_output=True, check=True)
    assert joined.stdout == made.tar


def test_any_flipped_byte_of_the_papers_is_noticed(quick: Path) -> None:
    """It is raised, or among the problems."""
    made = make_set(quick / "set")
    for path in sorted(made.folder.iterdir()):
        if path.name.startswith("qwen.tar."):
            continue
        raw = path.read_bytes()
        for place in range(len(raw)):
            flip(path, place)
            try:
                assert papers([made.folder]).problems, f"{path.name} at {place}"
            except (Corrupt, Unsupported, Unchecked):
                pass
            path.write_bytes(raw)
    assert verify_set([made.folder]).good


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A set that pack wrote."""
    store = MemoryStore()
    store.image("one", (MODEL, noise(50_000, "one")), (LICENSE, b"MIT"))
    store.image("two", (MODEL, noise(30_000, "two")), (LICENSE, b"MIT"))
    target = VolumesTarget(tmp_path / "packed", 4 * BLOCK, block_size=BLOCK, stem="s")
    copy(store, store.models(), target)
    return tmp_path / "packed"


def test_a_set_that_pack_wrote(packed: Path) -> None:
    whole = verify_set([packed])
    check_documents(whole, [packed])
    assert whole.good
    flip(packed / "s.tar.004", 0)
    found = verify_set([packed])
    assert found.need == (4,)
    (one,) = found.of(found.descriptor.volumes[3])
    assert one.models == ("one:latest",)


def test_a_descriptor_that_names_another_bundle_is_noticed(made: Made) -> None:
    """Its volumes are all right; what they hold is no bundle of that fingerprint."""
    found = verify_set([made.folder])
    assert found.good
    check_documents(found, [made.folder])
    assert isinstance(found.problems[0], Corrupt)


def test_another_bundle_than_expected_is_refused(made: Made) -> None:
    right, wrong = made.descriptor.bundle, Digest.of(b"other")
    assert verify_set([made.folder], expect=right).good
    assert verify_volume(made.path(1), expect=right).state is State.GOOD
    with pytest.raises(Unexpected):
        verify_set([made.folder], expect=wrong)
    with pytest.raises(Unexpected):
        verify_volume(made.path(1), expect=wrong)


# what the command shows


def shown(
    capsys: pytest.CaptureFixture[str],
    path: Path,
    *also: Path,
    read_back: bool = False,
    as_json: bool = False,
) -> tuple[int, list[str], str]:
    """Exit code, lines of the result, what was said besides."""
    code = 0
    try:
        given = [f"--also={folder}" for folder in also]
        given += ["--read-back"] * read_back + ["--json"] * as_json
        verify_command.main([str(path), "-q", *given], standalone_mode=False)
    except SystemExit as leaving:
        code = int(str(leaving.code))
    except ModelpackError as error:
        code = error.exit_code
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_what_is_needed_is_the_last_line(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.path(3).unlink()
    flip(made.path(5), 1)
    code, lines, _ = shown(capsys, made.folder)
    assert code == 4
    assert lines[-1] == "need: 3, 5"
    assert any("missing" in line and line.startswith("3") for line in lines)
    assert any("blocks 0 (from 0) of 1; of beta:8b" in line for line in lines)


def test_a_whole_set_needs_nothing(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, said = shown(capsys, packed)
    assert (code, said) == (0, "")
    assert lines[-1].endswith("volumes can be had whole")


def test_exit_codes_of_a_volume(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, made.path(1))[0] == 0
    flip(made.path(1), 3)
    assert shown(capsys, made.path(1))[0] == 4
    os.truncate(made.path(2), 5)
    assert shown(capsys, made.path(2))[0] == 4
    shutil.copy(make_set(tmp_path / "other", seed=1).path(3), made.path(3))
    assert shown(capsys, made.path(3))[0] == 4
    (made.folder / made.descriptor.name).unlink()
    assert shown(capsys, made.path(4))[0] == 11
    assert shown(capsys, made.folder)[0] == 11
    assert shown(capsys, made.path(4), tmp_path / "other")[0] == 4  # of another set


@linux
def test_a_volume_that_cannot_be_read_leaves_by_eleven(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda path, _: errno.EIO if path == made.path(2) else None)
    code, lines, _ = shown(capsys, made.folder)
    assert (code, lines[-1]) == (11, "need: 2")
    assert any("could not be checked" in line for line in lines)


def test_names_from_elsewhere_are_shown_harmless(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(made.path(1), made.folder / "qwen.tar.\x1b[2J")
    _, lines, _ = shown(capsys, made.folder)
    assert not any("\x1b" in line for line in lines)


def test_a_volume_in_json(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    flip(made.path(2), 0)
    code, lines, _ = shown(capsys, made.path(2), as_json=True)
    value = json.loads("\n".join(lines))
    assert code == 4
    assert (value["state"], value["volume"], value["bad_blocks"]) == ("damaged", 2, [0])
    assert value["models"] == ["alpha:latest"]


def test_sums_that_another_tool_spelled_are_a_problem(made: Made) -> None:
    path = made.folder / "qwen.sha256"
    raw = path.read_bytes()
    path.write_bytes(raw[:64].upper() + raw[64:])
    assert verify_set([made.folder]).problems


@linux
def test_a_device_that_went_away_once_has_said_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes after: what was read then may be of another medium."""
    failing(monkeypatch, lambda path, at: errno.ENODEV if (path, at) == (made.path(2), BLOCK) else None)
    assert verify_volume(made.path(2)).state is State.UNCHECKED
