"""Models read back from a server: a depot stands in for Ollama, and does the push as a real one does."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import bits
from depots import ask, make, own_depot, put
from registries import Line
from servers import FakeOllama, say, stream

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import (
    Corrupt,
    Different,
    ModelpackError,
    NotFound,
    Refused,
    Unreachable,
    Unsupported,
    Usage,
)
from modelpack.hands import callback_push
from modelpack.hands.callback import Calling, reach
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import temporary
from modelpack.stores import Afar, Source, server_push
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server import ServerSource
from modelpack.verbs.gather import gather
from modelpack.verbs.inspect import inspect
from modelpack.verbs.installed import Installed
from modelpack.verbs.locate import at_server
from modelpack.verbs.transfer import copy
from modelpack.verbs.ways import Wish, server_target
from modelpack.words.blob import MODEL, SYSTEM, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.name import Name
from modelpack.words.reader import fill

BIG = bytes(range(256)) * 40_000  # 10 MB: more than a depot sends in one request


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A depot in a process of its own, with two models that share their weights."""
    path = tmp_path_factory.mktemp("depot") / "models"
    with own_depot(path) as own:
        make(own.url, "tiny", system="hello")
        make(own.url, "ns/Other:v1", template="{{ .Prompt }}", license=["none"])
        yield own.url, path


@pytest.fixture
def source(depot: tuple[str, Path]) -> Iterator[ServerSource]:
    with Ollama(depot[0]) as client, ServerSource(client) as made:
        yield made


def read(source: Source, blob: Blob, offset: int = 0) -> bytes:
    held = bytearray(blob.size + 10)
    with source.open(blob, offset) as reader:
        return bytes(held[: fill(reader, memoryview(held))])


def names(source: ServerSource) -> list[str]:
    return sorted(one.name for one in source.client.list())


# --- what comes


def test_every_bit_comes_back(depot: tuple[str, Path], source: ServerSource, tmp_path: Path) -> None:
    before = names(source)
    copy(source, source.models(), Archive(tmp_path / "b.tar"))
    assert bits(Archive(tmp_path / "b.tar")) == bits(ModelsDir(depot[1]))
    assert names(source) == before


def test_from_one_server_to_another_directory(source: ServerSource, tmp_path: Path) -> None:
    copy(source, source.models()[:1], ModelsDir(tmp_path / "models"))
    (model,) = ModelsDir(tmp_path / "models").models()
    assert model == source.models()[0]


def test_one_model_by_its_name(source: ServerSource) -> None:
    found = source.single(Name.parse("NS/other:V1"))
    assert found is not None
    assert str(found.name) == "ns/Other:v1"
    assert source.single(Name.parse("nobody")) is None
    (listed,) = [one for one in source.client.list() if one.name == "ns/Other:v1"]
    assert found.document.id == listed.digest


def test_only_what_is_asked_for_flows(big: tuple[str, Path]) -> None:
    """Documents cost no blob, and a small blob does not cost a large one."""
    port = free_port()
    line = Line(f"127.0.0.1:{port}", [])
    with line.running() as place, ServerSource(Ollama(big[0]), Calling(place, f"127.0.0.1:{port}")) as source:
        model = source.single(Name.parse("big"))
        assert model is not None
        small = min(model.blobs, key=lambda one: one.size)
        assert Digest.of(read(source, small)) == small.digest
        assert line.sent < 50_000
        assert read(source, weights_of(source), 1000) == BIG[1000:]
        assert len(BIG) < line.sent < len(BIG) + 100_000


def test_what_a_source_is(source: ServerSource) -> None:
    assert isinstance(source, Afar)
    assert source.afar()
    assert source.described()["kind"] == "server"
    assert set(source.described()) == {"kind", "where", "version"}


def test_several_readers_at_a_time(source: ServerSource) -> None:
    blobs = blobs_of(source.models()) * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda blob: read(source, blob), blobs))
    assert [str(Digest.of(data)) for data in found] == [str(blob.digest) for blob in blobs]


def test_a_reader_that_is_left_early(source: ServerSource) -> None:
    weights = max(blobs_of(source.models()), key=lambda one: one.size)
    before = names(source)
    for _ in range(3):
        with source.open(weights) as reader:
            assert reader.readinto(memoryview(bytearray(100)))
    assert Digest.of(read(source, weights)) == weights.digest
    assert names(source) == before


