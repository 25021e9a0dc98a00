"""Every byte of a small signed set, tar and folder is flipped: each load refuses, or gives the same model."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MemoryStore, forked, noise, waited
from signing import needs_keygen, new_key, public, signers_file

from modelpack.documents.extras import Extras
from modelpack.documents.model import blobs_of
from modelpack.documents.sshsig import Signature
from modelpack.errors import Corrupt, ModelpackError
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs import trust as trusting
from modelpack.verbs.attach import stripped
from modelpack.verbs.sign import sign
from modelpack.verbs.signer import Signer, signer
from modelpack.verbs.transfer import copy
from modelpack.verbs.trust import GOOD, Trust, check
from modelpack.words.blob import MODEL, TEMPLATE

pytestmark = needs_keygen
ALICE = "alice@example.com"
BLOCK, CUT = 4096, 8192
EXTRAS = Extras(b"#!/usr/bin/env python3\nprint('restored')\n")
HANDS, LONG = 2, 1500
WEIGHTS = noise(600, "flips")
"""No real ones: what is tested is that not one of their bytes changes unnoticed."""

Bundle = Archive | FolderBundle | VolumeSet
Loaded = dict[str, tuple[bytes, dict[str, bytes]]]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture
def asked(key: Path, monkeypatch: pytest.MonkeyPatch) -> Trust:
    """A signature is required. ssh-keygen is asked once for each two of sums and signature that differ."""
    answers: dict[tuple[bytes, bytes, str], Signer | ModelpackError] = {}

    def once(data: bytes, signature: Signature, namespace: str, *more: object) -> Signer:
        asked = (data, signature.raw, namespace)
        if asked not in answers:
            try:
                answers[asked] = signer(data, signature, namespace, *more)  # type: ignore[arg-type]
            except ModelpackError as error:
                answers[asked] = error
        answer = answers[asked]
        if isinstance(answer, ModelpackError):
            raise answer
        return answer

    monkeypatch.setattr(trusting, "signer", once)
    return Trust(signers_file(key.parent / "signers", f"{ALICE} {public(key)}"), required=True)


def made(form: str, place: Path, key: Path) -> Callable[[], Bundle]:
    """A signed bundle of one small model in *place*; what opens it anew."""
    store = MemoryStore()
    store.image("tiny", (MODEL, WEIGHTS), (TEMPLATE, b"{{ .Prompt }}"))
    place.mkdir()
    target = {
        "tar": lambda: Archive(place / "b.tar", extras=EXTRAS),
        "folder": lambda: FolderBundle(place / "b", extras=EXTRAS),
        "set": lambda: VolumesTarget(
            place, CUT, block_size=BLOCK, extras=EXTRAS, readme=lambda _models: b"Put these together.\n"
        ),
    }[form]()
    copy(store, store.models(), target)
    again: dict[str, Callable[[], Bundle]] = {
        "tar": lambda: Archive(place / "b.tar"),
        "folder": lambda: FolderBundle(place / "b"),
        "set": lambda: VolumeSet([place]),
    }
    sign(again[form](), key)
    return again[form]


def load(source: Bundle, asked: Trust) -> MemoryStore:
    """Load as the command does; nothing has a name where it raises."""
    there = MemoryStore()
    try:
        signed = check(source, asked, "a test")
        models = source.models()
        signed.hold(source)
        assert signed.state == GOOD
        if not isinstance(source, VolumeSet):
            stripped(source)
        copy(source, models, there)
    except ModelpackError:
        assert there.kept == {}
        raise
    return there


def loaded(there: MemoryStore) -> Loaded:
    """Everything that was installed: names, documents and bytes."""
    return {
        name: (model.document.raw, {str(one.digest): there.bytes[one.digest] for one in blobs_of([model])})
        for name, model in there.kept.items()
    }


def places(form: str, size: int) -> range:
    """Every byte of a file of a set; every byte of the others' files, but one of five of the long ones."""
    step = 1 if form == "set" or size <= LONG else 5
    return range(random.Random(f"{form} {size}").randrange(step), size, step)


def flip_all(form: str, place: Path, key: Path, asked: Trust, turn: int) -> None:
    """Change the bytes whose *turn* it is, each alone, and load each time."""
    again = made(form, place, key)
    right = loaded(load(again(), asked))
    assert len(right) == 1
    chance = random.Random(f"{form} {turn}")
    refused = passed = 0
    for path in sorted(one for one in place.rglob("*") if one.is_file()):
        raw = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for at in places(form, len(raw))[turn::HANDS]:
                os.pwrite(file.fileno(), bytes([raw[at] ^ chance.randrange(1, 256)]), at)
                try:
                    assert loaded(load(again(), asked)) == right, (path, at)
                    passed += 1
                except ModelpackError:
                    refused += 1
                except Exception as error:
                    raise AssertionError(f"{path.name}, byte {at}: {error!r}") from error
                os.pwrite(file.fileno(), raw[at : at + 1], at)
    assert loaded(load(again(), asked)) == right
    assert refused > len(WEIGHTS) // HANDS // 5, (refused, passed)


@pytest.mark.parametrize("form", ["tar", "folder", "set"])
def test_every_byte(form: str, quick: Path, key: Path, asked: Trust) -> None:
    """Whichever byte of whichever file it is, and whatever becomes of it; two processes share the work."""
    hands = [
        forked(lambda turn=turn: flip_all(form, quick / f"{form}{turn}", key, asked, turn))  # type: ignore[misc]
        for turn in range(HANDS)
    ]
    assert [waited(hand) for hand in hands] == [0] * HANDS


def test_a_signature_whose_purpose_is_no_text(quick: Path, key: Path, asked: Trust) -> None:
    """Its length was changed, so that it runs into the zeros behind it: BAD, and no crash."""
    again = made("tar", quick / "tar", key)
    path = quick / "tar" / "b.tar.sig"
    first, *lines, last = path.read_bytes().splitlines()
    blob = bytearray(base64.b64decode(b"".join(lines)))
    at = blob.index(b"modelpack-bundle") - 1
    for length in range(17, 24):
        blob[at] = length
        path.write_bytes(b"\n".join([first, base64.b64encode(blob), last, b""]))
        with pytest.raises(Corrupt, match="BAD"):
            load(again(), asked)
