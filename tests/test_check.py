"""Asking the hosts of receipts again later: what drifted, what is damaged, and what could not be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import FULL, TINY, MemoryStore
from depots import ask, own_depot
from registries import docker_registry
from servers import FakeOllama

from modelpack.cli.check import command
from modelpack.documents.record import Host, Record
from modelpack.errors import Corrupt, Different, ModelpackError, NotFound, Unchecked, Unreachable
from modelpack.hands.ollama import Ollama
from modelpack.stores import Target
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.registry import ArtifactTarget, RegistryTarget
from modelpack.verbs import check as checking
from modelpack.verbs.check import worst
from modelpack.verbs.record import now, record_of, write
from modelpack.verbs.registries import Access
from modelpack.verbs.targets import server
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name
from modelpack.words.reference import Reference


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    return tmp_path


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.image("full", *FULL)
    made.image("tiny", *TINY)
    return made


def loaded(store: MemoryStore, target: Target, host: Host, file: str = "r.json") -> Record:
    """Load it all to *target*; the receipt stands in *file*."""
    begun = now()
    receipts = copy(store, store.models(), target)
    record = record_of(receipts, {}, host, bundle=None, started=begun, ended=now())
    write(Path(file), record)
    return record


@pytest.fixture
def directory(store: MemoryStore, here: Path) -> Path:
    path = here / "m"
    loaded(store, ModelsDir(path), Host("models directory", str(path)))
    return path


def check(*args: object, code: int = 0) -> Result:
    """Run it; what it leaves by is *code*."""
    done = CliRunner().invoke(command, [*map(str, args), *([] if args[1:] else ["r.json"])])
    raised = done.exception
    assert raised is None or isinstance(raised, ModelpackError | SystemExit), raised
    found = raised.exit_code if isinstance(raised, ModelpackError) else done.exit_code
    assert found == code, done.output
    return done


def found(*args: object, code: int = 0) -> dict[str, str]:
    """What became of each model."""
    done = CliRunner().invoke(command, ["r.json", "--json", *map(str, args)])
    assert done.exit_code == code, (done.output, done.exception)
    ((one),) = json.loads(done.stdout)
    return {str(Name.parse(model["name"])): model["found"] for model in one["models"]}


def weights(path: Path, store: MemoryStore) -> Path:
    digest = store.models()[0].blobs[0].digest
    assert digest is not None
    return path / "blobs" / digest.file_name


def manifest(path: Path, name: str) -> Path:
    return path.joinpath("manifests", *Name.parse(name).parts)


def spoil(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def test_a_directory_that_is_the_same(directory: Path) -> None:
    done = check("r.json", "-q")
    assert done.stdout.count("same ID") == 2
    assert found() == {"full:latest": "same", "tiny:latest": "same"}
    done = check("r.json", "--prove")
    assert "same, 8 blobs read back" in done.stdout


def test_drift_in_a_directory(directory: Path) -> None:
    manifest(directory, "tiny").unlink()
    assert found(code=12) == {"full:latest": "same", "tiny:latest": "gone"}
    other = MemoryStore()
    other.image("tiny", *FULL[:3])
    copy(other, other.models(), ModelsDir(directory))
    assert found(code=12) == {"full:latest": "same", "tiny:latest": "another model"}
    assert other.models()[0].document.id.short in check("r.json", "-q", code=12).stderr


def test_a_blob_of_a_directory_is_missing_or_cut(directory: Path, store: MemoryStore) -> None:
    file = weights(directory, store)
    os.truncate(file, 5)
    assert found(code=4) == {"full:latest": "damaged", "tiny:latest": "same"}
    file.unlink()
    assert found(code=4) == {"full:latest": "damaged", "tiny:latest": "same"}
    assert "is missing" in check("r.json", "-q", code=4).stderr


def test_only_reading_back_finds_a_wrong_byte(directory: Path, store: MemoryStore) -> None:
    spoil(weights(directory, store))
    assert found() == {"full:latest": "same", "tiny:latest": "same"}
    assert found("--prove", code=4) == {"full:latest": "damaged", "tiny:latest": "same"}


def test_damage_is_worse_than_drift(directory: Path, store: MemoryStore) -> None:
    spoil(weights(directory, store))
    manifest(directory, "tiny").unlink()
    assert found("--prove", code=4) == {"full:latest": "damaged", "tiny:latest": "gone"}


def test_a_manifest_that_is_noise(directory: Path) -> None:
    manifest(directory, "tiny").write_bytes(b"noise")
    assert found(code=12)["tiny:latest"] == "another model"


def test_a_directory_that_is_not_here_is_not_damaged(directory: Path) -> None:
    directory.rename("elsewhere")
    assert set(found(code=11).values()) == {"not checked"}
    assert "drive" in check("r.json", "-q", code=11).stderr


def test_an_empty_mount_point_is_no_drift(directory: Path) -> None:
    directory.rename("elsewhere")
    directory.mkdir()
    assert set(found(code=11).values()) == {"not checked"}


def test_below_home(here: Path, store: MemoryStore) -> None:
    path = here / "home" / "m"
    path.parent.mkdir()
    loaded(store, ModelsDir(path), Host("models directory", "~/m"))
    assert set(found().values()) == {"same"}


@pytest.mark.parametrize(
    "host",
    [
        Host("models directory", "m"),
        Host("models directory", "~other/m"),
        Host("server", "file:///etc"),
        Host("server", "http://127.0.0.1:99999"),
        Host("server", "http://127.0.0.1:24700?x"),
        Host("server", ""),
        Host("registry", "oci://"),
    ],
)
def test_an_address_that_is_none(host: Host, store: MemoryStore, here: Path) -> None:
    loaded(store, ModelsDir(here / "m"), host)
    assert set(found(code=11).values()) == {"not checked"}


# --- servers


def test_a_depot(here: Path, store: MemoryStore) -> None:
    with own_depot(here / "m") as depot:
        loaded(store, server(depot.url), Host("server", depot.url, "0.0.1"))
        assert set(found().values()) == {"same"}
        assert "Ollama was 0.0.1 then" in check("r.json", code=0).stderr
        assert set(found("--prove", "--callback", "127.0.0.1").values()) == {"same"}
        spoil(weights(here / "m", store))
        assert set(found().values()) == {"same"}
        proven = found("--prove", "--callback", "127.0.0.1", code=4)
        assert proven == {"full:latest": "damaged", "tiny:latest": "same"}
        weights(here / "m", store).unlink()
        assert found(code=4) == {"full:latest": "damaged", "tiny:latest": "same"}
        ask(depot.url, "DELETE", "/api/delete", {"model": "tiny"})
        ask(depot.url, "DELETE", "/api/delete", {"model": "full"})
        ask(depot.url, "POST", "/api/copy", {"source": "tiny", "destination": "full"})
        assert found(code=12) == {"full:latest": "gone", "tiny:latest": "gone"}


def test_a_server_that_does_not_call_back_is_not_damaged(here: Path, store: MemoryStore) -> None:
    with own_depot(here / "m") as depot:
        loaded(store, server(depot.url), Host("server", depot.url))
        assert set(found("--prove", "--no-listen", code=11).values()) == {"not checked"}


def test_nobody_listens(here: Path, store: MemoryStore) -> None:
    loaded(store, ModelsDir(here / "m"), Host("server", "http://127.0.0.1:9", "0.33.0"))
    assert set(found(code=7).values()) == {"not checked"}
    assert check("r.json", "-q", code=7).stderr.count("modelpack:") == 1  # once, for both models


def test_several_receipts(directory: Path, here: Path, store: MemoryStore) -> None:
    """Each is asked, whatever the others say; the worst decides."""
    gone = loaded(store, ModelsDir(here / "n"), Host("server", "http://127.0.0.1:9", "0.33.0"), "s.json")
    done = check("r.json", "s.json", code=7)
    assert (done.stdout.count("same"), done.stdout.count("not checked")) == (2, 2)
    manifest(directory, "tiny").unlink()
    check("r.json", "s.json", code=12)
    write(Path("t.json"), replace(gone, modelpack="other"))
    assert len(check("r.json", "s.json", "t.json", code=12).stdout.splitlines()) == 6


def test_an_environment_that_is_wrong_is_not_the_hosts_fault(
    here: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_depot(here / "m") as depot:
        loaded(store, server(depot.url), Host("server", depot.url))
        monkeypatch.setenv("OLLAMA_HOST", "@@@")
        assert set(found().values()) == {"same"}


def test_a_key_goes_nowhere_because_a_file_says_so(
    here: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "very-secret")
    fake = FakeOllama()
    with fake.running() as url:
        loaded(store, ModelsDir(here / "m"), Host("server", url, "0.24.0"))
        assert set(found(code=12).values()) == {"gone"}
        assert not any("very-secret" in str(head) for head in fake.heads)
        monkeypatch.setenv("OLLAMA_HOST", url)
        assert set(found(code=12).values()) == {"gone"}
        assert any("very-secret" in str(head) for head in fake.heads)


@pytest.mark.parametrize("prove", [(), ("--prove", "--callback", "127.0.0.1")])
def test_a_model_that_is_removed_meanwhile_is_gone_and_not_damaged(
    here: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, prove: tuple[str, ...]
) -> None:
    """Between its being listed and its blobs being asked for; or read."""
    with own_depot(here / "m") as depot:
        loaded(store, server(depot.url), Host("server", depot.url))

        def after(call: Callable[..., Any]) -> Callable[..., Any]:
            def removing(*args: Any, **more: Any) -> Any:
                if depot.url in removed:
                    return call(*args, **more)
                removed.append(depot.url)
                ask(depot.url, "DELETE", "/api/delete", {"model": "tiny"})
                return call(*args, **more)

            return removing

        removed: list[str] = []
        if prove:
            monkeypatch.setattr(checking, "read_back", after(checking.read_back))
        else:
            monkeypatch.setattr(Ollama, "which", after(Ollama.which))
        assert found(*prove, code=12) == {"full:latest": "same", "tiny:latest": "gone"}


# --- registries


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with docker_registry() as running:
        yield running.server


@pytest.mark.parametrize("kind", [RegistryTarget, ArtifactTarget])
def test_a_registry(registry: str, store: MemoryStore, kind: Any) -> None:
    access = Access(plain_http=True)
    place = Reference.parse(f"oci://{registry}/{kind.__name__.lower()}")
    loaded(store, kind(access.client(place), place), Host("registry", str(place)))
    assert set(found("--plain-http").values()) == {"same"}
    assert set(found("--plain-http", "--prove").values()) == {"same"}
    other = MemoryStore()
    other.image("tiny", *FULL[:3])
    copy(other, other.models(), kind(access.client(place), place, replace=True))
    assert found("--plain-http", code=12) == {"full:latest": "same", "tiny:latest": "another model"}
    assert set(found(code=7).values()) == {"not checked"}  # by https nobody answers there


def test_a_tag_that_is_gone(registry: str, store: MemoryStore, here: Path) -> None:
    place = f"oci://{registry}/never"
    copied = loaded(store, ModelsDir(here / "m"), Host("registry", place))
    assert copied.models
    assert set(found("--plain-http", code=12).values()) == {"gone"}


def test_a_registry_s_secret_is_for_the_user_to_give(
    registry: str, store: MemoryStore, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the environment goes to no host that only a file names."""
    seen: list[object] = []
    from modelpack.hands import credentials
    from modelpack.verbs import hosts

    class Noted(credentials.Credentials):
        def __init__(self, given: Any = None, environ: Any = None) -> None:
            seen.append((given, environ))
            super().__init__(given, environ)

    monkeypatch.setattr(credentials, "Credentials", Noted)
    monkeypatch.setenv(credentials.VARIABLE, "user:secret")
    with hosts.opened(Host("registry", f"oci://{registry}/x"), access=Access(plain_http=True)) as there:
        assert there.id_of(Name.parse("m")) is None
    ((given, environ),) = seen  # type: ignore[misc]
    assert given is None
    assert credentials.VARIABLE not in environ


