"""Files that modelpack writes for itself: whole or not at all, and over nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelpack.documents.gojson import parse_object
from modelpack.errors import Corrupt, NotFound, Refused
from modelpack.verbs.own_file import OwnFile


def note(raw: bytes, where: object) -> None:
    if parse_object(raw, where).get("schema") != "note":
        raise Corrupt("is no note", where=where)


NOTE, NEWER = b'{"schema":"note"}', b'{"schema":"note","n":1}'
FILE = OwnFile("note", 1000, note)


def test_it_replaces_its_own_alone(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    FILE.check(path)
    FILE.write(path, NOTE)
    FILE.check(path)
    FILE.write(path, NEWER)
    assert path.read_bytes() == NEWER
    assert os.listdir(tmp_path) == ["n.json"]
    for other in (b"", b"{}", b"a bundle of 40 GB", NOTE[:-1], b" " * 2000):
        path.write_bytes(other)
        for attempt in (lambda: FILE.check(path), lambda: FILE.write(path, NOTE)):
            with pytest.raises(Refused, match="is no note that this modelpack wrote"):
                attempt()
        assert path.read_bytes() == other


def test_what_cannot_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        FILE.write(tmp_path / "n.json", b"{}")
    assert os.listdir(tmp_path) == []
    with pytest.raises(NotFound):
        FILE.check(tmp_path / "none" / "n.json")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_odd_things_stay(make: object, tmp_path: Path) -> None:
    make(tmp_path / "n.json")  # type: ignore[operator]
    with pytest.raises(Refused, match="not a plain file"):
        FILE.write(tmp_path / "n.json", NOTE)


def test_whether_everybody_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        FILE.write(tmp_path / "mine", NOTE)
        OwnFile("note", 1000, note, public=True).write(tmp_path / "all", NOTE)
    finally:
        os.umask(before)
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert modes == {"mine": 0o600, "all": 0o644}