def test_what_is_not_there(source: ServerSource) -> None:
    weights = max(blobs_of(source.models()), key=lambda one: one.size)
    for blob in (Blob(5, MODEL, ZERO), Blob(5, MODEL), Blob(5, MODEL, key="unread")):
        with pytest.raises(NotFound), source.open(blob):
            pass
    with pytest.raises(Corrupt, match="has"), source.open(Blob(5, MODEL, weights.digest)):
        pass


def test_nothing_is_asked_before_it_is_used() -> None:
    with (
        ServerSource(Ollama("http://127.0.0.1:9")) as source,
        pytest.raises(NotFound),
        source.open(Blob(1, MODEL)),
    ):
        pass


def test_an_empty_server_needs_no_way_back(tmp_path: Path) -> None:
    with (
        running(Depot(tmp_path, writable=True)) as url,
        ServerSource(Ollama(url), Calling(off=True)) as source,
    ):
        assert list(source.models()) == []


def test_no_way_back(depot: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def soon(client: Ollama, callback: Any) -> object:
        return reach(client, callback, 0.5)

    monkeypatch.setattr("modelpack.stores.server.reach", soon)
    dead = Calling("192.0.2.1:9", "127.0.0.1")  # no such host answers: what a firewall looks like
    with ServerSource(Ollama(depot[0]), dead) as source, pytest.raises(Unreachable, match=r"192\.0\.2\.1:9"):
        source.models()
    with (
        ServerSource(Ollama(depot[0]), Calling(off=True)) as source,
        pytest.raises(Unsupported, match="no-listen"),
    ):
        source.models()


# --- what goes wrong


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def big(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A depot with one model of 10 MB."""
    path = tmp_path / "models"
    with running(Depot(path, writable=True)) as url:
        make(url, "seed")
        (seed,) = ModelsDir(path).models()
        digest = put(url, BIG)
        manifest = seed.document.raw.replace(str(seed.document.layers[0].digest).encode(), digest.encode())  # type: ignore[union-attr]
        size = seed.document.layers[0].size  # type: ignore[union-attr]
        manifest = manifest.replace(f'"size":{size}'.encode(), f'"size":{len(BIG)}'.encode())
        place = path / "manifests" / "registry.ollama.ai" / "library" / "big"
        place.mkdir()
        (place / "latest").write_bytes(manifest)
        yield url, path


def weights_of(source: ServerSource, name: str = "big") -> Blob:
    model = source.single(Name.parse(name))
    assert model is not None
    return max(model.blobs, key=lambda one: one.size)


def test_damage_on_the_servers_disk_is_found(depot: tuple[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "models"
    with own_depot(path) as own, ServerSource(Ollama(own.url)) as source:
        make(own.url, "tiny")
        weights = weights_of(source, "tiny")
        file = ModelsDir(path).file_of(weights.digest)  # type: ignore[arg-type]
        file.chmod(0o644)
        with file.open("r+b") as there:
            there.seek(-4096, 2)
            there.write(b"\xff" * 4096)
        with pytest.raises(ModelpackError) as caught:
            copy(source, source.models(), Archive(tmp_path / "b.tar"))
        assert not isinstance(caught.value, Unreachable)
        assert not (tmp_path / "b.tar").exists()
        assert names(source) == ["tiny:latest"]


def test_a_push_whose_connection_breaks_goes_on(big: tuple[str, Path]) -> None:
    """What breaks between the server and here is sent again; the reader sees nothing of it."""
    port = free_port()
    line = Line(f"127.0.0.1:{port}", [])
    with line.running() as place, ServerSource(Ollama(big[0]), Calling(place, f"127.0.0.1:{port}")) as source:
        weights = weights_of(source)
        line.cuts[:] = [3_000_000, 2_000_000]
        assert read(source, weights) == BIG
        assert line.cuts == []


def test_a_server_that_goes_away(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(own_depot(tmp_path / "models"))
        make(own.url, "tiny")
        source = stack.enter_context(ServerSource(Ollama(own.url)))
        weights = weights_of(source, "tiny")
        own.process.kill()
        own.process.wait(10)
        with pytest.raises(Unreachable):
            read(source, weights)


HELLO = b"hello" * 1000
WANTED = Digest.of(HELLO)


class Pusher(FakeOllama):
    """A server with one model, that pushes as *work* likes: told the repository's URL, it gives the lines."""

    def __init__(self, work: Callable[[str], list[dict[str, Any]]], raw: bytes = b"") -> None:
        super().__init__()
        self.raw = raw or b'{"schemaVersion":2,"config":{"digest":"%s","size":%d},"layers":[]}' % (
            str(WANTED).encode(),
            len(HELLO),
        )
        self.manifests["m:latest"] = self.raw
        self.faults["POST /api/push"] = self._pushed
        self.pushes = 0
        self.work = work

    def _pushed(self, at: Any) -> None:
        name = Name.parse(list(self.manifests)[-1])
        repository = f"http://{name.host}/v2/{name.namespace}/{name.model}"
        self.pushes += 1
        if ask_head(repository, str(WANTED)) == 200:
            assert tell(repository, "PUT", "manifests/latest", self.raw.rstrip(b"\n")) == 201
            stream(at, [{"status": "success"}])
            return
        stream(at, self.work(repository))


def tell(repository: str, method: str, rest: str, body: bytes = b"", **headers: str) -> int:
    host, _, path = repository.removeprefix("http://").partition("/")
    more = {key.replace("_", "-"): value for key, value in headers.items()}
    return ask(f"http://{host}", method, f"/{path}/{rest}", body, more).status


def ask_head(repository: str, digest: str) -> int:
    return tell(repository, "HEAD", f"blobs/{digest}")


def upload(repository: str) -> str:
    """Begin one; what its path is below the repository."""
    host, _, path = repository.removeprefix("http://").partition("/")
    begun = ask(f"http://{host}", "POST", f"/{path}/blobs/uploads/")
    return begun.headers["Location"].removeprefix(f"{repository}/")


def send(repository: str, data: bytes = HELLO, digest: Digest = WANTED) -> list[dict[str, Any]]:
    """An honest push."""
    place = upload(repository)
    tell(repository, "PATCH", place, data, Content_Range=f"0-{len(data) - 1}")
    status = tell(repository, "PUT", f"{place}?digest={digest}")
    return [{"status": "success"}] if status == 201 else [{"error": f"http status {status}"}]


@contextlib.contextmanager
def pushing(
    work: Callable[[str], list[dict[str, Any]]], raw: bytes = b""
) -> Iterator[tuple[Pusher, ServerSource]]:
    fake = Pusher(work, raw)
    with fake.running() as base, Ollama(base) as client, ServerSource(client) as source:
        yield fake, source
        assert list(fake.manifests) == ["m:latest"]  # every other name was dropped


def read_hello(source: ServerSource) -> bytes:
    (model,) = source.models()
    return read(source, model.blobs[0])


def test_an_honest_push() -> None:
    with pushing(send) as (fake, source):
        assert read_hello(source) == HELLO
        assert fake.pushes == 2


def test_a_manifest_that_ended_with_a_newline() -> None:
    raw = b'{"schemaVersion":2,"config":{"digest":"%s","size":5},"layers":[]}\n' % str(WANTED).encode()
    with pushing(send, raw) as (_, source):
        assert source.models()[0].document.raw == raw


def test_a_manifest_in_another_form() -> None:
    raw = b'{ "schemaVersion":2,"config":{"digest":"%s","size":5},"layers":[]}' % str(WANTED).encode()
    with pushing(send, raw) as (fake, source):
        fake.raw = raw.replace(b"{ ", b"{")
        with pytest.raises(Unsupported, match="exact bytes cannot be had") as caught:
            source.models()
        assert "models directory" in caught.value.advice
        assert caught.value.where.endswith("#m:latest")


def test_a_manifest_changed_on_the_way() -> None:
    with pushing(send) as (fake, source):
        fake.raw = fake.raw.replace(b"5000", b"5001")
        with pytest.raises(Unsupported):
            source.models()


def test_bytes_that_are_others(tmp_path: Path) -> None:
    """The server says all is well: whoever keeps the bytes finds it."""
    with (
        pushing(lambda place: send(place, HELLO[:-1] + b"x")) as (_, source),
        pytest.raises(Corrupt),
    ):
        copy(source, source.models(), ModelsDir(tmp_path / "models"))


def test_a_blob_that_is_cut_there() -> None:
    with (
        pushing(lambda place: send(place, HELLO[:-1])) as (_, source),
        pytest.raises(Corrupt, match="has 4999 of"),
    ):
        read_hello(source)


def test_a_blob_that_is_too_long_there() -> None:
    with (
        pushing(lambda place: send(place, HELLO + b"x")) as (_, source),
        pytest.raises(Corrupt, match="up to 5001"),
    ):
        read_hello(source)


def test_a_push_that_lies_about_its_digest() -> None:
    with (
        pushing(lambda place: send(place, HELLO, Digest.of(b"other"))) as (_, source),
        pytest.raises(Corrupt, match="calls it"),
    ):
        read_hello(source)


def test_a_push_of_what_was_not_asked_for() -> None:
    """Another blob is not taken, whatever comes of the push."""
    other = b"other" * 1000

    def work(place: str) -> list[dict[str, Any]]:
        return send(place, other, Digest.of(other))

    with pushing(work) as (_, source), pytest.raises(Corrupt):
        read_hello(source)


def test_a_push_that_ends_with_an_error() -> None:
    def work(place: str) -> list[dict[str, Any]]:
        tell(place, "PATCH", upload(place), HELLO[:1000], Content_Range="0-999")
        return [{"error": "open blob: permission denied"}]

    with pushing(work) as (fake, source):
        with pytest.raises(Refused, match="permission denied"):
            read_hello(source)
        assert fake.pushes == 2


def test_a_push_that_ends_without_a_word() -> None:
    with (
        pushing(lambda _place: [{"status": "pushing"}]) as (_, source),
        pytest.raises(Unreachable, match="success"),
    ):
        read_hello(source)


def test_a_push_that_another_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends a blob once at a time: who comes second is told success, and has to ask again."""
    monkeypatch.setattr(server_push, "_PAUSE", 0.001)
    answers = iter([[{"status": "success"}], [{"error": "context canceled"}]])
    with pushing(lambda place: next(answers, None) or send(place)) as (fake, source):
        assert read_hello(source) == HELLO
        assert fake.pushes == 4
    with (
        pushing(lambda _place: [{"status": "success"}]) as (fake, source),
        pytest.raises(Unreachable, match="nothing"),
    ):
        read_hello(source)


def test_a_push_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def work(_place: str) -> list[dict[str, Any]]:
        over.wait(20)
        return []

    with pushing(work) as (_, source):
        (model,) = source.models()
        monkeypatch.setattr(callback_push, "PATIENCE", 0.5)
        with pytest.raises(Unreachable, match="nothing came"):
            read(source, model.blobs[0])
        over.set()


def test_somebody_else_who_calls(depot: tuple[str, Path], source: ServerSource) -> None:
    """A stranger sends parts to uploads that he makes up, while the blob flows: nothing of it is taken."""
    weights = weights_of(source, "tiny")
    over = threading.Event()

    def bother() -> None:
        host = f"http://{source._callback.listening}"
        while not over.is_set():
            with contextlib.suppress(OSError):
                assert (
                    ask(
                        host, "PATCH", f"/v2/modelpack/{'0' * 12}-{'a' * 32}/blobs/uploads/{'b' * 32}", b"x"
                    ).status
                    == 404
                )

    with source._callback:  # it stays open from push to push then
        thread = threading.Thread(target=bother, daemon=True)
        thread.start()
        try:
            for _ in range(5):
                assert Digest.of(read(source, weights)) == weights.digest
        finally:
            over.set()
            thread.join(10)


def test_the_port_is_open_while_something_is_pushed(depot: tuple[str, Path]) -> None:
    """Not between two pushes, whoever forgets to close the source."""
    source = ServerSource(Ollama(depot[0]))
    weights = weights_of(source, "tiny")
    with source.open(weights):
        host, _, port = source._callback.listening.rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
    assert not [one for one in threading.enumerate() if one.name == "callback"]
    source.close()
    source.close()


def test_a_copy_that_lost_a_race() -> None:
    """A server that deletes a name may remove the directory that a copy has just made: copied again."""
    failures = ["stat /x/latest: no such file or directory"] * 2 + ["disk full"]

    def copying(at: Any) -> None:
        if failures:
            say(at, 400, {"error": failures.pop(0)})

    with pushing(send) as (fake, source):
        fake.faults["POST /api/copy"] = copying
        with pytest.raises(Refused, match="disk full"):
            source.models()
    assert failures == []


def test_a_model_that_became_another_meanwhile(tmp_path: Path) -> None:
    """The blob that is wanted never comes: that is said at once."""
    with running(Depot(tmp_path, writable=True)) as url, ServerSource(Ollama(url)) as source:
        make(url, "tiny", system="hello")
        model = source.single(Name.parse("tiny"))
        assert model is not None
        make(url, "tiny", system="other")
        (words,) = model.document.of_kind(SYSTEM)  # type: ignore[union-attr]
        began = time.monotonic()
        with pytest.raises(Different, match="given to another model meanwhile"):
            read(source, words)
        assert time.monotonic() - began < 10


def test_one_model_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others come; asked for all, its error."""

    def exactly(raw: bytes, id: Digest) -> bytes | None:  # noqa: A002 - the model's
        return None if b'"strange' in raw else server_push.exactly(raw, id)

    monkeypatch.setattr("modelpack.stores.server.exactly", exactly)
    with running(Depot(tmp_path, writable=True)) as url, ServerSource(Ollama(url)) as source:
        make(url, "tiny", system="hello")
        make(url, "strange", system="other")
        manifest = tmp_path / "manifests/registry.ollama.ai/library/strange/latest"
        manifest.write_bytes(manifest.read_bytes().replace(b"{", b'{"strange":1,', 1))
        strange, tiny = source.scan()
        assert isinstance(strange, Unsupported)
        assert strange.where == f"{url}#strange:latest"
        assert isinstance(tiny, Model)
        with pytest.raises(Unsupported):
            source.models()
        packed = gather([url], look=Installed(()))
        assert [str(one.name) for one in packed.models] == ["tiny:latest"]
        assert [what for what, _ in packed.left_out] == [strange.where]
        found = inspect(source)
        assert [str(one.name) for one in found.models] == ["tiny:latest"]
        assert [one.where for one in found.problems] == [strange.where]


def test_reading_cleans_up_after_runs_that_were_killed(tmp_path: Path) -> None:
    with running(Depot(tmp_path, writable=True)) as url:
        make(url, "tiny", system="hello")
        client = Ollama(url)
        left = temporary("10.0.0.7:41234", client.list()[0].digest)
        client.copy("tiny", str(left))
        for manifest in (tmp_path / "manifests").rglob("latest"):
            os.utime(manifest, (time.time() - 7200, time.time() - 7200))
        with ServerSource(client) as source:
            source.models()
            assert len(client.list()) == 2
        assert [one.name for one in client.list()] == ["tiny:latest"]


def test_from_server_to_server_over_one_port(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    calling = Calling(place, place)
    with (
        running(Depot(tmp_path / "a", writable=True)) as here,
        running(Depot(tmp_path / "b", writable=True)) as there,
        ServerSource(Ollama(here), calling) as source,
    ):
        make(here, "tiny", system="hello")
        target = server_target(Ollama(there), source, wish=Wish(exact=True, calling=calling))
        (receipt,) = copy(source, source.models(), target)
        assert receipt.same_bytes
    assert bits(ModelsDir(tmp_path / "a")) == bits(ModelsDir(tmp_path / "b"))


def test_a_name_that_is_a_file_and_a_model_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--from URL: neither is taken silently."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_bytes(b"")
    (tmp_path / "x.gguf").write_bytes(b"")
    with running(Depot(tmp_path / "a", writable=True)) as url:
        make(url, "tiny")
        with pytest.raises(Usage, match="a file here, and a model of the server") as caught:
            at_server(url, "tiny")
        assert f"{url}#tiny" in caught.value.advice
        assert at_server(url, "x.gguf") == "x.gguf"
        assert at_server(url, "./tiny") == "./tiny"
        assert at_server(url, "other") == f"{url}#other:latest"


def test_who_calls_back_where_no_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="are for servers"):
        gather([str(tmp_path)], look=Installed(()), calling=Calling("10.0.0.7"))


def test_a_name_that_a_delete_took_along_is_given_again(source: ServerSource) -> None:
    """Seen on 0.24: a server that deletes one name removes the directory of another that was just made."""
    real = Ollama.push
    asked: list[str] = []

    def push(self: Ollama, model: str, **more: Any) -> Any:
        asked.append(model)
        if len(asked) == 1:
            self.delete(model)
            words = f"stat /models/manifests/{model}: no such file or directory"
            raise Refused(words, status=500, words=words)
        return real(self, model, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Ollama, "push", push)
        (model, *_) = source.models()
    assert len(asked) > len(set(asked))
    assert model.document.id
