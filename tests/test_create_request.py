"""From a model to the body of POST /api/create; what /api/show says; and whether the two mean the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelpack.documents.create import (
    check_creatable,
    create_request,
    fields_lost,
    files_named,
    rewritten,
    texts_needed,
)
from modelpack.documents.gojson import canonical_json
from modelpack.documents.image import Image
from modelpack.documents.meaning import compare, same_meaning
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.documents.show import modelfile_text, parameters_text
from modelpack.errors import Corrupt, NotFound, Unsupported
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
    DRAFT,
    EMBED,
    FILE,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SMALL,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Blob,
)
from modelpack.words.digest import Digest
from modelpack.words.name import Name

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "recorded"
needs_recordings = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recordings are not here")
GGUF = Digest.of(b"weights")
PATH = "/usr/share/ollama/.ollama/models/blobs/sha256-"


def made(*layers: tuple[str, bytes], config: Any = None, titles: dict[bytes, str] | None = None) -> Any:
    """A model of these layers, and its texts."""
    head = json.dumps(config or {}).encode()
    texts = {Digest.of(raw): raw for _, raw in layers} | {Digest.of(head): head}
    blobs = [Blob(len(raw), kind, Digest.of(raw), title=(titles or {}).get(raw)) for kind, raw in layers]
    return Model(Name.parse("m"), Image.compose(Blob(len(head), CONFIG, Digest.of(head)), blobs)), texts


def request_of(*layers: tuple[str, bytes], **more: Any) -> dict[str, Any]:
    model, texts = made((MODEL, b"weights"), *layers, **more)
    return create_request(model, texts)


def test_everything_an_image_can_hold() -> None:
    """Every layer finds its field; empty ones are left out; twice the same comes out."""
    layers = (
        (PROJECTOR, b"eyes"),
        (ADAPTER, b"lora"),
        (DRAFT, b"small"),
        (TEMPLATE, b"{{ .Prompt }}"),
        (SYSTEM, "S <&> é".encode()),
        (LICENSE, b"MIT"),
        (LICENSE, b"second"),
        (PARAMS, b'{"num_ctx":128,"stop":["</s>"],"temperature":0.5}\n'),
        (MESSAGES, b'[{"role":"user","content":"hi"}]\n'),
    )
    config = {"renderer": "r", "parser": "p", "requires": "0.14.0", "capabilities": ["vision"]}
    assert request_of(*layers, config=config) == {
        "model": "m:latest",
        "files": {"model.gguf": str(GGUF), "projector.gguf": str(Digest.of(b"eyes"))},
        "adapters": {"adapter.gguf": str(Digest.of(b"lora"))},
        "draft_files": {"draft.gguf": str(Digest.of(b"small"))},
        "template": "{{ .Prompt }}",
        "system": "S <&> é",
        "license": ["MIT", "second"],
        "parameters": {"num_ctx": 128, "stop": ["</s>"], "temperature": 0.5},
        "messages": [{"role": "user", "content": "hi"}],
        "renderer": "r",
        "parser": "p",
        "requires": "0.14.0",
        "info": {"capabilities": ["vision"]},
    }
    assert request_of() == {"model": "m:latest", "files": {"model.gguf": str(GGUF)}}
    assert canonical_json(request_of(*layers)) == canonical_json(request_of(*layers))


def test_an_old_prompt_layer_is_a_template() -> None:
    """Ollama reads it as one."""
    assert request_of((PROMPT, b"{{ .System }}"))["template"] == "{{ .System }}"


def test_null_is_what_go_writes_for_nothing() -> None:
    """An empty map or list."""
    assert request_of((PARAMS, b"null\n"), (MESSAGES, b"null\n")) == request_of()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M.gguf"),
        ("../../etc/passwd", "passwd.gguf"),
        ("C:\\models\\a b.GGUF", "a-b.gguf"),
        ("/abs/x.gguf", "x.gguf"),
        ("..", "model.gguf"),
        ("", "model.gguf"),
        ("...gguf", "model.gguf"),
        ("a\u202eb\n.gguf", "a-b.gguf"),
        ("x" * 300 + ".gguf", "x" * 200 + ".gguf"),
        ("model.bin", "model.bin.gguf"),
    ],
)
def test_file_names_are_tame(title: str, name: str) -> None:
    """Relative, of plain letters, ending .gguf, whatever the title says."""
    assert list(request_of(titles={b"weights": title})["files"]) == [name]


def test_file_names_differ() -> None:
    """Two files of one title keep apart, even where case is folded."""
    titles = {b"weights": "a.gguf", b"eyes": "A.gguf", b"ears": "a.gguf"}
    request = request_of((PROJECTOR, b"eyes"), (PROJECTOR, b"ears"), titles=titles)
    assert list(request["files"]) == ["a.gguf", "A-2.gguf", "a-3.gguf"]


@pytest.mark.parametrize(
    ("layers", "config", "said"),
    [
        ([(MODEL, b"a"), (TENSOR, b"t")], {}, "safetensors"),
        ([(MODEL, b"a")], {"model_format": "safetensors"}, "safetensors"),
        ([(MODEL, b"a")], {"remote_host": "https://ollama.com:443"}, "another host"),
        ([(MODEL, b"a")], {"remote_model": "x"}, "another host"),
        ([(SYSTEM, b"a")], {}, "no weights"),
        ([(MODEL, b"a"), (MODEL, b"b")], {}, "2 model layers"),
        ([(MODEL, b"a"), (ADAPTER, b"b"), (ADAPTER, b"c")], {}, "2 adapter layers"),
        ([(MODEL, b"a"), (EMBED, b"b")], {}, "embeddings"),
        ([(MODEL, b"a"), ("application/x-new", b"b")], {}, "application/x-new"),
    ],
)
def test_what_no_request_can_carry(layers: Any, config: Any, said: str) -> None:
    """Unsupported, with the reason."""
    model, texts = made(*layers, config=config)
    with pytest.raises(Unsupported, match=said):
        create_request(model, texts)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (SYSTEM, b"\xff\xfe"),
        (LICENSE, b"\xc3"),
        (PARAMS, b"[1]"),
        (PARAMS, b"{"),
        (PARAMS, b'{"a":1e999}'),
        (MESSAGES, b'{"role":"user"}'),
        (MESSAGES, b'["hi"]'),
        (MESSAGES, b"\xff"),
    ],
)
def test_texts_that_are_damaged(kind: str, raw: bytes) -> None:
    """Corrupt, before anything is sent."""
    with pytest.raises(Corrupt):
        request_of((kind, raw))


@pytest.mark.parametrize("config", [[1], {"renderer": 5}, "x"])
def test_a_config_that_is_none(config: Any) -> None:
    """Corrupt too."""
    with pytest.raises(Corrupt):
        request_of(config=config)


def test_texts_needed_and_missing() -> None:
    """The config first, each blob once; a large one is Unsupported, a missing one NotFound."""
    model, texts = made((MODEL, b"weights"), (LICENSE, b"MIT"), (LICENSE, b"MIT"), (SYSTEM, b"S"))
    assert [blob.kind for blob in texts_needed(model.document)] == ["config", "license", "system"]
    assert [blob.kind for blob in files_named(model)] == ["model"]
    with pytest.raises(NotFound, match="system"):
        create_request(model, {key: raw for key, raw in texts.items() if raw != b"S"})
    large = Image.compose(model.document.config, [Blob(SMALL + 1, LICENSE, GGUF), *model.document.layers])
    with pytest.raises(Unsupported, match="license"):
        texts_needed(large)
    with pytest.raises(Unsupported):
        check_creatable(Model(model.name, large))


def test_a_blob_nobody_read() -> None:
    """It has no digest to be named by."""
    config = b"{}"
    image = Image.compose(Blob(2, CONFIG, Digest.of(config)), [Blob(5, MODEL, key="k")])
    with pytest.raises(Unsupported, match="not been read"):
        create_request(Model(Name.parse("m"), image), {Digest.of(config): config})


def recipe(**body: Any) -> Model:
    files = [
        Blob(5, FILE, Digest.parse(text))
        for field in ("files", "adapters")
        for text in body.get(field, {}).values()
    ]
    return Model(Name.parse("m"), Recipe.parse(canonical_json(body), files, "recipe"))


def test_a_recipe_is_nearly_a_request() -> None:
    """It gets its name; digests go out in the one form that POST takes."""
    model = recipe(files={"a/b.safetensors": f"sha256-{GGUF.hex.upper()}"}, quantize="q4_K_M", license=["x"])
    assert create_request(model, {}) == {
        "model": "m:latest",
        "files": {"a/b.safetensors": str(GGUF)},
        "quantize": "q4_K_M",
        "license": ["x"],
    }
    assert files_named(model) == model.document.blobs
    with pytest.raises(Unsupported):
        create_request(recipe(**{"from": "x", "remote_host": "https://x"}), {})


@pytest.mark.parametrize("key", ["model", "Model", "NAME", "\u017ftream", "From", "Files", "remote_Host"])
def test_a_recipe_names_no_model_in_any_case(key: str) -> None:
    """Go reads a key in upper case for the same field, so it would be obeyed though nobody looked at it."""
    with pytest.raises(Corrupt, match="not its to say"):
        recipe(**{key: "victim:latest"})


def test_a_recipe_says_nothing_unknown() -> None:
    """What a newer Ollama might take is not sent unseen; the name is the model's, whatever was composed."""
    with pytest.raises(Unsupported, match="'pull'"):
        recipe(pull="x")
    composed = Recipe.compose({"model": "victim", "system": "S"}, {})
    assert create_request(Model(Name.parse("m"), composed), {}) == {"model": "m:latest", "system": "S"}


