"""A server by create, as a target: what is missing, what is taken, and everything that can go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from depots import FIXTURES, own_depot
from servers import FakeOllama, say, stream, talking

from modelpack.documents.gojson import canonical_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, NotFound, Refused, Taken, Unreachable, Unsupported
from modelpack.hands.ollama import Ollama
from modelpack.stores import Foretells, Reader, Settled, Source, Target
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.transfer import copy, plan
from modelpack.words.blob import CONFIG, FILE, LICENSE, MIB, MODEL, PARAMS, PROJECTOR, SYSTEM, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader
from modelpack.words.report import Moved, Said, Step


class Memory:
    """A source in memory."""

    def __init__(self, *models: Model, blobs: dict[Digest, bytes]) -> None:
        self._models = models
        self.blobs = blobs
        self.opened: list[Blob] = []

    def models(self) -> Sequence[Model]:
        return self._models

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        self.opened.append(blob)
        if blob.digest is None or blob.digest not in self.blobs:
            raise NotFound(f"has no blob {blob}")
        return nullcontext(BytesReader(self.blobs[blob.digest], offset))


def source_of(*layers: tuple[str, bytes], name: str = "m", config: Any = None) -> Memory:
    """One image of these layers."""
    head = json.dumps(config or {"model_format": "gguf"}).encode()
    raws = [head, *(raw for _, raw in layers)]
    image = Image.compose(
        Blob(len(head), CONFIG, Digest.of(head)),
        [Blob(len(raw), kind, Digest.of(raw)) for kind, raw in layers],
    )
    return Memory(Model(Name.parse(name), image), blobs={Digest.of(raw): raw for raw in raws})


def recipe_of(name: str = "m", **body: Any) -> Model:
    files = [Blob(5, FILE, Digest.parse(text)) for text in body.get("files", {}).values()]
    return Model(Name.parse(name), Recipe.parse(canonical_json(body), files, "recipe"))


WEIGHTS = b"weights" * 1000
LAYERS = (
    (MODEL, WEIGHTS),
    (PROJECTOR, b"eyes"),
    (SYSTEM, b"be kind"),
    (PARAMS, b'{"num_ctx":128,"stop":["a"]}\n'),
    (LICENSE, b"MIT"),
)


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama("0.24.0")


@pytest.fixture
def base(fake: FakeOllama) -> Iterator[str]:
    with fake.running() as base:
        yield base


def test_it_is_a_target(base: str) -> None:
    """By the Protocols."""
    target: Target = ServerCreate(Ollama(base))
    assert isinstance(target, Foretells)
    assert isinstance(target, Settled)
    source: Source = source_of()
    assert source.models()


def test_a_model_arrives(fake: FakeOllama, base: str) -> None:
    """Files by upload, texts inside the request; the ID is the server's own, never called the same bytes."""
    source = source_of(*LAYERS, name="ns/m:v1", config={"renderer": "r", "parser": "p"})
    steps: list[Step] = []
    target = ServerCreate(Ollama(base), source=source)
    (receipt,) = copy(source, source.models(), target, steps.append)
    assert (str(receipt.name), receipt.same_bytes, receipt.way) == ("ns/m:v1", False, "create")
    assert receipt.id == Ollama(base).list()[0].digest
    assert receipt.note == ""
    assert fake.models["ns/m:v1"] == {
        "model": "ns/m:v1",
        "files": {
            "model.gguf": str(Digest.of(WEIGHTS)),
            "projector.gguf": str(Digest.of(b"eyes")),
        },
        "system": "be kind",
        "parameters": {"num_ctx": 128, "stop": ["a"]},
        "license": ["MIT"],
        "renderer": "r",
        "parser": "p",
        "stream": True,
    }
    assert set(fake.blobs.values()) == {WEIGHTS, b"eyes"}
    assert sum(step.count for step in steps if isinstance(step, Moved)) == source.models()[0].size
    said = [step.text for step in steps if isinstance(step, Said)]
    assert any("hashing" in text for text in said)
    assert said[-2:] == ["writing manifest", "success"]


def test_a_second_load_moves_nothing(fake: FakeOllama, base: str) -> None:
    """The same meaning is there: nothing is missing, and no blob byte is sent."""
    source = source_of(*LAYERS)
    copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    before, created = fake.received, len([each for each in fake.asked if each[1] == "/api/create"])
    target = ServerCreate(Ollama(base), source=source)
    assert target.missing(source.models()) == ()
    todo = plan(source, source.models(), target)
    assert todo.placed[0] is not None
    (receipt,) = copy(source, source.models(), target)
    assert (receipt.way, receipt.same_bytes) == ("create", False)
    assert fake.received == before
    assert len([each for each in fake.asked if each[1] == "/api/create"]) == created


