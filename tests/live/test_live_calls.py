"""Every call of the client on a real Ollama; docs/live.md is the table of what was run with which version.

With MODELPACK_WRITE_DOCS=1 it writes the column of the version that it runs with.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from depots import own_depot

from modelpack import Digest, Discovery, NotFound, Ollama, Refused, aio, discover, hash_files, parse_modelfile
from modelpack.hands.bytes import FileReader

from .test_live_trip import TINY, modelpack

pytestmark = pytest.mark.live
PAGE = Path(__file__).parents[2] / "docs" / "live.md"
Check = Callable[[Ollama, Path], object]
CALLS: dict[str, Check] = {}


def call(name: str) -> Callable[[Check], Check]:
    def kept(check: Check) -> Check:
        CALLS[name] = check
        return check

    return kept


@call("version, about")
def _(client: Ollama, _place: Path) -> None:
    assert client.about().number
    assert client.version()


@call("upload_blob: a stream; has_blob, which")
def _(client: Ollama, _place: Path) -> None:
    (known,) = hash_files([TINY])
    assert known.sha256 is not None
    assert not client.has_blob(known.sha256)
    with FileReader.at(TINY) as reader:
        assert client.upload_blob(known.sha256, reader.size, reader)
    with FileReader.at(TINY) as reader:
        assert not client.upload_blob(known.sha256, reader.size, reader)
    assert client.which([known.sha256, Digest.of(b"no")]) == {known.sha256}


@call("upload_file; create from typed arguments, streamed")
def _(client: Ollama, _place: Path) -> None:
    digest = client.upload_file(TINY)
    events = client.create(
        "typed",
        files={"tiny.gguf": digest},
        system="hello",
        template="{{ .Prompt }}",
        license=["MIT", "BSD"],
        parameters={"temperature": 0, "stop": ["a", "b"]},
        messages=[{"role": "user", "content": "hi"}],
        renderer="qwen3-coder",
        parser="qwen3-coder",
        requires="0.1.0",
    )
    assert [event.status for event in events][-1] == "success"


@call("show, and verbose")
def _(client: Ollama, _place: Path) -> None:
    shown = client.show("typed")
    assert (shown.system, shown.template) == ("hello", "{{ .Prompt }}")
    assert shown.requires == "0.1.0"
    assert "RENDERER qwen3-coder" in (shown.modelfile or "")
    assert shown.messages
    assert shown.modified_at
    assert "completion" in shown.capabilities
    verbose = client.show("typed", verbose=True)
    assert len(verbose.tensors) > 1
    assert verbose.model_info["tokenizer.ggml.tokens"]


@call("create from a Modelfile, a recipe's fields, one result")
def _(client: Ollama, _place: Path) -> None:
    made = client.create("asked", modelfile=parse_modelfile(b"FROM typed\nSYSTEM other\n"), stream=False)
    assert made.status == "success"
    assert client.show("asked").system == "other"


@call("create: quantize an installed model")
def _(client: Ollama, _place: Path) -> None:
    assert client.create("q8", from_="typed", quantize="q8_0").last().status == "success"
    assert client.show("q8").details.quantization_level == "Q8_0"


@call("list, installed")
def _(client: Ollama, _place: Path) -> None:
    names = {each.name for each in client.list()}
    assert {"typed:latest", "asked:latest", "q8:latest"} <= names
    assert client.installed()["registry.ollama.ai/library/q8:latest"].size


@call("running")
def _(client: Ollama, _place: Path) -> None:
    asked = {"model": "typed", "prompt": "a", "raw": True, "options": {"num_predict": 1}}
    list(client._http.ask("POST", "/api/generate", data=asked).lines())
    (one,) = client.running()
    assert one.name == "typed:latest"
    assert one.expires_at


@call("copy, delete; what is not there")
def _(client: Ollama, _place: Path) -> None:
    client.copy("asked", "team/asked:1")
    assert "registry.ollama.ai/team/asked:1" in client.installed()
    client.delete("team/asked:1")
    for missing in (client.delete, client.show, lambda name: client.copy(name, "x")):
        with pytest.raises(NotFound):
            missing("nope")


@call("pull and push, streamed and not, through a depot")
def _(client: Ollama, place: Path) -> None:
    with own_depot(place / "depot") as depot:
        name = f"{depot.url[7:]}/team/sent:1"
        client.copy("asked", name)
        assert [event.status for event in client.push(name, insecure=True)][-1] == "success"
        client.delete(name)
        assert client.pull(name, insecure=True, stream=False).status == "success"
        assert client.push(name, insecure=True, stream=False).status == "success"
        with pytest.raises(NotFound):
            client.pull(f"{depot.url[7:]}/team/none", insecure=True).last()
        with pytest.raises(NotFound):
            client.push(f"{depot.url[7:]}/team/none", insecure=True).last()


@call("errors: bad digest, bad name")
def _(client: Ollama, _place: Path) -> None:
    with pytest.raises(Refused):
        client.create("bad", files={"x.gguf": Digest.of(b"not there")}).last()
    with pytest.raises(Refused):
        client.create("bad name", from_="typed").last()


@call("discover: by capability, quantization, context")
def _(client: Ollama, _place: Path) -> None:
    assert {found.name for found in discover(client, capability="completion")} >= {"typed:latest"}
    assert [found.name for found in discover(client, quantization="Q8_0")] == ["q8:latest"]
    assert not discover(client, capability="vision")
    found = Discovery(client)
    assert found.find(min_context=200)
    assert not found.find(min_context=200).problems


@call("aio: the same, side by side; a cancelled pull ends")
def _(client: Ollama, _place: Path) -> None:
    async def work() -> None:
        async with aio.Ollama(client.base) as other:
            listed, shown, _ = await asyncio.gather(other.list(), other.show("typed"), other.version())
            assert len(listed) > 2
            assert shown.system == "hello"
            with socket.create_server(("127.0.0.1", 0)) as silent:
                name = f"127.0.0.1:{silent.getsockname()[1]}/library/x"
                begun = time.monotonic()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(other.pull(name, insecure=True).last(), 0.5)
                assert time.monotonic() - begun < 5

    asyncio.run(work())


@call("create_model: as `modelpack ollama create -f`")
def _(client: Ollama, place: Path) -> None:
    (place / "Modelfile").write_text(f"FROM {TINY}\nSYSTEM from a file\n")
    modelpack("ollama", "create", "filed", "-f", place / "Modelfile", "--host", client.base, cwd=place)
    assert client.show("filed").system == "from a file"


def test_every_call(ollama: Ollama, tmp_path: Path) -> None:
    version = ollama.version()
    create_nothing_yet = ollama.list() == ()
    assert create_nothing_yet
    for check in CALLS.values():
        check(ollama, tmp_path)
    if os.environ.get("MODELPACK_WRITE_DOCS"):
        _write(version)


def _write(version: str) -> None:
    """The column of *version*, beside those of other versions that are there."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- table -->\n")
    there, _, after = rest.partition("<!-- end -->\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in there.splitlines()]
    versions = sorted({*(lines[0][1:] if lines else []), version})
    old = {row[0]: dict(zip(lines[0][1:], row[1:], strict=True)) for row in lines[2:]}
    rows = [["call", *versions], ["---"] * (1 + len(versions))]
    for name in CALLS:
        known = old.get(name, {}) | {version: "ran"}
        rows.append([name, *(known.get(one, "not run") for one in versions)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    PAGE.write_text(f"{before}<!-- table -->\n{table}<!-- end -->\n{after}", encoding="utf-8")