def test_what_is_rewritten() -> None:
    """Model layers, and GGUFs of a recipe; not what comes through `from` or is quantized anyway."""
    model, _ = made((MODEL, b"weights"), (PROJECTOR, b"eyes"), (ADAPTER, b"lora"))
    assert [blob.kind for blob in rewritten(model)] == ["model"]
    assert len(rewritten(recipe(files={"a.gguf": str(GGUF)}))) == 1
    assert rewritten(recipe(files={"a.safetensors": str(GGUF)})) == ()
    assert rewritten(recipe(**{"from": "x", "adapters": {"a.gguf": str(GGUF)}})) == ()
    assert rewritten(recipe(files={"a.gguf": str(GGUF)}, quantize="q8_0")) == ()


def test_fields_that_old_servers_drop() -> None:
    """By the version that first had them; none where the version is not known."""
    request = {"renderer": "r", "parser": "", "requires": "0.1.0"}
    assert fields_lost(request, (0, 11, 9)) == ("renderer", "requires")
    assert fields_lost(request, (0, 13, 0)) == ("requires",)
    assert fields_lost(request, (0, 14, 0)) == ()
    assert fields_lost(request, None) == ()


# What `fmt.Printf("%#v\t%v", v, v)` of Go 1.24 wrote for values that encoding/json had read.
GO = [
    (0.5, "0.5", "0.5"),
    (128, "128", "128"),
    (131072, "131072", "131072"),
    (999999, "999999", "999999"),
    (1048576, "1.048576e+06", "1.048576e+06"),
    (1e6, "1e+06", "1e+06"),
    (0.0001, "0.0001", "0.0001"),
    (0.00001, "1e-05", "1e-05"),
    (1e22, "1e+22", "1e+22"),
    (-1, "-1", "-1"),
    (0, "0", "0"),
    (123456789.5, "1.234567895e+08", "1.234567895e+08"),
    (9007199254740993, "9.007199254740992e+15", "9.007199254740992e+15"),
    (True, "true", "true"),
    (None, "<nil>", "<nil>"),
    (
        'a"b\\ \n é <\u2028\u00a0\u200b\a\x7f😀 \ue000',
        '"a\\"b\\\\ \\n é <\\u2028\\u00a0\\u200b\\a\\x7f😀 \\ue000"',
        None,
    ),
    ({"a": 1, "b": [2]}, 'map[string]interface {}{"a":1, "b":[]interface {}{2}}', "map[a:1 b:[2]]"),
]


