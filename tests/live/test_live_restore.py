"""restore.py, and the lines of README.txt for install and for curl, into a real Ollama."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, ROOT
from test_readme_txt import PLAIN, WITH_CURL, code, of_model, shell, tools, unpacked

from modelpack import Archive
from modelpack.hands.ollama import Ollama

from .conftest import Starter
from .test_live_trip import tokens

pytestmark = pytest.mark.live

SCRIPT = ROOT / "modelpack" / "receiver" / "restore.py"
BUNDLE = FIXTURES / "bundle-v1.tar"
NAMES = ("tiny:latest", "team/full:1.0")


def restore(*args: object) -> str:
    command = [sys.executable, "-I", SCRIPT, "--from", BUNDLE, *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ids(client: Ollama) -> dict[str, str]:
    return {one.name: one.digest.hex for one in client.list()}


def meant() -> dict[str, str]:
    """The IDs of the bundle's images."""
    return {str(one.name): one.document.id.hex for one in Archive(BUNDLE).models()[:2]}


def shown(client: Ollama) -> dict[str, Any]:
    """What is told of the larger one; Go gives parameters in any order."""
    told = client.show("team/full:1.0")
    found = {key: getattr(told, key) for key in ("template", "system", "license", "messages")}
    return found | {"parameters": sorted(told.parameters.splitlines())}


def test_its_models_run(start: Starter, tmp_path: Path) -> None:
    """From a directory that the script filled: the IDs, and tokens. Made by the server: the same tokens."""
    models = tmp_path / "ollama" / "models"
    models.parent.mkdir()
    restore("--to", models, *NAMES)
    with start() as ollama:
        assert ids(ollama) == meant()
        said, words = tokens(ollama, "tiny"), shown(ollama)
        restore("--to", ollama.base, *NAMES)  # there already
        assert ids(ollama) == meant()
    models.rename(tmp_path / "old")
    with start() as ollama:
        restore("--to", ollama.base)
        assert ids(ollama).keys() == {*NAMES, "tiny-q8:latest"}
        assert tokens(ollama, "tiny") == said
        assert shown(ollama) == words


def test_a_shell_is_enough(start: Starter, tmp_path: Path) -> None:
    """README.txt's lines without Python: by tar, mkdir and install, then by curl."""
    models = tmp_path / "ollama" / "models"
    models.parent.mkdir()
    plain = tools(tmp_path / "plain", PLAIN)
    text = unpacked(BUNDLE, tmp_path / "here", plain)
    lines = code(text, "MODELS=").replace("/usr/share/ollama/.ollama/models", str(models))
    lines = "\n".join([lines, *(code(of_model(text, name), "mkdir -p") for name in NAMES)])
    shell(lines, tmp_path / "here" / "bundle", plain)
    with start() as ollama:
        assert ids(ollama) == meant()
        said, words = tokens(ollama, "tiny"), shown(ollama)
    models.rename(tmp_path / "old")
    with start() as ollama:
        lines = code(text, "OLLAMA=").replace("http://127.0.0.1:11434", ollama.base)
        for name in (*NAMES, "tiny-q8:latest"):
            lines += "\n" + code(of_model(text, name), "send", "printf")
        answers = shell(lines, tmp_path / "here" / "bundle", tools(tmp_path / "curl", WITH_CURL))
        assert answers.splitlines() == ['{"status":"success"}'] * 3
        assert tokens(ollama, "tiny") == said
        assert shown(ollama) == words
