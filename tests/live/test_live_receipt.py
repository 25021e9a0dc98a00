"""Receipts of loads to a real Ollama: reading back, one token, and drift that `check` sees."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from modelpack import LooseGguf, copy
from modelpack.documents.record import Host
from modelpack.errors import Corrupt
from modelpack.hands.callback import Calling
from modelpack.hands.ollama import Ollama
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.afterwards import Aftermath, Afterwards
from modelpack.verbs.attempt import attempt
from modelpack.verbs.check import Checked, check
from modelpack.verbs.record import read
from modelpack.verbs.targets import server

from .conftest import Starter
from .test_live_trip import TINY

pytestmark = pytest.mark.live
LOOPBACK = Calling(callback="127.0.0.1")


def loaded(client: Ollama, file: Path, *, trying: bool = True) -> Aftermath:
    """The tiny model, loaded, proven and tried; its receipt stands in *file*."""
    source = LooseGguf(TINY)
    target = server(client.base, source)
    after = Afterwards(target, receipt=file, proving=True, trying=trying, calling=LOOPBACK)
    return after.finish(copy(source, source.models(), target), {})


def checked(file: Path, *, prove: bool = False) -> Checked:
    return check(read(file), calling=LOOPBACK, prove=prove)


def found(file: Path, *, prove: bool = False) -> list[str]:
    return [str(one.found) for one in checked(file, prove=prove).models]


def weights(home: Path) -> Path:
    return max((home / "models" / "blobs").iterdir(), key=lambda file: file.stat().st_size)


def test_a_load_with_its_receipt(ollama: Ollama, tmp_path: Path) -> None:
    """One token comes; a second load finds all there, and reads it back."""
    first = loaded(ollama, tmp_path / "r.json")
    assert first.errors == []
    second = loaded(ollama, tmp_path / "r.json")
    assert second.errors == []
    record = read(tmp_path / "r.json")
    assert record.host == Host("server", ollama.base, ollama.version())
    (model,) = record.models
    assert model.tried is not None
    assert (model.tried.ok, model.tried.kind, model.tried.length) == (True, "token", 1)
    assert ollama.running() == ()  # it was unloaded
    if model.way == "exact":
        assert (model.same, model.id) == ("bytes", model.document)
        assert {str(one.state) for one in model.blobs} == {"read back"}
    assert found(tmp_path / "r.json", prove=True) == ["same"]


def test_a_damaged_blob_is_found_by_reading_back_alone(ollama: Ollama, tmp_path: Path) -> None:
    loaded(ollama, tmp_path / "r.json", trying=False)
    file = weights(tmp_path / "ollama")
    raw = bytearray(file.read_bytes())
    raw[-4096:] = bytes(byte ^ 255 for byte in raw[-4096:])
    file.write_bytes(raw)
    assert found(tmp_path / "r.json") == ["same"]
    after = checked(tmp_path / "r.json", prove=True)
    assert [str(one.found) for one in after.models] == ["damaged"]
    again = loaded(ollama, tmp_path / "s.json", trying=False)
    assert isinstance(again.errors[0], Corrupt), again.errors
    assert ("prove", "Corrupt") in [(one.step, one.kind) for one in read(tmp_path / "s.json").failed]


def test_drift(start: Starter, tmp_path: Path) -> None:
    with start() as client:
        loaded(client, tmp_path / "r.json", trying=False)
        (name,) = (one.name for one in client.list())
        client.create(name, from_=name, system="You are another.").last()
        assert found(tmp_path / "r.json") == ["another model"]
        client.delete(name)
        assert found(tmp_path / "r.json") == ["gone"]


def test_made_by_create(ollama: Ollama, tmp_path: Path) -> None:
    """Its ID and small layers are proven; of weights that the server rewrote the receipt says: unproven."""
    source = LooseGguf(TINY)
    target = ServerCreate(ollama, source=source)
    after = Afterwards(target, receipt=tmp_path / "r.json", proving=True, trying=True, calling=LOOPBACK)
    done = after.finish(copy(source, source.models(), target), {})
    assert done.errors == []
    (model,) = read(tmp_path / "r.json").models
    assert (model.way, model.same) == ("create", "meaning")
    assert model.tried is not None
    assert model.tried.ok
    assert bool(model.unproven) == target.rewrites
    assert found(tmp_path / "r.json", prove=True) == ["same"]


def embedding(path: Path) -> Path:
    """The tiny model with a pooling type, which makes an embedding model of it (source: server/images.go)."""
    raw = TINY.read_bytes()
    (count,) = struct.unpack_from("<Q", raw, 16)

    def key(name: bytes, kind: int) -> bytes:
        return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)

    more = key(b"llama.pooling_type", 4) + struct.pack("<I", 1)
    more += key(b"x", 8) + struct.pack("<Q", 9) + b"nine more"
    assert len(more) == 64  # so that the tensors stay aligned
    path.write_bytes(raw[:16] + struct.pack("<Q", count + 2) + more + raw[24:])
    return path


def test_an_embedding_model_gives_a_vector(ollama: Ollama, tmp_path: Path) -> None:
    digest = ollama.upload_file(embedding(tmp_path / "embed.gguf"))
    ollama.create("embed", files={"embed.gguf": digest}).last()
    assert ollama.show("embed").capabilities == ("embedding",)
    tried = attempt(ollama, "embed")
    assert (tried.ok, tried.kind, tried.length, tried.words) == (True, "vector", 32, "")


def test_a_model_that_cannot_run(ollama: Ollama, tmp_path: Path) -> None:
    """The server's own words are in the result."""
    source = LooseGguf(TINY)
    copy(source, source.models(), server(ollama.base, source))
    (name,) = (one.name for one in ollama.list())
    file = weights(tmp_path / "ollama")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    tried = attempt(ollama, name)
    assert not tried.ok
    assert tried.words
