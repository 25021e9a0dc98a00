"""Plain files: what they are called, what a crash leaves, what is in the way, and whether they still fit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    DIED,
    FULL,
    SHARED,
    TINY,
    WEIGHTS,
    MemoryStore,
    bits,
    dying,
    files_of,
    needs_shared,
    noise,
    tree,
)
from hypothesis import given
from hypothesis import strategies as st

from modelpack.documents.create import create_request, texts_needed
from modelpack.documents.gojson import canonical_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.modelfile import parse_modelfile
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Partly, Refused, Taken, Unsupported
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.plain import DOCUMENTS, OTHERS, PlainFolder
from modelpack.verbs.plans import plan
from modelpack.verbs.transfer import copy
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
    DRAFT,
    FILE,
    LICENSE,
    MODEL,
    PROJECTOR,
    SMALL,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Blob,
)
from modelpack.words.digest import Digest
from modelpack.words.filename import LONGEST, Paths, folded, is_portable, portable
from modelpack.words.name import Name

CREATE = b'{"model_format":"gguf"}\n'


def unpack(
    store: MemoryStore,
    path: Path,
    models: Sequence[Model] = (),
    *,
    replace: bool = False,
    modelfile: bool = True,
) -> list[str]:
    """Copy; the notes of the receipts."""
    target = PlainFolder(path, store, replace=replace, modelfile=modelfile)
    return [one.note for one in copy(store, models or store.models(), target)]


def titled(store: MemoryStore, name: str, *layers: tuple[str, bytes, str | None]) -> Model:
    """An image whose layers have these titles."""
    blobs = [store.blob(data, kind, title=title) for kind, data, title in layers]
    image = Image.compose(store.blob(CREATE, CONFIG), blobs)
    return store.add(Model(Name.parse(name), Image(image.raw, image.config, image.layers)))


def recipe_of(store: MemoryStore, name: str, body: dict[str, object]) -> Model:
    """A recipe with bytes for the digests of its file fields."""
    blobs = []
    for field in ("files", "adapters", "draft_files"):
        if isinstance(group := body.get(field), dict):
            made = {title: store.blob(data, FILE, title=title) for title, data in group.items()}
            blobs += made.values()
            body = body | {field: {title: str(blob.digest) for title, blob in made.items()}}
    raw = canonical_json(body).rstrip(b"\n")
    return store.add(Model(Name.parse(name), Recipe.parse(raw, blobs, "a test")))


def modelfile(path: Path) -> str:
    return (path / "Modelfile").read_text("utf-8")


# --- names


@given(st.text(max_size=400) | st.sampled_from(["CON", "nul.gguf", "COM¹", "..", "LPT9 .x", "\ud800", "-"]))
def test_portable_names(text: str) -> None:
    name = portable(text)
    assert portable(name) == name
    assert is_portable(name)
    assert 0 < len(name.encode()) <= 200
    assert not set(name) & set('<>:"/\\|?*\0\n\x7f')
    assert name[0] not in " .-"
    assert name[-1] not in " ."
    assert name.split(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "COM¹", "LPT9"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("qwen3-8b-Q4_K_M.gguf", "qwen3-8b-Q4_K_M.gguf"),
        ("my model é.gguf", "my model é.gguf"),
        ("../../x", "x"),
        ("a:b", "a-b"),
        ("CON", "_CON"),
        ("aux.gguf", "_aux.gguf"),
        ("", "file"),
        ("...", "file"),
        ("a\u202eb\x00", "a-b-"),
        ("x" * 300 + ".safetensors", "x" * 188 + ".safetensors"),
    ],
)
def test_names_made_portable(text: str, name: str) -> None:
    assert portable(text) == name


@pytest.mark.parametrize(
    "part", ["", ".", "..", "a/b", "a\\b", "a:b", ".x", "-x", "x.", "NUL", "x" * 256, "a\n"]
)
def test_what_no_unpacked_file_is_called(part: str) -> None:
    assert not is_portable(part)


@given(
    st.lists(st.lists(st.sampled_from(["a", "A", "b.x", "B.X", "a-2", "ß", "ss"]), min_size=1, max_size=3))
)
def test_paths_are_given_once(wanted: list[list[str]]) -> None:
    paths = Paths("a")
    given_out = [paths.take(*parts) for parts in wanted]
    files = {folded(path) for path in given_out}
    above = {folded(path[:at]) for path in given_out for at, char in enumerate(path) if char == "/"}
    assert len(files) == len(wanted)
    assert not files & (above | {"a"})
    assert all(is_portable(part) for path in given_out for part in path.split("/"))


def test_many_files_of_one_name_are_numbered_quickly() -> None:
    paths = Paths()
    assert [paths.take("x") for _ in range(50_000)][-1] == "x-50000"


# --- what is written


def test_the_files_of_a_model(quick: Path) -> None:
    store = MemoryStore()
    draft = WEIGHTS + noise(9)
    model = titled(
        store,
        "team/qwen3:8b",
        (MODEL, WEIGHTS, "Qwen3-8B.Q4.GGUF"),
        (PROJECTOR, FULL[0][1], None),
        (ADAPTER, FULL[1][1], "lora/../my lora.gguf"),
        (DRAFT, draft, None),
        (TEMPLATE, b"{{ .Prompt }}", None),
        (LICENSE, b"MIT", None),
        (LICENSE, b"Apache", None),
    )
    assert unpack(store, quick / "out") == [""]
    files = files_of(quick / "out")
    assert json.loads(files.pop(DOCUMENTS))["name"] == "registry.ollama.ai/team/qwen3:8b"
    assert files == {
        "Qwen3-8B.Q4.gguf": WEIGHTS,
        "mmproj-qwen3-8b.gguf": FULL[0][1],
        "my lora.gguf": FULL[1][1],
        "qwen3-8b-draft.gguf": draft,
        "LICENSE": b"MIT",
        "LICENSE-2": b"Apache",
        "Modelfile": b"FROM ./Qwen3-8B.Q4.gguf\nFROM ./mmproj-qwen3-8b.gguf\nADAPTER ./my lora.gguf\n"
        b"DRAFT ./qwen3-8b-draft.gguf\nTEMPLATE {{ .Prompt }}\nLICENSE MIT\nLICENSE Apache\n",
        "documents/manifest.json": model.document.raw,
        f"documents/{Digest.of(b'{{ .Prompt }}').file_name}": b"{{ .Prompt }}",
        f"documents/{Digest.of(CREATE).file_name}": CREATE,
    }
    assert bits(PlainFolder(quick / "out")) == bits(store)
    assert PlainFolder(quick / "out").fits() is None


def test_packed_again_it_is_the_same_bundle(quick: Path) -> None:
    """Titles, and the digests of shards, come back as they were, whatever the files are called."""
    store = MemoryStore()
    titled(store, "a", (MODEL, WEIGHTS, "we/ird:name.gguf"), (LICENSE, b"MIT", None))
    recipe_of(store, "b", {"files": {"CON.json": b"{}", "model.safetensors": b"x" * 99}, "quantize": "q8_0"})
    copy(store, store.models(), Archive(quick / "b.tar"))
    source = Archive(quick / "b.tar")
    copy(source, source.models(), PlainFolder(quick / "out", source))
    plain = PlainFolder(quick / "out")
    copy(plain, plain.models(), Archive(quick / "again.tar"))
    assert (quick / "again.tar").read_bytes() == (quick / "b.tar").read_bytes()


def test_the_same_bytes_in_several_roles(quick: Path) -> None:
    """A file for each role, though the bytes come once."""
    store = MemoryStore()
    store.image("m", TINY[0], (TEMPLATE, b"MIT"), (LICENSE, b"MIT"), (SYSTEM, b"MIT"), (LICENSE, b"MIT"))
    unpack(store, quick)
    assert bits(PlainFolder(quick)) == bits(store)
    assert PlainFolder(quick).fits() is None
    names = files_of(quick)
    assert names["LICENSE"] == names["LICENSE-2"] == names[f"documents/{Digest.of(b'MIT').file_name}"]


@needs_shared
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_recorded_models_there_and_back(version: str, quick: Path) -> None:
    assert SHARED is not None
    source = ModelsDir(SHARED / "recorded" / f"models-{version}")
    want = bits(source)
    copy(source, source.models(), PlainFolder(quick / "all", source))
    assert bits(PlainFolder(quick / "all")) == want
    assert PlainFolder(quick / "all").fits() is None
    for model in source.models():
        path = quick / str(model.name.model)
        copy(source, [model], PlainFolder(path, source))
        assert bits(PlainFolder(path)) == {model.name.full: want[model.name.full]}
        assert isinstance(model.document, Image)
        texts = {}
        for blob in texts_needed(model.document):
            assert blob.digest is not None
            texts[blob.digest] = want[model.name.full][1][str(blob.digest)]
        request = create_request(model, texts)
        said = parse_modelfile((path / "Modelfile").read_bytes())
        assert said.body == {key: request[key] for key in said.body}
        assert request.keys() - said.body.keys() <= {"model", "files", "adapters", "draft_files", "info"}
        named = {(path / one.value).read_bytes() for one in (*said.sources, *said.adapters)}
        assert {str(Digest.of(raw)) for raw in named} == {
            *request["files"].values(), *request.get("adapters", {}).values(),
        }  # fmt: skip


def test_a_folder_for_each_of_several_models(shelf: MemoryStore, quick: Path) -> None:
    unpack(shelf, quick)
    assert sorted(os.listdir(quick)) == [
        "Someone-Tiny-v1.5-q4_K",
        "copy",
        "example.com-5000-ns-far-x",
        "full",
        "twin",
    ]
    assert bits(PlainFolder(quick)) == bits(shelf)
    weights = [quick / name / "0.gguf" for name in ("full", "copy", "example.com-5000-ns-far-x")]
    assert len({one.stat().st_ino for one in weights}) == 1
    assert weights[0].stat().st_nlink == 3


def test_where_there_are_no_links_it_is_copied(
    shelf: MemoryStore, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FAT and exFAT; and a copy is checked."""

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not there")

    monkeypatch.setattr(os, "link", no_link)
    unpack(shelf, quick)
    assert bits(PlainFolder(quick)) == bits(shelf)
    assert {one.stat().st_nlink for one in quick.rglob("*") if one.is_file()} == {1}
    assert not [one for one in tree(quick) if ".modelpack" in one]


