"""Every model that two real Ollamas left comes back bit for bit: alone and in a set, by folder and tar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import SHARED, bits, needs_shared

from modelpack.documents.model import Model
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.name import Name

pytestmark = needs_shared
VERSIONS = ("0.24", "0.33")
BUNDLES: dict[str, type[Archive] | type[FolderBundle]] = {"tar": Archive, "folder": FolderBundle}


def directory(version: str) -> Path:
    assert SHARED is not None
    return SHARED / "recorded" / f"models-{version}"


def names(version: str) -> list[str]:
    """As `/api/tags` of that server told them."""
    listed = json.loads((directory(version) / "tags.json").read_bytes())["models"]
    there = {model.name.full for model in ModelsDir(directory(version)).models()}
    found = [one["name"] for one in listed if _full(one["name"]) in there]
    assert len(found) == len(there)
    return found


def _full(name: str) -> str:
    return Name.parse(name).full


def there_and_back(
    source: Source, models: Sequence[Model], bundle: Archive | FolderBundle, place: Path
) -> None:
    """Packed, verified, loaded into a directory, unpacked and taken up: nothing changed on the way."""
    copy(source, models, bundle)
    verdict = verify(bundle)
    assert verdict.good
    assert verdict.by == {"BLAKE3"}
    assert verify(bundle, sha256=True).good
    wanted = {name: kept for name, kept in bits(source).items() if name in {m.name.full for m in models}}
    assert bits(bundle) == wanted
    copy(bundle, bundle.models(), ModelsDir(place / "models"))
    assert bits(ModelsDir(place / "models")) == wanted
    copy(bundle, bundle.models(), PlainFolder(place / "plain", source=bundle))
    assert PlainFolder(place / "plain").fits() is None
    assert bits(PlainFolder(place / "plain")) == wanted


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize("version", VERSIONS)
def test_alone(version: str, kind: str, tmp_path: Path) -> None:
    tags = json.loads((directory(version) / "tags.json").read_bytes())["models"]
    ids = {_full(one["name"]): one["digest"] for one in tags}
    for number, name in enumerate(names(version)):
        found = gather([name], look=Installed((directory(version),)))
        (model,) = found.models
        assert model.document.id.hex == ids[model.name.full]
        place = tmp_path / str(number)
        place.mkdir()
        there_and_back(found.source, found.models, BUNDLES[kind](place / "b.tar"), place)


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize("version", VERSIONS)
def test_as_one_set(version: str, kind: str, tmp_path: Path) -> None:
    found = gather([str(directory(version))], look=Installed(()))
    assert not found.left_out
    assert len(found.models) == len(names(version))
    there_and_back(found.source, found.models, BUNDLES[kind](tmp_path / "b.tar"), tmp_path)


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_set_is_the_same_however_it_was_put_together(kind: str, tmp_path: Path) -> None:
    """All at once, one after the other (a folder), or out of another bundle."""
    look = Installed((directory("0.33"),))
    whole = gather([str(directory("0.33"))], look=look)
    copy(whole.source, whole.models, BUNDLES[kind](tmp_path / "whole.tar"))
    fingerprint = BUNDLES[kind](tmp_path / "whole.tar").fingerprint
    singles = gather([model.name.full for model in whole.models], look=look)
    copy(singles.source, singles.models, BUNDLES[kind](tmp_path / "singles.tar"))
    assert BUNDLES[kind](tmp_path / "singles.tar").fingerprint == fingerprint
    again = gather([str(tmp_path / "whole.tar")], look=look)
    copy(again.source, again.models, BUNDLES[kind](tmp_path / "again.tar"))
    assert BUNDLES[kind](tmp_path / "again.tar").fingerprint == fingerprint
    if kind == "folder":
        for model in whole.models:
            copy(whole.source, [model], FolderBundle(tmp_path / "grown"))
        assert FolderBundle(tmp_path / "grown").fingerprint == fingerprint
