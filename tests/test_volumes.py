"""A bundle in volumes: cut and joined again, read from several folders, damaged in every way."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    DIED,
    TINY,
    MemoryStore,
    age,
    bits,
    dying,
    everything,
    files_of,
    forked,
    noise,
    waited,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents.extras import Attachment, Extras
from modelpack.documents.gojson import canonical_json
from modelpack.documents.volumes import (
    BLOCK_SIZE,
    PRESETS,
    Content,
    Descriptor,
    check_stem,
    default_stem,
    set_of,
    stem_of,
    sums_of,
    volume_size,
)
from modelpack.errors import (
    Corrupt,
    Local,
    ModelpackError,
    NotFound,
    Refused,
    Taken,
    Unexpected,
    Unsupported,
    Usage,
)
from modelpack.hands.slices import Blocks
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.volumes import VolumeSet, read_descriptor
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs.remake import numbers, remake
from modelpack.verbs.transfer import copy
from modelpack.words.blob import LICENSE, MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader
from modelpack.words.volume import Volume, volume_name

BLOCK, CUT = 4096, 16384
SCRIPT = b"print('restored')\n"


def target(path: Path, size: int = CUT, **options: Any) -> VolumesTarget:
    options.setdefault("readme", lambda _models: b"Put these together.\n")
    return VolumesTarget(path, size, block_size=BLOCK, **options)


def pack(store: MemoryStore, path: Path, size: int = CUT, **options: Any) -> Descriptor:
    made = target(path, size, **options)
    copy(store, store.models(), made)
    assert made.descriptor is not None
    return made.descriptor


def volumes_in(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in sorted(path.glob("*.tar.*")))


def loaded(*folders: Path) -> MemoryStore:
    """What arrives of the set in *folders*."""
    there = MemoryStore()
    source = VolumeSet(folders)
    copy(source, source.models(), there)
    return there


def refused(*folders: Path, kind: type[ModelpackError] = ModelpackError) -> ModelpackError:
    there = MemoryStore()
    source = VolumeSet(folders)
    with pytest.raises(kind) as caught:
        copy(source, source.models(), there)
    assert there.kept == {}
    return caught.value


def edited(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, at: int) -> None:
    edited(path, at, bytes([path.read_bytes()[at] ^ 1]))


@pytest.fixture
def pair() -> MemoryStore:
    store = MemoryStore()
    store.image("one", (MODEL, noise(50_000, "one")), (LICENSE, b"MIT"))
    store.image("two", (MODEL, noise(30_000, "two")), (LICENSE, b"MIT"))
    return store


@pytest.fixture
def made(pair: MemoryStore, quick: Path) -> Path:
    pack(pair, quick / "set", stem="s")
    return quick / "set"


# --- sizes and names


def test_presets_are_whole_blocks_and_fit() -> None:
    assert all(size % BLOCK_SIZE == 0 for size in PRESETS.values())
    assert PRESETS["fat32"] < 1 << 32
    assert [volume_size(word) for word in PRESETS] == list(PRESETS.values())
    assert volume_size("FAT32") == PRESETS["fat32"]


@given(st.integers(BLOCK_SIZE, 1 << 45))
def test_a_size_is_rounded_down_to_blocks(size: int) -> None:
    found = volume_size(str(size))
    assert found % BLOCK_SIZE == 0
    assert size - BLOCK_SIZE < found <= size


@pytest.mark.parametrize("text", ["", "cd", "15MiB", "0", "-1", "4 parsecs"])
def test_what_is_no_size_of_a_volume(text: str) -> None:
    with pytest.raises(Usage):
        volume_size(text)


@pytest.mark.parametrize(
    "text", ["", ".a", "-a", "A", "a/b", "a b", "x" * 41, "con", "nul.x", "a.", "ä", "a\n"]
)
def test_what_is_no_stem(text: str) -> None:
    with pytest.raises(Usage):
        check_stem(text)


def test_a_stem_is_made_of_the_models_name(shelf: MemoryStore) -> None:
    models = shelf.models()
    assert default_stem(models[:1]) == "full"
    assert default_stem(models[1:2]) == check_stem("someone-tiny-v1.5-q4_k")
    assert default_stem(models) == "full-and-4-more"
    long = MemoryStore()
    long.image("q" * 80, *TINY)
    assert check_stem(default_stem(long.models())) == "q" * 40


def test_numbers_of_volumes() -> None:
    assert numbers("7,3, 3-5") == (3, 4, 5, 7)
    for text in ("", "0", "1000", "3;4", "4-3", "-3", "3-", "a", "1," * 9, "９"):
        with pytest.raises(Usage):
            numbers(text)


# --- the descriptor


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    block = draw(st.integers(4096, 4160))
    most = block * draw(st.integers(1, 5))
    size = draw(st.integers(1, most * 6))
    stem = draw(st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,9}-x", fullmatch=True))
    volumes = []
    for n, offset in enumerate(range(0, size, most), start=1):
        length = min(most, size - offset)
        blocks = tuple(draw(st.binary(min_size=32, max_size=32)) for _ in range(-(-length // block)))
        digest = Digest.of(bytes([n]))
        volumes.append(Volume(n, volume_name(stem, n), offset, length, digest, blocks))
    contents = []
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, size))
        contents.append(
            Content(draw(st.text(min_size=1, max_size=20)), begin, draw(st.integers(0, size - begin)))
        )
    return Descriptor(stem, Digest.of(b"b"), size, most, tuple(contents), tuple(volumes), block)


@given(descriptors())
def test_a_descriptor_comes_back(one: Descriptor) -> None:
    raw = one.raw()
    assert raw.count(b"\n") == 1
    assert Descriptor.parse(raw, "x") == one
    assert one.id == Digest.of(raw)


@given(descriptors(), st.data())
def test_a_descriptor_that_was_changed_is_another_one_or_none(one: Descriptor, data: st.DataObject) -> None:
    raw = bytearray(one.raw())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = Descriptor.parse(bytes(raw), "x")
    except (Corrupt, Unsupported):
        return
    assert found.raw() == bytes(raw) != one.raw()
    assert sum(volume.size for volume in found.volumes) == found.size
    assert all(volume.name == volume_name(found.stem, volume.n) for volume in found.volumes)


@given(descriptors(), st.data())
def test_a_descriptor_that_was_cut_is_none(one: Descriptor, data: st.DataObject) -> None:
    raw = one.raw()
    with pytest.raises(Corrupt):
        Descriptor.parse(raw[: data.draw(st.integers(0, len(raw) - 1))], "x")


def plain() -> dict[str, Any]:
    hashes = base64.b64encode(bytes(64)).decode()
    return {
        "format": "modelpack-volumes/1", "name": "s", "bundle": "sha256:" + "a" * 64, "size": 12288,
        "volume_size": 8192, "block_size": 4096, "block_hash": "blake3",
        "contents": [{"name": "m", "offset": 0, "size": 12288}],
        "volumes": [
            {"n": 1, "name": "s.tar.001", "offset": 0, "size": 8192, "sha256": "sha256:" + "b" * 64,
             "blocks": hashes},
            {"n": 2, "name": "s.tar.002", "offset": 8192, "size": 4096, "sha256": "sha256:" + "c" * 64,
             "blocks": base64.b64encode(bytes(32)).decode()},
        ],
    }  # fmt: skip


def test_the_plain_one_is_read() -> None:
    assert len(Descriptor.parse(canonical_json(plain()), "x").volumes) == 2


@pytest.mark.parametrize(
    "harm",
    [
        lambda v: v.update(name="../s"),
        lambda v: v.update(name="x" * 41),
        lambda v: v.update(name="con"),
        lambda v: v.update(size=1 << 63),
        lambda v: v.update(size=0),
        lambda v: v.update(size=True),
        lambda v: v.update(size=12288.0),
        lambda v: v.update(volume_size=0),
        lambda v: v.update(volume_size=8191),
        lambda v: v.update(volume_size=1 << 70),
        lambda v: v.update(block_size=0),
        lambda v: v.update(block_size=1, volume_size=1, size=2),
        lambda v: v.update(block_size=1 << 40),
        lambda v: v.update(block_size=BLOCK_SIZE * 2, volume_size=BLOCK_SIZE * 2),
        lambda v: v.update(block_hash="md5"),
        lambda v: v.update(bundle="b" * 64),
        lambda v: v.update(bundle="blake3:" + "b" * 64),
        lambda v: v.update(more=1),
        lambda v: v.pop("contents"),
        lambda v: v.update(contents=None),
        lambda v: v["contents"][0].update(size=12289),
        lambda v: v["contents"].extend(v["contents"] * 10_000),
        lambda v: v["contents"][0].update(offset=-1),
        lambda v: v["contents"][0].update(name=""),
        lambda v: v["contents"][0].update(name="m" * 1001),
        lambda v: v["volumes"].pop(),
        lambda v: v["volumes"].append(v["volumes"][1]),
        lambda v: v["volumes"].reverse(),
        lambda v: v["volumes"][1].update(offset=8191),
        lambda v: v["volumes"][1].update(offset=8193),
        lambda v: v["volumes"][0].update(size=8191),
        lambda v: v["volumes"][0].update(n=2),
        lambda v: v["volumes"][0].update(name="t.tar.001"),
        lambda v: v["volumes"][0].update(name="/etc/passwd"),
        lambda v: v["volumes"][0].update(name=None),
        lambda v: v["volumes"][0].update(sha256="sha256:" + "B" * 64),
        lambda v: v["volumes"][0].update(blocks="A" * 1000),
        lambda v: v["volumes"][0].update(blocks=""),
        lambda v: v["volumes"][0].update(blocks="*" * 88),
        lambda v: v["volumes"][0].update(blocks=7),
        lambda v: v["volumes"][0].update(path="x"),
    ],
)
def test_hostile_descriptors(harm: Callable[[dict[str, Any]], object]) -> None:
    value = plain()
    harm(value)
    with pytest.raises(Corrupt):
        Descriptor.parse(canonical_json(value), "x")


def test_blocks_that_are_too_small_are_none() -> None:
    hashes = base64.b64encode(bytes(32 * 2048)).decode()
    value = plain() | {"size": 4096, "volume_size": 4096, "block_size": 2, "contents": []}
    value["volumes"] = [plain()["volumes"][0] | {"size": 4096, "blocks": hashes}]
    with pytest.raises(Corrupt, match="block_size"):
        Descriptor.parse(canonical_json(value), "x")


def test_too_many_sets_in_a_folder(tmp_path: Path) -> None:
    for n in range(33):
        (tmp_path / f"s{n}.volumes.json").write_bytes(b"{}")
    with pytest.raises(Usage, match="too many sets"):
        read_descriptor([tmp_path])
    (tmp_path / "s.volumes.json").write_bytes(canonical_json(plain()))
    assert read_descriptor([tmp_path], "s").stem == "s"


def test_descriptors_are_held_up_to_a_size(tmp_path: Path) -> None:
    for n in range(4):
        value = plain() | {"name": f"s{n}", "contents": [{"name": "m" * 999, "offset": 0, "size": 1}] * 3000}
        value["volumes"] = [
            one | {"name": one["name"].replace("s.", f"s{n}.", 1)} for one in plain()["volumes"]
        ]
        (tmp_path / f"s{n}.volumes.json").write_bytes(canonical_json(value))
    with pytest.raises(Usage, match="too many sets"):
        read_descriptor([tmp_path])


def test_a_descriptor_of_a_newer_format() -> None:
    with pytest.raises(Unsupported, match="modelpack-volumes/2"):
        Descriptor.parse(canonical_json(plain() | {"format": "modelpack-volumes/2"}), "x")
    with pytest.raises(Corrupt):
        Descriptor.parse(canonical_json(plain() | {"format": "zip"}), "x")
    with pytest.raises(Corrupt):
        Descriptor.parse(b" " + canonical_json(plain()), "x")
    with pytest.raises(Corrupt):
        Descriptor.parse(b'{"a":' * 100_000, "x")


def test_more_volumes_than_a_set_has() -> None:
    value = plain() | {"size": 1 << 60, "volume_size": 4096, "volumes": [plain()["volumes"][0]] * 1000}
    with pytest.raises(Corrupt):
        Descriptor.parse(canonical_json(value), "x")


def test_the_descriptor_of_42_gb_is_small() -> None:
    size, most = 42_000_000_000, PRESETS["fat32"]
    volumes = tuple(
        Volume(n, volume_name("s", n), at, min(most, size - at), Digest.of(b""), (bytes(32),) * 255)
        for n, at in enumerate(range(0, size, most), start=1)
    )
    raw = Descriptor("s", Digest.of(b""), size, most, (Content("m", 0, size),) * 20, volumes).raw()
    assert len(raw) <= 128 * 1024


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 70))
def test_blocks_do_not_depend_on_the_pieces(data: bytes, size: int, piece: int) -> None:
    from blake3 import blake3

    blocks = Blocks(size)
    for at in range(0, len(data), piece):
        blocks.update(memoryview(data)[at : at + piece])
    assert blocks.finish() == tuple(blake3(data[at : at + size]).digest() for at in range(0, len(data), size))


# --- writing


def test_joined_they_are_the_tar(shelf: MemoryStore, quick: Path) -> None:
    for size in (CUT, 65536, 1 << 20):
        folder = quick / str(size)
        descriptor = pack(shelf, folder, size, stem="s", extras=Extras(SCRIPT))
        copy(shelf, shelf.models(), Archive(quick / f"{size}.tar", extras=Extras(SCRIPT)))
        assert volumes_in(folder) == (quick / f"{size}.tar").read_bytes()
        assert descriptor.bundle == Archive(quick / f"{size}.tar").fingerprint
        assert [(folder / one.name).stat().st_size for one in descriptor.volumes] == [
            one.size for one in descriptor.volumes
        ]
        checked = subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "s.sha256"], cwd=folder)
        assert checked.returncode == 0
        rest = {name: raw for name, raw in files_of(folder).items() if ".tar." not in name}
        assert sorted(rest) == ["README.txt", "restore.py", "s.sha256", "s.volumes.json"]
        assert rest["restore.py"] == SCRIPT
        names = {line[66:].decode() for line in rest["s.sha256"].splitlines()}
        assert names == set(files_of(folder)) - {"s.sha256"}
        assert bits(VolumeSet([folder])) == bits(shelf)


def test_cat_and_7z_join_them(made: Path, quick: Path) -> None:
    subprocess.run("cat set/s.tar.* > joined.tar", shell=True, cwd=quick, check=True)
    listed = subprocess.run(["tar", "tf", "joined.tar"], cwd=quick, capture_output=True, check=True)
    assert b"index.json" in listed.stdout
    if seven := shutil.which("7z") or shutil.which("7za"):
        subprocess.run([seven, "x", "set/s.tar.001", "-oout"], cwd=quick, check=True, capture_output=True)
        found = files_of(quick / "out")
        assert found.get("s.tar") == (quick / "joined.tar").read_bytes() or "index.json" in found


def test_the_same_bytes_whatever_was_known(pair: MemoryStore, quick: Path) -> None:
    """Unread blobs, known digests, and both hashes known: the tar's own bytes each time, on any day."""
    pack(pair, quick / "digests", stem="s")
    unread = MemoryStore()
    unread.image("one", (MODEL, noise(50_000, "one")), (LICENSE, b"MIT"), unread=1)
    unread.image("two", (MODEL, noise(30_000, "two")), (LICENSE, b"MIT"), unread=1)
    pack(unread, quick / "unread", stem="s")
    assert len([blob for blob in unread.opened if blob.size == 50_000]) == 1  # read once
    source = VolumeSet([quick / "digests"])
    assert all(blob.blake3 for model in source.models() for blob in model.blobs)
    copy(source, source.models(), target(quick / "both", stem="s"))
    assert files_of(quick / "digests") == files_of(quick / "unread") == files_of(quick / "both")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=4), st.integers(1, 8), st.booleans())
