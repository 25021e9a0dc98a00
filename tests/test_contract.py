"""One contract over every store: what a source and a target owe, above all when things go wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import (
    FULL,
    SHARED,
    TINY,
    WEIGHTS,
    Bits,
    MemoryStore,
    bits,
    needs_shared,
    noise,
    sha256sum,
    tree,
)
from registries import DockerRegistry, EveryModel, docker_registry

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.errors import (
    Corrupt,
    Local,
    ModelpackError,
    NotFound,
    Partly,
    Refused,
    Taken,
    Unreachable,
    Unsupported,
)
from modelpack.hands.bytes import StreamReader
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.hands.registry import Registry
from modelpack.stores import Apart, Session, Settled, Source, Target
from modelpack.stores.archive import Archive
from modelpack.stores.files import LooseGguf
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource, PipeTarget
from modelpack.stores.plain import PlainFolder
from modelpack.stores.registry import ArtifactTarget, RegistryTarget
from modelpack.stores.server import ServerSource
from modelpack.stores.server_create import ServerCreate
from modelpack.stores.server_exact import ServerExact
from modelpack.verbs.transfer import copy, plan
from modelpack.words.blob import ADAPTER, LICENSE, MIB, MODEL, PARAMS, SYSTEM, TEMPLATE, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader, Reader
from modelpack.words.reference import Reference
from modelpack.words.report import Moved, Step


class Place:
    """Where models can be brought, and looked at afterwards by somebody who knows nothing of the writing."""

    recipes = True
    """Whether it keeps recipes."""
    grows = True
    """Whether models can be added, and a second copy be spared."""
    ordered = False
    """Whether blobs must come one by one, in order."""
    wrong: tuple[type[ModelpackError], ...] = (Corrupt,)
    """What its sessions raise for bytes that hash otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path / "place"

    def target(self, *, replace: bool = False) -> Target:
        raise NotImplementedError

    def source(self) -> Source:
        raise NotImplementedError

    def look(self) -> object:
        """Something that changes where anything here changes."""
        return tree(self.path)

    def names(self) -> list[str]:
        """The models that look whole."""
        try:
            return sorted(bits(self.source()))
        except ModelpackError:
            return []

    def scratch(self) -> list[str]:
        """Unfinished files."""
        return sorted(one for one in os.listdir(self.path.parent) if "modelpack" in one) + [
            one for one in tree(self.path) if "modelpack" in one
        ]


class InMemory(Place):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store = MemoryStore()

    def target(self, *, replace: bool = False) -> Target:
        self.store.replace = replace
        return self.store

    def source(self) -> Source:
        return self.store

    def look(self) -> object:
        return dict(self.store.bytes), dict(self.store.kept)


class InFolder(Place):
    def target(self, *, replace: bool = False) -> Target:
        return FolderBundle(self.path, replace=replace)

    def source(self) -> Source:
        return FolderBundle(self.path)


class InArchive(Place):
    grows = False

    def target(self, *, replace: bool = False) -> Target:
        return Archive(self.path, replace=replace)

    def source(self) -> Source:
        return Archive(self.path)


class InModelsDir(Place):
    recipes = False

    def target(self, *, replace: bool = False) -> Target:
        return ModelsDir(self.path, replace=replace)

    def source(self) -> Source:
        return ModelsDir(self.path)


class InPlainFiles(Place):
    grows = False  # one model lies right there, and leaves no place for others

    def target(self, *, replace: bool = False) -> Target:
        return PlainFolder(self.path, replace=replace)

    def source(self) -> Source:
        return PlainFolder(self.path)


class InPipe(Place):
    """A pipe whose other end somebody saves, and which is fed from there again."""

    grows = False
    ordered = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._saved = b""
        self._ends: list[int] = []
        self._threads: list[threading.Thread] = []

    def target(self, *, replace: bool = False) -> Target:
        self._saved = b""
        read, write = os.pipe()
        self._ends.append(write)

        def save() -> None:
            with open(read, "rb") as file:
                self._saved = file.read()

        self._start(save)
        return PipeTarget(write)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)

    def _saved_all(self) -> bytes:
        while self._ends:
            os.close(self._ends.pop())
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        return self._saved

    def source(self) -> Source:
        data = self._saved_all()
        read, write = os.pipe()

        def feed() -> None:
            with contextlib.suppress(BrokenPipeError), open(write, "wb") as file:
                file.write(data)

        self._start(feed)
        return _Closing(StreamReader(read, "the pipe"), read)

    def names(self) -> list[str]:
        try:
            return super().names()
        finally:
            self.close()

    def look(self) -> object:
        return None  # nobody knows what is behind a pipe

    def close(self) -> None:
        if _Closing.last is not None:
            _Closing.last.close()
        self._saved_all()


