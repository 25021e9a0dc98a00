"""Which models can do something: by what a server says of them, asked over real HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from depots import make, own_depot
from servers import FakeOllama, say

from modelpack.errors import NotFound, Unreachable
from modelpack.hands import retry
from modelpack.hands.ollama import Ollama
from modelpack.verbs.discover import Discovery, discover

GB = 10**9


class Zoo(FakeOllama):
    """An Ollama with these models. Its list `tells` what they can do (0.33), or only show does (0.24)."""

    MODELS: ClassVar[dict[str, dict[str, Any]]] = {
        "llava-vision:latest": {"caps": ["completion"], "family": "llama", "context": 4096, "size": 4 * GB},
        "plain:7b": {"caps": ["completion", "vision"], "family": "mllama", "context": 8192, "size": 8 * GB},
        "agent:8b": {
            "caps": ["completion", "tools", "vision"], "family": "qwen3", "context": 40960, "size": 5 * GB,
        },
        "embed:latest": {"caps": ["embedding"], "family": "bert", "context": 512, "size": GB},
        "far:cloud": {
            "caps": ["completion", "tools"], "family": "", "context": 131072, "size": 300, "remote": True,
        },
    }  # fmt: skip

    def __init__(self, *, tells: bool) -> None:
        super().__init__()
        self.tells = tells
        self.models = {name: dict(what) for name, what in self.MODELS.items()}

    def _listed(self, name: str) -> dict[str, Any]:
        what = self.models[name]
        details: dict[str, Any] = {
            "family": what["family"], "families": [what["family"], "clip"], "quantization_level": "Q4_K_M",
        }  # fmt: skip
        entry = {**super()._listed(name), "size": what["size"], "details": details}
        if what.get("remote"):
            entry |= {"remote_model": "far", "remote_host": "https://ollama.com:443"}
        if self.tells:
            details["context_length"] = what["context"]
            entry["capabilities"] = what["caps"]
        return entry

    def _shown(self, name: str) -> dict[str, Any]:
        what = self.models[name]
        info = {"general.architecture": "x", "x.context_length": what["context"]}
        return {"capabilities": what["caps"], "model_info": info, "details": {}}

    def shows(self) -> int:
        """How often it was asked about a single model."""
        return self.asked.count(("POST", "/api/show"))


@contextmanager
def zoo(*, tells: bool) -> Iterator[tuple[Zoo, Ollama]]:
    fake = Zoo(tells=tells)
    with fake.running() as url, Ollama(url) as client:
        yield fake, client


@pytest.mark.parametrize("tells", [True, False])
def test_what_a_model_says_counts_and_not_its_name(tells: bool) -> None:
    with zoo(tells=tells) as (_, client):
        assert [one.name for one in discover(client, capability="vision")] == ["plain:7b", "agent:8b"]
        assert [one.name for one in discover(client, capability=["vision", "TOOLS"])] == ["agent:8b"]
        assert [one.name for one in discover(client, capability="embedding")] == ["embed:latest"]
        assert discover(client, capability="flying") == ()


@pytest.mark.parametrize("tells", [True, False])
def test_the_other_wishes(tells: bool) -> None:
    with zoo(tells=tells) as (_, client):
        assert [one.name for one in discover(client, family="QWEN3")] == ["agent:8b"]
        assert len(discover(client, family="clip")) == 5  # one of several families
        assert discover(client, family="qwen") == ()
        assert len(discover(client, quantization="q4_k_m")) == 5
        assert discover(client, quantization="Q4") == ()
        small = discover(client, max_size=4 * GB)
        assert [one.name for one in small] == ["llava-vision:latest", "embed:latest", "far:cloud"]
        long = discover(client, min_context=40960, capability="tools")
        assert [one.name for one in long] == ["agent:8b", "far:cloud"]


def test_a_found_model_is_whole() -> None:
    with zoo(tells=True) as (_, client):
        far = discover(client, min_context=100000)[0]
    assert (far.name, far.remote, far.context_length) == ("far:cloud", True, 131072)
    assert (far.capabilities, far.families) == (("completion", "tools"), ("", "clip"))
    assert (far.quantization, far.size, far.modified_at) == ("Q4_K_M", 300, "2026-11-23T04:46:44Z")


def test_a_list_that_tells_is_enough() -> None:
    with zoo(tells=True) as (fake, client):
        discover(client, capability="tools", min_context=1)
        assert fake.shows() == 0


def test_only_what_the_list_lacks_is_asked_and_only_once() -> None:
    with zoo(tells=False) as (fake, client):
        discovery = Discovery(client)
        assert discovery.find()[0].capabilities is None  # not asked for, so nobody was
        assert fake.shows() == 0
        discovery.find(capability="tools", family="qwen3")
        assert fake.shows() == 1  # the others do not fit anyway
        discovery.find(capability="vision")
        discovery.find(min_context=1)
        assert fake.shows() == 5
        assert discovery.find()[0].capabilities == ("completion",)  # remembered


def test_a_new_model_and_a_refresh_are_asked() -> None:
    with zoo(tells=False) as (fake, client):
        discovery = Discovery(client)
        discovery.find(capability="vision")
        fake.models["twin:latest"] = fake.models["agent:8b"]  # the same ID
        fake.models["new:latest"] = {**fake.models["plain:7b"], "size": 1}
        names = [one.name for one in discovery.find(capability="vision")]
        assert names == ["plain:7b", "agent:8b", "twin:latest", "new:latest"]
        assert fake.shows() == 6
        for what in fake.models.values():
            what["caps"] = ["vision"]
        discovery.refresh()
        assert len(discovery.find(capability="vision")) == 7


def test_a_model_that_cannot_be_shown_is_told_of() -> None:
    with zoo(tells=False) as (fake, client):
        fake.models["ghost:latest"] = {**fake.models["agent:8b"], "size": 2}
        shown = fake._answer

        def answer(at: Any) -> None:  # listed, but its blobs are gone
            if at.path == "/api/show":
                fake.models.pop("ghost:latest", None)
            shown(at)

        fake._answer = answer  # type: ignore[method-assign]
        found = discover(client, capability="tools")
    assert [one.name for one in found] == ["agent:8b", "far:cloud"]
    assert set(found.problems) == {"ghost:latest"}
    assert isinstance(found.problems["ghost:latest"], NotFound)


def test_a_server_that_dies_meanwhile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST", 0.001)
    with zoo(tells=False) as (fake, client):

        def die(at: Any) -> None:
            at.close_connection = True
            at.connection.shutdown(socket.SHUT_RDWR)

        fake.faults["POST /api/show"] = die
        with pytest.raises(Unreachable):
            discover(client, capability="tools")


def test_a_show_of_nonsense_is_no_length() -> None:
    with zoo(tells=False) as (fake, client):
        answer = {
            "capabilities": "vision",
            "model_info": {"general.architecture": [], "[].context_length": "9"},
        }
        fake.faults["POST /api/show"] = lambda at: say(at, 200, answer)
        assert discover(client, min_context=1) == ()
        assert discover(client, capability="vision") == ()


def test_a_depot_is_discovered(tmp_path: Path) -> None:
    with own_depot(tmp_path) as depot, Ollama(depot.url) as client:
        assert make(depot.url, "tiny").status == 200
        (found,) = discover(client, capability="completion", min_context=200, family="llama")
        assert (found.name, found.context_length) == ("tiny:latest", 256)
        assert discover(client, capability="vision") == ()
