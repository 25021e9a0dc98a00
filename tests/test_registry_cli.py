"""`oci://` in the commands: pack out of a registry, load into one, and taking up what a broken line left."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import FULL, TINY, MemoryStore, noise
from registries import PASSWORD, USER, DockerRegistry, FakeRegistry, cut, docker_registry

from modelpack.cli.inspect import command as inspect_command
from modelpack.cli.load import command as load_command
from modelpack.cli.pack import command as pack_command
from modelpack.cli.verify import command as verify_command
from modelpack.errors import ModelpackError, NotFound, Partly, Refused, Taken, Unreachable, Unsupported, Usage
from modelpack.hands import registry_blob, registry_wire
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MIB, MODEL


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, no installed models, nobody logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(registry_wire, "PAUSE", 0.0)
    return tmp_path


@pytest.fixture(scope="module")
def _registry() -> Iterator[DockerRegistry]:
    with docker_registry() as running:
        yield running


@pytest.fixture
def registry(_registry: DockerRegistry) -> DockerRegistry:
    """A registry with nothing in it."""
    _registry.clear()
    return _registry


def run(command: object, *words: object, given: str | None = None) -> Result:
    done = CliRunner().invoke(command, [str(word) for word in words], input=given)  # type: ignore[arg-type]
    assert done.exception is None or isinstance(done.exception, ModelpackError | SystemExit), done.exception
    return done


def packed(*names: str, recipe: bool = False) -> MemoryStore:
    """b.tar of models of these names."""
    store = MemoryStore()
    for name in names:
        store.image(name, *FULL)
    if recipe:
        store.recipe("made", **{"model.safetensors": b"weights"})
    copy(store, store.models(), Archive(Path("b.tar")))
    return store


def test_there_and_back(registry: DockerRegistry) -> None:
    store = packed("Team/Tiny:V1", "other")
    place = f"oci://{registry.server}"
    done = run(load_command, "b.tar", "--to", f"{place}/mirror", "--plain-http")
    assert "registry: the same bytes, the same ID" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["Team/Tiny:V1", "other:latest"]
    again = run(load_command, "b.tar", "--to", f"{place}/mirror", "--plain-http")
    assert again.stdout.count("was there already") == 2
    for out in ("c.tar", "c"):
        done = run(
            pack_command,
            f"{place}/mirror/tiny:V1",
            f"{place}/mirror#other",
            "-o",
            out,
            "--plain-http",
            "--json",
        )
        assert {one["name"]: one["document"] for one in json.loads(done.stdout)["models"]} == {
            model.name.full: str(model.document.id) for model in store.models()
        }


def test_packed_twice_it_is_there_already(registry: DockerRegistry) -> None:
    packed("m")
    place = f"oci://{registry.server}/ns"
    run(load_command, "b.tar", "--to", place, "--plain-http")
    for out in ("c.tar", "c"):
        assert run(pack_command, f"{place}/m", "-o", out, "--plain-http").exit_code == 0
        assert "has just this already" in run(pack_command, f"{place}/m", "-o", out, "--plain-http").stderr
    store = MemoryStore()
    store.image("another", *TINY)
    copy(store, store.models(), Archive(Path("d.tar")))
    run(load_command, "d.tar", "--to", place, "--plain-http")
    done = run(pack_command, f"{place}/another", "-o", "c.tar", "--plain-http")
    assert isinstance(done.exception, Taken)


def test_artifacts_come_back_as_the_same_bundle(registry: DockerRegistry) -> None:
    packed("Team/Tiny:V1", recipe=True)
    place = f"oci://{registry.server}/art"
    plain = run(load_command, "b.tar", "--to", place, "--plain-http")
    assert isinstance(plain.exception, Partly)
    assert "--as-artifact" in plain.stderr
    words = ["b.tar", "--to", place, "--plain-http", "--as-artifact"]
    assert isinstance(run(load_command, *words).exception, Taken)  # the image that went there before
    assert run(load_command, *words, "--replace").exit_code == 0
    done = run(
        pack_command, f"{place}/tiny:V1", f"{place}/made", "-o", "c.tar", "--plain-http", "--no-script"
    )
    assert done.exit_code == 0, done.exception
    assert Path("c.tar").read_bytes() == Path("b.tar").read_bytes()


def test_from_a_registry_to_a_pipe(registry: DockerRegistry) -> None:
    packed("m")
    place = f"oci://{registry.server}/ns"
    run(load_command, "b.tar", "--to", place, "--plain-http")
    command = [sys.executable, "-m", "modelpack", "pack", f"{place}/m", "-o", "-", "--plain-http"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (Refused.exit_code, "")
    assert "file or folder first" in done.stderr


def test_straight_on_to_a_directory_and_to_another_registry(registry: DockerRegistry) -> None:
    store = packed("m")
    place = f"oci://{registry.server}"
    run(load_command, "b.tar", "--to", f"{place}/ns", "--plain-http")
    done = run(load_command, f"{place}/ns/m", "--to", "models", "--plain-http", "--json")
    assert json.loads(done.stdout)["models"][0]["id"] == str(store.models()[0].document.id)
    done = run(load_command, f"{place}/ns/m", "--to", f"{place}/second", "--plain-http")
    assert done.exit_code == 0, done.exception


def test_it_is_looked_at_there_and_checked_on_its_way(registry: DockerRegistry) -> None:
    packed("m")
    place = f"oci://{registry.server}/ns"
    run(load_command, "b.tar", "--to", place, "--plain-http")
    done = run(inspect_command, f"{place}/m", "--plain-http")
    assert (done.exit_code, "a model in a registry" in done.stdout) == (0, True)
    done = run(verify_command, f"{place}/m")
    assert isinstance(done.exception, Unsupported)
    assert "as it comes" in done.exception.advice


@pytest.mark.parametrize("way", ["file", "stdin", "environment"])
def test_credentials_never_come_by_the_command_line(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed("m")
    secret = f"{USER}:{PASSWORD}"
    words: list[object] = []
    if way == "file":
        Path("login").write_text(secret + "\n", encoding="utf-8")
        words = ["--credentials", "login"]
    elif way == "stdin":
        words = ["--credentials", "-"]
    else:
        monkeypatch.setenv("MODELPACK_REGISTRY_AUTH", secret)
    with docker_registry(auth=True) as locked:
        to = ["--to", f"oci://{locked.server}/ns", "--plain-http"]
        assert isinstance(run(load_command, "b.tar", *to, "--credentials", "/dev/null").exception, Usage)
        done = run(load_command, "b.tar", *to, *words, "--json", given=secret)
        assert done.exit_code == 0, done.exception
        assert PASSWORD not in done.output
        monkeypatch.delenv("MODELPACK_REGISTRY_AUTH", raising=False)
        refused = run(load_command, "b.tar", *to)
        assert isinstance(refused.exception, Refused)
        assert "MODELPACK_REGISTRY_AUTH" in refused.exception.advice


def test_a_secret_is_for_one_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    packed("m")
    Path("login").write_text("user:secret")
    one, other = FakeRegistry(), FakeRegistry()
    with one.running() as first, other.running() as second:
        words = [f"oci://{first}/a/b", f"oci://{second}/a/c", "-o", "c.tar", "--plain-http"]
        for more in (["--credentials", "login"], []):
            done = run(pack_command, *words, *more)
            assert isinstance(done.exception, Usage)
            assert first in done.exception.what
            assert second in done.exception.what
            monkeypatch.setenv("MODELPACK_REGISTRY_AUTH", "user:secret")
        done = run(load_command, words[0], "--to", f"oci://{second}/a", "--plain-http")
        assert isinstance(done.exception, Usage)
    assert not one.asked
    assert not other.asked


def test_standard_input_is_read_once() -> None:
    fake = FakeRegistry(basic="Basic " + base64.b64encode(b"user:secret").decode(), secret="x")
    with fake.running() as server:
        for place in ("a/b/latest", "a/c/latest"):
            fake.add_image(place, *FULL)
        words = [f"oci://{server}/a/b", f"oci://{server}/a/c", "-o", "c", "--plain-http"]
        done = run(pack_command, *words, "--credentials", "-", given="user:secret\n")
        assert done.exit_code == 0, done.exception
        done = run(load_command, "-", "--to", f"oci://{server}/a", "--plain-http", "--credentials", "-")
        assert isinstance(done.exception, Usage)


def test_options_of_registries_for_what_is_none() -> None:
    packed("m")
    for words in (["--plain-http"], ["--credentials", "x"]):
        assert isinstance(run(pack_command, "b.tar", "-o", "c.tar", *words).exception, Usage)
    assert isinstance(run(load_command, "b.tar", "--to", "models", "--as-artifact").exception, Usage)
    assert not Path("models").exists()


@pytest.mark.parametrize("text", ["oci://", "oci://x y/z", "oci://user:secret@host/a/b", "oci://host/../b"])
def test_addresses_that_are_none(text: str) -> None:
    done = run(pack_command, text, "-o", "c.tar")
    assert isinstance(done.exception, Usage)
    assert "secret" not in str(done.exception)


def test_what_is_not_there_and_what_is_no_model(registry: DockerRegistry) -> None:
    place = f"oci://{registry.server}"
    assert isinstance(run(pack_command, f"{place}/a/b", "-o", "c.tar", "--plain-http").exception, NotFound)
    assert isinstance(run(pack_command, place, "-o", "c.tar", "--plain-http").exception, NotFound)
    fake = FakeRegistry()
    with fake.running() as server:
        fake.manifests["a/b/latest"] = (b'{"manifests":[]}', "application/vnd.oci.image.index.v1+json")
        done = run(pack_command, f"oci://{server}/a/b", "-o", "c.tar", "--plain-http")
        assert isinstance(done.exception, Unsupported)


@pytest.mark.parametrize("out", ["c.tar", "c"])
def test_a_line_that_breaks_for_good_costs_the_rest_only(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run gives up; the next asks for what is missing, and what it wrote is right."""
    monkeypatch.setattr(registry_blob, "TRIES", 2)
    fake, data = FakeRegistry(), noise(4 * MIB)
    with fake.running() as server:
        fake.add_image("a/b/latest", (MODEL, data), *TINY[1:])
        broken = True

        def breaks(at: object) -> bool | None:
            return cut(at, data, max(0, 2 * MIB - begin(at))) if broken else None  # type: ignore[func-returns-value]

        def begin(at: object) -> int:
            asked = at.headers.get("Range", "bytes=0-")  # type: ignore[attr-defined]
            return int(asked.partition("=")[2].partition("-")[0])

        digest = next(key for key, value in fake.blobs.items() if value == data)
        fake.fault("GET", digest, breaks)
        words = [f"oci://{server}/a/b", "-o", out, "--plain-http"]
        done = run(pack_command, *words)
        assert isinstance(done.exception, Unreachable)
        assert "Run it again" in done.exception.advice
        assert not Path("c.tar").exists()
        broken = False
        fake.asked.clear()
        done = run(pack_command, *words)
        assert done.exit_code == 0, done.exception
        ranges = [head.get("Range") for head in fake.heads("GET", digest)]
        assert ranges == [f"bytes={2 * MIB}-{4 * MIB - 1}"]
    store = Archive(Path(out)) if out.endswith("tar") else FolderBundle(Path(out))
    with store.open(store.models()[0].blobs[0]) as reader:
        piece = bytearray(4 * MIB)
        view, count = memoryview(piece), 0
        while count < len(piece):
            count += reader.readinto(view[count:])
    assert piece == data