class _Closing(PipeSource):
    last: _Closing | None = None

    def __init__(self, stream: Reader, fd: int) -> None:
        super().__init__(stream)
        self._fd = fd
        _Closing.last = self

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class InRegistry(Place):
    """Debian's docker-registry, each test in an empty one."""

    recipes = False
    kind: type[RegistryTarget] = RegistryTarget

    def __init__(self, path: Path, registry: DockerRegistry) -> None:
        super().__init__(path)
        registry.clear()
        self.path, self._registry = registry.path, registry

    def _client(self) -> Registry:
        return Registry(self._registry.server, plain_http=True)

    def target(self, *, replace: bool = False) -> Target:
        return self.kind(self._client(), Reference(self._registry.server), replace=replace)

    def source(self) -> Source:
        return EveryModel(self._client())

    def scratch(self) -> list[str]:
        """Uploads that nobody ended."""
        return [one for one in tree(self.path) if "/_uploads/" in one]

    def clear(self) -> None:
        self._registry.clear()


class InRegistryAsArtifact(InRegistry):
    recipes = True
    kind = ArtifactTarget


class InServer(Place):
    """A server, written exactly and read back by push; a depot stands in for a real one."""

    recipes = False
    wrong = (Corrupt, Refused)  # the server hashes, and `copy` finds out whose fault it is

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stack = contextlib.ExitStack()
        self.url = self._stack.enter_context(running(Depot(self.path, writable=True)))

    def target(self, *, replace: bool = False) -> Target:
        return ServerExact(Ollama(self.url), Callback(self.url), replace=replace)

    def source(self) -> Source:
        return self._stack.enter_context(ServerSource(Ollama(self.url)))

    def scratch(self) -> list[str]:
        """What is there for longer than a server takes to see that an upload broke off."""
        end = time.monotonic() + 3
        while (left := [one for one in super().scratch() if "/" in one]) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def close(self) -> None:
        self._stack.close()


PLACES: list[type[Place]] = [
    InMemory, InFolder, InArchive, InModelsDir, InPlainFiles, InPipe, InRegistry, InRegistryAsArtifact,
    InServer,
]  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with docker_registry() as running_one:
        yield running_one


