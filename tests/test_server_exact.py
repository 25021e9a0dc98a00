"""The exact way to a server: the same bytes and the same ID, or nothing; and which way is taken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MemoryStore, tree
from servers import FakeOllama, say, stream

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.receipt import Receipt, State
from modelpack.errors import NotFound, Partly, Refused, Taken, Unreachable, Unsupported, Usage
from modelpack.hands import temporary
from modelpack.hands.callback import Callback, Calling
from modelpack.hands.ollama import Ollama
from modelpack.stores import Target
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server_exact import ServerExact
from modelpack.verbs import ways
from modelpack.verbs.plans import Plan
from modelpack.verbs.transfer import carry_out, copy, plan
from modelpack.verbs.ways import Wish, server_target
from modelpack.words.blob import LICENSE, MODEL, PARAMS, TEMPLATE
from modelpack.words.digest import Digest
from modelpack.words.name import Name

WEIGHTS = b"weights" * 1000
LAYERS = ((MODEL, WEIGHTS), (TEMPLATE, b"{{ .Prompt }}!"), (PARAMS, b'{"num_ctx":128}'), (LICENSE, b"MIT"))


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama("0.24.0")


@pytest.fixture
def client(fake: FakeOllama) -> Iterator[Ollama]:
    with fake.running() as base:
        yield Ollama(base)


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.image("ns/m:v1", *LAYERS)
    return found


def exact(client: Ollama, *, replace: bool = False, calling: Calling = Calling()) -> ServerExact:  # noqa: B008
    return ServerExact(client, Callback(client.base, calling), replace=replace)


def uploads(fake: FakeOllama) -> int:
    return sum(one == "POST" and path.startswith("/api/blobs/") for one, path in fake.asked)


def temporaries(client: Ollama) -> list[str]:
    return [one.name for one in client.list() if temporary.is_temporary(Name.parse(one.name))]


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


# --- the same bytes


def test_the_same_id_arrives(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """Every blob is uploaded, config and texts too; the manifest comes by a pull; no other name stays."""
    (model,) = store.models()
    (receipt,) = copy(store, [model], exact(client))
    assert (receipt.way, receipt.same_bytes, receipt.id) == ("exact", True, model.document.id)
    assert fake.manifests == {"ns/m:v1": model.document.raw}
    assert set(fake.blobs.values()) == set(store.bytes.values())
    assert receipt.note == ""


def test_a_second_load_moves_nothing(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """The ID is there, and a file for each blob: nothing is sent, and no port opened."""
    copy(store, store.models(), exact(client))
    before = len(fake.asked)
    (receipt,) = copy(store, store.models(), exact(client, calling=Calling(off=True)))
    assert (receipt.there, receipt.same_bytes, receipt.bytes_sent) == (True, True, 0)
    assert not [one for one in fake.asked[before:] if one[0] == "POST"]


def test_a_listed_model_whose_blob_is_gone_gets_it_back(
    fake: FakeOllama, client: Ollama, store: MemoryStore
) -> None:
    """A name alone is no model."""
    copy(store, store.models(), exact(client))
    del fake.blobs[str(Digest.of(WEIGHTS))]
    (receipt,) = copy(store, store.models(), exact(client))
    assert receipt.bytes_sent == len(WEIGHTS)
    assert not receipt.there


def test_into_a_depot_bit_for_bit(tmp_path: Path, store: MemoryStore) -> None:
    """The files there are those that a copy into the directory makes."""
    copy(store, store.models(), ModelsDir(tmp_path / "straight"))
    with running(Depot(tmp_path / "served", writable=True)) as url:
        copy(store, store.models(), exact(Ollama(url)))
    assert tree(tmp_path / "served") == tree(tmp_path / "straight")


def test_an_old_server_changes_the_id_and_it_is_said(store: MemoryStore) -> None:
    """Before 0.19 the manifest is decoded and written anew: the same blobs, another ID."""
    (model,) = store.models()
    image = model.document
    assert isinstance(image, Image)
    created = Image.parse(image.raw + b"\n", "")  # as create writes it
    model = Model(model.name, created)
    fake = FakeOllama("0.12.6")
    fake.taken_up = lambda raw: Image.parse(raw, "").marshalled()
    with fake.running() as base:
        target = exact(Ollama(base))
        todo = plan(store, [model], target)
        assert f"the ID will be {image.id.short}, not {created.id.short}" in todo.notes[0]
        (receipt,) = copy(store, [model], target)
        again = plan(store, [model], exact(Ollama(base)))
    assert (receipt.same_bytes, receipt.id) == (False, image.id)
    assert receipt.note.startswith("The same blobs, another ID")
    assert again.placed[0] is not None


def test_a_manifest_changed_on_the_way_gets_no_name(
    fake: FakeOllama, client: Ollama, store: MemoryStore
) -> None:
    """The ID is compared under the temporary name; nothing is deleted, for it may be the only copy."""
    fake.taken_up = lambda raw: raw + b" "
    with pytest.raises(Refused, match="it was changed on the way"):
        copy(store, store.models(), exact(client))
    assert [temporary.is_temporary(Name.parse(one)) for one in fake.manifests] == [True]


@pytest.mark.parametrize("layer", [{"from": "/a/b"}, {"name": "x"}, {"strange": 1}])
def test_marshalled_keeps_what_go_knows(layer: dict[str, Any]) -> None:
    """`from` stays, in its place; what the struct has no field for is lost."""
    digest = "sha256:" + "0" * 64
    of: dict[str, Any] = {"mediaType": MODEL, "digest": digest, "size": 1}
    raw = go_json({"layers": [of | layer], "config": of, "schemaVersion": 2}) + b"\n"
    more = ',"from":"/a/b"' if "from" in layer else ""
    bare = f'{{"mediaType":"{MODEL}","digest":"{digest}","size":1'
    assert Image.parse(raw, "").marshalled().decode() == (
        f'{{"schemaVersion":2,"mediaType":"","config":{bare}}},"layers":[{bare}{more}}}]}}'
    )


# --- names that are taken, and others who are there


def test_a_taken_name_stays_unless_replaced(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """Before a byte moves; --replace gives it away."""
    copy(store, store.models(), exact(client))
    other = MemoryStore()
    other.image("NS/M:v1", (MODEL, b"others"), (TEMPLATE, b"x"))
    before = uploads(fake)
    with pytest.raises(Taken, match="is another model there"):
        copy(other, other.models(), exact(client))
    assert uploads(fake) == before
    (receipt,) = copy(other, other.models(), exact(client, replace=True))
    assert str(receipt.name) == "ns/m:v1"
    assert list(fake.manifests) == ["ns/m:v1"]


def test_a_name_taken_meanwhile_is_not_overwritten(
    fake: FakeOllama, client: Ollama, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at again before the copy; what came stays for the next run, which sends nothing."""
    real = Ollama.pull

    def pull(self: Ollama, *args: Any, **more: Any) -> Any:
        fake.models["ns/m:v1"] = {"model": "ns/m:v1"}
        return real(self, *args, **more)

    monkeypatch.setattr(Ollama, "pull", pull)
    with pytest.raises(Taken) as caught:
        copy(store, store.models(), exact(client))
    assert "`ollama rm` removes" in caught.value.advice
    assert temporaries(client)[0] in caught.value.advice
    monkeypatch.undo()
    before = uploads(fake)
    del fake.models["ns/m:v1"]
    (receipt,) = copy(store, store.models(), exact(client))
    assert receipt.same_bytes
    assert uploads(fake) == before


