"""A depot in place of a real server: what it removes when it starts, and a pull of a manifest alone."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, MemoryStore, files_of, needs_root, noise
from depots import ask, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.depot.app import Depot
from modelpack.depot.pruning import GRACE, prune
from modelpack.depot.serve import running
from modelpack.depot.shelf import Directory
from modelpack.hands import system
from modelpack.hands.callback import Callback, Caller, Calling, reach
from modelpack.hands.ollama import Ollama
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.transfer import copy
from modelpack.words.digest import Digest
from modelpack.words.report import Said, Step

ORPHAN = Digest.of(b"orphan").file_name


def old(path: Path, seconds: float = GRACE + 60) -> None:
    """Make the file at *path* that old; it is made where it is missing."""
    if not path.exists():
        path.write_bytes(b"x")
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def place(tmp_path: Path, tiny: MemoryStore) -> Path:
    """A models directory of one model, and an orphan, all of them old."""
    copy(tiny, tiny.models(), ModelsDir(tmp_path / "models"))
    (tmp_path / "models" / "blobs" / ORPHAN).write_bytes(b"orphan")
    for one in (tmp_path / "models").rglob("*"):
        if one.is_file():
            old(one)
    return tmp_path / "models"


def test_a_start_removes_what_nothing_names(place: Path, tiny: MemoryStore) -> None:
    heard: list[Step] = []
    Depot(place, report=heard.append)
    assert (place / "blobs" / ORPHAN).exists()  # read-only: it changes nothing
    Depot(place, writable=True, report=heard.append)
    assert not (place / "blobs" / ORPHAN).exists()
    (said,) = [step.text for step in heard if isinstance(step, Said)]
    assert said.startswith("removed from blobs/")
    assert said.endswith(ORPHAN)
    (model,) = tiny.models()
    assert len(files_of(place)) == 1 + len(model.blobs)
    assert ModelsDir(place).placed([model])[0]


def test_partial_pulls_go_too_and_strangers_stay(place: Path) -> None:
    blobs = place / "blobs"
    parts = [f"{ORPHAN}-partial", f"{ORPHAN}-partial-0", f"sha256:{'a' * 64}"]
    strangers = ["notes.txt", "sha256-", f"{ORPHAN}.bak", ORPHAN[:-1]]
    for name in (*parts, *strangers):
        old(blobs / name)
    (blobs / f"sha256-{'b' * 64}").mkdir()
    assert set(prune(Directory(place))) == {ORPHAN, *parts}
    assert all((blobs / name).exists() for name in strangers)


def test_younger_ones_stay(place: Path) -> None:
    for age in (0.0, GRACE - 30, -5000.0):
        old(place / "blobs" / ORPHAN, age)
        assert prune(Directory(place)) == []
    old(place / "blobs" / ORPHAN, GRACE + 1)
    assert prune(Directory(place)) == [ORPHAN]


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("registry.ollama.ai/library/tiny/.DS_Store", b"x"),
        ("registry.ollama.ai/library/tiny/cut", b"{"),
        ("registry.ollama.ai/library/other/empty", b""),
        ("registry.ollama.ai/li brary/tiny/latest", b"{}"),
    ],
)
def test_nothing_goes_where_a_manifest_cannot_tell(place: Path, path: str, raw: bytes) -> None:
    bad = place / "manifests" / path
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_bytes(raw)
    assert prune(Directory(place)) == []
    bad.unlink()
    assert prune(Directory(place)) == [ORPHAN]


def test_what_lies_at_another_level_is_not_looked_at(place: Path) -> None:
    """As with Ollama, whose glob has four levels."""
    (place / "manifests" / "registry.ollama.ai" / ".DS_Store").write_bytes(b"x")
    assert prune(Directory(place)) == [ORPHAN]


def test_nothing_goes_while_somebody_loads(place: Path) -> None:
    """Be it that another run just made something there, or is at work on one file for hours."""
    ours = place / ".modelpack"
    ours.mkdir()
    assert prune(Directory(place)) == []
    old(ours / "modelpack-0123")
    old(ours)
    with (ours / "modelpack-0123").open("rb") as file:
        assert system.lock(file.fileno(), wait=False)
        assert prune(Directory(place)) == []
    assert prune(Directory(place)) == [ORPHAN]


def test_what_a_repair_has_set_aside_keeps_nothing(place: Path) -> None:
    (place / ".modelpack" / "bad").mkdir(parents=True)
    (place / ".modelpack" / "bad" / "sha256-x").write_bytes(b"x")
    assert prune(Directory(place)) == []
    old(place / ".modelpack")
    assert prune(Directory(place)) == [ORPHAN]
    assert (place / ".modelpack" / "bad" / "sha256-x").exists()


def test_a_link_that_stands_for_our_own_directory(place: Path) -> None:
    (place / ".modelpack").symlink_to(place)
    os.utime(place / ".modelpack", (0, 0), follow_symlinks=False)
    assert prune(Directory(place)) == []


@pytest.mark.parametrize(
    ("value", "gone"), [("1", False), ("true", False), ("x", False), ("0", True), ("", True)]
)
def test_ollama_noprune(place: Path, monkeypatch: pytest.MonkeyPatch, value: str, gone: bool) -> None:
    monkeypatch.setenv("OLLAMA_NOPRUNE", value)
    assert bool(prune(Directory(place))) == gone


def test_directories_that_hold_nothing(tmp_path: Path) -> None:
    assert prune(Directory(tmp_path / "none")) == []
    (tmp_path / "manifests").mkdir()
    assert prune(Directory(tmp_path)) == []
    (tmp_path / "blobs").mkdir()
    assert prune(Directory(tmp_path)) == []
    (tmp_path / "manifests").rmdir()
    old(tmp_path / "blobs" / ORPHAN)
    assert prune(Directory(tmp_path)) == []


@needs_root
def test_a_depot_starts_where_it_may_not_remove(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no")

    heard: list[Step] = []
    monkeypatch.setattr(os, "unlink", refuse)
    Depot(place, writable=True, report=heard.append)
    assert any("were left where they are" in str(step) for step in heard)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 3 * GRACE)), max_size=6))
def test_no_model_ever_loses_a_blob(
    tmp_path_factory: pytest.TempPathFactory, extra: list[tuple[int, float]]
) -> None:
    path = tmp_path_factory.mktemp("models")
    store = MemoryStore()
    model = store.image("tiny", *TINY)
    copy(store, [model], ModelsDir(path))
    for one in path.rglob("*"):
        if one.is_file():
            old(one)
    for which, age in extra:
        raw = noise(10, which)
        (path / "blobs" / Digest.of(raw).file_name).write_bytes(raw)
        old(path / "blobs" / Digest.of(raw).file_name, age)
    young = {
        name
        for name in os.listdir(path / "blobs")
        if time.time() - (path / "blobs" / name).stat().st_mtime < GRACE - 5
    }
    prune(Directory(path))
    assert ModelsDir(path).placed([model])[0]
    assert young <= set(os.listdir(path / "blobs"))


# --- a pull of a manifest alone


@contextmanager
def only_a_manifest(raw: bytes) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A registry that has *raw* and no blob: its address, and what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.command, self.path))
            body = raw if self.path.endswith("/manifests/latest") else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_POST = do_GET  # noqa: N815 - http.server's

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_pull_of_a_manifest_whose_blobs_are_there(tmp_path: Path, tiny: MemoryStore) -> None:
    """The manifest is all that is asked for, as by a real server, and the model gets its ID."""
    (model,) = tiny.models()
    with (
        running(Depot(tmp_path / "models", writable=True)) as url,
        only_a_manifest(model.document.raw) as (registry, asked),
    ):
        name = f"{registry}/modelpack/{'a' * 12}-{'b' * 32}:latest"
        ask_for = {"model": name, "insecure": True}
        said = ask(url, "POST", "/api/pull", ask_for).lines
        assert "error" in said[-1]
        assert ask(url, "GET", "/api/tags").json["models"] == []
        for raw in tiny.bytes.values():
            put(url, raw)
        asked.clear()
        said = ask(url, "POST", "/api/pull", ask_for).lines
        assert said[-1] == {"status": "success"}
        assert asked == [("GET", f"/v2/modelpack/{'a' * 12}-{'b' * 32}/manifests/latest")]
        (listed,) = ask(url, "GET", "/api/tags").json["models"]
        assert listed["digest"] == model.document.id.hex


def test_a_depot_that_calls_back_says_what_it_is(tmp_path: Path) -> None:
    """No Ollama, so no version and no system: `depot` in /api/version tells the rest."""
    with running(Depot(tmp_path / "models", writable=True)) as url, Ollama(url) as client:
        with Callback(client.base, Calling()) as callback:
            caller = reach(client, callback)
        assert caller.user_agent.startswith("modelpack/")
        assert (caller.system, caller.version) == ("", None)
        assert isinstance(caller, Caller)
        assert client.about().is_depot