def test_any_sizes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], blocks: int, unread: bool
) -> None:
    quick = tmp_path_factory.mktemp("any")
    store = MemoryStore()
    layers = [(MODEL, noise(size, place)) for place, size in enumerate(sizes)]
    store.image("m", *layers, unread=len(sizes) if unread else 0)
    copy(store, store.models(), Archive(quick / "a.tar"))
    pack(store, quick / "set", blocks * BLOCK)
    assert volumes_in(quick / "set") == (quick / "a.tar").read_bytes()
    assert bits(VolumeSet([quick / "set"])) == bits(Archive(quick / "a.tar"))


def test_attachments_come_along(pair: MemoryStore, quick: Path) -> None:
    data = noise(20_000, "scan")
    one = Attachment(
        "scan.pdf",
        Blob(len(data), "application/octet-stream", Digest.of(data)),
        lambda: contextlib.nullcontext(BytesReader(data)),
    )
    extras = Extras(SCRIPT, (one,))
    descriptor = pack(pair, quick / "set", stem="s", extras=extras)
    copy(pair, pair.models(), Archive(quick / "a.tar", extras=extras))
    assert volumes_in(quick / "set") == (quick / "a.tar").read_bytes()
    assert "attachments/scan.pdf" in {content.name for content in descriptor.contents}
    found = VolumeSet([quick / "set"]).attachments()
    with found[0].open() as reader:
        assert (found[0].name, everything(reader)) == ("scan.pdf", data)
    before = files_of(quick / "set")
    for path in (quick / "set").glob("*.tar.*"):
        path.unlink()
    remake(pair, pair.models(), quick / "set", range(1, len(descriptor.volumes) + 1), extras=extras)
    assert files_of(quick / "set") == before