# --- the file


def test_a_file_that_is_no_receipt(here: Path) -> None:
    """Our own file: of the host nothing is known, and nothing is called damaged."""
    Path("r.json").write_text("{}")
    assert "no receipt" in check("r.json", "-q", code=11).stderr
    Path("r.json").write_text("noise")
    check("r.json", "-q", code=11)
    Path("r.json").unlink()
    check("r.json", "-q", code=11)


def test_one_that_cannot_be_read_keeps_no_other_from_being_checked(directory: Path) -> None:
    Path("cut.json").write_text("{")
    done = check("cut.json", "r.json", code=11)
    assert done.stdout.count("same ID") == 2
    assert "cut.json: this receipt cannot be read" in done.stderr
    cut, good = json.loads(check("cut.json", "r.json", "--json", code=11).stdout)
    assert (cut["models"], len(cut["problems"]), len(good["models"])) == ([], 1, 2)
    manifest(directory, "tiny").unlink()
    check("cut.json", "r.json", code=12)


def test_what_failed_then_is_said(directory: Path) -> None:
    record = Record.parse(Path("r.json").read_bytes(), "")
    failed = {"load": {"lost": NotFound("no")}}
    again = record_of([], failed, record.host, bundle=None, started=now(), ended=now())  # type: ignore[arg-type]
    write(Path("r.json"), replace(record, failed=again.failed))
    assert "lost:latest failed to load then" in check("r.json", "--prove").stderr


def test_the_worst_decides() -> None:
    errors = [Unreachable("a"), Unchecked("b"), Different("c"), Corrupt("d")]
    assert [worst(errors[:count]) for count in range(5)] == [0, 7, 11, 12, 4]
