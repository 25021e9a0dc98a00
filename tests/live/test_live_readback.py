"""Reading models back from a real Ollama: by push to the small registry, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from conftest import SHARED, bits, needs_shared

from live.test_live_trip import TINY, create_plainly, tokens
from modelpack import Archive, Corrupt, ModelsDir, Unreachable, copy
from modelpack.documents.model import blobs_of
from modelpack.errors import Unsupported
from modelpack.hands.callback import Callback, Calling, reach
from modelpack.hands.ollama import Ollama
from modelpack.stores import Source
from modelpack.stores.server import ServerSource
from modelpack.words.blob import MODEL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import fill

pytestmark = pytest.mark.live

Start = Callable[[], AbstractContextManager[Ollama]]


def read(source: Source, blob: Blob, offset: int = 0) -> bytes:
    held = bytearray(blob.size + 10)
    with source.open(blob, offset) as reader:
        return bytes(held[: fill(reader, memoryview(held))])


def names(client: Ollama) -> list[str]:
    return sorted(one.name for one in client.list())


def recorded(to: Path, version: str) -> None:
    """A recorded models directory, writable, as the server's own."""
    assert SHARED is not None
    shutil.copytree(SHARED / "recorded" / version, to)
    for path in (to, *to.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_the_way_back(ollama: Ollama) -> None:
    """The probe: who comes, and that nothing stays behind."""
    with Callback(ollama.base) as callback:
        caller = reach(ollama, callback)
    number = ollama.version().partition("-")[0]
    assert (caller.system, caller.address) == ("linux", "127.0.0.1")
    assert caller.version == tuple(int(part) for part in number.split("."))
    assert names(ollama) == []


def test_no_way_back(ollama: Ollama) -> None:
    """A server whose pull is not let out: the reason is its own, or that nobody came, within seconds."""
    with (
        Callback(ollama.base, Calling("192.0.2.1:5000", "127.0.0.1")) as callback,
        pytest.raises(Unreachable) as caught,
    ):
        reach(ollama, callback, 3)
    assert "192.0.2.1" in str(caught.value)
    assert "--callback" in caught.value.advice


@pytest.mark.parametrize("version", ["models-0.24", "models-0.33"])
@needs_shared
def test_every_recorded_model_comes_back(start: Start, tmp_path: Path, version: str) -> None:
    home = tmp_path / "ollama"
    home.mkdir()
    recorded(home / "models", version)
    want = bits(ModelsDir(home / "models"))
    assert len(want) >= 8
    with start() as ollama, ServerSource(ollama) as source:
        before = names(ollama)
        copy(source, source.models(), Archive(tmp_path / "b.tar"))
        assert bits(Archive(tmp_path / "b.tar")) == want
        assert names(ollama) == before
        blobs = blobs_of(source.models())
        assert [Digest.of(read(source, blob)) for blob in blobs] == [blob.digest for blob in blobs]
        assert read(source, blobs[0], 1) == read(source, blobs[0])[1:]


def test_it_says_the_same_elsewhere(start: Start, tmp_path: Path) -> None:
    """Read back from one server, and run by the next, from an empty directory."""
    with start() as ollama, ServerSource(ollama) as source:
        create_plainly(ollama, "before")
        said = tokens(ollama, "before")
        copy(source, source.models(), Archive(tmp_path / "b.tar"))
    models = tmp_path / "ollama" / "models"
    models.rename(tmp_path / "old")
    store = Archive(tmp_path / "b.tar")
    copy(store, store.models(), ModelsDir(models))
    with start() as ollama:
        assert tokens(ollama, "before") == said


def test_damage_is_found(ollama: Ollama, tmp_path: Path) -> None:
    """Some bytes of a blob on the server's disk are others: every other call there says that all is well."""
    create_plainly(ollama, "m")
    store = ModelsDir(tmp_path / "ollama" / "models")
    weights = max(blobs_of(store.models()), key=lambda one: one.size)
    assert weights.digest is not None
    file = store.file_of(weights.digest)
    file.chmod(0o644)
    with file.open("r+b") as there:
        there.seek(-5000, 2)
        there.write(b"\xff" * 5000)
    assert ollama.has_blob(weights.digest)
    with ServerSource(ollama) as source:
        models = source.models()
        assert Digest.of(read(source, weights)) != weights.digest
        with pytest.raises(Corrupt):
            copy(source, models, Archive(tmp_path / "b.tar"))
    assert not (tmp_path / "b.tar").exists()
    assert names(ollama) == ["m:latest"]


@pytest.mark.parametrize("by", [-100, 100])
def test_another_length_is_found(ollama: Ollama, tmp_path: Path, by: int) -> None:
    """A blob that was cut on the server's disk, or goes on."""
    create_plainly(ollama, "m")
    store = ModelsDir(tmp_path / "ollama" / "models")
    weights = max(blobs_of(store.models()), key=lambda one: one.size)
    assert weights.digest is not None
    file = store.file_of(weights.digest)
    file.chmod(0o644)
    os.truncate(file, weights.size + by)
    with ServerSource(ollama) as source:
        source.models()
        with pytest.raises(Corrupt):
            read(source, weights)


def big_model(models: Path, size: int) -> bytes:
    """A model of *size* bytes of weights; the bytes. 0.24 ends where its GGUF is none."""
    data = TINY.read_bytes().ljust(1 << 20, b"-") + os.urandom(1 << 20) * ((size >> 20) - 1)
    config = b'{"model_format":"gguf"}'
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": str(Digest.of(config)),
            "size": len(config),
        },
        "layers": [{"mediaType": MODEL, "digest": str(Digest.of(data)), "size": len(data)}],
    }
    (models / "blobs").mkdir(parents=True)
    for each in (config, data):
        (models / "blobs" / Digest.of(each).file_name).write_bytes(each)
    place = models / "manifests" / "registry.ollama.ai" / "library" / "big"
    place.mkdir(parents=True)
    (place / "latest").write_text(json.dumps(manifest, separators=(",", ":")))
    return data