def test_contents_tell_whose_the_bytes_are(pair: MemoryStore, quick: Path) -> None:
    descriptor = pack(pair, quick / "set", stem="s")
    tar = volumes_in(quick / "set")
    names = {content.name for content in descriptor.contents}
    assert names == {"documents", "one:latest", "two:latest"}
    at = tar.index(pair.bytes[pair.models()[1].document.layers[0].digest])
    assert [one.name for one in descriptor.touched(at, 30_000)] == ["two:latest"]
    shared = tar.index(pair.models()[0].blobs[1].digest.hex.encode())  # its header, between the two
    assert descriptor.touched(0, 1)[0].name == "documents"
    assert descriptor.touched(len(tar) - 1, 1) == ()
    assert shared


def test_the_same_set_is_not_written_again(pair: MemoryStore, made: Path) -> None:
    before = {one.name: one.stat().st_mtime_ns for one in made.iterdir()}
    pair.opened.clear()
    again = target(made, stem="s")
    receipts = copy(pair, pair.models(), again)
    assert all(receipt.there for receipt in receipts)
    assert pair.opened == []
    assert {one.name: one.stat().st_mtime_ns for one in made.iterdir()} == before
    assert again.fingerprint == VolumeSet([made]).fingerprint


def test_another_set_is_not_overwritten_by_accident(pair: MemoryStore, tiny: MemoryStore, made: Path) -> None:
    before = files_of(made)
    for store, options in (
        (tiny, {"stem": "s"}),
        (tiny, {}),
        (pair, {"stem": "t"}),
        (pair, {"size": CUT * 2}),
    ):
        with pytest.raises(Taken, match="holds volumes already"):
            pack(store, made, **options)  # type: ignore[arg-type]
    assert files_of(made) == before
    (made / "s.sha256.sig").write_bytes(b"over other bytes")
    pack(tiny, made, replace=True, stem="t")
    assert {name for name in files_of(made) if name.startswith("s.")} == set()
    assert bits(VolumeSet([made])) == bits(tiny)
    pack(pair, made, replace=True, stem="t", size=CUT * 2)
    assert bits(VolumeSet([made])) == bits(pair)
    assert len(list(made.glob("*.tar.*"))) == -(-len(volumes_in(made)) // (CUT * 2))


def test_a_set_that_lacks_a_volume_is_not_the_same(pair: MemoryStore, made: Path) -> None:
    (made / "s.tar.003").unlink()
    with pytest.raises(Taken):
        pack(pair, made, stem="s")


def test_a_folder_with_other_things(pair: MemoryStore, quick: Path) -> None:
    for name in ("thesis.odt", "README.txt", "x.tar.001", "index.json"):
        folder = quick / f"with {name}"
        folder.mkdir()
        (folder / name).write_bytes(b"mine")
        for replace in (False, True):
            with pytest.raises(Refused, match="other things"):
                pack(pair, folder, stem="s", replace=replace)
        assert files_of(folder) == {name: b"mine"}
    (quick / "fresh").mkdir()
    (quick / "fresh" / "System Volume Information").mkdir()
    pack(pair, quick / "fresh")


def test_too_many_volumes(pair: MemoryStore, quick: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, bytes(BLOCK * 1000)))
    with pytest.raises(Usage, match="999 at most"):
        pack(store, quick / "set", BLOCK)
    assert not (quick / "set").exists()