def test_folders_that_fold_to_one_are_numbered(quick: Path) -> None:
    store = MemoryStore()
    store.image("a/b", *TINY)
    store.image("a-b", *FULL)
    store.image("A-B:x", *TINY)
    store.image("a/B-x", *FULL)
    unpack(store, quick)
    assert sorted(os.listdir(quick)) == ["A-B-x", "a-B-x-2", "a-b", "a-b-2"]
    assert bits(PlainFolder(quick)) == bits(store)
    before = tree(quick)
    unpack(store, quick, list(reversed(store.models())))
    assert tree(quick) == before


HOSTILE = [
    "../../escape", "/etc/passwd", "C:\\x", "..\\..\\x", "CON", "a:b", "x" * 300, "é" * 200, "~/.ssh", "-rf",
    " ", ".bashrc", "a\nFROM b", "a\x00b", "Modelfile", "MODELFILE", "documents", "documents/model.json",
    "LICENSE", "twin", "TWIN", "Twin/x",
]  # fmt: skip


def test_hostile_titles(quick: Path) -> None:
    store = MemoryStore()
    layers = [(LICENSE, b"MIT", None), *((MODEL, noise(50, title), title) for title in HOSTILE)]
    titled(store, "m", *layers)
    files = {title: noise(60, title) for title in HOSTILE}
    recipe_of(store, "r", {"files": files, "adapters": {title: noise(70, title) for title in HOSTILE}})
    recipe_of(store, "g", {"files": {f"{title}.gguf": noise(80, title) for title in HOSTILE}})
    unpack(store, quick / "in" / "out")
    assert bits(PlainFolder(quick / "in" / "out")) == bits(store)
    assert os.listdir(quick / "in") == ["out"]
    assert os.listdir(quick) == ["in"]
    names = files_of(quick / "in" / "out")
    assert len(names) == len({folded(one) for one in names})
    assert all(is_portable(part) for name in names for part in name.split("/"))
    assert len([one for one in names if one.endswith(".gguf")]) == 2 * len(HOSTILE)
    assert {len(name.split("/")) for name in names if name.startswith("r/model")} <= {3, 4}