def test_several_parts_and_several_readers(start: Start, tmp_path: Path) -> None:
    """More than 100 MB go in parts; two readers of one blob, one left early, and one from the middle."""
    data = big_model(tmp_path / "ollama" / "models", 230 << 20)
    with start() as ollama, ServerSource(ollama) as source:
        weights = max(blobs_of(source.models()), key=lambda one: one.size)
        with source.open(weights) as reader:
            assert reader.readinto(memoryview(bytearray(1000)))
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda offset: read(source, weights, offset), [0, 150 << 20]))
        assert found == [data, data[150 << 20 :]]
        assert names(ollama) == ["big:latest"]


def test_two_programs_read_one_blob(start: Start, tmp_path: Path) -> None:
    """The server sends a blob once at a time: who comes second has it sent again."""
    data = big_model(tmp_path / "ollama" / "models", 120 << 20)
    with start() as ollama, ServerSource(ollama) as one, ServerSource(ollama) as other:
        weights = max(blobs_of(one.models()), key=lambda each: each.size)
        other.models()
        met = threading.Barrier(2)

        def both(source: ServerSource) -> bytes:
            met.wait(10)
            return read(source, weights)

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(both, [one, other])) == [data, data]


def test_a_model_of_tensors(start: Start, tmp_path: Path) -> None:
    """Its push takes another way in the server (x/transfer): the manifest comes as it is."""
    models = tmp_path / "ollama" / "models"
    data = big_model(models, 1 << 20)
    place = models / "manifests" / "registry.ollama.ai" / "library" / "big" / "latest"
    manifest = json.loads(place.read_text())
    manifest["layers"][0]["mediaType"] = "application/vnd.ollama.image.tensor"
    for number in range(150):  # more than are asked for at a time
        small = f"tensor {number}".encode()
        digest = Digest.of(small)
        (models / "blobs" / digest.file_name).write_bytes(small)
        layer = {
            "mediaType": "application/vnd.ollama.image.tensor",
            "digest": str(digest),
            "size": len(small),
        }
        manifest["layers"].append(layer | {"name": f"t.{number}"})
    place.write_text(json.dumps(manifest))
    with start() as ollama, ServerSource(ollama) as source:
        if not ollama.about().is_at_least(0, 19, 0):  # it loses their names, and says so by the ID
            with pytest.raises(Unsupported, match="its exact bytes cannot be had by push"):
                source.models()
            return
        (model,) = source.models()
        assert model.document.raw == place.read_bytes()
        assert read(source, next(one for one in model.blobs if one.size == len(data))) == data
        assert read(source, model.blobs[-1]) == small or read(source, model.blobs[-2]) == small
