"""What people have becomes a model: shards, Modelfiles with all they name, folders, installed models."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FIXTURES, SHARED, MemoryStore, forked, needs_root, needs_shared, waited

from modelpack.documents.config import Remark
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Unsupported, Usage
from modelpack.hands.hashing import pour
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.verbs.gather import Gathered, gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.plans import settle
from modelpack.verbs.transfer import copy
from modelpack.words.blob import ADAPTER, LICENSE, MESSAGES, MODEL, PARAMS, PROJECTOR, SYSTEM, TEMPLATE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name

EVERY = '''\
# a comment
from ./tiny-llama.gguf
FROM tiny-mmproj.gguf
ADAPTER ./tiny-lora.gguf
TEMPLATE """{{ .System }}
{{ .Prompt }}"""
SYSTEM "You say \\"small letters\\"."
PARAMETER temperature 0.7
PARAMETER num_ctx 4096
PARAMETER stop "<|a|>"
PARAMETER stop <|b|>
LICENSE """MIT
<of the tests>"""
LICENSE Apache-2.0
MESSAGE user hello
MESSAGE assistant """hi
there"""
RENDERER tiny-renderer
PARSER tiny-parser
REQUIRES 0.14.0
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tiny files and a Modelfile that has every instruction."""
    place = tmp_path / "tiny-model"
    place.mkdir()
    for one in FIXTURES.glob("tiny-*.gguf"):
        if "endian" not in one.name:
            shutil.copy(one, place)
    (place / "Modelfile").write_text(EVERY)
    return place


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models directory with a model `base` that has a template, a system prompt, licence and parameters."""
    store = MemoryStore()
    config = json.dumps({"model_format": "gguf", "renderer": "r", "capabilities": ["vision"]}).encode()
    store.image(
        "base",
        (MODEL, (FIXTURES / "tiny-llama.gguf").read_bytes()),
        (TEMPLATE, b"{{ .Prompt }}"),
        (SYSTEM, b"the base's"),
        (LICENSE, b"MIT"),
        (PARAMS, b'{"num_ctx":2048,"stop":["x"],"temperature":0.5}\n'),
        config=config,
    )
    copy(store, store.models(), ModelsDir(tmp_path / "models"))
    return tmp_path / "models"


def packed(*texts: object, look: Installed | None = None, **more: object) -> Gathered:
    return gather([str(text) for text in texts], look=look or Installed(()), **more)  # type: ignore[arg-type]


def the_model(found: Gathered) -> Model:
    (model,) = settle(found.source, found.models)
    return model


def said(source: Source, model: Model, kind: str) -> list[bytes]:
    """The bytes of all layers of *kind*."""
    image = model.document
    assert isinstance(image, Image)
    blobs = image.of_kind(kind) if kind != "config" else (image.config,)
    return [raw_of(source, blob) for blob in blobs]


def raw_of(source: Source, blob: Blob) -> bytes:
    kept = bytearray()
    with source.open(blob) as reader:
        pour(reader, blob.size, kept.extend)
    return bytes(kept)


def kinds(model: Model) -> Sequence[str]:
    assert isinstance(model.document, Image)
    return [layer.kind for layer in model.document.layers]


def test_every_instruction(folder: Path) -> None:
    found = packed(folder / "Modelfile")
    model = the_model(found)
    assert str(model.name) == "tiny-model:latest"
    assert kinds(model) == [
        "model", "projector", "adapter", "template", "system", "license", "license", "params", "messages",
    ]  # fmt: skip
    assert said(found.source, model, TEMPLATE) == [b"{{ .System }}\n{{ .Prompt }}"]
    assert said(found.source, model, SYSTEM) == [b'You say \\"small letters\\".']
    assert said(found.source, model, LICENSE) == [b"MIT\n<of the tests>", b"Apache-2.0"]
    assert said(found.source, model, PARAMS) == [
        b'{"num_ctx":4096,"stop":["\\u003c|a|\\u003e","\\u003c|b|\\u003e"],"temperature":0.7}\n'
    ]
    assert said(found.source, model, MESSAGES) == [
        b'[{"role":"user","content":"hello"},{"role":"assistant","content":"hi\\nthere"}]\n'
    ]
    (config,) = said(found.source, model, "config")
    assert config == (
        b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"37K",'
        b'"file_type":"F16","renderer":"tiny-renderer","parser":"tiny-parser","requires":"0.14.0",'
        b'"architecture":"amd64","os":"linux"}\n'
    )
    for kind, name in ((MODEL, "tiny-llama"), (PROJECTOR, "tiny-mmproj"), (ADAPTER, "tiny-lora")):
        assert said(found.source, model, kind) == [(FIXTURES / f"{name}.gguf").read_bytes()]


def test_its_folder_and_another_name_are_the_same(folder: Path) -> None:
    (folder / "other.Modelfile").write_text(EVERY)
    whole = the_model(packed(folder))
    assert whole == the_model(packed(folder / "Modelfile"))
    other = the_model(packed(folder / "other.Modelfile"))
    assert str(other.name) == "other:latest"
    assert other.document == whole.document


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(folder: Path, encoding: str) -> None:
    text = "FROM ./tiny-llama.gguf\nSYSTEM grüße, 世界\n"
    (folder / "Modelfile").write_bytes(text.encode(encoding))
    found = packed(folder)
    assert said(found.source, the_model(found), SYSTEM) == ["grüße, 世界".encode()]


@pytest.mark.parametrize("name", ["tiny-llama-00001-of-00003.gguf", "tiny-llama-00003-of-00003.gguf", "."])
def test_shards_are_merged(tmp_path: Path, name: str) -> None:
    shards = sorted(FIXTURES.glob("tiny-llama-0*.gguf"))
    for shard in shards:
        shutil.copy(shard, tmp_path)
    found = packed(tmp_path / name)
    (tmp_path / "out").mkdir()
    copy(found.source, found.models, Archive(tmp_path / "out" / "b.tar"))
    (model,) = Archive(tmp_path / "out" / "b.tar").models()
    weights = model.blobs[0]
    assert weights.shards == tuple(Digest.of(shard.read_bytes()) for shard in shards)
    assert weights.title == "tiny-llama.gguf"
    assert isinstance(model.document, Image)
    assert b'"model_type":"37K"' in said(Archive(tmp_path / "out" / "b.tar"), model, "config")[0]


@needs_shared
def test_the_vector_of_shards() -> None:
    assert SHARED is not None
    found = packed(SHARED / "gguf" / "tiny-llama-00001-of-00003.gguf")
    assert (
        str(the_model(found).blobs[0].digest)
        == "sha256:a088629706c10d95c86d08c05d5dcad8322260aa3b77bcfcf263e1e5d74c01d0"
    )
    assert str(found.models[0].name) == "tiny-llama:latest"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "tiny-llama-00001-of-00003.gguf", tmp_path)
    with pytest.raises(NotFound, match=r"tiny-llama-00002-of-00003\.gguf"):
        packed(tmp_path)


def test_shards_in_a_modelfile(folder: Path) -> None:
    (folder / "Modelfile").write_text("FROM ./tiny-llama-00001-of-00003.gguf\nSYSTEM x\n")
    found = packed(folder)
    assert the_model(found).blobs[0].shards
    lone = the_model(packed(folder / "tiny-llama-00001-of-00003.gguf"))
    assert lone.blobs[0].digest == the_model(found).blobs[0].digest


# --- FROM a model


def test_stacked_on_an_installed_model(folder: Path, models: Path) -> None:
    (folder / "Modelfile").write_text("FROM base\nSYSTEM mine\nPARAMETER temperature 1\nLICENSE more\n")
    found = packed(folder, look=Installed((models,)))
    model = the_model(found)
    assert kinds(model) == ["model", "template", "license", "system", "license", "params"]
    assert said(found.source, model, SYSTEM) == [b"mine"]
    assert said(found.source, model, LICENSE) == [b"MIT", b"more"]
    assert said(found.source, model, PARAMS) == [b'{"num_ctx":2048,"stop":["x"],"temperature":1}\n']
    (config,) = said(found.source, model, "config")
    assert json.loads(config)["renderer"] == "r"
    assert json.loads(config)["capabilities"] == ["vision"]
    assert json.loads(config)["model_family"] == "llama"
    assert "stacked" in " ".join(found.notes)


def test_an_adapter_on_an_installed_model(folder: Path, models: Path) -> None:
    (folder / "Modelfile").write_text("FROM base\nADAPTER ./tiny-lora.gguf\n")
    found = packed(folder, look=Installed((models,)))
    assert kinds(the_model(found)) == ["model", "template", "system", "license", "adapter", "params"]


def test_from_what_is_not_installed_is_a_recipe(folder: Path) -> None:
    (folder / "Modelfile").write_text(
        'FROM nobody/has:it\nADAPTER ./tiny-lora.gguf\nSYSTEM mine\nLICENSE "a"\n'
    )
    found = packed(folder)
    model = the_model(found)
    assert isinstance(model.document, Recipe)
    assert model.document.body == {
        "from": "nobody/has:it",
        "adapters": {"tiny-lora.gguf": str(Digest.of((FIXTURES / "tiny-lora.gguf").read_bytes()))},
        "system": "mine",
        "license": ["a"],
    }
    assert "nobody/has:it must be installed on the server" in found.notes[0]


def test_quantize_is_a_recipe(folder: Path) -> None:
    for place in (folder, folder / "tiny-llama.gguf"):
        model = the_model(packed(place, quantize="Q8_0"))
        assert isinstance(model.document, Recipe)
        assert model.document.body["quantize"] == "Q8_0"
        assert model.document.body["files"]["tiny-llama.gguf"] == str(
            Digest.of((FIXTURES / "tiny-llama.gguf").read_bytes())
        )


def test_quantize_takes_no_quantized_gguf(folder: Path, models: Path) -> None:
    with pytest.raises(Unsupported, match="stored as Q8_0"):
        packed(folder / "tiny-chat.gguf", quantize="Q4_K_M")
    with pytest.raises(Usage, match="--quantize"):
        packed(f"{models}#base", quantize="Q4_K_M")


# --- what goes wrong


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("FROM ./nothing.gguf\n", NotFound, "line 1.*nothing.gguf"),
        ("FROM ./tiny-llama.gguf\nADAPTER nothing\n", NotFound, "line 2.*nothing"),
        (
            "FROM ./tiny-llama.gguf\nADAPTER ./tiny-lora.gguf\nADAPTER ./tiny-lora.gguf\n",
            Unsupported,
            "two adapters",
        ),
        ("FROM ./tiny-llama.gguf\nADAPTER ./tiny-mmproj.gguf\n", Unsupported, "no adapter"),
        ("FROM ./tiny-llama.gguf\nFROM ./tiny-chat.gguf\n", Unsupported, "2 models"),
        ("FROM ./tiny-llama.gguf\nFROM llama3\n", Unsupported, "line 2.*model's name"),
        ("FROM ./tiny-llama.gguf\nDRAFT ./tiny-llama.gguf\n", Unsupported, "DRAFT"),
        ("FROM ./tiny-mmproj.gguf\n", Unsupported, "projector"),
        ("FROM .\n", Unsupported, "models"),
        ("FROM ./Modelfile\n", Corrupt, "Modelfile"),
        ("FROM ./tiny-llama.gguf\nFRON x\n", Corrupt, "line 2"),
        ("FROM ~nobody-at-all/x.gguf\n", NotFound, "line 1"),
        ("FROM ./tiny-llama.gguf\nSYSTEM a\0b\n", Corrupt, "NUL"),
        ("FROM link.gguf\n", Refused, "link"),
        ("FROM loop\n", ModelpackError, "link"),
        ("FROM fifo\n", ModelpackError, "FIFO"),
    ],
)
def test_a_modelfile_that_cannot_be(
    folder: Path, tmp_path: Path, text: str, error: type[ModelpackError], words: str
) -> None:
    shutil.copy(FIXTURES / "tiny-llama.gguf", tmp_path / "outside.gguf")
    if "link" in text:
        (folder / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    (folder / "Modelfile").write_text(text)
    with pytest.raises(error, match=words):
        packed(folder)


def test_a_path_that_says_where_it_leads_may_lead_there(folder: Path, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "tiny-llama.gguf", tmp_path / "outside.gguf")
    for path in ("../outside.gguf", str(tmp_path / "outside.gguf")):
        (folder / "Modelfile").write_text(f"FROM {path}\n")
        assert the_model(packed(folder)).blobs[0].title == "outside.gguf"


def test_a_gigabyte_of_template_is_not_read(folder: Path) -> None:
    with (folder / "Modelfile").open("wb") as file:
        file.write(b'FROM ./tiny-llama.gguf\nTEMPLATE """')
        file.truncate(1 << 30)
    with pytest.raises(Corrupt, match="larger than"):
        packed(folder)