@pytest.mark.parametrize(("value", "syntax", "plain"), GO)
def test_values_as_go_writes_them(value: Any, syntax: str, plain: str | None) -> None:
    """In `parameters` in Go's syntax, in `modelfile` plain."""
    assert parameters_text({"k": value}) == f"k{' ' * 29} {syntax}"
    if plain is not None:
        assert f"\nPARAMETER k {plain}\n" in modelfile_text("m", model="/x", params={"k": value})


def test_modelfile_quotes() -> None:
    """Many lines, or spaces at the ends, are quoted; nothing is escaped."""
    text = modelfile_text("m", model="/x", template="a\nb", system='a "b"\n', licenses=[" x", "plain"])
    assert 'TEMPLATE "a\nb"\nSYSTEM """a "b"\n"""\nLICENSE " x"\nLICENSE plain\n' in text


def recorded(version: str) -> list[dict[str, Any]]:
    lines = (RECORDED / f"ollama-{version}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answer(version: str, what: str) -> dict[str, Any]:
    found = next(each for each in recorded(version) if each["what"] == what)
    body: dict[str, Any] = json.loads(found["body"])
    return body


def asked(version: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in recorded(version) if each["what"] == what)["request"]
    return found


@needs_recordings
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_show_as_recorded(version: str) -> None:
    """Our texts are Ollama's, but for the order of parameters, which is a Go map's."""
    request, shown = asked(version, "create, streamed"), answer(version, "show")
    assert sorted(parameters_text(request["parameters"]).splitlines()) == sorted(
        shown["parameters"].splitlines()
    )
    path = next(line[5:] for line in shown["modelfile"].splitlines() if line.startswith("FROM "))
    text = modelfile_text(
        "a:latest",
        model=path,
        template=request["template"],
        system=request["system"],
        params=request["parameters"],
        licenses=request["license"],
        messages=request["messages"],
    )
    assert text == shown["modelfile"]
    shown = answer(version, "show, renderer")
    text = modelfile_text("rp:latest", model=path, renderer="qwen3-coder", parser="qwen3-coder")
    assert text == shown["modelfile"]


@needs_recordings
@pytest.mark.parametrize(("version", "same"), [("0.24", True), ("0.33", None)])
def test_same_meaning_as_recorded(version: str, same: bool | None) -> None:
    """0.24 tells; 0.33 has rewritten the GGUF, so it cannot be told."""
    rewrites = version == "0.33"
    request, other = asked(version, "create, streamed"), asked(version, "create, renderer parser requires")
    for what in ("show", "show, verbose", "show, old spelling"):
        shown = answer(version, what)
        assert same_meaning(request, shown, rewrites=rewrites) is same
        assert same_meaning(other, shown, rewrites=rewrites) is False
    assert same_meaning(other, answer(version, "show, renderer"), rewrites=rewrites) is same
    assert same_meaning(request, answer(version, "show, from"), rewrites=rewrites) is False


@needs_recordings
@pytest.mark.parametrize("version", ["0.24", "0.33"])
@pytest.mark.parametrize("name", ["a", "rp", "with-adapter", "with-proj"])
def test_recorded_images_become_requests(version: str, name: str) -> None:
    """The models that Ollama made turn back into the requests they came of."""
    place = RECORDED / f"models-{version}"
    raw = (place / "manifests/registry.ollama.ai/library" / name / "latest").read_bytes()
    image = Image.parse(raw, name)
    texts = {
        blob.digest: (place / "blobs" / blob.digest.file_name).read_bytes()
        for blob in texts_needed(image)
        if blob.digest is not None
    }
    request = create_request(Model(Name.parse(name), image), texts)
    assert request["model"] == f"{name}:latest"
    if name == "a":
        wanted = asked(version, "create, streamed")
        for key in ("template", "system", "parameters", "license", "messages"):
            assert request[key] == wanted[key]
    if name == "rp":
        assert (request["renderer"], request["requires"]) == ("qwen3-coder", "0.10.0")
    if name == "with-proj":
        assert set(request["files"]) == {"model.gguf", "projector.gguf"}
    if name == "with-adapter":
        assert set(request["adapters"]) == {"adapter.gguf"}


def shown_of(request: dict[str, Any], **other: Any) -> dict[str, Any]:
    """What a server without whims would show of the model that *request* makes."""
    data = request | other
    paths = [PATH + text[-64:] for text in data["files"].values()]
    template = data.get("template", "{{ .Prompt }}")
    return {
        "modelfile": modelfile_text(
            "m:latest",
            model=paths[0],
            projectors=paths[1:],
            adapters=[PATH + text[-64:] for text in data.get("adapters", {}).values()],
            template=template,
            system=data.get("system", ""),
            renderer=data.get("renderer", ""),
            parser=data.get("parser", ""),
        ),
        "parameters": parameters_text(data.get("parameters", {})),
        "template": template,
        "system": data.get("system", ""),
        "license": "\n".join(data.get("license", [])),
        "messages": data.get("messages", []),
        "requires": data.get("requires", ""),
    }


BASE: dict[str, Any] = {
    "model": "m",
    "files": {"m.gguf": str(GGUF), "p.gguf": str(Digest.of(b"eyes"))},
    "adapters": {"a.gguf": str(Digest.of(b"lora"))},
    "template": "T\nRENDERER no\n",
    "system": "S\nPARSER no",
    "renderer": "r",
    "parser": "p",
    "requires": "0.14.0",
    "license": ["L\n", "M"],
    "parameters": {"stop": ["a", "b"], "num_ctx": 1048576},
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.mark.parametrize("rewrites", [True, False])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"template": "U"}, "template"),
        ({"system": "U"}, "system"),
        ({"renderer": "s"}, "renderer"),
        ({"parser": ""}, "parser"),
        ({"requires": ""}, "version"),
        ({"license": ["L"]}, "licence"),
        ({"parameters": {"stop": ["a"], "num_ctx": 1048576}}, "parameters"),
        ({"parameters": {"stop": ["a", "b"], "num_ctx": 1048576, "top_k": 1}}, "parameters"),
        ({"messages": []}, "messages"),
        ({"adapters": {}}, "files"),
        (
            {"files": {"m.gguf": str(GGUF), "p.gguf": str(Digest.of(b"other eyes")), "c.gguf": str(GGUF)}},
            "files",
        ),
    ],
)
def test_what_differs_is_told(other: dict[str, Any], words: str, rewrites: bool) -> None:
    """One thing that differs is enough, and is named."""
    same, reason = compare(BASE, shown_of(BASE, **other), rewrites=rewrites)
    assert same is False
    assert words in reason