def test_damage_at_the_source_leaves_nothing(pair: MemoryStore, quick: Path) -> None:
    blob = pair.models()[1].blobs[0]
    pair.bytes[blob.digest] = noise(blob.size, "other")
    with pytest.raises(Corrupt):
        pack(pair, quick / "set")
    assert files_of(quick / "set") == {}
    assert list((quick / "set").iterdir()) == []


def test_a_crash_leaves_no_set_that_looks_whole(pair: MemoryStore, quick: Path) -> None:
    """Killed at every step on the disk; the next run sweeps, and writes the set."""
    pack(pair, quick / "right", 32768, stem="s")
    right = files_of(quick / "right")
    for after in range(1000):
        folder = quick / f"{after}"
        status = dying(lambda: pack(pair, folder, 32768, stem="s") and None, after)  # noqa: B023
        there = files_of(folder)
        if status == 0:
            assert there == right
            break
        assert status == DIED
        if "s.volumes.json" in there:
            assert {name: raw for name, raw in there.items() if not name.startswith(".")} == right
        if folder.exists():
            age(folder)
        pack(pair, folder, 32768, stem="s", replace=True)
        assert files_of(folder) == right
        assert not (folder / ".modelpack").exists()
    assert after > 20


def test_a_crash_while_another_set_is_replaced(pair: MemoryStore, tiny: MemoryStore, quick: Path) -> None:
    for after in range(0, 1000, 3):
        folder = quick / f"{after}"
        pack(tiny, folder, 32768, stem="s")
        old = bits(VolumeSet([folder]))
        if dying(lambda: pack(pair, folder, 32768, stem="s", replace=True) and None, after) == 0:  # noqa: B023
            break
        if (folder / "s.volumes.json").exists():
            assert bits(VolumeSet([folder])) in (old, bits(pair))
    assert after > 20


