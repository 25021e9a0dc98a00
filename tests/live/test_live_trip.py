"""The whole trip with a real Ollama at both ends: a GGUF leaves in a bundle and says the same there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from modelpack import Archive, LooseGguf, ModelsDir, copy, hash_files
from modelpack.hands.ollama import Ollama

pytestmark = pytest.mark.live

TINY = Path(__file__).parents[2] / "fixtures" / "tiny-llama.gguf"
Start = Callable[[], AbstractContextManager[Ollama]]


def modelpack(*args: object, cwd: Path) -> str:
    """Run the command; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "modelpack", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tokens(client: Ollama, name: str) -> str:
    """Sixteen tokens at temperature 0."""
    request = {
        "model": name,
        "prompt": "hello",
        "raw": True,
        "options": {"temperature": 0, "seed": 1, "num_predict": 16},
    }
    said = ""
    for line in client._http.ask("POST", "/api/generate", data=request).lines():
        assert "error" not in line, line
        said += str(line.get("response", ""))
        if line.get("done"):
            assert line["eval_count"] == 16
            return said
    raise AssertionError(f"the answer ended after {said!r}")


def create_plainly(client: Ollama, name: str) -> None:
    """What `ollama create` does with a Modelfile of one FROM line."""
    source = LooseGguf(TINY)
    (hashed,) = hash_files([TINY])
    assert hashed.sha256 is not None
    with source.open(source.models()[0].blobs[0]) as reader:
        client.upload_blob(hashed.sha256, hashed.size, reader)
    files = {"tiny-llama.gguf": str(hashed.sha256)}
    assert [event.status for event in client.create_from({"model": name, "files": files})][-1] == "success"


def listed(client: Ollama) -> dict[str, Any]:
    return {one.name: one for one in client.list()}


def test_a_gguf_by_bundle_and_api(ollama: Ollama, tmp_path: Path) -> None:
    """pack, load to the server: the same tokens as what the server itself makes of the file."""
    create_plainly(ollama, "before")
    modelpack("pack", TINY, "-o", "b.tar", cwd=tmp_path)
    said = json.loads(
        modelpack("load", "b.tar", "--to", ollama.base, "--as", "after", "--json", cwd=tmp_path)
    )
    assert said["models"][0]["id"] == str(listed(ollama)["after:latest"].digest)
    assert tokens(ollama, "after") == tokens(ollama, "before") != ""


def test_a_gguf_by_bundle_and_directory(ollama: Ollama, tmp_path: Path) -> None:
    """load into the models directory of a running server: the ID is ours, no restart, the same tokens."""
    create_plainly(ollama, "before")
    packed = json.loads(modelpack("pack", TINY, "-o", "b", "--name", "team/after:1", "--json", cwd=tmp_path))
    modelpack("load", "b", "--to", tmp_path / "ollama" / "models", cwd=tmp_path)
    assert str(listed(ollama)["team/after:1"].digest) == packed["models"][0]["document"]
    assert tokens(ollama, "team/after:1") == tokens(ollama, "before")


def test_it_survives_a_restart(start: Start, tmp_path: Path) -> None:
    """The server's pruning at start-up leaves a model that came by files alone."""
    with start() as ollama:
        create_plainly(ollama, "before")
        before = tokens(ollama, "before")
    modelpack("pack", TINY, "-o", "b.tar", "--name", "after", cwd=tmp_path)
    modelpack("load", "b.tar", "--to", tmp_path / "ollama" / "models", cwd=tmp_path)
    with start() as ollama:
        assert tokens(ollama, "after") == before
        modelpack("verify", tmp_path / "ollama" / "models", cwd=tmp_path)


def test_an_installed_model_by_bundle(start: Start, tmp_path: Path) -> None:
    """What a server made, carried from its directory to an empty one: the same ID, the same tokens."""
    models = tmp_path / "ollama" / "models"
    with start() as ollama:
        create_plainly(ollama, "before")
        said, id_before = tokens(ollama, "before"), listed(ollama)["before:latest"].digest
    origin = ModelsDir(models)
    copy(origin, origin.models(), Archive(tmp_path / "b.tar"))
    models.rename(tmp_path / "old")
    modelpack("load", "b.tar", "--to", models, cwd=tmp_path)
    with start() as ollama:
        assert listed(ollama)["before:latest"].digest == id_before
        assert tokens(ollama, "before") == said


def test_a_pipe_into_a_server(ollama: Ollama, tmp_path: Path) -> None:
    """`pack -o - | load -`: nothing touches a disk between."""
    command = f"{sys.executable} -m modelpack"
    done = subprocess.run(
        f"{command} pack '{TINY}' -o - | {command} load - --to {ollama.base} --as piped",
        shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tokens(ollama, "piped")
