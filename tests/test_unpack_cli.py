"""`modelpack unpack`: what it prints, what it refuses, and that pack takes its folder up again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import FULL, TINY, MemoryStore, bits, files_of, forked, needs_root, tree, waited

from modelpack.cli.load import command as load_command
from modelpack.cli.unpack import command
from modelpack.errors import (
    Corrupt,
    ModelpackError,
    NotFound,
    Partly,
    Refused,
    Taken,
    Unexpected,
    Unsupported,
    Usage,
)
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.verbs import locate
from modelpack.verbs.inspect import inspect
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import SYSTEM
from modelpack.words.report import Note, Step


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


def load(*args: object) -> Result:
    """`modelpack load`, in this process."""
    return CliRunner().invoke(load_command, [str(one) for one in args])


def flip(path: Path) -> None:
    """Change a bit in the middle of it."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


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
    again = locate.source("out", anew=True)
    assert isinstance(again, PlainFolder)
    assert [one.document.id for one in again.models()] == [one.document.id for one in tiny.models()]
    Path("out/Modelfile").write_text("FROM ./0.gguf\nSYSTEM Other\n")
    said: list[Step] = []
    changed = locate.source("out", anew=True, report=said.append)
    assert not isinstance(changed, PlainFolder)
    assert [str(one.name) for one in changed.models()] == ["tiny:latest"]
    assert [one.text for one in said if isinstance(one, Note)] == [
        "out: Modelfile was changed: packed from the Modelfile, with an ID of its own."
    ]
    assert changed.models()[0].document.id != tiny.models()[0].document.id


def test_only_pack_makes_another_model_of_changed_files(tiny: MemoryStore) -> None:
    run(packed(tiny), "out")
    assert run("out", "again").exit_code == 0
    assert bits(PlainFolder(Path("again"))) == bits(tiny)
    good = verify(locate.source("out"))
    assert (good.good, good.models, good.blobs) == (True, 1, 4)
    assert good.bytes_read == sum(blob.size for blob in tiny.models()[0].blobs)
    flip(Path("out/0.gguf"))
    bad = verify(locate.source("out"))
    assert [one.what for one in bad.problems] == ["0.gguf is not what it was when it was unpacked"]
    for way in (run, load):
        error = way("out", "other" if way is run else "--to=models").exception
        assert isinstance(error, Corrupt)
        assert "is damaged" in error.what
    assert PlainFolder(Path("other")).models() == ModelsDir(Path("models")).models() == []
    with Path("out/Modelfile").open("a") as file:
        file.write("SYSTEM mine\n")
    for way in (run, load):
        error = way("out", "third" if way is run else "--to=models").exception
        assert isinstance(error, Corrupt)
        assert error.what == "Modelfile was changed"
        assert "modelpack pack" in error.advice
    bad = verify(locate.source("out"))
    assert [one.what.partition(" ")[0] for one in bad.problems] == ["Modelfile", "0.gguf"]
    assert [one.what for one in inspect(locate.source("out")).problems] == ["Modelfile was changed"]
    Path("out/documents/manifest.json").write_text("{}")
    assert not verify(locate.source("out")).good


def test_one_of_a_set_is_looked_at_alone(shelf: MemoryStore) -> None:
    run(packed(shelf), "out")
    Path("out/full/Modelfile").write_text("FROM x\n")
    assert load("out#twin", "--to=models").exit_code == 0
    assert isinstance(load("out#full", "--to=models").exception, Corrupt)
    assert verify(locate.source("out"), ["twin"]).good
    assert not verify(locate.source("out"), ["full"]).good


def test_changed_files_without_a_modelfile_are_no_other_model(tiny: MemoryStore) -> None:
    run(packed(tiny), "out", "--no-modelfile")
    with pytest.raises(Unsupported, match="no Modelfile"):
        locate.source("out", anew=True, quantize="q8_0")
    flip(Path("out/0.gguf"))
    with pytest.raises(Corrupt, match=r"0\.gguf is not what it was") as caught:
        locate.source("out", anew=True)
    assert "Unpack it again" in caught.value.advice


def test_folders_of_others_are_in_nobodys_way(shelf: MemoryStore) -> None:
    """Neither one that cannot be read, nor a copy of one that was unpacked."""
    run(packed(shelf), "out", "twin", "full")
    shutil.copytree("out/twin", "out/twin copy")
    Path("out/zzz/documents").mkdir(parents=True)
    Path("out/zzz/documents/model.json").write_text("[]")
    done = run("b.tar", "out", "twin", "copy", "--json")
    assert done.exit_code == 0
    assert [one["folder"] for one in json.loads(done.stdout)["models"]] == ["twin", "copy"]


