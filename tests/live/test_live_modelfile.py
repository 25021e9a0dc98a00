"""What modelpack makes of a Modelfile is what `ollama create` makes of it; adapters and merged shards run."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from modelpack.hands.ollama import Ollama
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name

from .conftest import PROGRAM
from .test_live_create import FIXTURES, tokens

pytestmark = pytest.mark.live

EVERY = '''\
# every instruction
FROM ./tiny-llama.gguf
FROM ./tiny-mmproj.gguf
ADAPTER ./tiny-lora.gguf
TEMPLATE """{{ .System }}
{{ .Prompt }} <|é|>"""
SYSTEM "You say \\"small letters\\" & no <others>."
PARAMETER temperature 0.7
PARAMETER top_p 0.123456789
PARAMETER num_ctx 128
PARAMETER num_gpu 0
PARAMETER stop "<|a|>"
PARAMETER stop <|b|>
PARAMETER use_mmap false
LICENSE """MIT
of the tests"""
LICENSE Apache-2.0
MESSAGE user hello
MESSAGE assistant """hi
there"""
RENDERER qwen3-coder
PARSER qwen3-coder
REQUIRES 0.14.0
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny files, and a Modelfile beside them."""
    place = tmp_path / "every"
    place.mkdir()
    for one in FIXTURES.glob("tiny-*.gguf"):
        shutil.copy(one, place)
    (place / "Modelfile").write_text(EVERY, encoding="utf-8")
    return place


