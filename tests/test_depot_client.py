"""The official Python client, against a depot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest
from depots import FIXTURES, digest_of

from modelpack.depot.app import Depot
from modelpack.depot.serve import running

GGUF = FIXTURES / "tiny-llama.gguf"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ollama.Client]:
    with running(Depot(tmp_path / "models", writable=True)) as url, ollama.Client(url) as client:
        yield client


def test_a_model_is_made_listed_shown_copied_and_deleted(client: ollama.Client) -> None:
    digest = client.create_blob(str(GGUF))
    assert digest == digest_of(GGUF.read_bytes())
    assert client.create_blob(str(GGUF)) == digest
    events = list(
        client.create(
            "team/m:v1",
            files={GGUF.name: digest},
            template="{{ .Prompt }}",
            system="S",
            license=["MIT", "second"],
            parameters={"temperature": 0.5, "stop": ["x"]},
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
        )
    )
    assert events[-1].status == "success"
    assert client.create("n", from_="team/m:v1", system="T").status == "success"
    assert {each.model for each in client.list().models} == {"team/m:v1", "n:latest"}
    shown = client.show("team/m:v1")
    assert (shown.template, shown.license, shown.details and shown.details.format) == (
        "{{ .Prompt }}",
        "MIT\nsecond",
        "gguf",
    )
    assert (shown.modelinfo or {})["general.architecture"] == "llama"
    assert client.copy("n", "o").status == "success"
    assert client.delete("n").status == "success"
    assert {each.model for each in client.list().models} == {"team/m:v1", "o:latest"}
    assert list(client.ps().models) == []


def test_errors_come_as_its_own(client: ollama.Client) -> None:
    for call, status in (
        (lambda: client.show("nope"), 404),
        (lambda: client.delete("nope"), 404),
        (lambda: client.create("m", from_="nope"), 404),
        (lambda: client.create("m", files={"a.safetensors": "sha256:" + "0" * 64}), 501),
        (lambda: client.pull("127.0.0.1:9/x/llama3", insecure=True), 500),
        (lambda: client.generate("llama3", "hi"), 501),
        (lambda: client.chat("llama3", [{"role": "user", "content": "hi"}]), 501),
        (lambda: client.embed("llama3", "hi"), 501),
    ):
        with pytest.raises(ollama.ResponseError) as raised:
            call()
        assert raised.value.status_code == status
        assert raised.value.error


def test_its_api_key_is_the_depots_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "0123456789abcdef0123"
    with running(Depot(tmp_path / "models", token=token)) as url:
        with ollama.Client(url) as client, pytest.raises(ollama.ResponseError):
            client.list()
        monkeypatch.setenv("OLLAMA_API_KEY", token)
        with ollama.Client(url) as client:
            assert list(client.list().models) == []