def test_a_crash_while_a_set_of_another_name_is_replaced(
    pair: MemoryStore, tiny: MemoryStore, quick: Path
) -> None:
    """Whenever that is, one of the two is there, and the next run takes it up."""
    for after in range(0, 1000, 3):
        folder = quick / f"{after}"
        pack(tiny, folder, 32768, stem="old")
        right = {"old": bits(VolumeSet([folder])), "new": bits(pair)}
        if dying(lambda: pack(pair, folder, 32768, stem="new", replace=True) and None, after) == 0:  # noqa: B023
            break
        there = [one for one in right if (folder / f"{one}.volumes.json").exists()]
        assert there
        for stem in there:
            with contextlib.suppress(NotFound):  # the old one goes bit by bit, once the new one is whole
                assert bits(VolumeSet([folder], stem=stem)) == right[stem]
        last = there[-1]  # the new one, where it is there
        assert bits(VolumeSet([folder], stem=last)) == right[last]
        pack(pair, folder, 32768, stem="new", replace=True)
        assert bits(VolumeSet([folder])) == right["new"]
        assert not list(folder.glob("old*"))
    assert after > 20


def test_a_full_stick_keeps_the_old_set(tiny: MemoryStore, small_disk: Path) -> None:
    """Room for the new volumes, and none for the papers."""
    folder, store = small_disk / "set", MemoryStore()
    store.image("m", (MODEL, noise(100_000)))
    pack(tiny, folder, 32768, stem="old")
    before = files_of(folder)
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(free - 132 * 1024))
    with pytest.raises(Local, match="no space left"):
        pack(store, folder, 32768, stem="new", replace=True, readme=lambda _models: bytes(200_000))
    assert files_of(folder) == before
    assert bits(VolumeSet([folder])) == bits(tiny)