def test_a_recipe_there_and_back(quick: Path) -> None:
    """What is no GGUF lies in a folder for each field: Ollama takes every *.json one folder deep."""
    store = MemoryStore()
    files = {"model.safetensors": b"w" * 999, "config.json": b"{}", "tokenizer/x.json": b"{}"}
    adapter = {"adapter_model.safetensors": b"a" * 99, "adapter_config.json": b"{}"}
    body = {"files": files, "adapters": adapter, "license": "MIT", "system": "Be.", "quantize": "q4_K_M"}
    recipe_of(store, "r", body)
    notes = unpack(store, quick)
    assert bits(PlainFolder(quick)) == bits(store)
    assert modelfile(quick) == "FROM ./model\nADAPTER ./adapter\nSYSTEM Be.\nLICENSE MIT\n"
    assert notes == ["Its Modelfile cannot say quantize; documents/recipe.json does."]
    names = files_of(quick)
    for field, group in (("model", files), ("adapter", adapter)):
        assert {f"{field}/{title}": data for title, data in group.items()}.items() <= names.items()
    assert set(os.listdir(quick)) == {"Modelfile", "adapter", "documents", "model"}
    assert PlainFolder(quick).fits() is None


def test_recipes_of_ggufs_and_of_a_base(quick: Path) -> None:
    store = MemoryStore()
    model = recipe_of(
        store, "g", {"files": {"sub/x.gguf": WEIGHTS, "mmproj.gguf": b"GGUF"}, "quantize": "q8_0"}
    )
    unpack(store, quick / "g", [model])
    assert modelfile(quick / "g") == "FROM ./mmproj.gguf\nFROM ./x.gguf\n"
    model = recipe_of(store, "f", {"from": "documents", "adapters": {"l.gguf": b"GGUF"}, "system": "S"})
    unpack(store, quick / "f", [model])
    assert modelfile(quick / "f") == "FROM documents:latest\nADAPTER ./l.gguf\nSYSTEM S\n"
    assert [str(one.name) for one in PlainFolder(quick / "f").models()] == ["f:latest"]


def test_layers_that_plain_files_cannot_run(quick: Path) -> None:
    """They are kept all the same, whatever their size, and make the same model again."""
    store = MemoryStore()
    titled(store, "t", (TENSOR, noise(SMALL + 5), "model.embed"), ("application/x-unknown", b"?", None))
    (note,) = unpack(store, quick)
    assert "No Modelfile can say it" in note
    assert "modelpack pack" in note
    assert not (quick / "Modelfile").exists()
    assert os.listdir(quick) == ["documents"]
    assert bits(PlainFolder(quick)) == bits(store)
    assert PlainFolder(quick).fits() is None
    assert unpack(store, quick) == [note]


def test_what_a_modelfile_cannot_say_is_told(quick: Path) -> None:
    store = MemoryStore()
    store.image("m", *TINY, config=b'{"model_format":"gguf","capabilities":["vision"]}\n')
    assert unpack(store, quick) == ["Its Modelfile cannot say info; documents/manifest.json does."]


# --- texts that no Modelfile holds

UNHELD: dict[str, tuple[str, bytes]] = {
    "a line of its own": (SYSTEM, b'Say """\nADAPTER /etc/passwd\n"""\n and "'),
    "no UTF-8": (TEMPLATE, b"\xff\xfe"),
    "a control character": (SYSTEM, b"a\x07b"),
    "too large": (LICENSE, b"x" * (SMALL + 1)),
}


@pytest.mark.parametrize("what", UNHELD)
@pytest.mark.parametrize("beforehand", [True, False])
def test_texts_that_no_modelfile_holds(what: str, beforehand: bool, quick: Path) -> None:
    store = MemoryStore()
    store.image("m", *TINY[:1], UNHELD[what])
    target = PlainFolder(quick / "out", store if beforehand else None)
    with pytest.raises(Unsupported) as caught:
        copy(store, store.models(), target)
    assert "--no-modelfile" in caught.value.advice
    if not beforehand and what != "too large":
        assert PlainFolder(quick / "out").models() == []
    else:
        assert not (quick / "out").exists()
        assert not [one for one in store.opened if one.media_type == MODEL]
    unpack(store, quick / "out", modelfile=False)
    assert not (quick / "out" / "Modelfile").exists()
    assert bits(PlainFolder(quick / "out")) == bits(store)
    assert PlainFolder(quick / "out").fits() is None