def test_the_same_is_the_same() -> None:
    """Nothing differs, in any order of parameters."""
    assert same_meaning(BASE, shown_of(BASE)) is True
    small = {"model": "m", "files": {"m.gguf": str(GGUF)}}
    assert same_meaning(small, shown_of(small)) is True


def test_other_weights() -> None:
    """Different where the server keeps bytes, not to be told where it rewrites them."""
    other = shown_of(BASE, files={"m.gguf": str(Digest.of(b"x")), "p.gguf": BASE["files"]["p.gguf"]})
    assert same_meaning(BASE, other) is False
    assert same_meaning(BASE, other, rewrites=True) is None


def test_what_the_server_adds_by_itself() -> None:
    """A template and stop words that create finds in the GGUF; a template nobody knows cannot be told."""
    plain = {"model": "m", "files": {"m.gguf": str(GGUF)}}
    stops = {"stop": ["<|im_start|>", "<|im_end|>"]}
    assert same_meaning(plain, shown_of(plain, parameters=stops)) is True
    assert same_meaning(plain, shown_of(plain, parameters={"stop": ["mine"]})) is None
    assert same_meaning(plain, shown_of(plain, template="mine")) is None
    assert same_meaning(plain, shown_of(plain, renderer="gemma4", parser="gemma4")) is None
    assert same_meaning(plain, shown_of(plain, parameters={"top_k": 3})) is False


def test_a_template_from_the_gguf() -> None:
    """Since 0.30 `template` may be the GGUF's own, while the modelfile has the model's."""
    shown = shown_of(BASE) | {"template": "{% jinja %}"}
    assert same_meaning(BASE, shown) is True


def test_what_cannot_be_told() -> None:
    """A model from another, or quantized by the server."""
    based = {"model": "m", "from": "b"}
    assert same_meaning(based, shown_of(BASE)) is None
    quantized = {"model": "m", "files": {"m.gguf": str(GGUF)}, "quantize": "q8_0"}
    assert same_meaning(quantized, shown_of(quantized)) is None
    assert same_meaning(BASE, {}) is False