def ollama_creates(client: Ollama, name: str, modelfile: Path) -> None:
    """As its user would, from the shell."""
    done = subprocess.run(
        [os.environ[PROGRAM], "create", name, "-f", str(modelfile)],
        env={"PATH": os.environ["PATH"], "HOME": str(modelfile.parent), "OLLAMA_HOST": client.base},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def we_create(client: Ollama, name: str, source: Path, bundle: Path, look: Installed | None = None) -> None:
    """Packed into a bundle, which is loaded."""
    found = gather([str(source)], look=look or Installed(()), name=Name.parse(name))
    copy(found.source, found.models, Archive(bundle))
    archive = Archive(bundle)
    copy(archive, archive.models(), ServerCreate(client, source=archive))


def shown(client: Ollama, name: str) -> dict[str, Any]:
    """All that `show` tells, but for when; a Go map has no order."""
    answer = requests.post(
        f"{client.base}/api/show", json={"model": name, "verbose": True}, timeout=60, proxies={"http": ""}
    )
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    value.pop("modified_at")
    value["parameters"] = sorted(value.get("parameters", "").splitlines())
    text = re.sub(r"FROM \S*?(/blobs/)", r"FROM \1", value["modelfile"]).replace(name, "NAME")
    value["modelfile"] = sorted(text.splitlines())
    return value


def until_llama(client: Ollama, name: str, make: Callable[[], None]) -> None:
    """Make the model *name* until its family is that of its weights, not of its projector.

    0.24 goes through the files of a create in the order of a Go map, which is any (convertModelFromFiles in
    server/create.go), and whichever comes first gives the config its family, type and quantization: of 30
    creates of the same files 24 were `llama`, 6 `clip`. 0.33 keeps an order: there the first one will do.
    """
    for _ in range(50):
        make()
        if client.show(name).details.family == "llama":
            return
        client.delete(name)
    pytest.fail(f"{name} was never made of its weights first")


def test_every_instruction_field_by_field(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    until_llama(ollama, "theirs", lambda: ollama_creates(ollama, "theirs", folder / "Modelfile"))
    bundles = (tmp_path / f"{number}.tar" for number in itertools.count())
    until_llama(ollama, "ours", lambda: we_create(ollama, "ours", folder / "Modelfile", next(bundles)))
    theirs, ours = shown(ollama, "theirs"), shown(ollama, "ours")
    assert set(ours) == set(theirs)
    for field in theirs:
        assert ours[field] == theirs[field], field
    assert len(theirs["parameters"]) == 7


def test_a_draft_too(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    if not ollama.about().is_at_least(0, 30, 0):
        pytest.skip("DRAFT came with 0.30")
    (folder / "Modelfile").write_text("FROM ./tiny-llama.gguf\nDRAFT ./tiny-chat.gguf\n")
    ollama_creates(ollama, "theirs", folder / "Modelfile")
    we_create(ollama, "ours", folder / "Modelfile", tmp_path / "b.tar")
    assert shown(ollama, "ours") == shown(ollama, "theirs")


def test_stacked_on_an_installed_model(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    """Same as Ollama stacks it, down to the bytes of every layer but the config's."""
    until_llama(ollama, "base", lambda: ollama_creates(ollama, "base", folder / "Modelfile"))
    (folder / "Child").write_text("FROM base\nSYSTEM of the child\nPARAMETER temperature 1\nLICENSE third\n")
    ollama_creates(ollama, "theirs", folder / "Child")
    models = tmp_path / "ollama" / "models"
    (folder / "Modelfile").write_text((folder / "Child").read_text())
    look = Installed((models,))
    found = gather([str(folder)], look=look, name=Name.parse("ours"))
    copy(found.source, found.models, ModelsDir(models))
    theirs, ours = (ModelsDir(models).read(Name.parse(name)) for name in ("theirs", "ours"))
    assert theirs is not None
    assert ours is not None
    pairs = [[(one.media_type, one.digest) for one in image.layers] for image in (theirs[1], ours[1])]
    assert pairs[0] == pairs[1]
    if ollama.about().is_at_least(0, 33, 0):  # older ones wrote a rootfs into the config
        assert theirs[1].config == ours[1].config
    pair = [shown(ollama, name) for name in ("ours", "theirs")]
    for value in pair:
        del value["details"]["parent_model"]  # a `from` in the manifest, which modelpack does not write
        if not ollama.about().is_at_least(0, 33, 0):
            del value["details"]["families"]  # older ones count projectors and adapters among them
    assert pair[0] == pair[1]
    we_create(ollama, "created", folder, tmp_path / "b.tar", look)
    assert shown(ollama, "created")["system"] == "of the child"


def test_an_adapter_changes_the_tokens_alike(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    (folder / "Modelfile").write_text("FROM ./tiny-llama.gguf\nADAPTER ./tiny-lora.gguf\n")
    ollama_creates(ollama, "theirs", folder / "Modelfile")
    we_create(ollama, "ours", folder / "Modelfile", tmp_path / "b.tar")
    we_create(ollama, "plain", folder / "tiny-llama.gguf", tmp_path / "plain.tar")
    archive = Archive(tmp_path / "b.tar")
    copy(archive, archive.models(), ModelsDir(tmp_path / "ollama" / "models", replace=True))
    plain, theirs, ours = (tokens(ollama, name) for name in ("plain", "theirs", "ours"))
    assert theirs == ours
    assert theirs != plain


def test_merged_shards_run(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    """0.24 says success for the shards themselves, and the model is broken; merged here, they run."""
    we_create(ollama, "whole", folder / "tiny-llama.gguf", tmp_path / "whole.tar")
    we_create(ollama, "merged", folder / "tiny-llama-00001-of-00003.gguf", tmp_path / "merged.tar")
    assert tokens(ollama, "merged") == tokens(ollama, "whole")


def test_a_recipe_is_made_there(ollama: Ollama, folder: Path, tmp_path: Path) -> None:
    """FROM a model that is not here, with an adapter; and --quantize."""
    we_create(ollama, "base", folder / "tiny-llama.gguf", tmp_path / "base.tar")
    (folder / "Modelfile").write_text("FROM base\nADAPTER ./tiny-lora.gguf\nSYSTEM mine\n")
    ollama_creates(ollama, "theirs", folder / "Modelfile")
    we_create(ollama, "ours", folder / "Modelfile", tmp_path / "r.tar")
    assert shown(ollama, "ours") == shown(ollama, "theirs")
    found = gather([str(folder / "tiny-llama.gguf")], look=Installed(()), quantize="Q8_0")
    copy(found.source, found.models, Archive(tmp_path / "q.tar"))
    archive = Archive(tmp_path / "q.tar")
    copy(archive, archive.models(), ServerCreate(ollama, source=archive))
    assert shown(ollama, "tiny-llama")["details"]["quantization_level"] == "Q8_0"
