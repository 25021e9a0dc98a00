"""`modelpack unpack`: what it prints, what it refuses, and that pack takes its folder up again."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import FULL, TINY, MemoryStore, bits, files_of

from modelpack.cli.unpack import command
from modelpack.errors import ModelpackError, NotFound, Partly, Taken, Unexpected, Unsupported, Usage
from modelpack.stores.archive import Archive
from modelpack.stores.plain import PlainFolder
from modelpack.verbs import locate
from modelpack.verbs.transfer import copy
from modelpack.words.blob import SYSTEM


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, and no installed models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    return tmp_path


def run(*args: object) -> Result:
    """The command, in this process; an error of ours is its exception."""
    done = CliRunner().invoke(command, [str(one) for one in args])
    assert done.exception is None or isinstance(done.exception, ModelpackError | SystemExit), done.exception
    return done


def packed(store: MemoryStore, name: str = "b.tar") -> str:
    copy(store, store.models(), Archive(Path(name)))
    return name


def test_one_model(tiny: MemoryStore) -> None:
    done = run(packed(tiny), "out dir")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"tiny:latest  {tiny.models()[0].document.id.short}  out dir/"
    assert [line.split()[0] for line in lines[1:]] == ["0.gguf", "Modelfile", "documents/"]
    assert "80.3 kB" in lines[1]
    assert lines[2].split()[1:] == [str(os.path.getsize("out dir/Modelfile")), "B"]
    said = done.stderr.splitlines()
    assert str(Archive(Path("b.tar")).fingerprint) in said[1]
    assert shlex.split(said[2]) == ["llama.cpp:", "llama-server", "-m", "out dir/0.gguf"]
    assert shlex.split(said[3]) == ["Ollama:", "ollama", "create", "tiny:latest", "-f", "out dir/Modelfile"]
    assert run("b.tar", "quiet", "-q").stderr == ""


def test_adapters_and_recipes_are_told_how_to_use() -> None:
    store = MemoryStore()
    store.image("full", *FULL)
    assert "llama-server -m out/0.gguf --lora out/full-adapter.gguf" in run(packed(store), "out").stderr
    store = MemoryStore()
    store.recipe("made", **{"model.safetensors": b"x" * 99})
    done = run(packed(store, "r.tar"), "r")
    assert "llama-server" not in done.stderr
    assert "ollama create made:latest -f r/Modelfile --quantize q4_K_M" in done.stderr
    assert "cannot say quantize" in done.stderr


def test_several_models_and_some_of_them(shelf: MemoryStore) -> None:
    done = run(packed(shelf), "out", "--json")
    told = json.loads(done.stdout)
    assert told["fingerprint"] == str(Archive(Path("b.tar")).fingerprint)
    assert [one["folder"] for one in told["models"]][:2] == ["full", "Someone-Tiny-v1.5-q4_K"]
    for one in told["models"]:
        assert one["document"] == one["id"]
        assert {*one["files"], "Modelfile", "documents/manifest.json", "documents/model.json"} == {
            *files_of(Path("out", one["folder"]))
        }
    assert bits(PlainFolder(Path("out"))) == bits(shelf)
    for args in (("b.tar", "one", "twin"), ("b.tar#twin", "two")):
        assert run(*args).exit_code == 0
        assert [str(one.name) for one in PlainFolder(Path(args[1])).models()] == ["twin:latest"]
    assert isinstance(run("b.tar", "three", "nobody").exception, NotFound)
    assert not os.path.exists("three")


def test_pack_takes_the_folder_up(tiny: MemoryStore) -> None:
    run(packed(tiny), "out")
    again = locate.source("out")
    assert isinstance(again, PlainFolder)
    assert [one.document.id for one in again.models()] == [one.document.id for one in tiny.models()]
    Path("out/Modelfile").write_text("FROM ./0.gguf\nSYSTEM Other\n")
    changed = locate.source("out")
    assert not isinstance(changed, PlainFolder)
    assert changed.models()[0].document.id != tiny.models()[0].document.id


def test_what_is_there_already(tiny: MemoryStore) -> None:
    run(packed(tiny), "out")
    done = run("b.tar", "out")
    assert done.exit_code == 0
    assert "was there already" in done.stdout
    Path("out/Modelfile").write_text("FROM x\n")
    assert isinstance(run("b.tar", "out").exception, Taken)
    assert run("b.tar", "out", "--replace").exit_code == 0
    assert PlainFolder(Path("out")).fits() is None


def test_a_text_that_no_modelfile_holds() -> None:
    store = MemoryStore()
    store.image("bad", *TINY[:1], (SYSTEM, b'a\n"""\nADAPTER ./x\n'))
    error = run(packed(store), "out").exception
    assert isinstance(error, Unsupported)
    assert "--no-modelfile" in error.advice
    assert not os.path.exists("out")
    done = run("b.tar", "out", "--no-modelfile")
    assert done.exit_code == 0
    assert "Modelfile" not in done.stdout
    assert "ollama create" not in done.stderr


def test_one_of_several_fails(tiny: MemoryStore) -> None:
    tiny.image("bad", *TINY[:1], (SYSTEM, b'a\n"""\nADAPTER ./x\n'))
    done = run(packed(tiny), "out", "--json")
    assert isinstance(done.exception, Partly)
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["failed"]] == ["registry.ollama.ai/library/bad:latest"]
    assert [one["folder"] for one in told["models"]] == ["tiny"]
    done = run("b.tar", "out")
    assert done.stdout.startswith("tiny:latest")
    assert "bad:latest" in done.stderr


def test_refusals(tiny: MemoryStore) -> None:
    assert isinstance(run(packed(tiny), "out", "--expect", "0" * 64).exception, Unexpected)
    assert isinstance(run("b.tar", "b.tar").exception, Usage)
    assert isinstance(run("nothing.tar", "out").exception, NotFound)
    assert isinstance(run("b.tar", "http://host").exception, Usage)
    assert run("b.tar").exit_code == 2
    assert not os.path.exists("out")