def test_one_that_no_modelfile_holds_among_others(quick: Path) -> None:
    store = MemoryStore()
    store.image("good", *TINY)
    store.image("bad", *TINY[:1], UNHELD["a line of its own"])
    with pytest.raises(Partly) as partly:
        unpack(store, quick)
    assert list(partly.value.failed) == ["registry.ollama.ai/library/bad:latest"]
    assert os.listdir(quick) == ["good"]
    unpack(store, quick, modelfile=False)
    assert bits(PlainFolder(quick)) == bits(store)


# --- what is in the way


def test_what_is_there_already_is_left_alone(tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick)
    before = tree(quick)
    tiny.opened.clear()
    assert PlainFolder(quick).placed([tiny.models()[0]])[0] is not None
    unpack(tiny, quick)
    assert not [one for one in tiny.opened if one.media_type == MODEL]
    assert tree(quick) == before
    (quick / "notes.txt").write_text("mine")
    unpack(tiny, quick)
    assert (quick / "notes.txt").read_text() == "mine"


def test_a_modelfile_may_come_later(tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick, modelfile=False)
    unpack(tiny, quick)
    assert (quick / "Modelfile").exists()
    unpack(tiny, quick, modelfile=False)
    assert (quick / "Modelfile").exists()
    assert PlainFolder(quick).fits() is None


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (lambda path: flip(path / "0.gguf"), "0.gguf is not what it was"),
    "cut": (lambda path: os.truncate(path / "0.gguf", 99), "0.gguf is not what it was"),
    "gone": (lambda path: (path / "0.gguf").unlink(), "0.gguf is missing"),
    "a link": (lambda path: relink(path / "0.gguf"), "0.gguf is not what it was"),
    "licence": (lambda path: (path / "LICENSE").write_bytes(b"TIM"), "LICENSE is not what it was"),
    "Modelfile": (lambda path: (path / "Modelfile").write_bytes(b"FROM x\n"), "Modelfile was changed"),
    "huge Modelfile": (lambda path: os.truncate(path / "Modelfile", 1 << 40), "Modelfile was changed"),
    "no Modelfile": (lambda path: (path / "Modelfile").unlink(), "Modelfile is missing"),
    "document": (lambda path: flip(path / "documents" / "manifest.json"), "not the document"),
    "model.json": (lambda path: (path / DOCUMENTS).write_bytes(b"[]"), "not a JSON object"),
}


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def relink(path: Path) -> None:
    path.rename(path.with_suffix(".bak"))
    path.symlink_to(path.with_suffix(".bak"))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_do_not_fit(change: str, shelf: MemoryStore, quick: Path) -> None:
    alter, says = CHANGES[change]
    for path, place in ((quick / "one", ""), (quick / "five", "full/")):
        unpack(shelf, path, [] if place else shelf.models()[:1])
        for one in list(path.rglob("*")):  # links would let others change, too
            if one.is_file():
                raw = one.read_bytes()
                one.unlink()
                one.write_bytes(raw)
        assert PlainFolder(path).fits() is None
        alter(path / place)
        said = PlainFolder(path).fits()
        assert said is not None
        assert says in said
        assert place in said


def test_an_added_modelfile_does_not_fit(tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick, modelfile=False)
    (quick / "Modelfile").write_text("FROM ./0.gguf\n")
    assert PlainFolder(quick).fits() == "Modelfile was added"


@pytest.mark.parametrize(
    "change", [name for name in CHANGES if name not in ("gone", "no Modelfile", "a link", "a bit", "licence")]
)
def test_changed_files_are_not_overwritten(change: str, quick: Path) -> None:
    """Sizes tell, and the hash of the Modelfile; with --replace all is as it was."""
    store = MemoryStore()
    model = store.image("full", *FULL)
    unpack(store, quick)
    want = files_of(quick)
    CHANGES[change][0](quick)
    if change == "huge Modelfile":
        os.truncate(quick / "Modelfile", 70 << 20)
    before = tree(quick)
    with pytest.raises(Taken) as caught:
        unpack(store, quick)
    assert "--replace" in caught.value.advice
    assert tree(quick) == before
    unpack(store, quick, [model], replace=True)
    assert files_of(quick) == want


def test_missing_files_are_brought_again(quick: Path) -> None:
    store = MemoryStore()
    store.image("full", *FULL)
    unpack(store, quick)
    want = files_of(quick)
    for name in ("0.gguf", "Modelfile", "LICENSE", DOCUMENTS):
        (quick / name).unlink()
        unpack(store, quick)
        assert files_of(quick) == want


def test_files_of_the_same_name(tiny: MemoryStore, quick: Path) -> None:
    """Somebody's own file stays; where it is the very same, it is taken up."""
    mine = quick / "0.gguf"
    for raw in (b"mine", noise(len(WEIGHTS))):
        mine.write_bytes(raw)
        with pytest.raises(Taken, match=r"0\.gguf"):
            unpack(tiny, quick)
        assert files_of(quick) == {"0.gguf": raw}
    mine.write_bytes(WEIGHTS)
    inode = mine.stat().st_ino
    tiny.opened.clear()
    unpack(tiny, quick)
    assert not [one for one in tiny.opened if one.media_type == MODEL]
    assert mine.stat().st_ino == inode
    assert bits(PlainFolder(quick)) == bits(tiny)


