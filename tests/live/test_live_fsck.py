"""A real server's own directory: damage is found, put back while it runs, and the model speaks again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelpack import ModelsDir
from modelpack.hands.ollama import Ollama
from modelpack.words.blob import MODEL

from .conftest import Starter
from .test_live_trip import create_plainly, listed, modelpack, tokens

pytestmark = pytest.mark.live


def run(*args: object, cwd: Path) -> tuple[int, dict[str, Any]]:
    """The exit code, and what --json says."""
    command = [sys.executable, "-m", "modelpack", *map(str, args), "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    return done.returncode, json.loads(done.stdout)


def weights(models: Path, name: str) -> Path:
    """The file of the model's GGUF."""
    store = ModelsDir(models)
    (model,) = [one for one in store.models() if str(one.name) == name]
    (layer,) = [blob for blob in model.blobs if blob.media_type == MODEL]
    assert layer.digest is not None
    return store.file_of(layer.digest)


def damage(path: Path) -> bytes:
    """Turn over 4 KiB of it; what was there before."""
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(before) // 2)
        file.write(bytes(byte ^ 0xFF for byte in before[len(before) // 2 :][:4096]))
    return before


def test_a_damaged_blob_is_put_back_while_the_server_runs(ollama: Ollama, tmp_path: Path) -> None:
    models = tmp_path / "ollama" / "models"
    create_plainly(ollama, "m")
    said, its_id = tokens(ollama, "m"), listed(ollama)["m:latest"].digest
    modelpack("pack", "m", "-o", "b.tar", "--from", models, cwd=tmp_path)
    assert run("verify", models, cwd=tmp_path)[0] == 0
    path = weights(models, "m:latest")
    right = damage(path)
    code, found = run("verify", models, cwd=tmp_path)
    assert code == 4
    assert [one["kind"] for one in found["problems"]] == ["Corrupt"]
    assert listed(ollama)["m:latest"].digest == its_id  # the server sees nothing of it
    code, done = run("repair", models, "--from", "b.tar", cwd=tmp_path)
    assert (code, done["good"], len(done["repaired"])) == (0, True, 1)
    assert path.read_bytes() == right
    assert Path(done["repaired"][0]["aside"]).stat().st_size == len(right)
    assert tokens(ollama, "m") == said
    assert listed(ollama)["m:latest"].digest == its_id


def test_a_torn_manifest_and_a_lost_blob(start: Starter, tmp_path: Path) -> None:
    """The server lists the model again, with its ID, without a restart; and what is aside survives one."""
    models = tmp_path / "ollama" / "models"
    with start() as ollama:
        create_plainly(ollama, "m")
        said, its_id = tokens(ollama, "m"), listed(ollama)["m:latest"].digest
        modelpack("pack", "m", "-o", "b", "--from", models, cwd=tmp_path)
        manifest = models / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
        manifest.write_bytes(manifest.read_bytes()[:100])
        weights_there = [one for one in (models / "blobs").iterdir() if one.stat().st_size > 10_000]
        for one in weights_there:
            one.unlink()
        assert "m:latest" not in listed(ollama)
        code, done = run("repair", models, "--from", "b", cwd=tmp_path)
        assert (code, done["good"]) == (0, True)
        assert "manifest" in [one["kind"] for one in done["repaired"]]
        assert listed(ollama)["m:latest"].digest == its_id
        assert tokens(ollama, "m") == said
        (aside,) = [Path(one["aside"]) for one in done["repaired"] if one["aside"]]
    old = time.time() - 7200
    for one in models.rglob("*"):
        os.utime(one, (old, old))
    with start() as ollama:  # which prunes
        assert listed(ollama)["m:latest"].digest == its_id
        assert aside.exists()
        assert tokens(ollama, "m") == said
        assert run("verify", models, cwd=tmp_path)[0] == 0


def test_what_a_server_prunes_is_what_we_say(start: Starter, tmp_path: Path) -> None:
    """Orphans, partials and foreign files go at a start; a bad manifest name keeps them all."""
    models = tmp_path / "ollama" / "models"
    with start() as ollama:
        create_plainly(ollama, "m")
    old = time.time() - 7200
    odd = {
        f"sha256-{'a' * 64}": "orphan",
        f"sha256-{'b' * 64}-partial": "partial",
        "notes.txt": "foreign",
        f"sha256:{'c' * 64}": "colon",
    }
    for name in odd:
        (models / "blobs" / name).write_bytes(b"x")
    for one in (models / "blobs").iterdir():  # the upload that create has left there, too
        os.utime(one, (old, old))
    bad = models / "manifests" / "registry.ollama.ai" / "library" / "m" / "._latest"
    bad.write_bytes(b"x")
    code, found = run("verify", models, cwd=tmp_path)
    assert code == 0
    kinds = {(Path(one["where"]).name, one["kind"]) for one in found["remarks"]}
    colon = (f"sha256:{'c' * 64}", "orphan")  # it is both
    assert kinds >= {*odd.items(), colon, ("._latest", "bad-name")}
    with start():
        pass
    there = {one.name for one in (models / "blobs").iterdir()}
    assert {f"sha256-{'a' * 64}", f"sha256-{'b' * 64}-partial", "notes.txt"} <= there
    assert f"sha256-{'c' * 64}" in there  # renamed: the colon is gone
    bad.unlink()
    with start():
        pass
    there = {one.name for one in (models / "blobs").iterdir()}
    assert not there & {*odd, f"sha256-{'c' * 64}"}
    assert run("verify", models, cwd=tmp_path)[1]["remarks"] == []
