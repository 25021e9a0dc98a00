"""A real Ollama beside a depot: it pulls from it and generates, it pushes to it, its own CLI manages it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from depots import own_depot

from modelpack import FolderBundle, ModelsDir, verify
from modelpack.hands.ollama import Ollama

from .test_live_trip import TINY, create_plainly, listed, modelpack, tokens

pytestmark = pytest.mark.live
Start = Callable[[], AbstractContextManager[Ollama]]


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[str]:
    """host:port of a writable depot."""
    with own_depot(tmp_path / "depot") as running:
        yield running.url.removeprefix("http://")


def packed(tmp_path: Path, name: str = "tiny") -> str:
    """A bundle of the fixture; the model's ID."""
    modelpack("pack", TINY, "-o", "b", "--name", name, cwd=tmp_path)
    return str(FolderBundle(tmp_path / "b").models()[0].document.id)


def test_it_pulls_from_a_depot_and_generates(ollama: Ollama, depot: str, tmp_path: Path) -> None:
    create_plainly(ollama, "before")
    wanted = packed(tmp_path)
    modelpack("load", "b", "--to", tmp_path / "depot", cwd=tmp_path)
    events = list(ollama.pull(f"{depot}/library/tiny", insecure=True))
    assert events[-1].status == "success"
    assert any(event.total for event in events)
    assert str(listed(ollama)[f"{depot}/library/tiny:latest"].digest) == wanted
    assert tokens(ollama, f"{depot}/library/tiny") == tokens(ollama, "before")


def test_it_pulls_straight_from_a_bundle(ollama: Ollama, tmp_path: Path) -> None:
    wanted = packed(tmp_path)
    modelpack("pack", "b", "-o", "b.tar", cwd=tmp_path)
    with own_depot(tmp_path / "b.tar", writable=False) as running:
        place = running.url.removeprefix("http://")
        ollama.pull(f"{place}/library/tiny", insecure=True).last()
        ollama.copy(f"{place}/library/tiny", "tiny")
    assert str(listed(ollama)["tiny:latest"].digest) == wanted
    assert tokens(ollama, "tiny")


def test_it_pushes_to_a_depot(ollama: Ollama, depot: str, tmp_path: Path) -> None:
    create_plainly(ollama, "before")
    ollama.copy("before", f"{depot}/team/pushed:1")
    events = list(ollama.push(f"{depot}/team/pushed:1", insecure=True))
    assert events[-1].status == "success"
    (model,) = ModelsDir(tmp_path / "depot").models()
    assert str(model.name) == "team/pushed:1"
    assert not verify(ModelsDir(tmp_path / "depot")).problems
    mine = listed(ollama)["before:latest"].digest
    pushed = model.document.raw
    # Ollama writes the manifest anew, without the newline that its own create ends with.
    assert str(mine) in {str(model.document.id), str(type(mine).of(pushed + b"\n"))}


def test_two_depots_and_a_server_between(ollama: Ollama, depot: str, tmp_path: Path) -> None:
    wanted = packed(tmp_path)
    modelpack("load", "b", "--to", tmp_path / "depot", cwd=tmp_path)
    with own_depot(tmp_path / "second") as second:
        far = Ollama(second.url)
        far.pull(f"{depot}/library/tiny", insecure=True).last()
        far.copy(f"{depot}/library/tiny", "tiny")
        place = second.url.removeprefix("http://")
        ollama.pull(f"{place}/library/tiny", insecure=True).last()
        assert str(listed(ollama)[f"{place}/library/tiny:latest"].digest) == wanted


def test_its_own_command_manages_a_depot(start: Start, depot: str, tmp_path: Path) -> None:
    """`ollama list, show, create, cp, rm, pull, push` with OLLAMA_HOST at the depot."""
    program = os.environ.get("MODELPACK_LIVE_OLLAMA")
    if not program:
        pytest.skip("MODELPACK_LIVE_OLLAMA names no Ollama")
    dead = "http://127.0.0.1:9"

    def cli(*words: str) -> str:
        done = subprocess.run(
            [program, *words],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OLLAMA_HOST": depot,
                 "HTTP_PROXY": dead, "HTTPS_PROXY": dead, "NO_PROXY": "127.0.0.1,localhost"},
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    (tmp_path / "Modelfile").write_text(f"FROM {TINY}\nPARAMETER temperature 0\nSYSTEM hello\n")
    assert "success" in cli("create", "made", "-f", "Modelfile")
    assert "made:latest" in cli("list")
    assert "llama" in cli("show", "made")
    cli("cp", "made", "team/copy:1")
    assert "team/copy:1" in cli("list")
    with own_depot(tmp_path / "second") as second:
        place = second.url.removeprefix("http://")
        cli("cp", "made", f"{place}/library/sent")
        assert "success" in cli("push", "--insecure", f"{place}/library/sent")
        assert [str(model.name) for model in ModelsDir(tmp_path / "second").models()] == ["sent:latest"]
        assert "success" in cli("pull", "--insecure", f"{place}/library/sent")
    cli("rm", "team/copy:1")
    assert "team/copy:1" not in cli("list")
