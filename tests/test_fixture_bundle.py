"""The bundle of format 1 that lies in fixtures/: every later modelpack must read it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from modelpack import Archive, Image, ModelsDir, Recipe, Unsupported, copy, verify
from modelpack.verbs.requests import create_request_of

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundle-v1.tar"
FINGERPRINT = "sha256:aea748147b49d39b7d66b79ddaab68bc9aa277239cd3bc8619a2ea3cbe5a3325"


def test_it_is_read() -> None:
    """Names, kinds, fingerprint and every byte are as they were when it was made."""
    bundle = Archive(BUNDLE)
    assert str(bundle.fingerprint) == FINGERPRINT
    names = {str(model.name): type(model.document) for model in bundle.models()}
    assert names == {"tiny:latest": Image, "team/full:1.0": Image, "tiny-q8:latest": Recipe}
    for sha256 in (False, True):
        verdict = verify(bundle, sha256=sha256)
        assert verdict.good
        assert verdict.unchecked == []


def test_it_is_loaded(tmp_path: Path) -> None:
    """Its images become models in a directory; its recipe is for servers only."""
    bundle, target = Archive(BUNDLE), ModelsDir(tmp_path / "models")
    *images, recipe = bundle.models()
    receipts = copy(bundle, images, target)
    assert [receipt.id for receipt in receipts] == [image.document.id for image in images]
    with pytest.raises(Unsupported):
        copy(bundle, [recipe], target)


def test_its_requests_are_the_same() -> None:
    """What a server would be asked to create, field by field."""
    bundle = Archive(BUNDLE)
    _, full, recipe = (create_request_of(bundle, model) for model in bundle.models())
    assert full["system"] == "Sag <nichts> & schweig – \u2028"
    assert full["license"] == ["MIT\n", "and another\n"]
    assert full["parameters"] == {"num_ctx": 128, "stop": ["</s>", "x"], "temperature": 0.5}
    assert full["messages"] == [{"role": "user", "content": "hi"}]
    assert recipe["quantize"] == "q8_0"
    assert list(full["files"]) == list(recipe["files"]) == ["tiny-llama.gguf"]


def test_plain_tools_read_it(tmp_path: Path) -> None:
    """tar and sha256sum alone say that it is whole."""
    subprocess.run(["tar", "xf", BUNDLE, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_fixtures_stay_small() -> None:
    """Less than a megabyte, all together."""
    assert sum(path.stat().st_size for path in BUNDLE.parent.iterdir() if path.is_file()) < 1_000_000