@needs_root
def test_a_folder_that_may_not_be_read(tiny: MemoryStore, open_place: Path) -> None:
    """As lost+found on a drive: in the bundle, and where it is unpacked."""
    copy(tiny, tiny.models(), FolderBundle(open_place / "bundle"))
    for name in ("bundle", "out"):
        (open_place / name / "lost+found").mkdir(parents=True, mode=0o700)
    os.chown(open_place / "out", 65534, 65534)

    def work() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        source = locate.source(str(open_place / "bundle"))
        copy(source, source.models(), PlainFolder(open_place / "out", source))
        assert PlainFolder(open_place / "out").fits() is None

    subprocess.run(["chmod", "-R", "a+r", open_place / "bundle" / "blobs"], check=True)
    assert waited(forked(work)) == 0
    assert bits(PlainFolder(open_place / "out")) == bits(tiny)


@pytest.mark.parametrize("kind", [FolderBundle, ModelsDir])
def test_nothing_is_unpacked_into_another_store(
    tiny: MemoryStore, kind: type[FolderBundle] | type[ModelsDir]
) -> None:
    copy(tiny, tiny.models(), kind(Path("store")))
    before = tree(Path("store"))
    assert isinstance(run(packed(tiny), "store", "--replace").exception, Refused)
    assert tree(Path("store")) == before


def test_a_quoted_tilde_is_the_home(tiny: MemoryStore, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    assert run(packed(tiny), "~/x").exit_code == 0
    assert (here / "home" / "x" / "Modelfile").exists()


def test_what_is_there_already(tiny: MemoryStore) -> None:
    run(packed(tiny), "out")
    done = run("b.tar", "out")
    assert done.exit_code == 0
    assert "was there already" in done.stdout
    Path("out/Modelfile").write_text("FROM x\n")
    assert isinstance(run("b.tar", "out").exception, Taken)
    assert run("b.tar", "out", "--replace").exit_code == 0
    assert PlainFolder(Path("out")).fits() is None


def test_replace_says_that_it_read_everything(tiny: MemoryStore) -> None:
    run(packed(tiny), "out")
    assert "its files were not read again" in run("b.tar", "out").stdout
    assert "(was there already; every file was read)" in run("b.tar", "out", "--replace").stdout
    flip(Path("out/0.gguf"))
    done = run("b.tar", "out", "--replace")
    assert "was there" not in done.stdout
    assert PlainFolder(Path("out")).fits() is None


def test_what_another_run_left_whole_was_not_there(tiny: MemoryStore) -> None:
    """No byte moves, and yet the model was not there before."""
    packed(tiny)
    run("b.tar", "out")
    Path("out/documents/model.json").unlink()
    Path("out/Modelfile").unlink()
    assert "was there" not in run("b.tar", "out").stdout


def test_unpacked_models_that_are_not_packed_are_named(shelf: MemoryStore) -> None:
    run(packed(shelf), "out", "twin", "full")
    Path("out/new.gguf").write_bytes(b"")
    Path("out/link").symlink_to("twin")
    said: list[Step] = []
    locate.source("out", anew=True, report=said.append)
    assert [one.text for one in said if isinstance(one, Note)] == [
        "out: left out, as no part of an unpacked model: link, new.gguf"
    ]
    Path("out/full/documents/model.json").unlink()
    with pytest.raises(Corrupt, match="full was not unpacked to its end"):
        locate.source("out", anew=True)
    for found in (verify(locate.source("out")), inspect(locate.source("out"))):
        assert [one.what[:15] for one in found.problems] == ["full was not un"]
    assert verify(locate.source("out"), ["twin"]).good


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nothing tells the peak here")
def test_a_large_modelfile_takes_little_memory(tiny: MemoryStore) -> None:
    text = "\u00e9" * 39 + "\n"
    licence = f'LICENSE """{text * 50_000}"""\n'
    packed(tiny)
    run("b.tar", "out", "--no-modelfile")
    Path("Modelfile").write_text(f"FROM ./out/0.gguf\n{licence * 2}", encoding="utf-8")
    for args in (["pack", "Modelfile", "-o", "large.tar"], ["unpack", "large.tar", "large"]):
        script = (
            "from modelpack.__main__ import main\n"
            "try: main()\n"
            "finally: print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
        )
        done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[-1]) < 120 << 10  # KiB
    assert files_of(Path("large"))["Modelfile"].endswith(licence.encode() * 2)


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