def test_what_is_missing(fake: FakeOllama, base: str) -> None:
    """Files by HEAD; texts always; each once; the source's large blobs stay closed."""
    source = source_of(*LAYERS, (LICENSE, b"MIT"))
    fake.blobs[str(Digest.of(WEIGHTS))] = WEIGHTS
    missing = ServerCreate(Ollama(base), source=source).missing(source.models())
    assert [blob.kind for blob in missing] == ["projector", "system", "params", "license", "config"]
    assert {blob.kind for blob in source.opened}.isdisjoint({"model", "projector"})
    assert not [each for each in fake.asked if each[0] == "POST"]


@pytest.mark.parametrize("with_source", [True, False])
def test_a_name_that_is_taken(fake: FakeOllama, base: str, with_source: bool) -> None:
    """Taken, whatever its case, with the ID there; with replace it is given away."""
    old = source_of((MODEL, b"other"), name="M")
    copy(old, old.models(), ServerCreate(Ollama(base), source=old))
    known = Ollama(base).list()[0].digest.short
    source = source_of(*LAYERS)
    given = source if with_source else None
    with pytest.raises(Taken, match=known) as caught:
        ServerCreate(Ollama(base), source=given).missing(source.models())
    assert "--replace" in caught.value.advice
    said = "its system prompt is another" if with_source else "once its small files are read"
    assert said in caught.value.what
    copy(source, source.models(), ServerCreate(Ollama(base), source=given, replace=True))
    assert len(fake.models) == 1
    assert fake.models["M:latest"]["system"] == "be kind"


def test_a_server_that_rewrites(fake: FakeOllama, base: str) -> None:
    """It is foretold; and what stands there afterwards cannot be told from another."""
    fake.version, fake.rewrite = {"version": "0.33.0"}, True
    source = source_of(*LAYERS)
    target = ServerCreate(Ollama(base), source=source)
    (told,) = target.foretell(source.models())
    assert "7 kB twice" in told
    assert "sends it again" in told
    copy(source, source.models(), target)
    with pytest.raises(Taken, match="cannot be told from another") as caught:
        target.missing(source.models())
    assert "rewrites GGUFs" in caught.value.what
    assert target.placed([source.models()[0]])[0] is None


def test_a_depot_does_not_rewrite(fake: FakeOllama, base: str) -> None:
    """modelpack's own server says what it is."""
    fake.version = {"version": "0.33.0", "depot": "0.1.0"}
    source = source_of(*LAYERS)
    target = ServerCreate(Ollama(base), source=source)
    assert target.foretell(source.models()) == []
    copy(source, source.models(), target)
    assert target.placed([source.models()[0]])[0] is not None


def test_too_old_servers(fake: FakeOllama, base: str) -> None:
    """They cannot do it at all; what others lose is the preflight's to say."""
    source = source_of(*LAYERS)
    fake.version = {"version": "0.5.4"}
    with pytest.raises(Unsupported, match=r"0\.5\.5"):
        ServerCreate(Ollama(base), source=source).missing(source.models())


def test_what_create_cannot_do_is_said_first(fake: FakeOllama, base: str) -> None:
    """Unsupported and Corrupt, before a byte moves."""
    for source, kind in (
        (source_of((MODEL, b"a"), (MODEL, b"b")), Unsupported),
        (source_of((MODEL, b"a"), config={"remote_host": "https://x"}), Unsupported),
        (source_of((MODEL, b"a"), (SYSTEM, b"\xff")), Corrupt),
        (source_of((MODEL, b"a"), (PARAMS, b"{")), Corrupt),
    ):
        with pytest.raises(kind):
            ServerCreate(Ollama(base), source=source).missing(source.models())
    assert fake.received == 0


def test_a_base_that_is_not_there(fake: FakeOllama, base: str) -> None:
    """NotFound, unless it is installed or comes before in the same load."""
    based = recipe_of("d", **{"from": "a", "system": "T"})
    target = ServerCreate(Ollama(base))
    with pytest.raises(NotFound, match="a:latest"):
        target.missing([based])
    source = source_of((MODEL, b"a"), name="A")
    assert target.missing([source.models()[0], based])
    with pytest.raises(NotFound):
        target.missing([based, source.models()[0]])
    copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    assert target.missing([based]) == ()
    with pytest.raises(Unsupported):
        target.missing([recipe_of("d", **{"from": "no name!"})])


