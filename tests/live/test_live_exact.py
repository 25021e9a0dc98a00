"""The exact way with a real Ollama: the same ID, no GGUF written anew; and what older ones do instead."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from modelpack import Archive, ModelsDir, copy
from modelpack.errors import Unreachable
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import is_temporary
from modelpack.stores.server_exact import KEEPS_SINCE, ServerExact
from modelpack.verbs.ways import Wish, server_target
from modelpack.words.name import Name

from .test_live_trip import create_plainly, tokens

pytestmark = pytest.mark.live

RECORDED = Path(__file__).parents[3] / "shared" / "recorded"
Start = Callable[[], AbstractContextManager[Ollama]]


def ids(client: Ollama) -> dict[str, str]:
    return {one.name: one.digest.hex for one in client.list()}


def exact(client: Ollama) -> ServerExact:
    return ServerExact(client, Callback(client.base))


def keeps(client: Ollama) -> bool:
    return client.about().is_at_least(*KEEPS_SINCE)


def blobs(models: Path) -> set[str]:
    return {one.name for one in (models / "blobs").iterdir()}


def test_what_a_server_made_arrives_with_its_id(start: Start, tmp_path: Path) -> None:
    """Made by create, carried in a bundle to an empty server: the ID, the tokens, and no other blob."""
    models = tmp_path / "ollama" / "models"
    with start() as ollama:
        create_plainly(ollama, "before")
        said, before = tokens(ollama, "before"), ids(ollama)
        kept = keeps(ollama)
    origin = ModelsDir(models)
    copy(origin, origin.models(), Archive(tmp_path / "b.tar"))
    models.rename(tmp_path / "old")
    with start() as ollama:
        bundle = Archive(tmp_path / "b.tar")
        (receipt,) = copy(bundle, bundle.models(), exact(ollama))
        assert receipt.same_bytes is kept
        if kept:
            assert ids(ollama) == before
        else:
            assert receipt.note.startswith("The same blobs, another ID")
            assert [receipt.id.hex] == list(ids(ollama).values())  # type: ignore[union-attr]
        assert blobs(models) == {one.digest.file_name for one in receipt.model.blobs if one.digest}
        assert tokens(ollama, "before") == said
    with start() as ollama:  # its pruning at the start takes nothing that the model needs
        assert tokens(ollama, "before") == said


@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_every_recorded_model_keeps_its_id(ollama: Ollama, tmp_path: Path, version: str) -> None:
    """Of either version, by this one: the IDs of tags.json, in one run; the second run moves nothing."""
    if not RECORDED.is_dir():
        pytest.skip("no recorded models here")
    origin = ModelsDir(RECORDED / f"models-{version}")
    copy(origin, origin.models(), Archive(tmp_path / "b.tar"))
    bundle = Archive(tmp_path / "b.tar")
    receipts = copy(bundle, bundle.models(), exact(ollama))
    tags = json.loads((RECORDED / f"models-{version}" / "tags.json").read_text())["models"]
    names = {str(one.name) for one in origin.models()}  # of the others the files were not recorded
    wanted = {one["name"]: one["digest"] for one in tags if one["name"] in names}
    assert len(wanted) == len(receipts) >= 8
    if keeps(ollama):
        assert ids(ollama) == wanted
    else:
        assert set(ids(ollama)) == set(wanted)
        assert {one.same_bytes for one in receipts} >= {False}
    begun = time.monotonic()
    again = copy(bundle, bundle.models(), exact(ollama))
    assert all(one.there and not one.bytes_sent for one in again)
    print(f"the second load of {len(again)} models: {time.monotonic() - begun:.3f} s")


def test_create_and_its_rewriting_are_told(ollama: Ollama, tmp_path: Path) -> None:
    """By create the ID is the server's own, and the receipt never says same."""
    origin = ModelsDir(RECORDED / "models-0.33")
    (model,) = [one for one in origin.models() if str(one.name) == "a:latest"]
    (receipt,) = copy(origin, [model], server_target(ollama, origin, wish=Wish(create=True)))
    assert (receipt.way, receipt.same_bytes) == ("create", False)
    assert ids(ollama)["a:latest"] == receipt.id.hex  # type: ignore[union-attr]


def test_a_proxy_set_on_the_server(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY without NO_PROXY: its pulls go elsewhere, so create it is, soon and with the reason."""
    from . import conftest

    real = subprocess.Popen

    def popen(*args: object, env: dict[str, str], **more: object) -> object:
        # Go takes no proxy to loopback: another address of this machine stands for another host.
        return real(*args, env={**env, "NO_PROXY": ""}, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(conftest.subprocess, "Popen", popen)
    with start() as ollama:
        origin = ModelsDir(RECORDED / "models-0.33")
        (model,) = [one for one in origin.models() if str(one.name) == "d:latest"]
        from modelpack.hands.callback import Calling

        wish = Wish(calling=Calling(callback="not-this-host.invalid:80", listen="127.0.0.1"))
        begun = time.monotonic()
        target = server_target(ollama, origin, wish=wish)
        way, why = target.way(model)  # type: ignore[attr-defined]
        assert (way, time.monotonic() - begun < 10) == ("create", True), why
        assert "could not call back" in why or "nobody came" in why or "went elsewhere" in why


@pytest.mark.parametrize("step", ["pull", "copy", "delete"])
def test_killed_and_run_again(ollama: Ollama, tmp_path: Path, step: str) -> None:
    """kill -9 at a step; the next run ends with the ID, and no blob of the model is lost."""
    origin = ModelsDir(RECORDED / "models-0.33")
    (model,) = [one for one in origin.models() if str(one.name) == "d:latest"]
    program = f"""
import os, signal
from pathlib import Path
from modelpack import ModelsDir, copy
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.stores.server_exact import ServerExact
real = Ollama.{step}
def dying(self, *args, **more):
    if {step == "pull"}:
        real(self, *args, **more).last()
    else:
        real(self, *args, **more)
    os.kill(os.getpid(), signal.SIGKILL)
Ollama.{step} = dying
origin = ModelsDir(Path({str(origin.path)!r}))
model = [one for one in origin.models() if str(one.name) == "d:latest"]
client = Ollama({ollama.base!r})
copy(origin, model, ServerExact(client, Callback(client.base)))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, env=dict(os.environ))
    assert done.returncode == -9
    with contextlib.suppress(Unreachable):
        (receipt,) = copy(origin, [model], exact(ollama))
        assert receipt.name == model.name
    left = [one for one in ollama.list() if is_temporary(Name.parse(one.name))]
    assert len(left) == (step in ("pull", "copy"))
    assert ollama.show("d:latest").modelfile
    # The third token of these random weights is no UTF-8, where 0.33 ends the stream.
    options = {"num_predict": 2, "temperature": 0, "seed": 1}
    asked = {"model": "d:latest", "prompt": "hello", "raw": True, "options": options}
    *_, last = ollama._http.ask("POST", "/api/generate", data=asked).lines()
    assert last["done"]