def test_a_small_stick(small_disk: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, noise(3_000_000)))
    with pytest.raises(Local, match="needed"):
        pack(store, small_disk / "set", BLOCK * 50)
    assert files_of(small_disk) == {}


def test_a_stick_with_less_room_than_it_says(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelpack.hands.disk import Folder

    monkeypatch.setattr(Folder, "room", lambda _self: 1 << 40)
    store = MemoryStore()
    store.image("m", (MODEL, noise(3_000_000)))
    with pytest.raises(Local, match="no space left"):
        pack(store, small_disk / "set", BLOCK * 50)
    assert files_of(small_disk) == {}
    assert list((small_disk / "set").iterdir()) == []


def test_a_file_system_that_takes_no_file_so_large(quick: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, noise(300_000)))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        pack(store, quick / "small", BLOCK * 20)
        with pytest.raises(Local, match="too large"):
            pack(store, quick / "large", BLOCK * 30)

    assert waited(forked(limited)) == 0
    assert files_of(quick / "large") == {}
    assert bits(VolumeSet([quick / "small"])) == bits(store)


# --- reading


def test_every_volume_missing_in_turn(made: Path) -> None:
    names = sorted(one.name for one in made.glob("*.tar.*"))
    for place, name in enumerate(names, start=1):
        (made / name).rename(made.parent / "away")
        assert f"need: {place}" in str(refused(made, kind=NotFound))
        (made.parent / "away").rename(made / name)
    (made / names[2]).unlink()
    (made / names[4]).unlink()
    assert "need: 3, 5\n" in str(refused(made, kind=NotFound))


def test_over_several_folders(made: Path, pair: MemoryStore) -> None:
    other, third = made.parent / "other", made.parent / "third"
    other.mkdir()
    third.mkdir()
    for place, one in enumerate(sorted(made.glob("*.tar.*"))):
        if place % 3:
            one.rename((other if place % 3 == 1 else third) / one.name)
    (made / "s.volumes.json").rename(third / "s.volumes.json")
    assert bits(VolumeSet([made, other, third])) == bits(pair)
    assert bits(loaded(third, other, made)) == bits(pair)
    with pytest.raises(NotFound, match="need: 2, 5"):
        VolumeSet([made, third]).models()


def test_doubled_swapped_renamed(made: Path, pair: MemoryStore) -> None:
    shutil.copytree(made, made.parent / "twin")
    assert bits(VolumeSet([made, made.parent / "twin", made])) == bits(pair)
    one, two, three = (made / f"s.tar.00{n}" for n in (1, 2, 3))
    one.rename(made / "x")
    two.rename(one)
    (made / "x").rename(two)
    three.rename(made / "DISC3.BIN")
    assert bits(VolumeSet([made])) == bits(pair)


def test_volumes_of_another_run_fit(made: Path, pair: MemoryStore) -> None:
    pack(pair, made.parent / "again", stem="s")
    for n in (1, 3, 5):
        (made / f"s.tar.00{n}").unlink()
        shutil.copy(made.parent / "again" / f"s.tar.00{n}", made)
    assert bits(VolumeSet([made])) == bits(pair)


def test_a_volume_of_another_set_of_that_name(made: Path, quick: Path) -> None:
    other = MemoryStore()
    other.image("one", (MODEL, noise(50_000, "evil")), (LICENSE, b"MIT"))
    other.image("two", (MODEL, noise(30_000, "evil")), (LICENSE, b"MIT"))
    pack(other, quick / "other", stem="s")
    for n in range(1, 6):
        kept = (made / f"s.tar.00{n}").read_bytes()
        shutil.copy(quick / "other" / f"s.tar.00{n}", made)
        assert f"need: {n}" in str(refused(made, kind=Corrupt))
        (made / f"s.tar.00{n}").write_bytes(kept)


def test_cut_anywhere(made: Path, pair: MemoryStore) -> None:
    for n in (1, 3, 6):
        one = made / f"s.tar.00{n}"
        whole = one.read_bytes()
        for length in range(0, len(whole), 1777):
            os.truncate(one, length)
            assert f"need: {n}" in str(refused(made, kind=NotFound))
        one.write_bytes(whole)
    assert bits(VolumeSet([made])) == bits(pair)