def test_a_recipe_arrives(fake: FakeOllama, base: str) -> None:
    """Its files, then its own request."""
    model = recipe_of(files={"x.safetensors": str(Digest.of(b"12345"))}, quantize="q4_K_M")
    source = Memory(model, blobs={Digest.of(b"12345"): b"12345"})
    copy(source, [model], ServerCreate(Ollama(base), source=source))
    assert fake.models["m:latest"]["quantize"] == "q4_K_M"
    assert ServerCreate(Ollama(base), replace=True).foretell([model]) == []


def test_bad_bytes_on_our_side(fake: FakeOllama, base: str) -> None:
    """The server says mismatch, our side is read again: Corrupt."""
    source = source_of(*LAYERS)
    digest = Digest.of(WEIGHTS)
    source.blobs[digest] = b"X" + WEIGHTS[1:]
    with pytest.raises(Corrupt):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    assert fake.models == {}


def test_bad_bytes_on_their_side(fake: FakeOllama, base: str) -> None:
    """The server says mismatch, our side is well: Refused, with its words."""

    def mismatch(at: Any) -> None:
        at.rfile.read(int(at.headers["Content-Length"]))
        say(at, 400, {"error": "digest mismatch, expected x, got y"})

    fake.faults["POST /api/blobs/"] = mismatch
    source = source_of(*LAYERS)
    with pytest.raises(Refused, match="digest mismatch"):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))


def test_bad_texts(base: str) -> None:
    """A small blob is hashed here, as it never goes up as a blob."""
    source = source_of(*LAYERS)
    source.blobs[Digest.of(b"be kind")] = b"be mean"
    with pytest.raises(Corrupt):
        ServerCreate(Ollama(base), source=source).missing(source.models())
    model = source.models()[0]
    with ServerCreate(Ollama(base)).session([model]) as session:
        blob = next(each for each in model.blobs if each.kind == "system")
        for raw in (b"be mean", b"be kin", b"be kinder"):
            with pytest.raises(Corrupt):
                session.put(blob, BytesReader(raw))
        assert session.put(blob, BytesReader(b"be kind")) == blob
        with pytest.raises(NotFound):
            session.commit(model)  # the others never came


def test_texts_are_bounded(base: str) -> None:
    """64 MiB of them together at most."""
    licences = [bytes([number]) * (3 * MIB) for number in range(22)]
    source = source_of((MODEL, b"a"), *((LICENSE, raw) for raw in licences))
    with pytest.raises(Unsupported, match="together"):
        ServerCreate(Ollama(base), source=source).missing(source.models())


def test_a_cut_source(fake: FakeOllama, base: str) -> None:
    """Corrupt, and the server has no model and no whole blob."""
    source = source_of(*LAYERS)
    source.blobs[Digest.of(WEIGHTS)] = WEIGHTS[:-1]
    with pytest.raises(Corrupt):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    assert str(Digest.of(WEIGHTS)) not in fake.blobs
    assert fake.models == {}


def test_a_blob_that_vanishes(fake: FakeOllama, base: str) -> None:
    """Between HEAD and create: NotFound that says so, and what to do."""
    source = source_of(*LAYERS)
    fake.blobs[str(Digest.of(WEIGHTS))] = WEIGHTS
    fake.before_create = lambda: fake.blobs.pop(str(Digest.of(WEIGHTS)), None) and None
    with pytest.raises(NotFound, match="was there, but was gone") as caught:
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    assert "Run again" in caught.value.advice


def test_an_error_inside_the_stream(fake: FakeOllama, base: str) -> None:
    """Refused with the server's words, and no model."""
    fake.faults["POST /api/create"] = lambda at: stream(at, [{"error": "invalid file magic"}])
    source = source_of(*LAYERS)
    with pytest.raises(Refused, match="invalid file magic"):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))


def test_a_stream_without_success(fake: FakeOllama, base: str) -> None:
    """Not taken for a success."""
    fake.faults["POST /api/create"] = lambda at: stream(at, [{"status": "writing manifest"}])
    source = source_of(*LAYERS)
    with pytest.raises(Unreachable, match="success"):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))


def test_success_without_a_model(fake: FakeOllama, base: str) -> None:
    """A server that says success and lists nothing is not believed."""
    fake.faults["POST /api/create"] = lambda at: stream(at, [{"status": "success"}])
    source = source_of(*LAYERS)
    with pytest.raises(Refused, match="does not list"):
        copy(source, source.models(), ServerCreate(Ollama(base), source=source))


