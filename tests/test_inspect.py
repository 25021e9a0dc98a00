"""inspect: what models cost alone and together, metadata key by key, Modelfiles as Ollama shows them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import FIXTURES, FULL, SHARED, TINY, MemoryStore, needs_shared, noise
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from terminals import on_terminal

from modelpack.cli.inspect import command
from modelpack.cli.inspect_models import fitted
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.model import Model
from modelpack.documents.modelfile import parse_modelfile
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, ModelpackError, NotFound, Usage
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import PlainFolder
from modelpack.verbs.inspect import inspect
from modelpack.verbs.metadata import metadata
from modelpack.verbs.modelfiles import modelfile_of
from modelpack.verbs.shared import shared
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import CONFIG, FILE, LICENSE, MESSAGES, MODEL, PARAMS, SYSTEM, TEMPLATE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name

BUNDLE = FIXTURES / "bundle-v1.tar"


def run(*args: object) -> Result:
    """The command, in this process; what it raised is raised again, unless it is an exit code."""
    done = CliRunner().invoke(command, [*map(str, args), "-q"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def models_dir(path: Path, store: MemoryStore) -> ModelsDir:
    copy(store, store.models(), ModelsDir(path))
    return ModelsDir(path)


# --- what is shared


@given(st.lists(st.frozensets(st.integers(1, 8)), max_size=6))
def test_shared_is_what_taking_a_model_away_tells(sets: list[frozenset[int]]) -> None:
    """Blob n has 10**n bytes, so that every sum says which blobs it is made of."""
    models = []
    for number, parts in enumerate(sets):
        store = MemoryStore()
        layers = [(MODEL, b"%d" % part) for part in sorted(parts)]
        image = store.image(f"m{number}", *layers, config=b"0").document
        sized = {blob.id: 10 ** int(store.bytes[blob.id]) for blob in image.blobs}
        recipe = Recipe(b"", {}, tuple(Blob(size, FILE, key=known) for known, size in sized.items()))
        models.append(Model(Name.parse(f"m{number}"), recipe))

    def total(some: Sequence[Model]) -> int:
        return sum({blob.id: blob.size for model in some for blob in model.blobs}.values())

    found = shared(models)
    assert found.together == total(models)
    assert found.alone == sum(total([model]) for model in models)
    for place, cost in enumerate(found.costs):
        assert (cost.model, cost.alone) == (models[place], total([models[place]]))
        assert cost.own == total(models) - total(models[:place] + models[place + 1 :])
    assert found.alone - found.together == sum(one.saved for one in found.common)
    assert sum(one.size for one in found.common) + sum(cost.own for cost in found.costs) == found.together
    assert list(found.common) == sorted(found.common, key=lambda one: -one.saved)
    for one in found.common:
        assert len(one.models) > 1
        assert all(blob in model.blobs for blob in one.blobs for model in one.models)


def test_a_directory_says_what_its_models_share(shelf: MemoryStore, tmp_path: Path) -> None:
    models_dir(tmp_path, shelf)
    done = json.loads(run(tmp_path, "--json").stdout)
    by_name = {one["name"].rpartition("/")[2]: one for one in done["models"]}
    assert by_name["full:latest"]["own"] == by_name["copy:latest"]["own"] == 0
    # The tiny one's config says its name; everything else of it the twin has, too.
    (config,) = [one for one in by_name["Tiny:v1.5-q4_K"]["layers"] if one["media_type"] == CONFIG]
    assert by_name["Tiny:v1.5-q4_K"]["own"] == config["size"]
    on_disk = sum(one.stat().st_size for one in (tmp_path / "blobs").iterdir())
    assert (done["size"], done["alone"]) == (on_disk, sum(one["size"] for one in done["models"]))
    text = run(tmp_path).stdout
    assert "5 models: " in text
    assert "; alone they would take " in text
    picked = json.loads(run(f"{tmp_path}#twin", "--json").stdout)["models"]
    assert [one["own"] for one in picked] == [by_name["twin:latest"]["own"]]


def test_two_hundred_models_are_a_row_each(tmp_path: Path) -> None:
    store = MemoryStore()
    for number in range(200):
        store.image(f"m{number:03}", *TINY, (SYSTEM, b"%d" % number))
    copy(store, store.models(), Archive(tmp_path / "b.tar"))
    models_dir(tmp_path / "models", store)
    for place in ("b.tar", "models"):
        lines = run(tmp_path / place).stdout.replace(str(tmp_path), "").splitlines()
        assert len(lines) < 215
        assert max(map(len, lines)) <= 80
        assert [line.split()[0] for line in lines if line.startswith("  m")] == [
            f"m{number:03}:latest" for number in range(200)
        ]
        assert "m000:latest" in lines[-4] or any("and 1" in line for line in lines)
        assert "LOCATOR#NAME" in lines[-1]
        one = run(f"{tmp_path / place}#m007").stdout
        assert "m007:latest" in one
        assert "architecture" in one
        assert "m008" not in one


def test_one_model_is_shown_in_full_wherever_it_is(tiny: MemoryStore, tmp_path: Path) -> None:
    models_dir(tmp_path / "models", tiny)
    copy(tiny, tiny.models(), FolderBundle(tmp_path / "bundle"))
    for place in ("models", "bundle"):
        text = run(tmp_path / place).stdout
        assert "architecture" in text
        assert "SHARED" not in text


def test_long_names_break_lines_only_on_a_terminal() -> None:
    rows = [["NAME", "ID"], ["short", "1"], ["x" * 60, "2"]]
    assert fitted(rows, None)[2] == f"  {'x' * 60}  2"
    assert [len(line) <= 40 for line in fitted(rows, 40)] == [True, True, False, True]
    assert [line.split() for line in fitted(rows, 40)] == [["NAME", "ID"], ["short", "1"], ["x" * 60], ["2"]]


def test_an_empty_directory(tmp_path: Path) -> None:
    for name in ("blobs", "manifests"):
        (tmp_path / name).mkdir()
    done = run(tmp_path)
    assert (done.exit_code, "no model" in done.stdout) == (0, True)
    with pytest.raises(NotFound):
        run(tmp_path, "--modelfile")


# --- Modelfiles


def recorded() -> list[tuple[str, str, str]]:
    """Version, name and `modelfile` of every answer to `show`."""
    found = []
    for version in ("0.24", "0.33") if SHARED is not None else ():
        assert SHARED is not None
        for line in (SHARED / "recorded" / f"ollama-{version}.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            if entry["path"] == "/api/show" and entry["status"] == 200:
                request = (
                    json.loads(entry["request"]) if isinstance(entry["request"], str) else entry["request"]
                )
                name = request.get("model") or request["name"]
                found.append((version, name, json.loads(entry["body"])["modelfile"]))
    return found


def in_order(modelfile: str) -> list[str]:
    """Its lines; parameters sorted by name, for Ollama writes them in the order of a Go map, any."""
    lines = modelfile.split("\n")
    places = [place for place, line in enumerate(lines) if line.startswith("PARAMETER ")]
    for place, line in zip(
        places, sorted((lines[at] for at in places), key=lambda x: x.split()[1]), strict=True
    ):
        lines[place] = line
    return lines


@needs_shared
def test_modelfiles_are_those_that_ollama_showed() -> None:
    assert SHARED is not None
    answers = recorded()
    assert {(version, name) for version, name, _ in answers} >= {
        (version, name) for version in ("0.24", "0.33") for name in ("a", "d", "rp")
    }
    for version, name, theirs in answers:
        place = SHARED / "recorded" / f"models-{version}"
        ours = json.loads(run(f"{place}#{name}", "--modelfile", "--json").stdout)["modelfile"]
        assert in_order(ours) == in_order(theirs.replace("/usr/share/ollama/.ollama/models", str(place)))
        assert run(f"{place}#{name}", "--modelfile").stdout == ours


@needs_shared
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_every_recorded_model_has_a_modelfile_that_can_be_read(version: str) -> None:
    assert SHARED is not None
    store = ModelsDir(SHARED / "recorded" / f"models-{version}")
    for model in store.models():
        read = parse_modelfile(modelfile_of(store, model).encode())
        kinds = [blob.media_type.rpartition(".")[2] for blob in model.document.layers]
        assert len(read.sources) == kinds.count("model") + kinds.count("projector")
        assert len(read.adapters) == kinds.count("adapter")
        for each in (*read.sources, *read.adapters):
            assert Path(each.value).is_file()
        assert len(read.body.get("license", [])) == kinds.count("license")


def test_from_names_the_file_in_this_store(tiny: MemoryStore, tmp_path: Path) -> None:
    digest = Digest.of(TINY[0][1])
    model = tiny.models()[0]
    store = models_dir(tmp_path / "models", tiny)
    copy(tiny, [model], FolderBundle(tmp_path / "bundle"))
    copy(tiny, [model], Archive(tmp_path / "b.tar"))

    def named(source: Source) -> str:
        return parse_modelfile(modelfile_of(source, source.models()[0]).encode()).sources[0].value

    assert named(store) == str(tmp_path / "models" / "blobs" / digest.file_name)
    assert named(FolderBundle(tmp_path / "bundle")) == str(tmp_path / "bundle/blobs/sha256" / digest.hex)
    assert named(Archive(tmp_path / "b.tar")) == digest.file_name
    os.rename(tmp_path / "models/blobs" / digest.file_name, tmp_path / "models/blobs" / str(digest))
    assert named(store) == str(tmp_path / "models" / "blobs" / str(digest))
    shutil.copy(FIXTURES / "tiny-llama.gguf", tmp_path / "w.gguf")
    assert named(LooseGguf(tmp_path / "w.gguf")) == os.path.realpath(tmp_path / "w.gguf")
    shard = FIXTURES / "tiny-llama-00001-of-00003.gguf"
    assert named(LooseGguf(shard)) == os.path.realpath(shard)
    copy(tiny, [model], PlainFolder(tmp_path / "plain", tiny))
    assert named(PlainFolder(tmp_path / "plain")) == str(tmp_path / "plain" / "0.gguf")


def test_the_modelfile_of_a_recipe_says_the_same(tmp_path: Path) -> None:
    (model,) = [one for one in Archive(BUNDLE).models() if isinstance(one.document, Recipe)]
    text = modelfile_of(Archive(BUNDLE), model)
    assert text == "# ollama create tiny-q8:latest --quantize q8_0\nFROM ./tiny-llama.gguf\n"
    body = {"system": 'say "x"\n', "parameters": {"stop": ["a", "b"]}, "license": ["MIT"], "from": "base:1b"}
    stacked = Model(Name.parse("x"), Recipe.compose(body, {}))
    read = parse_modelfile(modelfile_of(MemoryStore(), stacked).encode())
    assert [one.value for one in read.sources] == ["base:1b"]
    assert read.body == {key: value for key, value in body.items() if key != "from"}
    files = {name: MemoryStore().blob(name.encode(), FILE) for name in ("config.json", "a.safetensors")}
    weights = Model(Name.parse("x"), Recipe.compose({}, {"files": files}))
    assert modelfile_of(MemoryStore(), weights) == "FROM ./model\n"
    adapter = {"adapters": {"adapter_config.json": files["config.json"]}}
    both = Model(Name.parse("x"), Recipe.compose({}, {"files": files, **adapter}))
    assert modelfile_of(MemoryStore(), both) == "FROM ./model\nADAPTER ./adapter\n"
    unread = Blob(5, FILE, title="a.gguf", key="/x/a.gguf")
    loose = Model(Name.parse("x"), Recipe.compose({}, {"files": {"a.gguf": unread}}))
    assert modelfile_of(MemoryStore(), loose) == "FROM /x/a.gguf\n"
    for real, place in ((("/x/config.json", "/x/sub/y.json"), "/x"), (("/blobs/1", "/blobs/2"), ".")):
        group = {
            title: Blob(5, FILE, key=key)
            for title, key in zip(("config.json", "sub/y.json"), real, strict=True)
        }
        snapshot = Model(Name.parse("x"), Recipe.compose({}, {"files": group}))
        assert modelfile_of(MemoryStore(), snapshot) == f"FROM {place}\n"


@pytest.mark.parametrize("evil", ["a\nSYSTEM evil.gguf", 'a"""\n.gguf', "a\0.gguf"])
def test_a_file_name_in_a_recipe_is_never_an_instruction(evil: str) -> None:
    recipe = Recipe.compose({}, {"files": {evil: MemoryStore().blob(b"", FILE)}})
    text = modelfile_of(MemoryStore(), Model(Name.parse("x"), recipe))
    (command,) = parse_modelfile(text.encode()).commands
    assert (command.name, command.value[:3]) == ("from", "./a")


