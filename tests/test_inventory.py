"""What a host has: asked of a directory and of a server, written down, read strictly."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FULL, MemoryStore
from hypothesis import given
from hypothesis import strategies as st
from servers import head_of, ok, talking
from test_cli import modelpack

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.inventory import LIMIT, Held, Inventory
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported, Usage
from modelpack.hands.ollama import Ollama
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.inventory import inventory, of_directory, of_server, write
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MODEL, TEMPLATE
from modelpack.words.digest import Digest
from modelpack.words.name import Name

WORDS = st.text("abcdefghijABC0123456789", min_size=1, max_size=8)
NAMES = st.builds(Name, st.sampled_from(["registry.ollama.ai", "example.com:5000"]), WORDS, WORDS, WORDS)
DIGESTS = st.integers(0, 2**256 - 1).map(lambda number: Digest("sha256", f"{number:064x}"))
SIZES = st.integers(0, 1 << 40)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    sizes = draw(st.dictionaries(DIGESTS, SIZES, max_size=6))
    models = []
    for name, digest in draw(st.dictionaries(NAMES, DIGESTS, max_size=5)).items():
        told = draw(st.booleans()) if digest not in {one.id for one in models} else False
        blobs = [one for one in sorted(sizes.items()) if draw(st.booleans())]
        size = sum(size for _, size in blobs) if told else draw(SIZES)
        models.append(Held(name, digest, size, tuple(blobs) if told else None))
    version = draw(st.none() | st.sampled_from(["0.33.0", "0.34.0-rc2", "0.0.0"]))
    return Inventory.of(models, version)


# --- the file


@given(inventories())
def test_what_is_written_is_read(made: Inventory) -> None:
    raw = made.to_bytes()
    assert raw.isascii()
    assert Inventory.parse(raw, "here") == made
    assert Inventory.parse(json.dumps(json.loads(raw)).encode(), "here") == made  # by another tool


@given(inventories(), st.data())
def test_a_cut_inventory_is_corrupt(made: Inventory, data: st.DataObject) -> None:
    raw = made.to_bytes()
    at = data.draw(st.integers(0, len(raw.rstrip()) - 1))
    with pytest.raises(Corrupt):
        Inventory.parse(raw[:at], "here")


@given(inventories(), st.data())
def test_an_edited_inventory_is_refused_or_consistent(made: Inventory, data: st.DataObject) -> None:
    raw = bytearray(made.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Inventory.parse(bytes(raw), "here")
    except (Corrupt, Unsupported):
        return
    assert Inventory.parse(found.to_bytes(), "here") == found


_KEYS = st.sampled_from(["name", "id", "size", "blobs", "digest", "models"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(_KEYS, one),
)


@given(JSON)
def test_any_json_is_refused(value: Any) -> None:
    for one in (value, {"schema": "modelpack.inventory", "version": 1, "models": value}):
        if one != {"schema": "modelpack.inventory", "version": 1, "models": []}:
            with pytest.raises((Corrupt, Unsupported), match=r"^here: "):
                Inventory.parse(json.dumps(one).encode(), "here")


def some() -> dict[str, Any]:
    digests = [Digest.of(b"a"), Digest.of(b"b")]
    blobs = tuple(sorted((digest, 5) for digest in digests))
    models = [Held(Name.parse(name), Digest.of(b"m"), 10, blobs) for name in ("a", "b")]
    return Inventory.of(models, "0.33.0").to_json()


def test_what_cannot_be_is_corrupt() -> None:
    def changed(change: Any) -> bytes:
        value = some()
        change(value)
        return json.dumps(value).encode()

    first = lambda value: value["models"][0]  # noqa: E731

    def other(value: Any) -> None:
        """Another model, which says that a blob of the first is larger."""
        value["models"][1].update(id=str(Digest.of(b"n")), size=11)
        value["models"][1]["blobs"][0].update(size=6)

    for change in (
        other,
        lambda value: first(value).update(size=11),
        lambda value: first(value).update(name="a"),
        lambda value: first(value).update(name="registry.ollama.ai/library/b:latest"),
        lambda value: first(value).update(id="sha256:12"),
        lambda value: first(value).update(id="blake3:" + 64 * "0"),
        lambda value: first(value).update(path="/home/anna"),
        lambda value: first(value)["blobs"].reverse(),
        lambda value: first(value)["blobs"].pop(),
        lambda value: first(value)["blobs"][0].update(size=-5),
        lambda value: first(value).update(size=10, blobs=[{"digest": str(Digest.of(b"c")), "size": 10}]),
        lambda value: value["models"].reverse(),
        lambda value: value.update(host="gpu-7"),
        lambda value: value.update(ollama="<script>"),
        lambda value: value.update(ollama=None),
        lambda value: value.update(models=None),
        lambda value: value.update(version="1"),
        lambda value: value.update(schema="something"),
    ):
        with pytest.raises(Corrupt):
            Inventory.parse(changed(change), "here")
    with pytest.raises(Unsupported, match="version 2"):
        Inventory.parse(changed(lambda value: value.update(version=2)), "here")
    with pytest.raises(Corrupt):
        Inventory.parse(b" " * (LIMIT + 1), "here")
    with pytest.raises(Corrupt, match="20000 models"):
        Inventory.parse(changed(lambda value: value.update(models=[{}] * 20_001)), "here")
    with pytest.raises(Corrupt, match="lists and objects"):
        Inventory.parse(b"[" * 2_000_000, "here")


# --- a models directory, a server


def test_of_a_directory(shelf: MemoryStore, tmp_path: Path) -> None:
    place = tmp_path / "secret-host" / "models"
    copy(shelf, shelf.models(), ModelsDir(place))
    took = of_directory(ModelsDir(place))
    assert took.left_out == ()
    assert took.inventory.version is None
    by_name = {one.name: one for one in took.inventory.models}
    assert by_name.keys() == {model.name for model in shelf.models()}
    for model in shelf.models():
        one = by_name[model.name]
        assert (one.id, one.size) == (model.document.id, model.size)
        assert dict(one.blobs or ()) == {blob.digest: blob.size for blob in model.blobs}
    assert took.inventory.to_bytes() == of_directory(ModelsDir(place)).inventory.to_bytes()
    assert b"secret-host" not in took.inventory.to_bytes()


def test_what_is_not_whole_is_not_claimed(shelf: MemoryStore, tmp_path: Path) -> None:
    store = ModelsDir(tmp_path)
    copy(shelf, shelf.models(), store)
    gone, short = (store.file_of(Digest.of(data)) for data in (FULL[-1][1], b"{{ .Prompt }}"))
    gone.unlink()
    short.write_bytes(b"{{")
    (tmp_path / "manifests" / "registry.ollama.ai" / "library" / "full" / "torn").write_bytes(b"")
    took = of_directory(store)
    assert [str(one.name) for one in took.inventory.models] == ["example.com:5000/ns/far:x"]
    assert len(took.left_out) == 5
    assert {type(one) for one in took.left_out} == {NotFound, Corrupt}
    assert Inventory.parse(took.inventory.to_bytes(), "") == took.inventory


def test_a_size_that_another_manifest_contradicts(tmp_path: Path) -> None:
    store = MemoryStore()
    store.image("a", *FULL[3:5])
    copy(store, store.models(), ModelsDir(tmp_path))
    liar = store.image("b", *FULL[3:5], config=b'{"model_format":"gguf","name":"a"}\n').document.raw
    path = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "b" / "latest"
    path.parent.mkdir()
    path.write_bytes(liar.replace(b'"size":20', b'"size":30'))
    took = of_directory(ModelsDir(tmp_path))
    assert [str(one.name) for one in took.inventory.models] == ["a:latest"]
    assert [type(one) for one in took.left_out] == [Corrupt]


def test_a_directory_without_blobs(tiny: MemoryStore, tmp_path: Path) -> None:
    copy(tiny, tiny.models(), ModelsDir(tmp_path))
    for one in (tmp_path / "blobs").iterdir():
        one.unlink()
    (tmp_path / "blobs").rmdir()
    took = of_directory(ModelsDir(tmp_path))
    assert (took.inventory.models, len(took.left_out)) == ((), 1)


def test_a_server_tells_ids_and_its_version(shelf: MemoryStore, tmp_path: Path) -> None:
    copy(shelf, shelf.models(), ModelsDir(tmp_path))
    with running(Depot(tmp_path)) as url, Ollama(url) as client:
        found = of_server(client)
        assert inventory(url).inventory == found
    whole = of_directory(ModelsDir(tmp_path)).inventory
    assert found.version
    assert found.models == tuple(dataclasses.replace(one, blobs=None) for one in whole.models)
    assert url.rpartition(":")[2].encode() not in found.to_bytes()


def test_names_for_a_moment_are_left_out(shelf: MemoryStore, tmp_path: Path) -> None:
    """They tell addresses of whoever loaded to the host, or read there."""
    copy(shelf, shelf.models(), ModelsDir(tmp_path))
    want = of_directory(ModelsDir(tmp_path)).inventory
    left = tmp_path / "manifests" / "10.0.0.7:41234" / "modelpack" / f"{'a' * 12}-{'b' * 32}"
    left.mkdir(parents=True)
    raw = (tmp_path / "manifests" / "registry.ollama.ai" / "library" / "full" / "latest").read_bytes()
    (left / "latest").write_bytes(raw)
    assert of_directory(ModelsDir(tmp_path)).inventory == want
    with running(Depot(tmp_path)) as url:
        assert [one.name for one in inventory(url).inventory.models] == [one.name for one in want.models]


def test_no_name_is_picked_of_a_server() -> None:
    """Its port would be no port, and another one be asked."""
    with pytest.raises(Usage, match="all that a server has"):
        inventory("http://127.0.0.1:11434#tiny")


def test_a_version_that_is_none_is_not_told() -> None:
    assert Inventory.of((), "\x1b]0;hello").version is None
    assert Inventory.of((), "0.33.0").version == "0.33.0"


@pytest.mark.parametrize(
    "model",
    [
        {"name": "", "digest": "a" * 64, "size": 1},
        {"name": "../x", "digest": "a" * 64, "size": 1},
        {"name": "m", "digest": "a" * 64},
        {"name": "m", "digest": "a" * 64, "size": -1},
        {"name": "m", "digest": "abc", "size": 1},
    ],
)
def test_a_server_that_says_nonsense(model: dict[str, Any]) -> None:
    answers = [ok(b'{"version":"0.33.0"}'), ok(json.dumps({"models": [model]}).encode())]

    def talk(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(answers.pop(0))

    with talking(talk, 2) as url, Ollama(url) as client, pytest.raises(Unsupported):
        of_server(client)


def test_other_places_are_refused(tmp_path: Path) -> None:
    for text in ("oci://example.com/ns", str(tmp_path), "10.0.0.5:11434"):
        with pytest.raises(ModelpackError) as caught:
            inventory(text)
        assert caught.value.exit_code in (2, 3, 5)


def test_a_thousand_models(tmp_path: Path) -> None:
    """In two seconds; here every model has six blobs, and each is looked at."""
    store = MemoryStore()
    for number in range(40):
        store.image(f"m{number}", (MODEL, b"GGUF%d" % number), (TEMPLATE, b"t%d" % number), *FULL[3:])
    copy(store, store.models(), ModelsDir(tmp_path))
    library = tmp_path / "manifests" / "registry.ollama.ai" / "library"
    for number in range(40):
        raw = (library / f"m{number}" / "latest").read_bytes()
        for tag in range(24):
            (library / f"m{number}" / f"t{tag}").write_bytes(raw)
    begun = time.perf_counter()
    took = of_directory(ModelsDir(tmp_path))
    raw = took.inventory.to_bytes()
    assert time.perf_counter() - begun < 2
    assert len(Inventory.parse(raw, "").models) == 1000


# --- the command


def test_the_command(shelf: MemoryStore, tmp_path: Path) -> None:
    copy(shelf, shelf.models(), ModelsDir(tmp_path / "models"))
    want = of_directory(ModelsDir(tmp_path / "models")).inventory
    done = modelpack("inventory", "--from", "models", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, want.to_bytes())
    assert b"models: 5 models" in done.stderr
    done = modelpack(
        "inventory", "-o", "there.json", "-q", cwd=tmp_path, OLLAMA_MODELS=str(tmp_path / "models")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "there.json").read_bytes() == want.to_bytes()
    assert [one.name for one in tmp_path.iterdir() if "modelpack" in one.name] == []
    (tmp_path / "models" / "blobs" / Digest.of(b"MIT").file_name).unlink()
    done = modelpack("inventory", "--from", "models", "-o", "there.json", cwd=tmp_path)
    assert done.returncode == 0
    assert b"3 models left out" in done.stderr
    assert len(Inventory.parse((tmp_path / "there.json").read_bytes(), "").models) == 2


def test_the_server_where_no_directory_is(shelf: MemoryStore, tmp_path: Path) -> None:
    copy(shelf, shelf.models(), ModelsDir(tmp_path / "models"))
    with running(Depot(tmp_path / "models")) as url:
        done = modelpack("inventory", cwd=tmp_path, OLLAMA_HOST=url, HOME=str(tmp_path / "nobody"))
    if not os.path.exists("/usr/share/ollama/.ollama/models"):
        assert done.returncode == 0, done.stderr
        assert url.encode() in done.stderr
        assert len(Inventory.parse(done.stdout, "").models) == 5


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"a bundle of 40 GB")
    with pytest.raises(Refused):
        write(tmp_path / "b.tar", Inventory(None, ()))
    assert (tmp_path / "b.tar").read_bytes() == b"a bundle of 40 GB"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelpackError):
        write(tmp_path / "empty", Inventory(None, ()))