@pytest.fixture(params=PLACES, ids=lambda kind: kind.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    needs = [request.getfixturevalue("registry")] if issubclass(request.param, InRegistry) else []
    made: Place = request.param(tmp_path, *needs)
    yield made
    if isinstance(made, InPipe | InServer):
        made.close()


@pytest.fixture
def growing(place: Place) -> Place:
    if not place.grows:
        pytest.skip("appears at once, or is gone when written")
    return place


def hashed(store: MemoryStore) -> list[Model]:
    """The models of *store* with every hash known, as a pipe wants them."""
    return list(plan(store, store.models(), PipeTarget(-1)).models)


def feed(session: Session, store: MemoryStore, models: Sequence[Model]) -> dict[object, Blob]:
    known = {}
    for blob in blobs_of(models):
        with store.open(blob) as reader:
            known[blob.id] = session.put(blob, reader)
    return known


# --- what arrives


def test_the_same_bytes_and_ids_arrive(place: Place, shelf: MemoryStore) -> None:
    want = bits(shelf)
    receipts = copy(shelf, shelf.models(), place.target())
    assert bits(place.source()) == want
    assert [one.name for one in receipts] == [one.name for one in shelf.models()]
    for receipt, model in zip(receipts, shelf.models(), strict=True):
        assert receipt.id == model.document.id == Digest.of(want[model.name.full][0])
        assert receipt.same_bytes is True
    assert place.scratch() == []


def test_a_recipe_arrives_or_is_refused_first(place: Place) -> None:
    store = MemoryStore()
    store.recipe("made/of:parts", a=b"one" * 50, b=b"two" * 70)
    if place.recipes:
        copy(store, store.models(), place.target())
        assert bits(place.source()) == bits(store)
        return
    before = place.look()
    with pytest.raises(Unsupported):
        copy(store, store.models(), place.target())
    assert (place.look(), store.opened) == (before, [])


def test_bytes_from_an_offset(place: Place, shelf: MemoryStore) -> None:
    if place.ordered:
        pytest.skip("comes once")
    copy(shelf, shelf.models(), place.target())
    source = place.source()
    for blob in blobs_of(source.models()):
        for offset in {0, 1, blob.size // 2, blob.size} - {blob.size + 1}:
            if offset <= blob.size:
                with source.open(blob, offset) as reader:
                    got = bytearray()
                    piece = memoryview(bytearray(100_003))
                    while count := reader.readinto(piece):
                        got += piece[:count]
                    assert bytes(got) == shelf.bytes[blob.digest][offset:]


def test_readers_have_positions_of_their_own(place: Place, shelf: MemoryStore) -> None:
    if place.ordered:
        pytest.skip("comes once")
    copy(shelf, shelf.models(), place.target())
    source = place.source()
    weights = blobs_of(source.models())[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: bits_of(source, weights), range(8)))
    assert set(found) == {shelf.bytes[weights.digest]}


def bits_of(source: Source, blob: Blob) -> bytes:
    with source.open(blob) as reader:
        got, piece = bytearray(), memoryview(bytearray(70_000))
        while count := reader.readinto(piece):
            got += piece[:count]
    return bytes(got)


def test_a_blob_that_is_not_there(place: Place, shelf: MemoryStore) -> None:
    copy(shelf, shelf.models(), place.target())
    source = place.source()
    source.models()
    with pytest.raises((NotFound, Unsupported)), source.open(Blob(5, MODEL, Digest.of(b"nobody's"))):
        pass


# --- asking


def test_asking_changes_nothing(place: Place, shelf: MemoryStore) -> None:
    target = place.target()
    before = place.look()
    target.missing(hashed(shelf))
    if isinstance(target, Settled):
        assert list(target.placed(shelf.models())) == [None] * 5
    plan(shelf, shelf.models(), target)
    assert place.look() == before
    assert not place.path.exists()


@pytest.mark.parametrize("replace", [False, True])
def test_asking_changes_nothing_where_something_is(
    growing: Place, shelf: MemoryStore, tiny: MemoryStore, replace: bool
) -> None:
    copy(tiny, tiny.models(), growing.target())
    before = growing.look()
    target = growing.target(replace=replace)
    assert len(target.missing(hashed(shelf))) > 0
    plan(shelf, shelf.models(), target)
    plan(tiny, tiny.models(), target)
    assert growing.look() == before


def test_each_digest_is_asked_for_once(place: Place, shelf: MemoryStore) -> None:
    missing = place.target().missing(hashed(shelf))
    assert len(missing) == len({blob.id for blob in missing}) == len(blobs_of(shelf.models()))


def test_only_what_is_missing_moves(growing: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)
    copy(shelf, models[:1], growing.target())
    shelf.opened.clear()
    receipts = copy(shelf, models, growing.target())
    first = set(models[0].blobs)
    assert not {one.id for one in shelf.opened} & {one.id for one in first}
    assert receipts[0].sent == ()
    assert receipts[0].present
    assert {one.id for one in receipts[4].present} == {one.id for one in first}
    assert bits(growing.source()) == bits(shelf)


def test_a_second_copy_moves_nothing(place: Place, shelf: MemoryStore) -> None:
    if place.ordered:
        pytest.skip("nobody knows what is behind a pipe")
    models = hashed(shelf)
    copy(shelf, models, place.target())
    before = place.look()
    shelf.opened.clear()
    receipts = copy(shelf, models, place.target())
    assert shelf.opened == []
    assert [one.bytes_sent for one in receipts] == [0] * 5
    assert [one.id for one in receipts] == [one.document.id for one in models]
    assert place.look() == before


def test_progress_counts_the_bytes_that_moved(place: Place, shelf: MemoryStore) -> None:
    steps: list[Step] = []
    models = hashed(shelf)
    copy(shelf, models, place.target(), steps.append)
    moved = sum(step.count for step in steps if isinstance(step, Moved))
    blobs = sum(blob.size for blob in blobs_of(models))
    assert blobs <= moved <= blobs + (MIB if place.ordered else 0)  # a pipe's documents pass, too


# --- unread blobs


def test_what_nobody_has_hashed_arrives_under_its_id(place: Place) -> None:
    store = MemoryStore()
    model = store.image("loose", *FULL, unread=1)
    want = MemoryStore()
    want.image("loose", *FULL)
    receipts = copy(store, [model], place.target())
    assert bits(place.source()) == bits(want)
    assert receipts[0].id == want.models()[0].document.id == receipts[0].model.document.id
    assert all(blob.digest is not None for blob in receipts[0].model.blobs)


def test_what_nobody_has_hashed_is_known_again(place: Place) -> None:
    if place.ordered:
        pytest.skip("nobody knows what is behind a pipe")
    store = MemoryStore()
    model = store.image("loose", *FULL, unread=1)
    copy(store, [model], place.target())
    before = place.look()
    receipts = copy(store, [model], place.target())
    assert receipts[0].sent == ()
    assert place.look() == before


def test_another_model_nobody_has_hashed_is_told_before_a_byte_moves(place: Place) -> None:
    if place.ordered:
        pytest.skip("nobody knows what is behind a pipe")
    store = MemoryStore()
    copy(store, [store.image("loose", *FULL)], place.target())
    other = store.image("loose", (MODEL, noise(3_000_000)), unread=1)
    before = place.look()
    with pytest.raises(Taken):
        copy(store, [other], place.target())
    assert place.look() == before


def test_two_unread_blobs_of_the_same_bytes(place: Place) -> None:
    store = MemoryStore()
    model = store.image("loose", (MODEL, b"same" * 100), unread=1)
    other = dataclasses.replace(model.document.layers[0], key="another key")
    store.bytes["another key"] = b"same" * 100
    assert isinstance(model.document, Image)
    both = Model(Name.parse("loose"), Image.compose(model.document.config, (*model.document.layers, other)))
    copy(store, [both], place.target())
    assert [len(raw) for raw in next(iter(bits(place.source()).values()))[1].values()] == [
        400,
        len(config_of(store)),
    ]


def config_of(store: MemoryStore) -> bytes:
    document = store.models()[0].document
    assert isinstance(document, Image)
    return store.bytes[document.config.digest]


# --- names come last


def test_blobs_first_and_the_name_last(place: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)
    seen: list[list[str]] = []
    with place.target().session(models) as session:
        known = feed(session, shelf, models)
        if not place.ordered:
            seen.append(place.names())
        for model in models:
            session.commit(model.settled(known))
    assert seen in ([], [[]])
    assert place.names() == sorted(model.name.full for model in models)


def test_left_without_commit_nothing_looks_whole(place: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)

    class Away(Exception):
        pass

    def leave() -> None:
        with place.target().session(models) as session:
            feed(session, shelf, models)
            raise Away

    with pytest.raises(Away):
        leave()
    assert place.names() == []
    assert place.scratch() == []
    with place.target().session(models) as session:
        feed(session, shelf, models)
    assert place.names() == []
    assert place.scratch() == []


def test_commit_with_a_missing_blob(place: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)
    for left_out in (0, 3, len(blobs_of(models[:1])) - 1):
        blobs = blobs_of(models[:1])
        if isinstance(place, InServer) and not blobs[left_out].size:
            continue  # a depot that pulls makes an empty blob by itself
        with pytest.raises((NotFound, Unsupported) if place.ordered else NotFound):
            put_and_commit(place, shelf, models[:1], [*blobs[:left_out], *blobs[left_out + 1 :]])
        assert place.names() == []
        if isinstance(place, InArchive):
            assert not place.path.exists()
        if isinstance(place, InFolder | InModelsDir | InPlainFiles | InServer):
            for one in tree(place.path):
                if "sha256-" in one or "sha256/" in one:
                    (place.path / one).unlink()
        if isinstance(place, InMemory):
            place.store.bytes.clear()
        if isinstance(place, InRegistry):
            place.clear()


def test_commit_of_nothing_put(place: Place, tiny: MemoryStore) -> None:
    with pytest.raises(NotFound):
        put_and_commit(place, tiny, hashed(tiny), [])
    assert place.names() == []


def put_and_commit(place: Place, store: MemoryStore, models: Sequence[Model], blobs: Sequence[Blob]) -> None:
    with place.target().session(models) as session:
        for blob in blobs:
            session.put(blob, BytesReader(store.bytes[blob.id]))
        for model in models:
            session.commit(model)


# --- bad readers


class Boom(Exception):
    pass


class Raising:
    """Brings *data*, then raises."""

    def __init__(self, data: bytes) -> None:
        self._reader = BytesReader(data)

    def readinto(self, into: memoryview, /) -> int:
        count = self._reader.readinto(into)
        if count == 0:
            raise Boom
        return count


class Dripping:
    """Brings one to a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._reader = BytesReader(data)
        self._turn = 0

    def readinto(self, into: memoryview, /) -> int:
        self._turn += 1
        return self._reader.readinto(into[: 1 + self._turn % (5 if len(into) < 1000 else 100_000)])


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


BAD: dict[str, Callable[[bytes], Reader]] = {
    "its first bit wrong": lambda data: BytesReader(damaged(data, 0)),
    "its last bit wrong": lambda data: BytesReader(damaged(data, len(data) - 1)),
    "empty": lambda _: BytesReader(b""),
    "one byte short": lambda data: BytesReader(data[:-1]),
    "a byte lost in the middle": lambda data: BytesReader(
        data[: len(data) // 2] + data[len(data) // 2 + 1 :]
    ),
    "a byte too many in the middle": lambda data: BytesReader(data[:50] + b"!" + data[50:]),
    "raising at once": lambda _: Raising(b""),
    "raising late": lambda data: Raising(data[:-1]),
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("layer", [FULL[0], FULL[6]], ids=["large", "small"])
def test_bad_readers_leave_nothing(place: Place, how: str, layer: tuple[str, bytes]) -> None:
    store = MemoryStore()
    models = [store.image("bad", layer)]
    models = hashed(store)
    blob = models[0].blobs[0]

    def put_all_the_same() -> None:
        with place.target().session(models) as session:
            with pytest.raises((*place.wrong, Boom)):
                session.put(blob, BAD[how](store.bytes[blob.id]))
            if not place.ordered:
                for other in models[0].blobs[1:]:
                    session.put(other, BytesReader(store.bytes[other.id]))
                assert blob in place.target().missing(models)
            session.commit(models[0])

    with pytest.raises(NotFound):
        put_all_the_same()
    assert place.names() == []
    assert place.scratch() == []
    assert blob.id in [one.id for one in place.target().missing(models)]
    if not place.ordered:
        assert damaged(store.bytes[blob.id], 0) not in [raw for _, raw in tree(place.path).values()]
        assert blob.digest not in {Digest.of(raw) for _, raw in tree(place.path).values()}


@pytest.mark.parametrize("how", [name for name in BAD if not name.startswith("raising")])
def test_copy_says_what_is_damaged(place: Place, shelf: MemoryStore, how: str) -> None:
    models = hashed(shelf)
    blob = models[0].blobs[0]
    good = shelf.bytes[blob.id]
    reader = BAD[how](good)
    got, piece = bytearray(), memoryview(bytearray(MIB))
    while count := reader.readinto(piece):
        got += piece[:count]
    shelf.bytes[blob.id] = bytes(got)
    target = place.target()
    if isinstance(target, Apart):
        with pytest.raises(Partly) as partly:
            copy(shelf, models, target)
        hurt = {model.name.full for model in models if blob.id in [one.id for one in model.blobs]}
        assert set(partly.value.failed) == hurt
        assert all(isinstance(error, Corrupt) for error in partly.value.failed.values())
        assert place.names() == sorted({model.name.full for model in models} - hurt)
        assert len(partly.value.done) == len(models) - len(hurt)
    else:
        with pytest.raises(Corrupt):
            copy(shelf, models, target)
        assert place.names() == []
    assert place.scratch() == []
    if place.ordered:
        return
    shelf.bytes[blob.id] = good
    copy(shelf, models, place.target())
    assert bits(place.source()) == bits(shelf)


def test_a_reader_that_goes_on_gives_no_byte_too_many(place: Place, tiny: MemoryStore) -> None:
    models = hashed(tiny)
    with place.target().session(models) as session:
        for blob in models[0].blobs:
            try:
                session.put(blob, BytesReader(tiny.bytes[blob.id] + b"more"))
            except Corrupt:
                session.put(blob, BytesReader(tiny.bytes[blob.id]))
        session.commit(models[0])
    assert bits(place.source()) == bits(tiny)


def test_a_reader_that_drips(place: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)
    with place.target().session(models) as session:
        for blob in blobs_of(models):
            session.put(blob, Dripping(shelf.bytes[blob.id]))
        for model in models:
            session.commit(model)
    assert bits(place.source()) == bits(shelf)


def test_put_gives_back_the_hashes(place: Place, shelf: MemoryStore) -> None:
    models = hashed(shelf)
    with place.target().session(models) as session:
        for blob in blobs_of(models):
            known = session.put(blob, BytesReader(shelf.bytes[blob.id]))
            assert known.digest == Digest.of(shelf.bytes[blob.id])
            assert known.blake3 is None or known.blake3 == blob.blake3
            assert (known.size, known.media_type, known.title) == (blob.size, blob.media_type, blob.title)


def test_a_blob_may_be_put_again_after_it_failed(place: Place, tiny: MemoryStore) -> None:
    if place.ordered:
        pytest.skip("what has gone into a pipe is gone")
    models = hashed(tiny)
    with place.target().session(models) as session:
        for blob in models[0].blobs:
            with pytest.raises(place.wrong):
                session.put(blob, BytesReader(damaged(tiny.bytes[blob.id], 0)))
            session.put(blob, BytesReader(tiny.bytes[blob.id]))
        session.commit(models[0])
    assert bits(place.source()) == bits(tiny)


def test_blobs_are_put_by_several_threads(place: Place) -> None:
    if place.ordered:
        pytest.skip("takes blobs in order")
    store = MemoryStore()
    store.image("many", *((PARAMS, noise(200_000 + place_, place_)) for place_ in range(8)))
    models = hashed(store)
    barrier = threading.Barrier(8)

    def put(blob: Blob) -> Blob:
        reader = Dripping(store.bytes[blob.id])
        if blob.media_type == PARAMS:
            barrier.wait(10)
        return session.put(blob, reader)

    with place.target().session(models) as session, ThreadPoolExecutor(8) as pool:
        known = list(pool.map(put, models[0].blobs[:8]))
        put(models[0].blobs[8])
        session.commit(models[0])
    assert {one.digest for one in known} == {Digest.of(store.bytes[one.id]) for one in models[0].blobs[:8]}
    assert bits(place.source()) == bits(store)


# --- names that are taken


def other_than(tiny: MemoryStore, name: str = "tiny") -> tuple[MemoryStore, Model]:
    store = MemoryStore()
    return store, store.image(name, *TINY, (SYSTEM, b"Another."))


@pytest.mark.parametrize("name", ["tiny", "TiNy:LATEST"])
def test_a_taken_name(place: Place, tiny: MemoryStore, name: str) -> None:
    if place.ordered:
        pytest.skip("nobody knows what is behind a pipe")
    copy(tiny, tiny.models(), place.target())
    before, want = place.look(), bits(tiny)
    store, other = other_than(tiny, name)
    with pytest.raises(Taken) as caught:
        copy(store, [other], place.target())
    assert place.look() == before
    assert caught.value.exit_code == 6
    assert bits(place.source()) == want
    copy(store, [other], place.target(replace=True))
    assert list(bits(place.source()).values()) == list(bits(store).values())


def test_a_name_that_was_taken_meanwhile(growing: Place, tiny: MemoryStore) -> None:
    """Between the plan and the commit somebody else gave the name away."""
    store, other = other_than(tiny)

    def be_slow() -> None:
        with growing.target().session([other]) as session:
            known = feed(session, store, [other])
            copy(tiny, tiny.models(), growing.target())
            session.commit(other.settled(known))

    with pytest.raises(Taken):
        be_slow()
    assert bits(growing.source()) == bits(tiny)


def test_the_same_model_meanwhile(growing: Place, tiny: MemoryStore) -> None:
    models = hashed(tiny)
    with growing.target().session(models) as session:
        feed(session, tiny, models)
        copy(tiny, models, growing.target())
        placed = session.commit(models[0])
    assert placed.id == models[0].document.id
    assert bits(growing.source()) == bits(tiny)
    assert growing.scratch() == []


def test_the_same_model_in_another_case(growing: Place, tiny: MemoryStore) -> None:
    copy(tiny, tiny.models(), growing.target())
    shouted = dataclasses.replace(tiny.models()[0], name=Name.parse("TINY:Latest"))
    receipts = copy(tiny, [shouted], growing.target())
    assert str(receipts[0].name) == "tiny:latest"
    assert bits(growing.source()) == bits(tiny)


def test_replacing_keeps_the_others(growing: Place, shelf: MemoryStore) -> None:
    copy(shelf, shelf.models(), growing.target())
    new = shelf.image("twin", *TINY)
    copy(shelf, [new], growing.target(replace=True))
    assert bits(growing.source()) == bits(shelf)


# --- a server, which makes a model of its own: the same meaning, not the same bytes


class InDepot(Place):
    recipes = False

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path)
        self.url = url

    def target(self, *, replace: bool = False, source: Source | None = None) -> Target:
        return ServerCreate(Ollama(self.url), replace=replace, source=source)

    def source(self) -> Source:
        return ModelsDir(self.path)

    def scratch(self) -> list[str]:
        """What is there for longer than a server takes to see that an upload broke off."""
        end = time.monotonic() + 3
        while (left := [one for one in super().scratch() if "/" in one]) and time.monotonic() < end:
            time.sleep(0.02)
        return left


SERVERS: list[type[InDepot]] = [InDepot]


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InDepot]:
    with running(Depot(tmp_path / "place", writable=True)) as url:
        yield request.param(tmp_path, url)


def test_the_same_files_arrive_at_a_server(server: InDepot, shelf: MemoryStore) -> None:
    before = server.look()
    missing = server.target().missing(shelf.models())
    assert len(missing) == len({blob.id for blob in missing}) == len(blobs_of(shelf.models()))
    assert server.look() == before
    receipts = copy(shelf, shelf.models(), server.target())
    assert server.names() == sorted(model.name.full for model in shelf.models())
    arrived = {model.name: model for model in server.source().models()}
    for receipt, model in zip(receipts, shelf.models(), strict=True):
        assert isinstance(model.document, Image)
        there = arrived[model.name].document
        assert isinstance(there, Image)
        for kind in (MODEL, ADAPTER, TEMPLATE, LICENSE):
            digests = [[blob.digest for blob in one.of_kind(kind)] for one in (there, model.document)]
            assert digests[0] == digests[1]
        assert (receipt.same_bytes, receipt.id) == (False, there.id)
    shelf.opened.clear()
    receipts = copy(shelf, shelf.models(), server.target(source=shelf))
    assert [one.bytes_sent for one in receipts] == [0] * 5
    assert not {blob.media_type for blob in shelf.opened} & {MODEL, ADAPTER}


def test_what_nobody_has_hashed_arrives_at_a_server(server: InDepot) -> None:
    store = MemoryStore()
    model = store.image("loose", *FULL, unread=1)
    receipts = copy(store, [model], server.target())
    assert receipts[0].model.blobs[0].digest == Digest.of(FULL[0][1])
    assert server.names() == [model.name.full]
    other = store.image("loose", *TINY, unread=1)
    before = server.look()
    with pytest.raises(Taken):
        copy(store, [other], server.target())
    assert server.look() == before


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("layer", [0, 6], ids=["large", "small"])
def test_bad_readers_leave_nothing_at_a_server(server: InDepot, how: str, layer: int) -> None:
    store = MemoryStore()
    model = store.image("bad", *FULL)
    blob = next(one for one in model.blobs if one.digest == Digest.of(FULL[layer][1]))

    def put_all_the_same() -> None:
        with server.target().session([model]) as session:
            with pytest.raises((Corrupt, Refused, Unreachable, Boom)):
                session.put(blob, BAD[how](store.bytes[blob.id]))
            for other in model.blobs:
                if other is not blob:
                    session.put(other, BytesReader(store.bytes[other.id]))
            session.commit(model)

    with pytest.raises(NotFound):
        put_all_the_same()
    assert server.names() == []
    assert blob.digest not in {Digest.of(raw) for _, raw in tree(server.path).values()}
    assert blob.id in [one.id for one in server.target().missing([model])]
    assert server.scratch() == []


def test_a_server_left_without_commit(server: InDepot, shelf: MemoryStore) -> None:
    models = list(shelf.models())
    with server.target().session(models) as session:
        feed(session, shelf, models)
    assert server.names() == []
    assert server.scratch() == []


def test_a_taken_name_at_a_server(server: InDepot, tiny: MemoryStore) -> None:
    copy(tiny, tiny.models(), server.target())
    store, other = other_than(tiny, "TINY")
    before = server.look()
    with pytest.raises(Taken):
        copy(store, [other], server.target(source=store))
    assert server.look() == before
    copy(store, [other], server.target(source=store, replace=True))
    assert [len(model.blobs) for model in server.source().models()] == [5]


# --- going wrong, and not waiting


def test_a_failure_is_told_at_once(shelf: MemoryStore) -> None:
    """Blobs that nobody has begun with are not waited for."""
    store = MemoryStore()
    model = store.image("many", *((LICENSE, noise(100, place_)) for place_ in range(30)))
    store.bytes[model.blobs[3].digest] = b"damaged"
    began = time.monotonic()
    with pytest.raises(Corrupt):
        copy(store, [model], MemoryStore())
    assert time.monotonic() - began < 2


def test_what_comes_too_late_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A source that is silent while another blob fails: its bytes may find another file where its was."""
    monkeypatch.setattr("modelpack.hands.crew.GRACE", 0.2)
    store = MemoryStore()
    model = store.image("m", (MODEL, noise(3 * MIB)), (LICENSE, b"MIT"))
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    class Silent(BytesReader):
        def readinto(self, into: memoryview, /) -> int:
            begun.set()
            go.wait(10)
            return super().readinto(into)

    class Halting(MemoryStore):
        @contextlib.contextmanager
        def open(self, blob: Blob, offset: int = 0) -> Iterator[Reader]:
            try:
                if blob.media_type == MODEL:
                    yield Silent(store.bytes[blob.id])
                    return
                begun.wait(10)
                raise NotFound("gone")
            finally:
                if blob.media_type == MODEL:
                    ended.set()

    with pytest.raises(NotFound):
        copy(Halting(), [model], Archive(tmp_path / "b.tar"))
    assert os.listdir(tmp_path) == []
    fds = [os.open(tmp_path / f"innocent-{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
    go.set()
    assert ended.wait(10)
    assert [os.fstat(fd).st_size for fd in fds] == [0] * 20
    for fd in fds:
        os.close(fd)


def test_the_reader_of_a_pipe_goes_away(shelf: MemoryStore) -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(Local, match="went away"):
        copy(shelf, shelf.models(), PipeTarget(write))
    os.close(write)


def test_a_loose_file_that_changes(tmp_path: Path) -> None:
    """Between its header and its copy: the config would tell of another file."""
    path = tmp_path / "m.gguf"
    for change in (
        lambda: path.write_bytes(FULL[0][1]),
        lambda: path.write_bytes(WEIGHTS + b"more"),
        lambda: os.replace(tmp_path / "other", path),
        lambda: os.utime(path, (5, 5)),
    ):
        path.write_bytes(WEIGHTS)
        (tmp_path / "other").write_bytes(WEIGHTS)
        os.utime(path, (1, 1))
        loose = LooseGguf(path)
        models = loose.models()
        change()
        for target in (Archive(tmp_path / "b.tar"), FolderBundle(tmp_path / "b"), MemoryStore()):
            with pytest.raises(Corrupt, match="changed"):
                copy(loose, models, target)
        assert not (tmp_path / "b.tar").exists()
    loose = LooseGguf(path)
    copy(loose, loose.models(), Archive(tmp_path / "b.tar"))
    assert bits(Archive(tmp_path / "b.tar"))


# --- long ways


def test_there_and_back_over_every_kind(shelf: MemoryStore, tmp_path: Path) -> None:
    assert round_trip(shelf, tmp_path) == bits(shelf)


@needs_shared
@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_recorded_models_there_and_back(version: str, tmp_path: Path) -> None:
    """folder → tar → pipe → models directory, every file of it as Ollama left it."""
    assert SHARED is not None
    path = SHARED / "recorded" / f"models-{version}"
    source = ModelsDir(path)
    assert len(source.models()) == len(list(source.scan())) >= 8
    assert round_trip(source, tmp_path) == bits(source)
    want = {key: raw for key, (_, raw) in tree(path).items() if key != "tags.json"}
    assert {key: raw for key, (_, raw) in tree(tmp_path / "models").items()} == want


def round_trip(source: Source, tmp_path: Path) -> Bits:
    folder, archive, pipe = FolderBundle(tmp_path / "folder"), Archive(tmp_path / "b.tar"), InPipe(tmp_path)
    copy(source, source.models(), folder)
    assert sha256sum(tmp_path / "folder").returncode == 0
    copy(folder, folder.models(), archive)
    copy(archive, archive.models(), pipe.target())
    passing = pipe.source()
    copy(passing, passing.models(), ModelsDir(tmp_path / "models"))
    pipe.close()
    again = Archive(tmp_path / "again.tar")
    models = ModelsDir(tmp_path / "models")
    in_order = {one.name: one for one in models.models()}
    titled = [
        dataclasses.replace(one, document=one.document.settled({blob.id: blob for blob in one.blobs}))
        for one in archive.models()
    ]
    assert {one.document.id for one in titled} == {one.document.id for one in in_order.values()}
    copy(models, titled, again)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert bits(again) == bits(archive) == bits(folder)
    return bits(models)