def test_something_else_was_made(fake: FakeOllama, base: str) -> None:
    """A server that drops what it was given: the receipt has a note."""
    real = fake._create

    def forgetful(at: Any, data: dict[str, Any]) -> None:
        data.pop("system", None)
        real(at, data)

    fake._create = forgetful  # type: ignore[method-assign]
    source = source_of(*LAYERS)
    (receipt,) = copy(source, source.models(), ServerCreate(Ollama(base), source=source))
    assert "system prompt" in receipt.note


def test_a_name_taken_meanwhile(fake: FakeOllama, base: str) -> None:
    """Somebody made another model of that name while the blobs went up: theirs stays."""
    source = source_of(*LAYERS)
    target = ServerCreate(Ollama(base), source=source)
    model = source.models()[0]
    missing = target.missing([model])
    with target.session([model]) as session:
        for blob in missing:
            with source.open(blob) as reader:
                session.put(blob, reader)
        fake.models["m:latest"] = {"model": "m", "files": {"x.gguf": "sha256:" + "1" * 64}}
        with pytest.raises(Taken):
            session.commit(model)
    assert "system" not in fake.models["m:latest"]


def test_a_model_that_cannot_be_shown(fake: FakeOllama, base: str) -> None:
    """One whose blobs are gone is still listed: taken, and replaced where that is asked for."""
    fake.models["m:latest"] = {"model": "m", "files": {"x.gguf": "sha256:" + "1" * 64}}
    fake.faults["POST /api/show"] = lambda at: say(at, 500, {"error": "no such file"})
    source = source_of(*LAYERS)
    with pytest.raises(Taken, match="cannot show it"):
        ServerCreate(Ollama(base), source=source).missing(source.models())
    assert ServerCreate(Ollama(base), source=source, replace=True).missing(source.models())


def test_the_server_goes_away(fake: FakeOllama) -> None:
    """Between the plan and the upload: Unreachable."""
    source = source_of(*LAYERS)
    model = source.models()[0]
    with fake.running() as base:
        target = ServerCreate(Ollama(base), source=source)
        missing = target.missing([model])
    away = ServerCreate(Ollama(base), source=source)
    with away.session([model]) as session, pytest.raises(Unreachable):
        session.put(missing[0], BytesReader(WEIGHTS))


def test_not_ollama() -> None:
    """Unsupported before anything else is asked."""
    source = source_of(*LAYERS)
    with (
        talking(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")) as base,
        pytest.raises((Unsupported, Unreachable)),
    ):
        ServerCreate(Ollama(base), source=source).missing(source.models())


def test_an_unread_blob_is_not_uploaded(base: str) -> None:
    """It has to be hashed before, as the URL names its digest."""
    image = Image.compose(Blob(2, CONFIG, Digest.of(b"{}")), [Blob(5, MODEL, key="k")])
    model = Model(Name.parse("m"), image)
    target = ServerCreate(Ollama(base))
    assert {blob.kind for blob in target.missing([model])} == {"model", "config"}
    with target.session([model]) as session, pytest.raises(Unsupported, match="hashed"):
        session.put(image.layers[0], BytesReader(b"12345"))


def test_the_request_for_a_dry_run(base: str) -> None:
    """What commit would send, without `stream`."""
    source = source_of(*LAYERS)
    request = ServerCreate(Ollama(base)).request_for(source.models()[0], source.blobs)
    assert request["files"]["model.gguf"] == str(Digest.of(WEIGHTS))
    assert "stream" not in request


def test_a_depot(tmp_path: Path) -> None:
    """modelpack's own server, over HTTP: a model goes in, and a second load finds it there."""
    weights = (FIXTURES / "tiny-llama.gguf").read_bytes()
    source = source_of((MODEL, weights), *LAYERS[2:], config={"renderer": "r", "parser": "p"})
    with own_depot(tmp_path / "models") as depot:
        target = ServerCreate(Ollama(depot.url), source=source)
        assert target.foretell(source.models()) == []
        (receipt,) = copy(source, source.models(), target)
        assert (receipt.note, receipt.same_bytes) == ("", False)
        again = ServerCreate(Ollama(depot.url), source=source)
        assert again.missing(source.models()) == ()
        assert again.placed([source.models()[0]])[0] is not None
        other = source_of((MODEL, weights), name="m")
        with pytest.raises(Taken, match="system prompt"):
            ServerCreate(Ollama(depot.url), source=other).missing(other.models())