def test_the_chat_template_is_remarked_unless_there_is_one(folder: Path) -> None:
    (folder / "Modelfile").write_text("FROM ./tiny-chat.gguf\n")
    assert Remark.CHAT_TEMPLATE in [remark for _, remark in packed(folder).remarks]
    (folder / "Modelfile").write_text("FROM ./tiny-chat.gguf\nTEMPLATE x\n")
    assert Remark.CHAT_TEMPLATE not in [remark for _, remark in packed(folder).remarks]


# --- sets, names, installed models


def test_several_sources(folder: Path, models: Path, tmp_path: Path) -> None:
    look = Installed((models,))
    (folder / "Modelfile").write_text("FROM base\nSYSTEM mine\n")
    sources = (folder, "base", folder / "tiny-llama-00001-of-00003.gguf", folder / "tiny-chat.gguf")
    found = packed(*sources, look=look)
    copy(found.source, found.models, Archive(tmp_path / "set.tar"))
    there = Archive(tmp_path / "set.tar").models()
    assert [str(one.name) for one in there] == [
        "tiny-model:latest", "base:latest", "tiny-llama:latest", "tiny-chat:latest",
    ]  # fmt: skip
    assert there[1].document.raw == ModelsDir(models).models()[0].document.raw
    assert found.found == [(Name.parse("base"), str(models))]
    assert the_model(packed(f"{tmp_path / 'set.tar'}#tiny-chat")).document == there[3].document


