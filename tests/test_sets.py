"""Several models at once: one that fails does not undo the others; a bundle changes once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import DIED, TINY, MemoryStore, bits, dying

from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, NotFound, Partly, Taken, Unsupported
from modelpack.hands.bytes import StreamReader
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource
from modelpack.verbs.plans import plan, settle
from modelpack.verbs.transfer import copy
from modelpack.words.blob import FILE, LICENSE, MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name


def three() -> MemoryStore:
    """Three models; the first two share their weights."""
    store = MemoryStore()
    store.image("a", *TINY)
    store.image("b", TINY[0], (LICENSE, b"MIT"))
    store.image("c", (MODEL, b"GGUF of c" * 999), (LICENSE, b"MIT"))
    return store


def test_a_recipe_among_images_goes_to_no_directory(tmp_path: Path) -> None:
    store = three()
    store.recipe("needs-a-server", **{"model.safetensors": b"weights"})
    with pytest.raises(Partly) as partly:
        copy(store, store.models(), ModelsDir(tmp_path / "models"))
    error = partly.value.failed["registry.ollama.ai/library/needs-a-server:latest"]
    assert isinstance(error, Unsupported)
    assert "only an Ollama server" in str(error)
    assert sorted(bits(ModelsDir(tmp_path / "models"))) == sorted(
        one for one in bits(store) if "needs" not in one
    )


def test_alone_it_raises_what_is_against_it(tmp_path: Path) -> None:
    store = MemoryStore()
    store.recipe("needs-a-server", **{"model.safetensors": b"weights"})
    with pytest.raises(Unsupported):
        copy(store, store.models(), ModelsDir(tmp_path / "models"))
    assert not (tmp_path / "models").exists()


def test_a_taken_name_is_said_before_a_byte_moves(tmp_path: Path) -> None:
    store = three()
    copy(store, store.models()[:1], ModelsDir(tmp_path / "models"))
    other = MemoryStore()
    other.image("a", (MODEL, b"another"))
    other.image("new", (MODEL, b"new"))
    with pytest.raises(Taken):
        copy(other, other.models(), ModelsDir(tmp_path / "models"))
    assert sorted(bits(ModelsDir(tmp_path / "models"))) == ["registry.ollama.ai/library/a:latest"]


def test_a_lost_blob_fails_its_models_alone(tmp_path: Path) -> None:
    store = three()
    weights = store.models()[0].blobs[0]
    del store.bytes[weights.digest]
    with pytest.raises(Partly) as partly:
        copy(store, store.models(), ModelsDir(tmp_path / "models"))
    assert sorted(Name.parse(one).model for one in partly.value.failed) == ["a", "b"]
    assert all(isinstance(one, NotFound) for one in partly.value.failed.values())
    assert sorted(bits(ModelsDir(tmp_path / "models"))) == ["registry.ollama.ai/library/c:latest"]
    assert len(partly.value.done) == 1


def test_out_of_a_pipe_too(tmp_path: Path) -> None:
    store = three()
    copy(store, store.models(), Archive(tmp_path / "b.tar"))
    raw = bytearray((tmp_path / "b.tar").read_bytes())
    raw[raw.index(b"GGUF of c") + 4000] ^= 1
    (tmp_path / "b.tar").write_bytes(raw)
    with (tmp_path / "b.tar").open("rb") as file:
        pipe = PipeSource(StreamReader(file.fileno(), "a pipe"), "a pipe")
        models = pipe.models()
        with pytest.raises(Partly) as partly:
            copy(pipe, models, ModelsDir(tmp_path / "models"))
    assert [Name.parse(one).model for one in partly.value.failed] == ["c"]
    assert len(ModelsDir(tmp_path / "models").models()) == 2


def test_a_model_that_was_there_is_said_to_be_so(tmp_path: Path) -> None:
    store = three()
    copy(store, store.models()[:1], ModelsDir(tmp_path / "models"))
    weights = ModelsDir(tmp_path / "models").file_of(store.models()[0].blobs[0].digest or Digest.of(b""))
    first, second = copy(store, store.models()[:2], ModelsDir(tmp_path / "models"))
    assert (first.there, second.there) == (True, False)
    assert not first.sent
    assert weights.name.removeprefix("sha256-") in {blob.digest.hex for blob in second.present if blob.digest}


def test_a_model_of_very_many_blobs_is_named_in_linear_time(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("m", (MODEL, b"weights"), *((LICENSE, b"%d" % number) for number in range(3000)))
    asked = 0

    def counted(blob: Blob) -> object:
        nonlocal asked
        asked += 1
        return plain(blob)

    plain = Blob.id.fget  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Blob, "id", property(counted))
        copy(store, store.models(), MemoryStore())
    assert asked < 3001 * 100


@pytest.mark.parametrize("kind", [Archive, FolderBundle])
def test_a_bundle_is_all_or_nothing(tmp_path: Path, kind: type[Archive] | type[FolderBundle]) -> None:
    store = three()
    store.bytes[store.models()[2].blobs[0].digest] = b"damaged" * 1284
    with pytest.raises(Corrupt):
        copy(store, store.models(), kind(tmp_path / "b.tar"))
    assert not (tmp_path / "b.tar").is_file()
    assert not (tmp_path / "b.tar" / "index.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_crash_leaves_the_old_set_or_the_new_one(quick: Path) -> None:
    store = three()
    old = set(bits(store)) - {"registry.ollama.ai/library/b:latest", "registry.ollama.ai/library/c:latest"}
    seen = set()
    for after in range(1000):
        path = quick / f"{after}"
        copy(store, store.models()[:1], FolderBundle(path))
        died = dying(lambda: copy(store, store.models(), FolderBundle(path)), after)  # noqa: B023
        there = frozenset(bits(FolderBundle(path)))
        assert there in (old, set(bits(store)))
        seen.add(there)
        if died != DIED:
            break
    assert len(seen) == 2
    assert after > 10


def test_what_is_learned_by_reading_is_kept(tmp_path: Path) -> None:
    """The digests of shards: in the bundle's own manifest, however it was packed, and copied on."""
    store = three()
    shards = (Digest.of(b"1"), Digest.of(b"2"))
    unread = Blob(1000, MODEL, key="merged", shards=(None, None))
    store.bytes["merged"] = b"x" * 1000

    class Merging(MemoryStore):
        def learned(self, blob: Blob) -> Blob:
            return replace(blob, shards=shards) if blob.key == "merged" else blob

    merging = Merging()
    merging.bytes = store.bytes
    config = store.models()[0].blobs[-1]
    model = Model(Name.parse("merged"), Image.compose(config, [unread]))
    copy(merging, [model], Archive(tmp_path / "b.tar"))
    copy(merging, [model], FolderBundle(tmp_path / "folder"))
    copy(merging, settle(merging, [model]), Archive(tmp_path / "hashed-first.tar"))
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "hashed-first.tar").read_bytes()
    archive = Archive(tmp_path / "b.tar")
    assert archive.models()[0].blobs[0].shards == shards
    assert FolderBundle(tmp_path / "folder").fingerprint == archive.fingerprint
    copy(archive, archive.models(), FolderBundle(tmp_path / "again"))
    assert FolderBundle(tmp_path / "again").fingerprint == archive.fingerprint


def test_a_recipe_of_unread_files_is_as_long_as_in_the_end(tmp_path: Path) -> None:
    store = MemoryStore()
    files = {
        title: store.blob(raw, FILE, title=title, unread=True)
        for title, raw in {"config.json": b"{}", "model.safetensors": b"weights", "x.json": b"[1]"}.items()
    }
    recipe = Recipe.compose({"quantize": "q4_K_M", "license": ["MIT"]}, {"files": files})
    copy(store, [Model(Name.parse("r"), recipe)], Archive(tmp_path / "r.tar"))
    (found,) = Archive(tmp_path / "r.tar").models()
    assert isinstance(found.document, Recipe)
    assert len(found.document.raw) == len(recipe.raw)
    assert found.document.body["files"]["model.safetensors"] == str(Digest.of(b"weights"))
    assert json.loads(found.document.raw) == found.document.body
    todo = plan(Archive(tmp_path / "r.tar"), [found], FolderBundle(tmp_path / "f"))
    assert todo.bytes == 2 + 7 + 3
