"""`gather`: one drive, many discs; and `repair` of a set: good blocks of bad copies make a good volume."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import dying, files_of
from signing import needs_keygen, new_key
from volume_sets import BLOCK, PER, Made, failing, flip, make_set

from modelpack.cli.gather import command
from modelpack.documents.volumes import sums_of
from modelpack.errors import Corrupt, Local, Refused, Unchecked
from modelpack.hands.scratch import SCRATCH
from modelpack.verbs.collect import collect
from modelpack.verbs.repair_volumes import repair_volumes
from modelpack.verbs.volumes import verify_set
from modelpack.words.digest import Digest

linux = pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")


@pytest.fixture
def made(quick: Path) -> Made:
    return make_set(quick / "set")


def disc(made: Made, name: str, *volumes: int) -> Path:
    """A medium with the papers and some *volumes*."""
    folder = made.folder.parent / name
    shutil.copytree(made.folder, folder)
    for one in made.descriptor.volumes:
        if one.n not in volumes:
            (folder / one.name).unlink()
    return folder


def same(made: Made, into: Path) -> bool:
    return files_of(made.folder) == files_of(into)


def test_discs_in_any_order_become_the_set(made: Made) -> None:
    into = made.folder.parent / "into"
    assert collect([disc(made, "c", 4, 5)], into).need == (1, 2, 3)
    assert collect([disc(made, "a", 2)], into).need == (1, 3)
    done = collect([disc(made, "b", 1, 3)], into)
    assert (done.need, [one.volume.n for one in done.made], done.there) == ((), [1, 3], [2, 4, 5])
    assert same(made, into)
    assert verify_set([into]).good


def test_several_at_a_time(made: Made) -> None:
    into = made.folder.parent / "into"
    assert collect([disc(made, "a", 1, 2), disc(made, "b", 3, 4, 5)], into).need == ()
    assert same(made, into)


def test_two_damaged_copies_make_a_good_one_over_two_runs(made: Made) -> None:
    a, b, into = disc(made, "a", 1, 2), disc(made, "b", 2, 3, 4, 5), made.folder.parent / "into"
    name = made.path(2).name
    flip(a / name, 0, BLOCK)
    flip(b / name, PER * BLOCK - 1)
    first = collect([a], into)
    assert first.begun == {2: (0, 1)}
    assert [type(one) for one in first.problems] == [Corrupt]
    assert not (into / name).exists()
    second = collect([b], into)
    assert second.need == ()
    (part,) = (one for one in second.made if one.volume.n == 2)
    assert part.written == 2 * BLOCK  # the others were kept
    assert same(made, into)


def test_a_block_that_is_bad_in_each_copy_is_waited_for(made: Made) -> None:
    a, b, into = disc(made, "a", 1, 2), disc(made, "b", 2, 3, 4, 5), made.folder.parent / "into"
    for one in (a, b):
        flip(one / made.path(2).name, 2 * BLOCK)
    done = collect([a, b], into)
    assert (done.need, done.begun) == ((2,), {2: (2,)})
    assert collect([disc(made, "c", 2)], into).made[0].written == BLOCK
    assert same(made, into)


def test_what_is_kept_is_not_believed(made: Made) -> None:
    a, into = disc(made, "a", 2), made.folder.parent / "into"
    flip(a / made.path(2).name, 0)
    collect([a], into)
    (kept,) = (into / SCRATCH).glob("gathered-*-002")
    flip(kept, 2 * BLOCK)
    assert collect([a], into).begun == {2: (0,)}  # taken from there again
    flip(kept, 3 * BLOCK)
    assert collect([disc(made, "b", 1)], into).begun == {2: (0, 3)}


def test_renamed_swapped_and_cut_volumes_give_what_they_have(made: Made) -> None:
    a, into = disc(made, "a", 1, 2, 3, 4, 5), made.folder.parent / "into"
    (a / made.path(1).name).rename(a / "x.bin")
    (a / made.path(5).name).rename(a / made.path(1).name)
    (a / "x.bin").rename(a / made.path(5).name)
    (a / made.path(3).name).rename(a / "qwen (2).bin")
    os.truncate(a / made.path(4).name, 2 * BLOCK + 5)
    done = collect([a], into)
    assert (done.need, done.begun) == ((4,), {4: (2, 3)})


def test_a_volume_of_another_set_gives_nothing(made: Made) -> None:
    other = make_set(made.folder.parent / "other", seed=1)
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    shutil.copy(other.path(2), a)
    done = collect([a], into)
    assert (done.need, done.begun) == ((2, 3, 4, 5), {})
    assert isinstance(done.problems[0], Refused)


def test_another_set_of_the_same_name_is_refused(made: Made) -> None:
    other = make_set(made.folder.parent / "other", seed=1)
    into = made.folder.parent / "into"
    collect([disc(made, "a", 1)], into)
    before = files_of(into)
    with pytest.raises(Refused, match="another set"):
        collect([other.folder], into)
    assert files_of(into) == before


def test_a_medium_without_papers_serves_a_set_that_has_them(made: Made) -> None:
    into = made.folder.parent / "into"
    collect([disc(made, "a", 1)], into)
    bare = disc(made, "b", 2, 3, 4, 5)
    for path in (*bare.glob("qwen.[!t]*"), bare / "restore.py"):
        path.unlink()
    assert collect([bare], into).need == ()
    with pytest.raises(Unchecked):
        collect([bare], made.folder.parent / "new")


def test_a_folder_without_a_set_stays_as_it_was(quick: Path) -> None:
    (quick / "empty").mkdir()
    with pytest.raises(Unchecked):
        collect([quick / "empty"], quick / "into")
    assert not (quick / "into").exists()


def test_a_damaged_volume_in_the_set_is_mended_and_kept_aside(made: Made) -> None:
    whole = disc(made, "a", 3)
    flip(made.path(3), 5)
    bad = made.path(3).read_bytes()
    done = collect([whole], made.folder)
    assert done.need == ()
    (part,) = done.made
    assert Path(part.aside).read_bytes() == bad
    assert made.path(3).read_bytes() == made.right(3)


def test_changed_papers_are_not_copied(made: Made) -> None:
    a, into = disc(made, "a", 1, 2, 3, 4, 5), made.folder.parent / "into"
    (a / "restore.py").write_bytes(b"print('owned')")
    (a / "json.py").write_bytes(b"print('owned')")
    (a / "qwen.sha256.sig").write_bytes(b"signature")
    assert collect([a], into).need == ()
    assert not (into / "restore.py").exists()
    assert not (into / "json.py").exists()
    assert (into / "qwen.sha256.sig").read_bytes() == b"signature"
    collect([made.folder], into)
    assert (into / "restore.py").read_bytes() == b"print('restored')\n"


@linux
def test_a_bad_sector_costs_its_block_only(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    a, into = disc(made, "a", 1, 2, 3, 4, 5), made.folder.parent / "into"
    bad = a / made.path(2).name
    failing(monkeypatch, lambda path, at: errno.EIO if path == bad and BLOCK <= at < 2 * BLOCK else None)
    done = collect([a], into)
    assert (done.need, done.begun) == ((2,), {2: (1,)})
    assert collect([disc(made, "b", 2)], into).need == ()
    assert same(made, into)


@linux
def test_a_drive_that_vanishes_leaves_what_came(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    a, into = disc(made, "a", 1, 2, 3, 4, 5), made.folder.parent / "into"
    gone = False

    def when(path: Path, offset: int) -> int | None:
        nonlocal gone
        gone |= path == a / made.path(3).name and offset >= 2 * BLOCK
        return errno.EIO if gone and path.parent == a else None

    with monkeypatch.context() as patch:
        failing(patch, when)
        done = collect([a], into)
    assert done.need == (3, 4, 5)
    assert all(isinstance(one, Unchecked) for one in done.problems)
    assert done.begun == {3: (2, 3)}
    assert collect([a], into).need == ()
    assert same(made, into)


def test_a_full_drive_is_this_machines_trouble(small_disk: Path, tmp_path: Path) -> None:
    block = 4 * BLOCK * PER
    made = make_set(tmp_path / "set", size=40 * block)
    with pytest.raises(Local):
        collect([made.folder], small_disk / "into")
    found = verify_set([small_disk / "into"])
    assert 0 < len(found.copies) < len(made.descriptor.volumes)
    assert all(one.state == "good" for one in found.copies)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("after", [3, 9, 15, 21])
def test_a_run_that_is_killed_leaves_good_volumes_only(made: Made, after: int) -> None:
    a, into = disc(made, "a", 1, 2, 3, 4, 5), made.folder.parent / "into"
    dying(lambda: collect([a], into), after)
    for one in made.descriptor.volumes:
        if (into / one.name).exists():
            assert (into / one.name).read_bytes() == made.right(one.n)
    assert collect([a], into).need == ()
    assert same(made, into)


def test_a_set_that_is_whole_is_left_alone(made: Made) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    done = collect([disc(made, "a", 1, 2)], made.folder)
    assert (done.need, done.made, done.papers) == ((), [], [])
    assert {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_a_volume_that_was_changed_since_is_read_again(made: Made) -> None:
    into = made.folder.parent / "into"
    a = disc(made, "a", 1, 2)
    collect([a], into)
    flip(into / made.path(1).name, 3)
    assert collect([a], into).made[0].volume.n == 1


def other_papers(made: Made, folder: Path, restore: bytes) -> None:
    """Another restore.py in *folder*, and sums that say so."""
    (folder / "restore.py").write_bytes(restore)
    texts = {"README.txt": Digest.of(b"Read me.\n"), "restore.py": Digest.of(restore)}
    (folder / "qwen.sha256").write_bytes(sums_of(made.descriptor, texts))


def sign_set(folder: Path, key: Path) -> bytes:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "modelpack-set", "-f", str(key)]
    raw = (folder / "qwen.sha256").read_bytes()
    made = subprocess.run(command, input=raw, capture_output=True, check=True).stdout
    (folder / "qwen.sha256.sig").write_bytes(made)
    return made


@needs_keygen
def test_a_damaged_signature_is_replaced_by_a_good_one(made: Made, tmp_path: Path) -> None:
    right = sign_set(made.folder, new_key(tmp_path / "key"))
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    (a / "qwen.sha256.sig").write_bytes(b"garbage")
    collect([a], into)
    b = disc(made, "b", 3, 4, 5)
    assert collect([b], into).need == ()
    assert (into / "qwen.sha256.sig").read_bytes() == right
    flip(into / "qwen.sha256.sig", 150)
    assert [one.name for one in repair_volumes(into, [b]).mended] == ["qwen.sha256.sig"]
    assert (into / "qwen.sha256.sig").read_bytes() == right


@needs_keygen
def test_signed_papers_come_before_those_of_the_first_disc(made: Made, tmp_path: Path) -> None:
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    other_papers(made, a, b"print('owned')\n")
    right = sign_set(made.folder, new_key(tmp_path / "key"))
    collect([a], into)
    done = collect([disc(made, "b", 3, 4, 5)], into)
    assert [one.where for one in done.problems] == [str(into / "qwen.sha256")]
    assert (into / "qwen.sha256.sig").read_bytes() == right
    assert (into / "restore.py").read_bytes() == b"print('restored')\n"
    assert verify_set([into]).good


def test_bits_that_rot_after_a_run_are_found_before_the_set_is_whole(made: Made) -> None:
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    collect([a], into)
    path = into / made.path(2).name
    rot(path, into, 2)
    bare = disc(made, "b", 3, 4, 5)
    assert collect([bare], into).need == (2,)
    assert collect([a], into).need == ()
    assert path.read_bytes() == made.right(2)


def rot(path: Path, into: Path, n: int) -> None:
    """Turn a bit, and have the notes say that nobody did."""
    flip(path, 7)
    (notes,) = (into / SCRATCH).glob("gathered-*.json")
    there = path.stat()
    said = [there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_ino]
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {str(n): said}))


def test_repair_believes_no_notes(made: Made) -> None:
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    collect([a], into)
    rot(into / made.path(2).name, into, 2)
    repair_volumes(into, [a])
    assert (into / made.path(2).name).read_bytes() == made.right(2)


def test_another_set_does_not_replace_volumes_without_sums(made: Made) -> None:
    other = make_set(made.folder.parent / "other", seed=1)
    into = disc(made, "into", 1)
    for name in ("qwen.sha256", "README.txt", "restore.py"):
        (into / name).unlink()
    before = files_of(into)
    with pytest.raises(Refused, match="another set"):
        collect([other.folder], into)
    assert files_of(into) == before


def test_a_hard_link_is_not_written_through(made: Made) -> None:
    a, into = disc(made, "a", 1), made.folder.parent / "into"
    flip(a / made.path(1).name, 0)
    collect([a], into)
    (kept,) = (into / SCRATCH).glob("gathered-*-001")
    victim = made.folder.parent / "victim"
    victim.write_bytes(b"precious")
    kept.unlink()
    os.link(victim, kept)
    assert collect([disc(made, "b", 1)], into).need == (2, 3, 4, 5)
    assert victim.read_bytes() == b"precious"
    assert (into / made.path(1).name).read_bytes() == made.right(1)


# repair


def test_a_set_is_repaired_from_another_copy(made: Made) -> None:
    other = disc(made, "other", 1, 2, 3, 4, 5)
    flip(made.path(2), 0)
    flip(other / made.path(2).name, BLOCK)
    made.path(5).unlink()
    (made.folder / "restore.py").write_bytes(b"owned")
    done = repair_volumes(made.folder, [other])
    assert done.good
    kinds = [(one.kind, one.name, one.bytes) for one in done.mended]
    last = made.descriptor.volumes[4]
    assert kinds == [
        ("document", "restore.py", 18),
        ("volume", made.path(2).name, PER * BLOCK),
        ("volume", last.name, last.size),
    ]
    assert verify_set([made.folder]).good


def test_a_set_is_repaired_from_the_whole_tar(made: Made) -> None:
    tar = made.folder.parent / "b.tar"
    tar.write_bytes(made.tar)
    for n in (1, 5):
        made.path(n).unlink()
    flip(made.path(3), 9)
    assert repair_volumes(made.folder, [tar]).good
    assert b"".join(made.path(n).read_bytes() for n in range(1, 6)) == made.tar


def test_a_damaged_descriptor_is_put_back(made: Made) -> None:
    other = disc(made, "other", 1)
    path = made.folder / made.descriptor.name
    right = path.read_bytes()
    flip(path, 40)
    assert repair_volumes(made.folder, [other]).good
    assert path.read_bytes() == right


def test_what_cannot_be_put_back_is_left_and_changes_nothing(made: Made) -> None:
    other = disc(made, "other", 1, 2)
    for path in (made.path(2), other / made.path(2).name):
        flip(path, BLOCK)
    bad = made.path(2).read_bytes()
    done = repair_volumes(made.folder, [other])
    assert not done.good
    assert "1 of 4 blocks of volume 2" in done.left[0].what
    assert made.path(2).read_bytes() == bad


# the command


def test_gather_says_what_it_needs_until_it_is_whole(made: Made) -> None:
    into = made.folder.parent / "into"
    run = CliRunner().invoke
    first = run(command, [str(disc(made, "a", 1, 2, 4)), "--into", str(into), "-q"])
    assert first.exit_code == 3, first.output
    assert first.stdout.splitlines()[-1] == "need: 3, 5"
    second = run(command, [str(disc(made, "b", 3, 5)), "--into", str(into), "-q"])
    assert second.exit_code == 0, second.output
    assert second.stdout.splitlines()[-1] == f"5 of 5 volumes in {into}"


def test_gather_on_a_full_drive_says_how_far_it_got(small_disk: Path, tmp_path: Path) -> None:
    made = make_set(tmp_path / "set", size=160 * BLOCK * PER)
    done = CliRunner().invoke(command, [str(made.folder), "--into", str(small_disk / "into"), "-q"])
    assert isinstance(done.exception, Local)
    assert "need: " in done.stdout.splitlines()[-1]
    assert made.path(1).name in done.stdout


def test_gather_in_json(made: Made) -> None:
    a, into = disc(made, "a", 1, 2), made.folder.parent / "into"
    flip(a / made.path(2).name, 0)
    done = CliRunner().invoke(command, [str(a), "--into", str(into), "--json"])
    value = json.loads(done.stdout)
    assert (value["good"], value["need"]) == (False, [2, 3, 4, 5])
    assert value["in_part"] == [{"volume": 2, "lacking_blocks": [0]}]
    assert value["problems"][0]["kind"] == "Corrupt"