def test_two_of_one_name(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tiny-llama.gguf", tmp_path / "TINY-CHAT.gguf")
    with pytest.raises(Refused, match="to Ollama the same"):
        packed(folder / "tiny-chat.gguf", tmp_path / "TINY-CHAT.gguf")


def test_recipes_come_after_their_base_and_go_in_no_circle(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Modelfile").write_text(f"FROM {base}\n")
    found = packed(*(tmp_path / name for name in "abc"))
    assert [one.name.model for one in found.models] == ["c", "b", "a"]
    assert len(found.notes) == 1
    (tmp_path / "c" / "Modelfile").write_text("FROM a\n")
    with pytest.raises(Refused, match="circle"):
        packed(*(tmp_path / name for name in "abc"))
    (tmp_path / "a" / "Modelfile").write_text("FROM a\n")
    with pytest.raises(Refused, match="circle"):
        packed(tmp_path / "a")


def test_a_word_that_is_both(folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "base").mkdir()
    look = Installed((models,))
    with pytest.raises(Usage) as both:
        packed("base", look=look)
    assert "./base" in str(both.value)
    assert "base:latest" in str(both.value)
    assert the_model(packed("base:latest", look=look)).name == Name.parse("base")
    assert the_model(packed("tiny-llama.gguf", look=look)).name == Name.parse("tiny-llama")


def test_where_installed_models_are_looked_for(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(models, home / ".ollama" / "models")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr("modelpack.verbs.installed.SERVICE", tmp_path / "service")
    places = lambda: [str(one) for one in Installed.here().places]  # noqa: E731
    assert places() == [str(home / ".ollama" / "models")]
    shutil.copytree(models, tmp_path / "service")
    assert places()[0] == str(tmp_path / "service")
    monkeypatch.setenv("OLLAMA_MODELS", str(models))
    assert places() == [str(models), str(tmp_path / "service"), str(home / ".ollama" / "models")]
    assert [str(one) for one in Installed.here(str(home / ".ollama" / "models")).places] == [
        str(home / ".ollama" / "models")
    ]
    with pytest.raises(NotFound, match="manifests"):
        Installed.here(str(tmp_path))
    with pytest.raises(NotFound, match=r"no installed model nothing:latest \(looked in") as missing:
        packed("nothing", look=Installed.here())
    assert str(models) in str(missing.value)


def test_a_whole_directory_leaves_out_what_cannot_be_had(models: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("hurt", (MODEL, b"soon gone"))
    store.image("cloud", config=b'{"remote_host":"https://ollama.com"}')
    store.image("BASE", (MODEL, b"a twin"))
    copy(store, store.models()[:2], ModelsDir(models))
    copy(store, [replace(store.models()[2], name=Name.parse("other"))], ModelsDir(models))
    (models / "manifests/registry.ollama.ai/library/other").rename(
        models / "manifests/registry.ollama.ai/library/BASE"
    )
    (models / "blobs" / Digest.of(b"soon gone").file_name).unlink()
    found = packed(models)
    assert [str(one.name) for one in found.models] == ["BASE:latest"]
    why = {what.rpartition("/")[2]: str(error) for what, error in found.left_out}
    assert "missing" in why["hurt:latest"]
    assert "cloud model" in why["cloud:latest"]
    assert "does not tell them apart" in why["base:latest"]
    with pytest.raises(NotFound):
        copy(*(lambda one: (one.source, one.models))(packed(f"{models}#hurt")), Archive(tmp_path / "x.tar"))
    with pytest.raises(Unsupported):
        packed(f"{models}#cloud")


def test_a_model_that_is_deleted_while_it_is_packed(models: Path, tmp_path: Path) -> None:
    found = packed(f"{models}#base")
    for blob in (models / "blobs").iterdir():
        blob.unlink()
    with pytest.raises(NotFound, match="missing"):
        copy(found.source, found.models, Archive(tmp_path / "x.tar"))
    assert not (tmp_path / "x.tar").exists()


def test_a_shard_that_a_link_brings_in_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = tmp_path / "model"
    place.mkdir()
    for one in FIXTURES.glob("tiny-llama-0*.gguf"):
        shutil.copy(one, outside)
    shutil.copy(outside / "tiny-llama-00001-of-00003.gguf", place)
    for number in (2, 3):
        name = f"tiny-llama-0000{number}-of-00003.gguf"
        (place / name).symlink_to(outside / name)
    (place / "Modelfile").write_text("FROM ./tiny-llama-00001-of-00003.gguf\n")
    with pytest.raises(Refused, match="lies outside"):
        packed(place)


def test_shards_behind_links_inside_the_folder(folder: Path) -> None:
    """As a single GGUF may be."""
    (folder / "sub").mkdir()
    for one in (*folder.glob("tiny-llama-0*.gguf"), folder / "tiny-chat.gguf"):
        (folder / "sub" / one.name).symlink_to(f"../{one.name}")
    (folder / "Modelfile").write_text("FROM ./sub/tiny-llama-00001-of-00003.gguf\n")
    assert the_model(packed(folder)).blobs[0].shards
    (folder / "Modelfile").write_text("FROM ./sub/tiny-chat.gguf\n")
    assert the_model(packed(folder)).blobs[0].title == "tiny-chat.gguf"


def test_what_a_mac_puts_beside_files(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "tiny-llama.gguf", tmp_path)
    for name in ("._tiny-llama.gguf", "._model.safetensors", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert the_model(packed(tmp_path)).blobs[0].title == "tiny-llama.gguf"


def test_licences_have_room_together(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "tiny-llama.gguf", tmp_path)
    for number, size in enumerate((3 << 20, 3 << 20, 5 << 20, 99)):
        (tmp_path / f"LICENSE-{number}").write_bytes(b"x" * size)
    found = packed(tmp_path)
    assert [len(raw) for raw in said(found.source, the_model(found), LICENSE)] == [3 << 20, 99]
    assert [note.split()[0] for note in found.notes] == ["LICENSE-1", "LICENSE-2"]
    assert "4.19 MB together" in found.notes[0]


def test_messages_that_are_too_large_together(folder: Path) -> None:
    text = "x" * (3 << 20)
    (folder / "Modelfile").write_text(f"FROM ./tiny-llama.gguf\nMESSAGE user {text}\nMESSAGE user {text}\n")
    with pytest.raises(Unsupported, match=r"messages blob has 6\.29 MB"):
        packed(folder)


def test_a_models_directory_that_is_none_hides_no_path(tmp_path: Path, models: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "manifests").symlink_to(models / "manifests")
    (tmp_path / "file").write_bytes(b"")
    for name in ("linked", "file"):
        assert not Installed((tmp_path / name,)).names("base")
    (models / "manifests/registry.ollama.ai/library/base/latest").write_bytes(b"{")
    assert Installed((models,)).names("base")


@needs_root
def test_a_manifest_that_may_not_be_read_is_no_recipe(folder: Path, open_place: Path) -> None:
    """The model is installed; who says that it is not would be wrong."""
    store = MemoryStore()
    store.image("base", (MODEL, (FIXTURES / "tiny-llama.gguf").read_bytes()))
    copy(store, store.models(), ModelsDir(open_place / "models"))
    os.chmod(open_place / "models/manifests/registry.ollama.ai/library/base/latest", 0)
    (open_place / "Modelfile").write_text("FROM base\n")
    look = Installed((open_place / "models",))
    sources = (open_place / "Modelfile", f"{open_place}/models#base", "base")

    def work() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        for source in sources:
            with pytest.raises(Local, match="base/latest: permission denied"):
                packed(source, look=look)
        os.chdir(open_place)
        assert not look.names("Modelfile")

    assert waited(forked(work)) == 0


def test_more_from_than_any_model_has(folder: Path) -> None:
    (folder / "Modelfile").write_text("FROM ./tiny-llama.gguf\n" * 101)
    with pytest.raises(Unsupported, match="line 101: it has more than 100 FROM and DRAFT"):
        packed(folder)
    (folder / "Modelfile").write_text("FROM ./tiny-llama.gguf\n" * 100)
    with pytest.raises(Unsupported, match=r"100 models \((tiny-llama\.gguf, ){3}…\)"):
        packed(folder)


def test_weights_of_another_type_are_no_cloud_model(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("odd", ("application/vnd.example.weights", b"w"), (SYSTEM, b"S"))
    store.image("empty", (SYSTEM, b"S"))
    store.image("far", config=b'{"remote_model":"x"}')
    copy(store, store.models(), ModelsDir(tmp_path))
    for name, what in (
        (
            "odd",
            "no weights that modelpack knows, but layers of another type: 'application/vnd.example.weights'",
        ),
        ("empty", "no weights that modelpack knows"),
        ("far", r"cloud model"),
    ):
        with pytest.raises(Unsupported, match=what) as caught:
            packed(f"{tmp_path}#{name}")
        assert ("cloud" in caught.value.what) is (name == "far")


def test_a_damaged_blob_is_said_with_its_model_and_source(models: Path, folder: Path, tmp_path: Path) -> None:
    digest = Digest.of(b"the base's")
    (models / "blobs" / digest.file_name).write_bytes(b"the case's")
    picked = f"{models}#base"
    for sources, where in (
        ([picked], "base:latest"),
        ([folder, picked], f"base:latest (of {picked})"),
        ([models, folder], f"base:latest (of {models})"),
    ):
        found = packed(*sources)
        with pytest.raises(Corrupt, match=f"system {digest} is damaged") as caught:
            copy(found.source, found.models, Archive(tmp_path / "x.tar"))
        assert caught.value.where == where


def test_several_unpacked_models_are_one_source(models: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    for name in ("one", "two"):
        store.image(name, (MODEL, (FIXTURES / "tiny-llama.gguf").read_bytes()), (SYSTEM, name.encode()))
    copy(store, store.models(), PlainFolder(tmp_path / "out", source=store))
    assert [one.document for one in packed(tmp_path / "out").models] == [
        one.document for one in PlainFolder(tmp_path / "out").models()
    ]
    (tmp_path / "out" / "two" / "Modelfile").write_text("FROM ./two.gguf\n")
    with pytest.raises(Unsupported, match="two/Modelfile was changed"):
        packed(tmp_path / "out")