BAD: dict[str, tuple[tuple[str, bytes], ...]] = {
    "parameters that are a list": ((PARAMS, b"[]"),),
    "messages of numbers": ((MESSAGES, b"[1]"),),
    "messages that are an object": ((MESSAGES, b"{}"),),
    "parameters that are no JSON": ((PARAMS, b"{"),),
    "a system prompt of 5 MiB": ((SYSTEM, b"x" * (5 << 20)),),
    "a licence named a hundred times": ((LICENSE, noise(1 << 20)),) * 100,
}


@pytest.mark.parametrize("what", BAD)
def test_texts_that_no_model_has(what: str) -> None:
    store = MemoryStore()
    with pytest.raises(Corrupt):
        modelfile_of(store, store.image("m", TINY[0], *BAD[what]))


def test_odd_but_real_models() -> None:
    store = MemoryStore()
    layers = [(PARAMS, b'{"num_ctx":1,"stop":["x"]}'), (PARAMS, b"null"), (PARAMS, b'{"num_ctx":2}')]
    merged = modelfile_of(store, store.image("p", TINY[0], *layers))  # as Go reads them into one map
    assert merged.endswith("PARAMETER num_ctx 2\nPARAMETER stop x\n")
    empty = store.image("m", TINY[0], (PARAMS, b"null\n"), (MESSAGES, b"null\n"), (SYSTEM, b"\xff"))
    assert modelfile_of(store, empty).endswith("TEMPLATE {{ .Prompt }}\nSYSTEM \ufffd\n")
    tensors = store.image("t", (TEMPLATE, b"T"), config=b'{"model_format":"safetensors"}')
    assert (
        modelfile_of(store, tensors) == '# Modelfile generated by "ollama show"\nFROM t:latest\nTEMPLATE T\n'
    )
    cloud = store.image("c", config=b'{"remote_host":"https://x"}')
    assert "\nFROM \nTEMPLATE {{ .Prompt }}\n" in modelfile_of(store, cloud)