def test_one_byte_flipped_anywhere(made: Path, pair: MemoryStore) -> None:
    """Each load refuses, or gives the same models; with a second copy it is always the latter."""
    shutil.copytree(made, made.parent / "copy")
    right = bits(pair)
    tar_size = sum(one.stat().st_size for one in made.glob("*.tar.*"))
    for at in range(0, tar_size, 331):
        path = made / f"s.tar.{at // CUT + 1:03}"
        flip(path, at % CUT)
        with contextlib.suppress(Corrupt):
            assert bits(loaded(made)) == right
        assert bits(loaded(made, made.parent / "copy")) == right
        flip(path, at % CUT)


def test_damage_is_named(made: Path) -> None:
    flip(made / "s.tar.002", BLOCK * 3 + 5)
    error = refused(made, kind=Corrupt)
    assert "volume 2 is damaged: its block 3" in error.what
    assert "one:latest" in error.what
    assert error.where.endswith("s.tar.002")


def test_zeros_in_the_middle(made: Path, pair: MemoryStore) -> None:
    shutil.copytree(made, made.parent / "copy")
    for n in range(1, 7):
        size = (made / f"s.tar.00{n}").stat().st_size
        edited(made / f"s.tar.00{n}", size // 3 // 512 * 512, bytes(size // 3))
        refused(made, kind=Corrupt)
        assert bits(loaded(made, made.parent / "copy")) == bits(pair)


def test_two_damaged_copies_make_a_good_one(made: Path, pair: MemoryStore) -> None:
    copy_ = made.parent / "copy"
    shutil.copytree(made, copy_)
    for one in made.glob("*.tar.*"):
        for block in range(-(-one.stat().st_size // BLOCK)):
            flip((made if block % 2 else copy_) / one.name, block * BLOCK)
    refused(made, kind=Corrupt)
    refused(copy_, kind=Corrupt)
    source = VolumeSet([made, copy_])
    assert bits(source) == bits(pair)
    assert source.joined.spare
    flip(copy_ / "s.tar.003", BLOCK + 1)
    assert "all 2 copies" in str(refused(made, copy_, kind=Corrupt))


def test_a_disk_that_cannot_be_read(made: Path, pair: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO in one place: another copy serves; without one the medium is to blame, not the bytes."""
    import errno

    from modelpack.hands import system

    bad = os.stat(made / "s.tar.004").st_ino
    real = system.read_into

    def read_into(fd: int, into: memoryview, offset: int) -> int:
        if os.fstat(fd).st_ino == bad and offset + len(into) > BLOCK:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, into, offset)

    shutil.copytree(made, made.parent / "copy")
    monkeypatch.setattr(system, "read_into", read_into)
    assert "input/output error" in refused(made, kind=Local).what
    assert bits(loaded(made, made.parent / "copy")) == bits(pair)


def test_a_drive_that_vanishes(made: Path, pair: MemoryStore) -> None:
    source = VolumeSet([made])
    models = source.models()
    shutil.rmtree(made)
    with pytest.raises(NotFound):
        copy(source, models, MemoryStore())


def test_links_and_pipes_are_no_volumes(made: Path) -> None:
    (made / "s.tar.002").rename(made.parent / "elsewhere")
    (made / "s.tar.002").symlink_to(made.parent / "elsewhere")
    assert "need: 2" in str(refused(made, kind=NotFound))
    (made / "s.tar.002").unlink()
    os.mkfifo(made / "s.tar.002")
    assert "need: 2" in str(refused(made, kind=NotFound))


def test_without_a_descriptor_or_with_a_damaged_one(made: Path, pair: MemoryStore) -> None:
    good = (made / "s.volumes.json").read_bytes()
    other = made.parent / "other"
    other.mkdir()
    (other / "s.volumes.json").write_bytes(good)
    (made / "s.volumes.json").write_bytes(good[:-100])
    assert "s.volumes.json" in str(refused(made, kind=Corrupt))
    assert bits(loaded(made, other)) == bits(pair)
    (made / "s.volumes.json").unlink()
    assert "STEM.volumes.json" in str(refused(made, kind=NotFound))
    (made / "t.volumes.json").write_bytes(good)
    assert "renamed" in str(refused(made, kind=Corrupt))
    (made / "t.volumes.json").unlink()
    (made / "s.volumes.json").symlink_to(other / "s.volumes.json")
    refused(made, kind=Refused)


def test_two_sets_in_one_folder(made: Path, pair: MemoryStore, tiny: MemoryStore, quick: Path) -> None:
    pack(tiny, quick / "t", stem="t")
    for one in (quick / "t").glob("t.*"):
        shutil.copy(one, made)
    assert "several sets: s.volumes.json, t.volumes.json" in str(refused(made, kind=Usage))
    assert bits(VolumeSet([made], stem="s")) == bits(pair)
    assert bits(VolumeSet([made], stem="t")) == bits(tiny)
    pack(tiny, quick / "s2", stem="s")
    for one in made.glob("t.*"):
        one.unlink()
    assert "two different sets" in str(refused(quick / "s2", made, kind=Usage))


def test_another_bundle_than_expected(made: Path) -> None:
    with pytest.raises(Unexpected):
        VolumeSet([made], expect=Digest.of(b"x")).models()
    right = VolumeSet([made]).fingerprint
    assert VolumeSet([made], expect=right).fingerprint == right


def test_a_descriptor_that_lies_about_the_bundle(made: Path) -> None:
    path = made / "s.volumes.json"
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | {"bundle": "sha256:" + "0" * 64}))
    assert "its volumes are of" in str(refused(made, kind=Corrupt))


def test_into_a_models_directory_and_back(shelf: MemoryStore, quick: Path) -> None:
    pack(shelf, quick / "a", 1 << 20, stem="s")
    source = VolumeSet([quick / "a"])
    copy(source, source.models(), ModelsDir(quick / "models"))
    store = ModelsDir(quick / "models")
    copy(store, store.models(), target(quick / "b", 1 << 20, stem="s"))
    copy(store, store.models(), Archive(quick / "b.tar"))
    assert volumes_in(quick / "b") == (quick / "b.tar").read_bytes()


# --- made again, alone


def test_only_these_volumes_are_made_again(pair: MemoryStore, made: Path) -> None:
    before = files_of(made)
    descriptor = VolumeSet([made]).descriptor
    count = len(descriptor.volumes)
    inside = next(one.n for one in descriptor.volumes if one.offset > descriptor.contents[0].size)
    for n in range(1, count + 1):
        (made / f"s.tar.00{n}").unlink()
        pair.opened.clear()
        remake(pair, pair.models(), made, [n])
        assert files_of(made) == before
        if n == inside:  # nothing but a part of the first blob lies there
            assert {blob.size for blob in pair.opened} == {50_000}
    for one in made.glob("*.tar.*"):
        one.write_bytes(b"damaged")
    remake(pair, pair.models(), made, range(1, count + 1))
    assert files_of(made) == before
    assert not (made / ".modelpack").exists()


def test_only_the_descriptor_has_to_be_there(pair: MemoryStore, made: Path, quick: Path) -> None:
    (quick / "new").mkdir()
    shutil.copy(made / "s.volumes.json", quick / "new")
    remake(pair, pair.models(), quick / "new", [3])
    assert (quick / "new" / "s.tar.003").read_bytes() == (made / "s.tar.003").read_bytes()


def test_other_bytes_are_refused(pair: MemoryStore, tiny: MemoryStore, made: Path) -> None:
    before = files_of(made)
    evil = MemoryStore()
    evil.image("one", (MODEL, noise(50_000, "evil")), (LICENSE, b"MIT"))
    evil.image("two", (MODEL, noise(30_000, "two")), (LICENSE, b"MIT"))
    for store, options in ((tiny, {}), (evil, {}), (pair, {"extras": Extras(SCRIPT)})):
        for n in (1, 2, 3):
            with pytest.raises(Refused, match=r"modelpack \d+\.\d+.* would write other bytes"):
                remake(store, store.models(), made, [n], **options)  # type: ignore[arg-type]
    with pytest.raises(Usage, match="no volume 99"):
        remake(pair, pair.models(), made, [99])
    with pytest.raises(NotFound):
        remake(pair, pair.models(), made.parent, [1])
    assert files_of(made) == before


def test_a_damaged_blob_is_not_a_new_version(pair: MemoryStore, made: Path) -> None:
    before = files_of(made)
    blob = pair.models()[0].blobs[0]
    raw = bytearray(pair.bytes[blob.digest])
    raw[20_000] ^= 1
    pair.bytes[blob.digest] = bytes(raw)
    with pytest.raises(Corrupt, match="is damaged"):
        remake(pair, pair.models(), made, [2])
    remake(pair, pair.models(), made, [5])  # what lies there is whole
    assert files_of(made) == before
    assert not (made / ".modelpack").exists()


def test_sums_cover_everything(made: Path) -> None:
    descriptor = VolumeSet([made]).descriptor
    assert stem_of(descriptor.name) == set_of(descriptor.name) == set_of("s.tar.003") == "s"
    assert [set_of(name) for name in ("s.tar", "s.tar.3", "S.tar.003", ".tar.003", "s.sha256")] == [None] * 5
    raw = sums_of(descriptor, {"README.txt": Digest.of(b"x")})
    assert raw.splitlines() == sorted(raw.splitlines(), key=lambda line: line[66:])
    assert len(raw.splitlines()) == len(descriptor.volumes) + 2
    assert dataclasses.replace(descriptor, stem="t").id != descriptor.id