@pytest.mark.parametrize("raw", [b"FROM x\n", b"\0" * (70 << 20)])
@pytest.mark.parametrize("known", [True, False])
def test_somebodys_modelfile(raw: bytes, known: bool, tiny: MemoryStore, quick: Path) -> None:
    """It stays, even where what it should say is known only at the end; the very same one is taken up."""
    (quick / "Modelfile").write_bytes(raw)
    with pytest.raises(Taken, match="Modelfile"):
        copy(tiny, tiny.models(), PlainFolder(quick, tiny if known else None))
    assert (quick / "Modelfile").read_bytes() == raw
    assert PlainFolder(quick).models() == []
    (quick / "Modelfile").write_bytes(b"FROM ./0.gguf\nTEMPLATE {{ .Prompt }}\nPARAMETER stop <|e|>\n")
    copy(tiny, tiny.models(), PlainFolder(quick, tiny if known else None))
    assert bits(PlainFolder(quick)) == bits(tiny)


def test_no_old_modelfile_tells_of_the_new_model(shelf: MemoryStore, quick: Path) -> None:
    unpack(shelf, quick, shelf.models()[:1])
    unpack(shelf, quick, shelf.models()[2:3], replace=True, modelfile=False)
    assert not (quick / "Modelfile").exists()


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["model", "template", "params", "config"])
def test_a_blob_that_was_damaged_after_a_crash(which: int, tiny: MemoryStore, quick: Path) -> None:
    """What lies under a digest and is something else is written anew."""
    blob = tiny.models()[0].blobs[which]
    path = quick / "documents" / f"sha256-{blob.digest.hex if blob.digest else ''}"
    path.parent.mkdir()
    path.write_bytes(bytes(blob.size))
    unpack(tiny, quick)
    assert bits(PlainFolder(quick)) == bits(tiny)
    assert PlainFolder(quick).fits() is None


def test_what_a_crash_left_whole_is_read_and_not_brought_again(tiny: MemoryStore, quick: Path) -> None:
    path = quick / "documents" / Digest.of(WEIGHTS).file_name
    path.parent.mkdir()
    path.write_bytes(WEIGHTS)
    unpack(tiny, quick)
    assert not [one for one in tiny.opened if one.media_type == MODEL]
    assert bits(PlainFolder(quick)) == bits(tiny)


@pytest.mark.parametrize("which", ["0.gguf", "LICENSE", f"documents/{Digest.of(FULL[2][1]).file_name}"])
def test_replace_looks_at_every_byte_and_repairs(which: str, quick: Path) -> None:
    store = MemoryStore()
    store.image("full", *FULL)
    unpack(store, quick)
    before = files_of(quick)
    flip(quick / which)
    unpack(store, quick)  # without it, sizes count
    assert files_of(quick) != before
    unpack(store, quick, replace=True)
    assert files_of(quick) == before
    store.opened.clear()
    unpack(store, quick, replace=True)
    assert not [one for one in store.opened if one.media_type == MODEL]


def test_a_model_that_was_begun_and_is_not_there_is_said(quick: Path) -> None:
    store = MemoryStore()
    for name in "ab":
        store.image(name, *TINY, (SYSTEM, name.encode()))
    unpack(store, quick)
    assert PlainFolder(quick).left_out() == []
    (quick / "a" / DOCUMENTS).unlink()
    plain = PlainFolder(quick)
    assert [str(one.name) for one in plain.models()] == ["b:latest"]
    assert plain.begun() == ["a"]
    for said in (plain.look(), list(plain.changes()), [plain.fits()]):
        assert said == ["a was not unpacked to its end, or lost its documents/model.json"]
    assert plain.look(plain.models()) == []
    unpack(store, quick)
    assert PlainFolder(quick).begun() == []
    assert bits(PlainFolder(quick)) == bits(store)


def test_what_is_no_part_of_a_model_is_left_out(quick: Path) -> None:
    store = MemoryStore()
    for name in "ab":
        store.image(name, *TINY, (SYSTEM, name.encode()))
    unpack(store, quick)
    (quick / "link").symlink_to("a")
    (quick / "zz").mkdir()
    (quick / "zz" / "Modelfile").write_text("FROM x\n")
    for name in ("new.gguf", "a/new.gguf", ".DS_Store", "b/._0.gguf"):
        (quick / name).write_bytes(b"")
    assert PlainFolder(quick).left_out() == ["link", "new.gguf", "zz", "a/new.gguf"]
    assert PlainFolder(quick / "a").left_out() == ["new.gguf"]


def test_texts_have_room_in_one_modelfile(quick: Path) -> None:
    """They are refused before one of them is read."""
    store = MemoryStore()
    store.image("m", TINY[0], *((LICENSE, bytes([65 + one]) * SMALL) for one in range(3)))
    store.opened.clear()
    with pytest.raises(Unsupported, match=r"12\.6 MB together, and a Modelfile 8\.39 MB at most") as caught:
        unpack(store, quick / "out")
    assert "--no-modelfile" in caught.value.advice
    assert not store.opened
    unpack(store, quick / "out", modelfile=False)
    assert bits(PlainFolder(quick / "out")) == bits(store)