# --- crashes


@pytest.mark.parametrize("step", ["upload_blob", "pull", "copy", "delete"])
def test_a_crash_at_any_step_is_finished_by_the_next_run(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """And an hour later no name of the first run stands there any more, and no blob is lost."""
    (model,) = store.models()
    place = tmp_path / "served"
    with running(Depot(place, writable=True)) as url:
        client = Ollama(url)
        with monkeypatch.context() as patched:
            patched.setattr(Ollama, step, stopped)
            with pytest.raises(KeyboardInterrupt):
                copy(store, [model], exact(client))
        (receipt,) = copy(store, [model], exact(client))
        assert receipt.id == model.document.id
        left = temporaries(client)
        assert len(left) == (step in ("copy", "delete"))
        for manifest in (place / "manifests").rglob("latest"):
            os.utime(manifest, (time.time() - 7200, time.time() - 7200))
        copy(store, [model], exact(client))
        assert temporaries(client) == []
    assert tree(place) == _straight(tmp_path, store)


def _straight(tmp_path: Path, store: MemoryStore) -> object:
    copy(store, store.models(), ModelsDir(tmp_path / "straight"))
    return tree(tmp_path / "straight")


def test_the_servers_own_clock_says_what_is_old(tmp_path: Path, store: MemoryStore) -> None:
    """Not the times of other models: one of them may lie in the future."""
    place = tmp_path / "served"
    with running(Depot(place, writable=True)) as url:
        client = Ollama(url)
        copy(store, store.models(), exact(client))
        moment = temporary.temporary("10.0.0.7:41234", client.list()[0].digest)
        client.copy("ns/m:v1", str(moment))
        os.utime(place / "manifests/registry.ollama.ai/ns/m/v1", (time.time() + 86400,) * 2)
        temporary.sweep(client)
        assert temporaries(client) == [str(moment)]
        (mine,) = (place / "manifests").rglob("latest")
        for age, left in ((-86400, 1), (3500, 1), (3700, 0)):
            os.utime(mine, (time.time() - age,) * 2)
            temporary.sweep(client)
            assert len(temporaries(client)) == left


def test_create_cleans_up_too(tmp_path: Path, store: MemoryStore) -> None:
    place = tmp_path / "served"
    with running(Depot(place, writable=True)) as url:
        client = Ollama(url)
        copy(store, store.models(), exact(client))
        client.copy("ns/m:v1", str(temporary.temporary("10.0.0.7:41234", client.list()[0].digest)))
        (mine,) = (place / "manifests").rglob("latest")
        os.utime(mine, (time.time() - 7200,) * 2)
        copy(store, store.models(), wish(client, store, Wish(create=True)))
        assert temporaries(client) == []


def test_another_runs_name_that_vanishes(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """A model that somebody reads back just now has such a name: nothing is built upon it."""
    (model,) = store.models()
    for blob in model.blobs:
        fake.blobs[str(blob.digest)] = store.bytes[blob.digest]
    others = str(temporary.temporary("10.0.0.1:4000", model.document.id))
    fake.manifests[others] = model.document.raw

    def gone(at: Any) -> None:
        fake.manifests.pop(others, None)
        del fake.faults["POST /api/pull"]
        stream(at, [{"status": "pulling manifest"}])  # cut: the first asking tells whether it calls back

    fake.faults["POST /api/pull"] = gone
    with pytest.raises(Unreachable):
        copy(store, [model], exact(client))
    (receipt,) = copy(store, [model], exact(client))
    assert (receipt.same_bytes, receipt.bytes_sent) == (True, 0)
    assert list(fake.manifests) == ["ns/m:v1"]


def test_a_model_costs_three_lists(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """One before, one after the pull, one after the copy; a server with many models takes long over each."""
    target = exact(client)
    with target.session(store.models()) as session:
        for blob in target.missing(store.models()):
            with store.open(blob) as reader:
                session.put(blob, reader)
        before = fake.asked.count(("GET", "/api/tags"))
        session.commit(store.models()[0])
    assert fake.asked.count(("GET", "/api/tags")) - before == 3


def test_a_blob_that_came_meanwhile_was_not_sent(
    fake: FakeOllama, client: Ollama, store: MemoryStore
) -> None:
    """The server answers at once, and reads nothing: of the bytes that are there nobody knows."""
    weights = Digest.of(WEIGHTS)

    def brought(_plan: Plan) -> None:
        fake.blobs[str(weights)] = b"rotten"

    for asked in (Wish(exact=True), Wish(create=True)):
        fake.blobs.clear()
        fake.manifests.clear()
        (receipt,) = copy(store, store.models(), wish(client, store, asked), agree=brought)
        states = {blob.digest: state for blob, state in receipt.states()}
        assert states[weights] == State.NAMED
        assert weights in {blob.digest for blob in receipt.present}
        assert set(states.values()) == {State.NAMED, State.SENT if asked.exact else State.TOLD}
        fake.models.clear()


def test_the_same_id_is_the_same_bytes_whatever_was_asked_for(
    fake: FakeOllama, client: Ollama, store: MemoryStore
) -> None:
    copy(store, store.models(), exact(client))
    (receipt,) = copy(store, store.models(), wish(client, store, Wish(create=True)))
    assert (receipt.there, receipt.same_bytes, receipt.way) == (True, True, "exact")
    fake.blobs.clear()
    (receipt,) = copy(store, store.models(), wish(client, store, Wish(create=True)))
    assert (receipt.there, receipt.way) == (False, "create")


def test_the_line_that_breaks_after_some_have_arrived(fake: FakeOllama, client: Ollama) -> None:
    """Both are told of; where none has arrived it is the line's own error."""
    store = MemoryStore()
    for name in "ab":
        store.image(name, (MODEL, name.encode() * 1000), (TEMPLATE, b"tea"))
    real = fake._pull
    pulls: list[str] = []

    def pull(at: Any, name: str) -> None:
        pulls.append(name)
        if len(pulls) == breaking:
            drops(at)
        else:
            real(at, name)

    fake._pull = pull  # type: ignore[method-assign]
    breaking = 1
    with pytest.raises(Unreachable):
        copy(store, store.models(), exact(client))
    breaking = len(pulls) + 2
    with pytest.raises(Partly) as caught:
        copy(store, store.models(), exact(client))
    (one,) = caught.value.done
    assert isinstance(one, Receipt)
    assert str(one.name) == "a:latest"
    ((name, error),) = caught.value.failed.items()
    assert name.endswith("/b:latest")
    assert isinstance(error, Unreachable)


def test_a_plan_shows_what_is_taken(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """With what can be had; a load raises it before a byte moves."""
    copy(store, store.models(), exact(client))
    other = MemoryStore()
    other.image("ns/m:v1", (MODEL, b"others"), (TEMPLATE, b"x"))
    alone = plan(other, other.models(), exact(client))
    assert (alone.models, len(alone.failed)) == ((), 1)
    new = other.image("new", (MODEL, b"new"), (TEMPLATE, b"x"))
    todo = plan(other, other.models(), exact(client))
    assert todo.models == (new,)
    ((model, error),) = todo.failed
    assert str(model.name) == "ns/m:v1"
    assert isinstance(error, Taken)
    before = uploads(fake)
    for _ in range(2):
        with pytest.raises(Taken):
            copy(other, other.models(), exact(client))
    with pytest.raises(Taken):
        carry_out(todo, other, exact(client))
    assert uploads(fake) == before


def test_the_only_name_of_a_model_is_never_deleted(
    client: Ollama, fake: FakeOllama, store: MemoryStore
) -> None:
    """DELETE would throw its blobs away."""
    (model,) = store.models()
    moment = temporary.temporary("127.0.0.1:1", model.document.id)
    fake.manifests[str(moment)] = model.document.raw
    assert not temporary.drop(client, moment)
    assert str(moment) in fake.manifests
    fake.manifests["m:latest"] = model.document.raw
    assert not temporary.drop(client, Name.parse("m"))
    assert temporary.drop(client, moment)
    assert list(fake.manifests) == ["m:latest"]


# --- servers that do not play along


def pull_says(*lines: dict[str, Any]) -> Callable[[Any], None]:
    return lambda at: stream(at, list(lines))


def hangs(at: Any) -> None:
    time.sleep(3)


def drops(at: Any) -> None:
    at.send_response(200)
    at.send_header("Transfer-Encoding", "chunked")
    at.end_headers()
    at.close_connection = True


@pytest.mark.parametrize(
    ("fault", "words", "kind"),
    [
        (pull_says({"error": "disk full"}), "would not take up the manifest: disk full", Refused),
        (pull_says({"status": "success"}), "does not list", Refused),
        (hangs, "nobody came to", Unreachable),
        (drops, "did not take up the manifest", Unreachable),
        (lambda at: say(at, 404, {"error": "no"}), "would not take up", Refused),
    ],
)
def test_a_pull_that_goes_wrong(
    fake: FakeOllama,
    client: Ollama,
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Any], None],
    words: str,
    kind: type[Exception],
) -> None:
    """No name appears; the next run sends nothing again."""
    monkeypatch.setattr("modelpack.stores.server_exact_session._PATIENCE", 0.5)
    fake.faults["POST /api/pull"] = fault
    with pytest.raises(kind, match=words):
        copy(store, store.models(), exact(client))
    assert fake.manifests == {}
    fake.faults.clear()
    before = uploads(fake)
    copy(store, store.models(), exact(client))
    assert uploads(fake) == before


def test_blobs_that_vanish_between_upload_and_pull(
    fake: FakeOllama, client: Ollama, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarted may have pruned: that is said, and the next run sends them again."""
    real = Ollama.pull

    def pull(self: Ollama, *args: Any, **more: Any) -> Any:
        fake.blobs.clear()
        return real(self, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Ollama, "pull", pull)
        with pytest.raises(NotFound, match="was gone when the model was to get its name"):
            copy(store, store.models(), exact(client))
    (receipt,) = copy(store, store.models(), exact(client))
    assert receipt.same_bytes


# --- which way


def wish(client: Ollama, store: MemoryStore, asked: Wish = ways.ANY) -> Target:
    return server_target(client, store, wish=asked)


def the_way(client: Ollama, store: MemoryStore, asked: Wish = ways.ANY) -> list[tuple[str, str]]:
    return list(plan(store, store.models(), wish(client, store, asked)).ways)


def test_exact_where_the_server_calls_back(client: Ollama, store: MemoryStore) -> None:
    """And it is told, with the address that it came from."""
    assert the_way(client, store) == [("exact", "the server can call back (it came from 127.0.0.1)")]


def test_create_with_the_reason_where_nobody_comes(
    fake: FakeOllama, client: Ollama, store: MemoryStore
) -> None:
    """Within 10 seconds; and it goes by create then."""
    fake.faults["POST /api/pull"] = lambda at: time.sleep(20)  # its packets go nowhere
    begun = time.monotonic()
    (found,) = the_way(client, store)
    assert time.monotonic() - begun < 10
    assert found[0] == "create"
    assert "nobody came to 127.0.0.1" in found[1]


def test_a_proxy_on_the_server_is_a_reason(fake: FakeOllama, client: Ollama, store: MemoryStore) -> None:
    """Its pull went elsewhere."""
    fake.faults["POST /api/pull"] = pull_says({"error": "pull model manifest: file does not exist"})
    (found,) = the_way(client, store)
    assert found[0] == "create"
    assert "a proxy (HTTP_PROXY) may be set on it" in found[1]
    with pytest.raises(Unreachable, match="HTTP_PROXY"):
        the_way(client, store, Wish(exact=True))


def test_no_listen_and_create_open_no_port(
    client: Ollama, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is bound."""
    monkeypatch.setattr(Callback, "__enter__", stopped)
    (found,) = the_way(client, store, Wish(calling=Calling(off=True)))
    assert found == ("create", "--no-listen opens no port for the server to call back")
    (receipt,) = copy(store, store.models(), wish(client, store, Wish(create=True)))
    assert receipt.way == "create"
    for asked in ({"exact": True, "create": True}, {"exact": True, "calling": Calling(off=True)}):
        with pytest.raises(Usage):
            Wish(**asked)  # type: ignore[arg-type]


def test_without_a_template_an_old_server_looks_for_one(client: Ollama, fake: FakeOllama) -> None:
    """By create before 0.30; exactly from then on, and where it is insisted upon."""
    store = MemoryStore()
    store.image("m", (MODEL, WEIGHTS))
    (found,) = the_way(client, store)
    assert found[0] == "create"
    assert "it has no template" in found[1]
    assert the_way(client, store, Wish(exact=True))[0][0] == "exact"
    fake.version = {"version": "0.30.0"}
    assert the_way(Ollama(client.base), store)[0][0] == "exact"


def test_a_renderer_needs_no_template(client: Ollama) -> None:
    """An old server runs such a model as it is: it keeps its ID."""
    store = MemoryStore()
    store.image("m", (MODEL, WEIGHTS), config=b'{"model_format":"gguf","renderer":"qwen3-coder"}')
    assert the_way(client, store)[0][0] == "exact"


def test_what_create_made_before_is_not_taken_for_another(client: Ollama, store: MemoryStore) -> None:
    """The same meaning is there: nothing to do, unless the same ID is wanted."""
    copy(store, store.models(), wish(client, store, Wish(create=True)))
    (receipt,) = copy(store, store.models(), wish(client, store))
    assert (receipt.there, receipt.way) == (True, "create")
    with pytest.raises(Taken):
        copy(store, store.models(), wish(client, store, Wish(exact=True)))


def test_a_set_of_both_kinds_goes_both_ways(client: Ollama, fake: FakeOllama, store: MemoryStore) -> None:
    """An image exactly, a recipe that is made from it by create; each blob is sent once."""
    (model,) = store.models()
    store.recipe("r", **{"a.safetensors": WEIGHTS})
    target = wish(client, store)
    receipts = copy(store, store.models(), target)
    assert {str(one.name): one.way for one in receipts} == {"ns/m:v1": "exact", "r:latest": "create"}
    assert fake.received == model.size
    with pytest.raises((Unsupported, Partly), match=r"recipe|failed"):
        copy(store, store.models(), wish(client, store, Wish(exact=True)))


def test_small_blobs_of_both_ways_are_read_once(client: Ollama, fake: FakeOllama) -> None:
    """A template that one model carries in its request, and another as a blob."""
    store = MemoryStore()
    store.image("a", (MODEL, WEIGHTS), (TEMPLATE, b"tea"), (LICENSE, b"MIT"))
    store.image("b", (MODEL, b"others" * 1000), (LICENSE, b"MIT"))  # no template: by create
    receipts = copy(store, store.models(), wish(client, store))
    assert [one.way for one in receipts] == ["exact", "create"]
    assert fake.models["b:latest"]["license"] == ["MIT"]
    assert client.installed()["registry.ollama.ai/library/a:latest"].digest == receipts[0].model.document.id