def test_a_damaged_text_is_said_and_the_others_are_printed(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("good", *TINY)
    store.image("bad", TINY[0], (SYSTEM, b"You"))
    models_dir(tmp_path, store)
    (tmp_path / "blobs" / Digest.of(b"You").file_name).write_bytes(b"yOU")
    done = run(tmp_path, "--modelfile")
    assert done.exit_code == 4
    assert "# FROM good:latest" in done.stdout
    assert "# FROM bad:latest" not in done.stdout
    assert "is damaged" in done.stderr


def test_a_modelfile_is_exact_but_on_a_terminal(tmp_path: Path) -> None:
    """There, what it would obey is written as escapes, which is said."""
    store = MemoryStore()
    text = "a\x1b[2J\u202eb\r\n\tc"
    store.image("m", TINY[0], (SYSTEM, text.encode()))
    models_dir(tmp_path, store)
    assert text.encode() in run(tmp_path, "--modelfile").stdout_bytes
    assert text in json.loads(run(tmp_path, "--modelfile", "--json").stdout)["modelfile"]
    shown, told = on_terminal(
        [sys.executable, "-m", "modelpack", "inspect", str(tmp_path), "--modelfile", "-q"]
    )
    assert b"a\\x1b[2J\\u202eb\\r\r\n" in shown
    assert b"escapes" in told


# --- metadata


def values_of(path: Path) -> dict[str, object]:
    """What gguf-py reads: key → value, whole."""
    found = {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    return {key: value for key, value in found.items() if not key.startswith("GGUF.")}


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-chat", "tiny-lora", "tiny-mmproj", "tiny-vocab"])
def test_every_key_is_the_one_that_gguf_py_reads(name: str) -> None:
    path = FIXTURES / f"{name}.gguf"
    (shown,) = json.loads(run(path, "--metadata", "--json").stdout)
    wanted = values_of(path)
    assert list(shown["metadata"]) == list(wanted)
    keys = [part for key in wanted for part in ("--key", key)]
    (whole,) = json.loads(run(path, *keys, "--json").stdout)
    for key, value in wanted.items():
        assert whole["metadata"][key]["value"] == pytest.approx(value), key
        lone = shown["metadata"][key]
        assert lone.get("value", value) == pytest.approx(value)
        if "value" not in lone:
            assert lone["count"] == len(value)  # type: ignore[arg-type]
    lines = run(path, "--metadata").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(wanted)
    assert max(map(len, lines)) <= 80


def test_keys_in_words(tmp_path: Path) -> None:
    values = FIXTURES / "tiny-values.gguf"
    text = run(values, "--metadata").stdout
    for line in (
        "  values.float32        float32  0.5",
        "  values.bool           bool     true",
        "  values.many           array    [1025 uint16]",
        "  values.string.array   array    [3 strings]",
        "  values.string         string   grüße\\n\\u202e",
    ):
        assert line in text.splitlines()
    assert run(values, "--key", "values.many").stdout.splitlines()[1:3] == [
        "  values.many  array    [1025]",
        "    0",
    ]
    assert "\\u202e" in run(values, "--key", "values.string").stdout
    assert "\u202e" not in run(values, "--key", "values.string").stdout
    chat = run(FIXTURES / "tiny-chat.gguf", "--metadata").stdout
    assert "… (138 characters)" in chat
    assert "add_generation_prompt" not in chat
    assert (
        "add_generation_prompt" in run(FIXTURES / "tiny-chat.gguf", "--key", "tokenizer.chat_template").stdout
    )


def test_an_unknown_key_is_answered_with_near_ones() -> None:
    with pytest.raises(NotFound, match=r"llama\.context_length"):
        run(FIXTURES / "tiny-llama.gguf", "--key", "context_length")
    with pytest.raises(NotFound, match=r"general\.architecture"):
        run(FIXTURES / "tiny-llama.gguf", "--key", "general.arhcitecture")
    with pytest.raises(NotFound, match="--metadata lists"):
        run(FIXTURES / "tiny-llama.gguf", "--key", "~" * 1000)


def test_metadata_of_a_set_tells_each_gguf_once(shelf: MemoryStore, tmp_path: Path) -> None:
    store = models_dir(tmp_path, shelf)
    found = metadata(store, store.models())
    told = {(one.blob.digest, tuple(sorted(str(model.name) for model in one.models))) for one in found}
    assert told == {
        (Digest.of(FULL[0][1]), ("copy:latest", "example.com:5000/ns/far:x", "full:latest")),
        (Digest.of(FULL[1][1]), ("copy:latest", "full:latest")),
        (Digest.of(TINY[0][1]), ("Someone/Tiny:v1.5-q4_K", "twin:latest")),
    }
    # A key that only the adapter has is no error of the others.
    (only,) = [one for one in metadata(store, store.models(), ["adapter.lora.alpha"]) if one.keys]
    assert only.blob.digest == Digest.of(FULL[1][1])
    bundle = Archive(BUNDLE)
    assert [len(one.models) for one in metadata(bundle, bundle.models())] == [3]  # the recipe's file, too


def test_a_gguf_that_cannot_be_read_is_said(shelf: MemoryStore, tmp_path: Path) -> None:
    models_dir(tmp_path, shelf)
    blob = tmp_path / "blobs" / Digest.of(TINY[0][1]).file_name
    blob.write_bytes(b"<html>" + blob.read_bytes()[6:])
    done = run(tmp_path, "--metadata")
    assert done.exit_code == 4
    assert done.stdout.count("GGUF version 3") == 2
    assert blob.name[7:] in done.stderr
    assert isinstance(
        next(
            one.header for one in metadata(ModelsDir(tmp_path), inspect(ModelsDir(tmp_path), ["twin"]).models)
        ),
        Corrupt,
    )
    # Whether an unknown key is in the one that cannot be read, nobody knows.
    assert run(tmp_path, "--key", "unknown.key").exit_code == 4


def test_a_model_without_ggufs(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("t", (TEMPLATE, b"T"))
    models_dir(tmp_path, store)
    assert run(tmp_path, "--metadata").stdout == "no GGUF here\n"


def test_a_lone_shard_is_read_alone(tmp_path: Path) -> None:
    """Also where the others are missing, so that it is no model."""
    shutil.copy(FIXTURES / "tiny-llama-00001-of-00003.gguf", tmp_path)
    path = tmp_path / "tiny-llama-00001-of-00003.gguf"
    (shown,) = json.loads(run(path, "--key", "tokenizer.ggml.tokens", "--json").stdout)
    assert len(shown["metadata"]["tokenizer.ggml.tokens"]["value"]) == 258
    done = run(path)
    assert (done.exit_code, "1 of 3" in done.stdout) == (4, True)
    assert "tiny-llama-00002-of-00003.gguf" in done.stderr
    assert run(FIXTURES / "tiny-lora.gguf").exit_code == 0


def test_verify_asks_for_the_other_shards(tmp_path: Path) -> None:
    shards = sorted(FIXTURES.glob("tiny-llama-0*.gguf"))
    for shard in shards[:2]:
        shutil.copy(shard, tmp_path)
    found = verify(LooseGguf(tmp_path / shards[0].name))
    assert (found.good, found.models) == (False, 0)
    assert shards[2].name in found.problems[0].what
    shutil.copy(shards[2], tmp_path)
    found = verify(LooseGguf(tmp_path / shards[0].name))
    assert (found.good, found.models) == (True, 1)


def test_one_thing_at_a_time() -> None:
    with pytest.raises(Usage):
        run(BUNDLE, "--modelfile", "--key", "x")
    with pytest.raises(Usage):
        run(BUNDLE, "--create-request", "--metadata")


def test_one_blob_with_two_sizes(tmp_path: Path) -> None:
    """Nothing that is read of the blob can be right for both."""
    store = MemoryStore()
    for name in "ab":
        store.image(name, *TINY, (SYSTEM, name.encode()))
    directory = models_dir(tmp_path, store)
    path = tmp_path / "manifests/registry.ollama.ai/library/b/latest"
    said = json.loads(path.read_bytes())
    size = said["layers"][0]["size"]
    said["layers"][0]["size"] += 1
    path.write_text(json.dumps(said))
    what = f"b:latest: says that {said['layers'][0]['digest']} has {size + 1} bytes; a:latest says {size}"
    for problems in (inspect(directory).problems, verify(directory).problems):
        assert [str(one) for one in problems] == [what]
    assert not inspect(directory, ["b"]).problems[0].what.startswith("says")  # alone, the file tells
    assert verify(directory, ["a"]).good


def test_inspect_reads_no_blob(shelf: MemoryStore) -> None:
    shelf.opened.clear()
    found = inspect(shelf, ["twin"])
    assert shelf.opened == []
    assert [str(one.name) for one in found.models] == ["twin:latest"]
    assert len(found.beside) == 4
    with pytest.raises(NotFound):
        inspect(shelf, ["nobody"])
    assert isinstance(metadata(shelf, found.models)[0].header, Gguf | ModelpackError)