def test_a_damaged_file_is_given_to_no_other_model(quick: Path) -> None:
    store = MemoryStore()
    store.image("a", *TINY)
    store.image("b", TINY[0], (SYSTEM, b"S"))
    unpack(store, quick)
    shutil.rmtree(quick / "b")
    (quick / "a" / "Modelfile").unlink()
    flip(quick / "a" / "0.gguf")
    with pytest.raises(Taken, match=r"0\.gguf is there, and is another file"):
        unpack(store, quick)
    unpack(store, quick, replace=True)
    assert bits(PlainFolder(quick)) == bits(store)


def test_a_list_of_what_was_replaced_that_somebody_wrote(tiny: MemoryStore, quick: Path) -> None:
    """It frees what is as it says, and nothing else."""
    digest = str(Digest.of(b"mine"))
    value = {"files": {"thesis.txt": digest}, "blobs": {digest: {"size": 5}}}
    (quick / "documents").mkdir()
    (quick / "thesis.txt").write_bytes(b"mine")
    for raw in (json.dumps(value), json.dumps(value).replace("thesis.txt", "../x"), "[]"):
        (quick / "documents" / "replaced.json").write_text(raw)
        with pytest.raises(Taken, match=r"thesis\.txt"):
            unpack(tiny, quick)
        unpack(tiny, quick, replace=True)
        assert (quick / "thesis.txt").read_bytes() == b"mine"
        assert not (quick / "documents" / "replaced.json").exists()
        (quick / DOCUMENTS).unlink()


def test_other_things_are_there(tiny: MemoryStore, quick: Path) -> None:
    for name in (".DS_Store", "lost+found", "._x"):
        (quick / name).write_bytes(b"")
    PlainFolder(quick).missing(tiny.models())
    (quick / "thesis.txt").write_text("mine")
    with pytest.raises(Taken, match=r"thesis\.txt"):
        unpack(tiny, quick)
    unpack(tiny, quick, replace=True)
    assert (quick / "thesis.txt").read_text() == "mine"
    (quick / "sub" / "documents").mkdir(parents=True)
    (quick / "sub" / "documents" / "letter.txt").write_text("mine")
    with pytest.raises(Taken, match=r"letter\.txt"):
        unpack(tiny, quick / "sub")


def test_another_model_is_there(shelf: MemoryStore, quick: Path) -> None:
    full, other, *_ = shelf.models()
    unpack(shelf, quick, [full])
    before = tree(quick)
    for models in ([other], [shelf.models()[4]]):
        with pytest.raises(Taken):
            unpack(shelf, quick, models)
    for replace in (True, False):  # nobody is asked whether to replace what cannot be
        with pytest.raises(Refused) as refused:
            unpack(shelf, quick, [full, other], replace=replace)
        assert not isinstance(refused.value, Taken)
    assert tree(quick) == before
    unpack(shelf, quick, [other], replace=True)
    unpack(shelf, quick / "fresh" / "deep", [other])
    want = files_of(quick / "fresh" / "deep")
    assert {name: raw for name, raw in files_of(quick).items() if not name.startswith("fresh")} == want


def test_models_come_beside_those_in_folders(shelf: MemoryStore, quick: Path) -> None:
    unpack(shelf, quick, shelf.models()[:2])
    unpack(shelf, quick, shelf.models()[2:3])
    unpack(shelf, quick)
    assert bits(PlainFolder(quick)) == bits(shelf)


def test_what_a_killed_run_of_another_left_is_swept(tiny: MemoryStore, quick: Path) -> None:
    (quick / "documents").mkdir()
    left = quick / "documents" / Digest.of(b"left").file_name
    left.write_bytes(b"left")
    unpack(tiny, quick)
    assert not left.exists()


PLANTED = [
    "documents",
    ".modelpack",
    "0.gguf",
    "LICENSE",
    "Modelfile",
    DOCUMENTS,
    "documents/manifest.json",
    f"documents/{Digest.of(FULL[0][1]).file_name}",
    f"documents/{Digest.of(FULL[2][1]).file_name}",
]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("sub", ["", "full"])
def test_planted_links(planted: str, dangling: bool, replace: bool, sub: str, quick: Path) -> None:
    """Nothing is written through them, and nothing read through them either."""
    store = MemoryStore()
    store.image("full", *FULL)
    if sub:
        store.image("other", *TINY)
    unpack(store, quick / "outside", store.models()[:1])
    before = tree(quick / "outside")
    path = quick / "out" / ("" if planted == ".modelpack" else sub) / planted
    path.parent.mkdir(parents=True)
    path.symlink_to(quick / ("nowhere" if dangling else f"outside/{planted}"))
    with pytest.raises((Refused, Partly)):
        unpack(store, quick / "out", replace=replace)
    assert tree(quick / "outside") == before
    assert not (quick / "nowhere").exists()
    if not planted.startswith("documents") or dangling:
        assert not (quick / "out" / sub / DOCUMENTS).exists()
    loaded = MemoryStore()
    try:
        plain = PlainFolder(quick / "out")
        for model in plain.models():
            copy(plain, [model], loaded)
    except (Refused, NotFound):
        pass
    assert not [name for name in loaded.kept if "full" in name]


def test_links_inside_are_not_read(quick: Path) -> None:
    store = MemoryStore()
    store.image("full", *FULL)
    unpack(store, quick / "out")
    for name in ("0.gguf", "LICENSE", f"documents/{Digest.of(FULL[2][1]).file_name}"):
        path = quick / "out" / name
        path.rename(quick / "elsewhere")
        path.symlink_to(quick / "elsewhere")
        plain = PlainFolder(quick / "out")
        with pytest.raises(Refused):
            copy(plain, plain.models(), MemoryStore())
        assert plain.fits() is not None
        path.unlink()
        (quick / "elsewhere").rename(path)


