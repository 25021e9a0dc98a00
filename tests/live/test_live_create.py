"""Load by create into a real Ollama: what the fakes claim is what a server does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests

from modelpack.documents.gojson import canonical_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, NotFound, Refused, Taken
from modelpack.hands.ollama import Ollama
from modelpack.stores import Reader
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.transfer import copy
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
    FILE,
    LICENSE,
    MESSAGES,
    MIB,
    MODEL,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    Blob,
)
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader

pytestmark = pytest.mark.live
SHARED = Path(__file__).resolve().parents[3] / "shared" / "gguf"
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def gguf(name: str) -> bytes:
    """A real GGUF, of this project or of the place where it was made."""
    for place in (FIXTURES, SHARED):
        if (place / name).is_file():
            return (place / name).read_bytes()
    pytest.skip(f"{name} is not here")


class Memory:
    """A source in memory."""

    def __init__(self, model: Model, *raws: bytes) -> None:
        self.model = model
        self.blobs = {Digest.of(raw): raw for raw in raws}
        self.opened: list[Blob] = []

    def models(self) -> Sequence[Model]:
        return (self.model,)

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        self.opened.append(blob)
        assert blob.digest is not None
        return nullcontext(BytesReader(self.blobs[blob.digest], offset))


def image(name: str, *layers: tuple[str, bytes], **config: Any) -> Memory:
    """A model of these layers."""
    head = json.dumps({"model_format": "gguf", **config}).encode()
    blobs = [Blob(len(raw), kind, Digest.of(raw)) for kind, raw in layers]
    document = Image.compose(Blob(len(head), CONFIG, Digest.of(head)), blobs)
    return Memory(Model(Name.parse(name), document), head, *(raw for _, raw in layers))


def tokens(client: Ollama, name: str, **options: Any) -> str:
    """What a model says at temperature 0. Streamed, as a random model may say what is no UTF-8."""
    answer = requests.post(
        f"{client.base}/api/generate",
        json={
            "model": name,
            "prompt": "hello",
            "raw": True,
            "options": {"temperature": 0, "num_predict": 16, "seed": 1, **options},
        },
        timeout=120,
        proxies={"http": ""},
    )
    assert answer.status_code == 200, answer.text
    return "".join(json.loads(line)["response"] for line in answer.text.splitlines())


def load(client: Ollama, source: Memory, **more: Any) -> Any:
    """One model, by the verb."""
    (receipt,) = copy(source, source.models(), ServerCreate(client, source=source, **more))
    return receipt


@pytest.fixture
def rewrites(ollama: Ollama) -> bool:
    return ollama.about().is_at_least(0, 30, 0)


def test_the_same_tokens(ollama: Ollama, rewrites: bool) -> None:
    """A model made by the plainest create and one that we load say the same."""
    raw = gguf("tiny-llama.gguf")
    digest = Digest.of(raw)
    assert ollama.upload_blob(digest, len(raw), BytesReader(raw))
    events = list(ollama.create_from({"model": "before", "files": {"a.gguf": str(digest)}}))
    assert events[-1].status == "success"
    before = tokens(ollama, "before")
    assert before

    source = image("ns/After:v1", (MODEL, raw))
    receipt = load(ollama, source)
    assert (receipt.way, receipt.same_bytes, receipt.note) == ("create", False, "")
    assert receipt.id == ollama.installed()[Name.parse("ns/after:v1").folded].digest
    assert tokens(ollama, "ns/After:v1") == before
    # The blob was there already: only the config, which travels inside the request, was read.
    assert {blob.kind for blob in source.opened} == {"config"}


EVERYTHING = (
    (TEMPLATE, b"{{ .System }} {{ .Prompt }}"),
    (SYSTEM, "S <&> é\nsecond line ".encode()),
    (LICENSE, b"MIT\n"),
    (LICENSE, b"second"),
    (PARAMS, b'{"num_ctx":1048576,"stop":["</s>","a\\nb"],"temperature":0.00001,"top_p":0.9}\n'),
    (MESSAGES, b'[{"role":"user","content":"hi"},{"role":"assistant","content":"yo"}]\n'),
)


def test_everything_arrives_and_is_known_again(ollama: Ollama, rewrites: bool) -> None:
    """Every field is what `show` says afterwards; a second load knows it, or says why it cannot."""
    config = {"renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.10.0"}
    source = image("all", (MODEL, gguf("tiny-llama.gguf")), *EVERYTHING, **config)
    assert load(ollama, source).note == ""
    shown = ollama.show("all")
    assert shown.system == "S <&> é\nsecond line "
    assert shown.license == "MIT\n\nsecond"
    assert shown.requires == "0.10.0"
    again = ServerCreate(ollama, source=source)
    if rewrites:
        with pytest.raises(Taken, match="rewrites GGUFs"):
            again.missing(source.models())
    else:
        assert again.missing(source.models()) == ()
        assert again.placed([source.model])[0] is not None
    other = image("ALL", (MODEL, gguf("tiny-llama.gguf")), (SYSTEM, b"other"))
    with pytest.raises(Taken, match=r"its system prompt is another|its licence"):
        ServerCreate(ollama, source=other).missing(other.models())
    load(ollama, other, replace=True)
    assert ollama.show("all").system == "other"
    assert len(ollama.list()) == 1


@pytest.mark.parametrize(("kind", "file"), [(ADAPTER, "tiny-lora.gguf"), (PROJECTOR, "tiny-mmproj.gguf")])
def test_other_files(ollama: Ollama, rewrites: bool, kind: str, file: str) -> None:
    """Adapters and projectors go where they belong, and are never rewritten."""
    raw = gguf(file)
    source = image("m", (MODEL, gguf("tiny-llama.gguf")), (kind, raw))
    assert load(ollama, source).note == ""
    assert hashlib.sha256(raw).hexdigest() in ollama.show("m").modelfile
    target = ServerCreate(ollama, source=source)
    if rewrites:
        with pytest.raises(Taken, match="rewrites GGUFs"):
            target.missing(source.models())
    else:
        assert target.missing(source.models()) == ()
    if kind == ADAPTER:
        load(ollama, image("plain", (MODEL, gguf("tiny-llama.gguf"))))
        assert tokens(ollama, "m", num_predict=2) != tokens(ollama, "plain", num_predict=2)


def test_a_recipe_from_a_model(ollama: Ollama) -> None:
    """`from` what is installed; what is not is found out before the server asks its registry."""
    model = Model(Name.parse("d"), Recipe.parse(canonical_json({"from": "a", "system": "T"}), [], "recipe"))
    with pytest.raises(NotFound, match="a:latest"):
        ServerCreate(ollama).missing([model])
    load(ollama, image("a", (MODEL, gguf("tiny-llama.gguf"))))
    load(ollama, Memory(model))
    assert ollama.show("d").system == "T"
    assert ollama.show("d").details.parent_model == "a:latest"


def test_a_recipe_that_quantizes(ollama: Ollama) -> None:
    """The server does it."""
    raw = gguf("tiny-llama.gguf")
    body = {"files": {"a.gguf": str(Digest.of(raw))}, "quantize": "q8_0"}
    blob = Blob(len(raw), FILE, Digest.of(raw))
    source = Memory(Model(Name.parse("q"), Recipe.parse(canonical_json(body), [blob], "recipe")), raw)
    load(ollama, source)
    assert ollama.show("q").details.quantization_level == "Q8_0"


def test_wrong_bytes(ollama: Ollama) -> None:
    """The server hashes: a flipped byte is Corrupt, and there is no model."""
    raw = gguf("tiny-llama.gguf")
    source = image("m", (MODEL, raw))
    source.blobs[Digest.of(raw)] = raw[:-1] + b"x"
    with pytest.raises(Corrupt):
        load(ollama, source)
    source.blobs[Digest.of(raw)] = raw[:-1]
    with pytest.raises(Corrupt):
        load(ollama, source)
    assert ollama.list() == ()
    assert not ollama.has_blob(Digest.of(raw))


def test_what_the_server_refuses(ollama: Ollama) -> None:
    """Its own words come through, and no name is given."""
    with pytest.raises(Refused, match="GGUF"):
        load(ollama, image("m", (MODEL, b"no model at all" * 100)))
    with pytest.raises(Refused, match="template"):
        load(ollama, image("m", (MODEL, gguf("tiny-llama.gguf")), (TEMPLATE, b"{{ .Prompt ")))
    assert ollama.list() == ()


def test_a_large_blob_that_is_there(ollama: Ollama) -> None:
    """200 at once, with the body unread."""
    raw = os.urandom(MIB) * 64
    digest = Digest.of(raw)
    assert ollama.upload_blob(digest, len(raw), BytesReader(raw)) is True
    assert ollama.upload_blob(digest, len(raw), BytesReader(raw)) is False


def test_a_blob_that_vanishes(ollama: Ollama, tmp_path: Path) -> None:
    """Between HEAD and create."""
    source = image("m", (MODEL, gguf("tiny-llama.gguf")))
    target = ServerCreate(ollama, source=source)
    with target.session(source.models()) as session:
        for blob in target.missing(source.models()):
            with source.open(blob) as reader:
                session.put(blob, reader)
        (weights,) = [blob for blob in source.model.blobs if blob.kind == "model"]
        assert weights.digest is not None
        (tmp_path / "ollama" / "models" / "blobs" / weights.digest.file_name).unlink()
        with pytest.raises(NotFound, match="was there, but was gone"):
            session.commit(source.model)