# --- crashes


def crashes(work: Callable[[], object], check: Callable[[], object], again: Callable[[], object]) -> int:
    """Let *work* die at each of its steps; the number of steps."""
    for step in range(1000):
        again()
        status = dying(work, step)
        assert status in (0, DIED)
        check()
        if status == 0:
            return step
    raise AssertionError("it never ends")


def fresh(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def test_dying_at_any_step(quick: Path) -> None:
    """What has a model.json is whole; the next run completes the rest."""
    store = MemoryStore()
    store.image("a", TINY[0], (LICENSE, b"MIT"), (SYSTEM, b"S"))
    store.image("b", TINY[0], (LICENSE, b"other"))
    recipe_of(store, "c", {"files": {"model.safetensors": b"w" * 99, "config.json": b"{}"}})
    unpack(store, quick / "want")
    want, whole = files_of(quick / "want"), bits(store)

    def check() -> None:
        there = bits(PlainFolder(quick / "out")) if (quick / "out").exists() else {}
        assert there.items() <= whole.items()
        for record in PlainFolder(quick / "out").records if there else ():
            assert record.modelfile is not None
            assert (quick / "out" / record.folder / "Modelfile").exists()
        unpack(store, quick / "out")
        assert {
            name: raw for name, raw in files_of(quick / "out").items() if ".modelpack" not in name
        } == want

    steps = crashes(lambda: unpack(store, quick / "out"), check, lambda: fresh(quick / "out"))
    assert steps > 80


@pytest.mark.parametrize("links", [True, False])
def test_dying_while_another_is_replaced(quick: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old model, none, or the new one; and the new one stays out of the way until all of it is there."""
    if not links:

        def no_link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "not there")

        monkeypatch.setattr(os, "link", no_link)
    store, old = MemoryStore(), MemoryStore()
    store.image("m", TINY[0], (LICENSE, b"MIT"), (LICENSE, b"second"))
    draft = (DRAFT, noise(99), "old-draft.gguf")
    titled(
        old, "m", (MODEL, noise(len(WEIGHTS)), "0.gguf"), draft, (LICENSE, b"OLD", None), (SYSTEM, b"S", None)
    )
    unpack(store, quick / "want")
    want = files_of(quick / "want")
    seen = set()

    def again() -> None:
        fresh(quick / "out")
        unpack(old, quick / "out")

    def check() -> None:
        there = bits(PlainFolder(quick / "out"))
        assert there in ({}, bits(old), bits(store))
        seen.add(len(there) and next(iter(there.values()))[0])
        assert there or not (quick / "out" / "Modelfile").exists() or modelfile(quick / "out").count("MIT")
        unpack(store, quick / "out", replace=bool(there))  # what a broken run left is in nobody's way
        assert {
            name: raw for name, raw in files_of(quick / "out").items() if ".modelpack" not in name
        } == want

    crashes(lambda: unpack(store, quick / "out", replace=True), check, again)
    assert len(seen) == 3


def test_a_failed_replace_keeps_the_old(quick: Path) -> None:
    store, old = MemoryStore(), MemoryStore()
    old.image("m", *TINY)
    model = store.image("m", *FULL)
    unpack(old, quick)
    store.bytes[model.blobs[1].digest] = b"damaged"
    with pytest.raises(Corrupt):
        unpack(store, quick, replace=True)
    assert bits(PlainFolder(quick)) == bits(old)
    assert PlainFolder(quick).fits() is None


def test_one_that_fails_does_not_keep_the_others(quick: Path) -> None:
    """Even where the weights of both were put into the folder of the one that failed."""
    store = MemoryStore()
    bad = store.image("bad", *TINY[:1], (LICENSE, b"MIT"))
    store.image("good", *TINY[:1], (SYSTEM, b"S"))
    store.bytes[bad.blobs[1].digest] = b"TIM"
    with pytest.raises(Partly) as partly:
        unpack(store, quick)
    assert [str(one) for one in partly.value.failed] == ["registry.ollama.ai/library/bad:latest"]
    assert [str(one.name) for one in PlainFolder(quick).models()] == ["good:latest"]
    assert PlainFolder(quick).fits() == "bad was not unpacked to its end, or lost its documents/model.json"
    store.bytes[bad.blobs[1].digest] = b"MIT"
    store.opened.clear()
    unpack(store, quick)
    assert bits(PlainFolder(quick)) == bits(store)
    assert not [one for one in store.opened[:2] if one.media_type == MODEL]


def test_a_text_that_is_a_link_fails_its_model_alone(quick: Path) -> None:
    store = MemoryStore()
    store.image("good", *TINY)
    store.image("bad", TINY[0], (SYSTEM, b"S"))
    copy(store, store.models(), FolderBundle(quick / "bundle"))
    blob = quick / "bundle" / "blobs" / "sha256" / Digest.of(b"S").hex
    blob.rename(quick / "elsewhere")
    blob.symlink_to(quick / "elsewhere")
    source = FolderBundle(quick / "bundle")
    with pytest.raises(Partly) as partly:
        copy(source, source.models(), PlainFolder(quick / "out", source))
    assert [(name[-10:], type(why)) for name, why in partly.value.failed.items()] == [("bad:latest", Refused)]
    assert [str(one.name) for one in PlainFolder(quick / "out").models()] == ["good:latest"]


def test_a_failed_run_leaves_no_empty_folders(quick: Path) -> None:
    store = MemoryStore()
    for name in "ab":
        store.image(name, (LICENSE, noise(99, name)))
    store.bytes = dict.fromkeys(store.bytes, b"")
    with pytest.raises(Partly):
        unpack(store, quick / "out")
    assert os.listdir(quick / "out") == []


def test_a_full_disk(small_disk: Path) -> None:
    """Said before the first byte, and where it fills up meanwhile nothing looks whole."""
    store = MemoryStore()
    store.image("m", (MODEL, noise(3_000_000)))
    with pytest.raises(Local, match="are free"):
        unpack(store, small_disk / "out")
    assert not (small_disk / "out" / "documents").exists()
    store = MemoryStore()
    model = store.image("m", (MODEL, noise(1_500_000)))

    def fill_up() -> None:
        with PlainFolder(small_disk / "out").session([model]) as session:
            (small_disk / "filler").write_bytes(noise(1_000_000))
            for blob in model.blobs:
                with store.open(blob) as reader:
                    session.put(blob, reader)

    with pytest.raises(Local):
        fill_up()
    assert PlainFolder(small_disk / "out").models() == []
    (small_disk / "filler").unlink()
    unpack(store, small_disk / "out")
    assert bits(PlainFolder(small_disk / "out")) == bits(store)


# --- a model.json that somebody wrote


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def work(raw: bytes) -> bytes:
        value = json.loads(raw)
        change(value)
        return json.dumps(value).encode()

    return work


def renamed(new: str) -> Callable[[bytes], bytes]:
    return broken(lambda value: value["files"].update({new: value["files"].pop("0.gguf")}))


def told(**new: object) -> Callable[[bytes], bytes]:
    """A model.json that says this of every blob."""
    return broken(lambda value: [one.update(new) for one in value["blobs"].values()])


OUT = ["../../secret", "/etc/passwd", "a/../b", "", "a//b", "C:x", "a\\b", ".x", "a/", "x\0"]
LIES: dict[str, Callable[[bytes], bytes]] = {
    **{f"path {path!r}": renamed(path) for path in OUT},
    "a path lost": broken(lambda value: value["files"].pop("0.gguf")),
    "a digest that is none": broken(lambda value: value["files"].update({"0.gguf": "x"})),
    "another size": told(size=5),
    "a negative size": told(size=-5),
    "a title that is none": told(title=7),
    "shards that are none": told(shards=["x"]),
    "no blobs": broken(lambda value: value.pop("blobs")),
    "another document": broken(lambda value: value.update(document=str(Digest.of(b"")))),
    "no name": broken(lambda value: value.update(name="../x/../../y")),
    "a newer format": broken(lambda value: value.update(format=2)),
    "another kind": broken(lambda value: value.update(kind="spell")),
    "a Modelfile's hash that is none": broken(lambda value: value.update(modelfile="x")),
    "a list": lambda _: b"[]",
    "empty": lambda _: b"",
    "deep": lambda _: b"[" * 100_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_json_that_lies(lie: str, tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick / "out")
    (quick / "secret").write_bytes(WEIGHTS)
    path = quick / "out" / DOCUMENTS
    path.write_bytes(LIES[lie](path.read_bytes()))
    with pytest.raises((Corrupt, Unsupported, NotFound)) as caught:
        PlainFolder(quick / "out").models()
    assert isinstance(caught.value, ModelpackError)
    assert caught.value.where
    assert PlainFolder(quick / "out").fits() is not None
    with pytest.raises(Taken, match="cannot be read"):
        unpack(tiny, quick / "out")
    unpack(tiny, quick / "out", replace=True)
    assert bits(PlainFolder(quick / "out")) == bits(tiny)


def test_a_model_json_of_5_gb(tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick)
    os.truncate(quick / DOCUMENTS, 5 * 10**9)
    with pytest.raises(Corrupt):
        PlainFolder(quick).models()


@given(raw=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_model_json(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    (path / "documents").mkdir(parents=True, exist_ok=True)
    (path / DOCUMENTS).write_bytes(raw)
    with pytest.raises((Corrupt, Unsupported)):
        PlainFolder(path).models()


def test_blobs_that_are_not_there(tiny: MemoryStore, quick: Path) -> None:
    unpack(tiny, quick)
    plain = PlainFolder(quick)
    weights = plain.models()[0].blobs[0]
    with pytest.raises(NotFound):
        plain.open(Blob(5, MODEL, Digest.of(b"nobody's")))
    os.truncate(quick / "0.gguf", 7)
    with pytest.raises(Corrupt, match="7 bytes"):
        plain.open(weights)
    (quick / "0.gguf").unlink()
    with pytest.raises(NotFound):
        plain.open(weights)


def test_models_that_are_called_like_marks(quick: Path) -> None:
    store = MemoryStore()
    for name in OTHERS:
        store.image(name, *TINY)
    unpack(store, quick)
    assert not set(OTHERS) & set(os.listdir(quick))
    assert bits(PlainFolder(quick)) == bits(store)


def test_folders_of_others_are_left_alone(shelf: MemoryStore, quick: Path) -> None:
    (quick / "letters" / "documents").mkdir(parents=True)
    (quick / "photos").mkdir()
    (quick / "photos" / "documents").write_bytes(b"a file")
    (quick / "odd").symlink_to("/etc")
    unpack(shelf, quick)
    assert bits(PlainFolder(quick)) == bits(shelf)
    assert len(plan(shelf, shelf.models(), PlainFolder(quick)).missing) == 0
    assert len(os.listdir(quick)) == 8
    assert LONGEST == 255
