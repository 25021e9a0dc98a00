"""A bundle without what is there already: it says so, is checked for it, and grows whole again."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import (
    DIED,
    TINY,
    MemoryStore,
    bits,
    dying,
    files_of,
    noise,
    sha256sum,
    tree,
)
from hypothesis import given
from hypothesis import strategies as st
from test_cli import modelpack
from test_inventory import DIGESTS, NAMES, SIZES

from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.documents import contents as reading
from modelpack.documents.expects import NOTHING, Elsewhere, Expected, Expects, absent
from modelpack.documents.gojson import canonical_json
from modelpack.documents.model import blobs_of
from modelpack.documents.receipt import Receipt
from modelpack.documents.record import Arrived, Host, Record
from modelpack.errors import Corrupt, NotFound, Unreachable, Unsupported
from modelpack.hands.ollama import Ollama
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource, PipeTarget
from modelpack.stores.wrappers import Joined
from modelpack.verbs import locate
from modelpack.verbs.installed import Installed
from modelpack.verbs.inventory import held, of_directory, of_server
from modelpack.verbs.record import record_of
from modelpack.verbs.since import Known, Left, known, known_of_record, left_out, since
from modelpack.verbs.transfer import copy
from modelpack.verbs.verify import verify
from modelpack.words.blob import LICENSE, MIB, MODEL, SYSTEM, TEMPLATE
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader

NOWHERE = Installed(())
WEIGHTS = TINY[0]
OLD = (WEIGHTS, (TEMPLATE, b"{{ .Prompt }} old"), (LICENSE, b"MIT"))
NEW = (WEIGHTS, (TEMPLATE, b"{{ .Prompt }} new"), (LICENSE, b"MIT"))
OTHER = ((MODEL, TINY[0][1] + noise(100_000, "other")), (LICENSE, b"MIT"))


def before() -> MemoryStore:
    """What the target has."""
    store = MemoryStore()
    store.image("tiny", *OLD)
    store.image("other", *OTHER)
    return store


def after() -> MemoryStore:
    """What the packing side has: one model changed, one as before, one new with weights that are known."""
    store = MemoryStore()
    store.image("tiny", *NEW)
    store.image("other", *OTHER)
    store.image("newcomer", WEIGHTS, (SYSTEM, b"You are new."))
    return store


def has(store: MemoryStore) -> Known:
    return Known.of(held(model) for model in store.models())


def without(store: MemoryStore, there: MemoryStore) -> Left:
    return left_out(store.models(), has(there))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A models directory that has what was there before."""
    store = before()
    copy(store, store.models(), ModelsDir(tmp_path / "target"))
    return tmp_path / "target"


def pack(kind: str, path: Path, store: Source, left: Left) -> Source:
    """A delta, written and opened again."""
    if kind == "folder":
        copy(store, left.models, FolderBundle(path, expects=left.expects))
        return FolderBundle(path)
    if kind == "archive":
        copy(store, left.models, Archive(path, expects=left.expects))
        return Archive(path)
    with path.open("wb") as file:
        copy(store, left.models, PipeTarget(file.fileno(), expects=left.expects))
    return PipeSource(BytesReader(path.read_bytes()))


KINDS = ["archive", "folder", "pipe"]


# --- the file


EXPECTS = st.lists(st.builds(Expected, DIGESTS, SIZES, NAMES, DIGESTS), max_size=5).map(Expects.of)


@given(EXPECTS)
def test_what_is_written_is_read(made: Expects) -> None:
    assert Expects.parse(made.raw(), "here") == made
    assert Expects.of(reversed(made.blobs)) == made


@given(EXPECTS, st.data())
def test_cut_or_edited(made: Expects, data: st.DataObject) -> None:
    raw = made.raw()
    with pytest.raises(Corrupt):
        Expects.parse(raw[: data.draw(st.integers(0, len(raw) - 2))], "here")
    edited = bytearray(raw)
    edited[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Expects.parse(bytes(edited), "here")
    except (Corrupt, Unsupported):
        return
    assert Expects.parse(found.raw(), "here") == found


def test_another_version() -> None:
    raw = NOTHING.raw().replace(b'"version":1', b'"version":2')
    with pytest.raises(Unsupported):
        Expects.parse(raw, "here")


# --- what is left out


def test_models_whole_and_blobs_of_others() -> None:
    left = without(after(), before())
    assert [str(model.name) for model in left.models] == ["tiny:latest", "newcomer:latest"]
    assert [str(model.name) for model in left.there] == ["other:latest"]
    (one,) = left.expects.blobs
    assert (one.digest, one.size, str(one.name)) == (Digest.of(WEIGHTS[1]), len(WEIGHTS[1]), "tiny:latest")


def test_another_name_or_id_is_not_there() -> None:
    store, there = MemoryStore(), before()
    store.image("tiny:v2", *OLD)
    assert without(store, there).there == ()
    store = MemoryStore()
    store.image("TINY", *OLD, config=b'{"model_format":"gguf","name":"tiny"}\n')
    assert len(without(store, there).there) == 1


def test_a_size_that_differs_is_no_blob_that_is_there() -> None:
    store = after()
    wrong = Expected(Digest.of(WEIGHTS[1]), 7, Name.parse("x"), Digest.of(b""))
    assert left_out(store.models(), Known({}, {wrong.digest: wrong})).expects == NOTHING


def test_a_servers_id_stands_for_the_blobs_of_a_model_here(target: Path) -> None:
    """By any name, of the same source or in a models directory of this machine."""
    store, ids = after(), target.parent / "there.json"
    with running(Depot(target)) as url, Ollama(url) as client:
        ids.write_bytes(of_server(client).to_bytes())
    assert since([str(ids)], store, store.models(), NOWHERE).expects == NOTHING
    store.image("kept-as-old", *OLD, config=b'{"model_format":"gguf","name":"tiny"}\n')
    chosen = [model for model in store.models() if "kept" not in str(model.name)]
    assert len(since([str(ids)], store, chosen, NOWHERE).expects.blobs) == 1
    left = since([str(ids)], after(), after().models(), Installed((target.parent / "no", target)))
    assert len(left.expects.blobs) == 1


def test_an_earlier_bundle_a_delta_too(tmp_path: Path, target: Path) -> None:
    """Who has the delta loaded has what it expected."""
    store = after()
    pack("folder", tmp_path / "first", store, without(store, before()))
    left = since([str(tmp_path / "first")], store, store.models(), NOWHERE)
    assert [str(model.name) for model in left.models] == ["other:latest"]
    assert left.expects == NOTHING
    (tmp_path / "there.json").write_bytes(of_directory(ModelsDir(target)).inventory.to_bytes())
    left = since([str(tmp_path / "first"), str(tmp_path / "there.json")], store, store.models(), NOWHERE)
    assert left.models == ()


def test_the_files_of_a_recipe_are_not_kept_by_a_server() -> None:
    store, again = MemoryStore(), MemoryStore()
    store.recipe("r", **{"model.gguf": WEIGHTS[1]})
    again.recipe("r", **{"model.gguf": WEIGHTS[1]})
    again.image("tiny", *NEW)
    left = left_out(again.models(), has(store))
    assert [str(model.name) for model in left.there] == ["r:latest"]
    assert left.expects == NOTHING


def test_a_receipt(tmp_path: Path) -> None:
    there, store = before(), after()
    receipts = [
        Receipt(model, model.name, model.document.id, True, "exact", sent=model.blobs)
        for model in there.models()
    ]
    made = [replace(receipts[0], same_bytes=False, id=Digest.of(b"rewritten"), way="create"), receipts[1]]
    for told, count in ((receipts, 1), (made, 0)):
        host = Host("server", "http://127.0.0.1:11434", "0.33.0")
        models = tuple(map(Arrived.of, told))
        record = Record("1", None, host, "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", models)
        (tmp_path / "r.json").write_bytes(record.to_bytes())
        left = since([str(tmp_path / "r.json")], store, store.models(), NOWHERE)
        assert [str(model.name) for model in left.there] == ["other:latest"]
        assert len(left.expects.blobs) == count
        assert list(known_of_record(record))[1] == held(there.models()[1])


@pytest.mark.parametrize("damaged", [True, False])
def test_a_receipt_whose_proof_failed(damaged: bool, tmp_path: Path) -> None:
    """What it found to be damaged is not there, by ID or blob; where it could not look, all is as without."""
    tiny, other = before().models()
    wrong = frozenset([tiny.blobs[0].digest or Digest.of(b"")] if damaged else [])
    receipts = [
        Receipt(tiny, tiny.name, tiny.document.id, True, "exact", present=tiny.blobs, wrong=wrong),
        Receipt(other, other.name, other.document.id, True, "exact", present=other.blobs),
    ]
    error = Corrupt("is damaged") if damaged else Unreachable("hung up")
    times = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:01Z"}
    host = Host("server", "http://127.0.0.1:11434", "0.33.0")
    record = record_of(receipts, {"prove": {tiny.name.full: error}}, host, bundle=None, **times)
    for failed in (record, replace(record, failed=())):  # by the state of the blob, too
        (tmp_path / "r.json").write_bytes(failed.to_bytes())
        left = since([str(tmp_path / "r.json")], before(), before().models(), NOWHERE)
        assert [str(one.name) for one in left.models] == (["tiny:latest"] if damaged else [])
        left = since([str(tmp_path / "r.json")], after(), after().models(), NOWHERE)
        assert len(left.expects.blobs) == (0 if damaged else 1)


def test_what_is_neither(tmp_path: Path, target: Path, tiny: MemoryStore) -> None:
    (tmp_path / "other.json").write_text('{"schema": "something"}')
    (tmp_path / "x.gguf").write_bytes(WEIGHTS[1])
    (tmp_path / "x.txt").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    raw = of_directory(ModelsDir(target)).inventory.to_bytes()
    (tmp_path / "cut.json").write_bytes(raw[:-20])
    (tmp_path / "newer.json").write_bytes(raw.replace(b'"version": 1', b'"version": 9'))
    for name, kind in (
        ("other.json", Unsupported),
        ("x.gguf", Unsupported),
        ("x.txt", Unsupported),
        ("empty", Unsupported),
        ("target", Unsupported),
        ("missing.json", NotFound),
        ("cut.json", Corrupt),
        ("newer.json", Unsupported),
    ):
        with pytest.raises(kind) as caught:
            known([str(tmp_path / name)], list)
        assert name in str(caught.value)


def test_unread_blobs_are_hashed_first(tmp_path: Path, target: Path) -> None:
    (tmp_path / "there.json").write_bytes(of_directory(ModelsDir(target)).inventory.to_bytes())
    store = MemoryStore()
    store.image("loose", *NEW, unread=1)
    assert left_out(store.models(), has(before())).expects == NOTHING
    left = since([str(tmp_path / "there.json")], store, store.models(), NOWHERE)
    assert len(left.expects.blobs) == 1


def test_what_a_create_request_says_travels_always() -> None:
    """A server that makes a model by create is told template and licence, known there or not."""
    store = MemoryStore()
    store.image("second", *OLD)
    left = without(store, before())
    kept = [blob for blob in store.models()[0].blobs if blob not in left.expects]
    assert sorted(blob.kind for blob in kept) == ["config", "license", "template"]


# --- the bundle


@pytest.mark.parametrize("kind", KINDS)
def test_into_a_models_directory(kind: str, tmp_path: Path, target: Path) -> None:
    store, left = after(), without(after(), before())
    delta = pack(kind, tmp_path / "d.tar", store, left)
    assert Digest.of(WEIGHTS[1]) not in [blob.digest for blob in store.opened]
    receipts = copy(delta, delta.models(), ModelsDir(target, replace=True))
    assert [receipt.id for receipt in receipts] == [model.document.id for model in left.models]
    assert bits(ModelsDir(target)) == bits(store)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_into_a_server(kind: str, tmp_path: Path, target: Path) -> None:
    store = after()
    delta = pack(kind, tmp_path / "d.tar", store, without(store, before()))
    with running(Depot(target, writable=True)) as url:
        copy(delta, delta.models(), locate.target(url, delta, replace=True))
        with Ollama(url) as client:
            assert client.show("tiny").template == "{{ .Prompt }} new"
            assert client.show("newcomer").system == "You are new."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["directory", "server"])
def test_what_is_expected_and_not_there(kind: str, place: str, tmp_path: Path) -> None:
    """Said before a byte moves, though all the other blobs could."""
    store, there = after(), MemoryStore()
    delta = pack(kind, tmp_path / "d.tar", store, without(store, before()))
    there.image("another", *OTHER)
    copy(there, there.models(), ModelsDir(tmp_path / "target"))
    seen = tree(tmp_path / "target")
    with running(Depot(tmp_path / "target", writable=True)) as url:
        end = url if place == "server" else str(tmp_path / "target")
        with pytest.raises(NotFound) as caught:
            copy(delta, delta.models(), locate.target(end, delta))
    assert "is a delta: 1 blob" in str(caught.value)
    assert "tiny:latest, newcomer:latest" in str(caught.value)
    assert str(Digest.of(WEIGHTS[1])) in str(caught.value)
    after_it = tree(tmp_path / "target")
    assert {path for path in after_it if "sha256-" in path} == {path for path in seen if "sha256-" in path}


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_reader_refuses(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it calls anything missing."""
    delta = pack(kind, tmp_path / "d.tar", after(), without(after(), before()))
    monkeypatch.setattr(reading, "KNOWN_NEEDS", frozenset())
    with pytest.raises(Unsupported, match="'delta'"):
        delta.models()


def test_what_is_in_it(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    pack("archive", tmp_path / "d.tar", store, left)
    pack("folder", tmp_path / "d", store, left)
    with tarfile.open(tmp_path / "d.tar") as tar:
        tar.extractall(tmp_path / "x", filter="data")
    assert files_of(tmp_path / "x") == files_of(tmp_path / "d")
    assert sha256sum(tmp_path / "d").returncode == 0
    sums = (tmp_path / "d" / "SHA256SUMS").read_text()
    assert "expects.json" in sums
    assert Digest.of(WEIGHTS[1]).hex not in sums
    notes = json.loads((tmp_path / "d" / "index.json").read_bytes())["annotations"]
    raw = (tmp_path / "d" / "expects.json").read_bytes()
    assert notes["dev.ollama-modelpack.needs"] == "delta"
    assert notes["dev.ollama-modelpack.expects"] == str(Digest.of(raw))
    assert Expects.parse(raw, "") == left.expects
    manifests = [path.read_bytes() for path in (tmp_path / "d" / "blobs" / "sha256").iterdir()]
    assert sum(Digest.of(WEIGHTS[1]).hex.encode() in raw for raw in manifests) == 4  # documents are complete


@pytest.mark.parametrize("kind", KINDS)
def test_without_expectations_nothing_changes(kind: str, tmp_path: Path) -> None:
    store = after()
    pack(kind, tmp_path / "a", store, Left(tuple(store.models())))
    unknown = Expects.of([Expected(Digest.of(b"else"), 4, Name.parse("x"), Digest.of(b"x"))])
    pack(kind, tmp_path / "b", store, Left(tuple(store.models()), expects=unknown))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert "expects.json" not in str(tree(tmp_path / "a"))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_packing_it_again(kind: str, tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    pack(kind, tmp_path / "d", store, left)
    seen, opened = tree(tmp_path / "d"), len(store.opened)
    end = (FolderBundle if kind == "folder" else Archive)(tmp_path / "d", expects=left.expects)
    assert all(receipt.there for receipt in copy(store, left.models, end))
    assert (tree(tmp_path / "d"), len(store.opened)) == (seen, opened)


def test_a_blob_that_is_expected_is_no_damage(tmp_path: Path) -> None:
    store = after()
    for kind in KINDS:
        delta = pack(kind, tmp_path / kind, store, without(store, before()))
        blob = next(blob for blob in delta.models()[0].blobs if blob.digest == Digest.of(WEIGHTS[1]))
        with pytest.raises(NotFound, match="expects it at the target") as caught, delta.open(blob):
            pass
        assert isinstance(caught.value, Elsewhere)
    assert not isinstance(absent(blob, NOTHING, ""), Elsewhere)


def test_it_is_no_source_for_other_bundles_and_plain_files(tmp_path: Path) -> None:
    """Unless those expect the same, or have what it lacks."""
    store, left = after(), without(after(), before())
    delta = pack("archive", tmp_path / "d.tar", store, left)
    for end in (
        Archive(tmp_path / "e.tar"),
        FolderBundle(tmp_path / "e"),
        locate.plain_target(str(tmp_path / "p")),
    ):
        with pytest.raises(NotFound, match="is a delta"):
            copy(delta, delta.models(), end)
    assert not (tmp_path / "e.tar").exists()
    assert not (tmp_path / "p").exists()
    copy(delta, delta.models(), Archive(tmp_path / "e.tar", expects=left.expects))
    assert (tmp_path / "e.tar").read_bytes() == (tmp_path / "d.tar").read_bytes()
    there = before()
    copy(there, there.models(), FolderBundle(tmp_path / "full"))
    copy(delta, delta.models(), FolderBundle(tmp_path / "full", replace=True))
    assert FolderBundle(tmp_path / "full").expects == frozenset()
    assert bits(FolderBundle(tmp_path / "full")) == bits(store)


@pytest.mark.parametrize("turn", [1, -1])
def test_one_document_under_two_names_of_two_sources(turn: int, tmp_path: Path, target: Path) -> None:
    """The one source knows BLAKE3s, the other none: in an archive, each blob is described in one way."""
    store = before()
    copy(store, store.models(), Archive(tmp_path / "a.tar"))
    first, second = Archive(tmp_path / "a.tar"), ModelsDir(target)
    copies = [replace(one, name=Name.parse(f"copy-{one.name.model}")) for one in second.models()]
    both = Joined([(first, first.models()), (second, copies)][::turn])
    for there in (False, True):
        receipts = copy(both, both.models(), Archive(tmp_path / "both.tar"))
        assert [one.there for one in receipts] == [there] * 4
    assert len(bits(Archive(tmp_path / "both.tar"))) == 4


def test_a_delta_and_its_base_make_it_whole(tmp_path: Path) -> None:
    """In either order: each blob comes from the bundle that has it."""
    there, store = before(), after()
    copy(there, there.models()[1:], Archive(tmp_path / "other.tar"))
    copy(there, [replace(there.models()[0], name=Name.parse("old"))], FolderBundle(tmp_path / "base"))
    delta = pack("archive", tmp_path / "d.tar", store, without(store, there))
    parts = [(one, one.models()) for one in (delta, FolderBundle(tmp_path / "base"))]
    for number, both in enumerate((Joined(parts), Joined(parts[::-1]))):
        copy(both, both.models(), Archive(tmp_path / f"{number}.tar"))
        assert len(bits(Archive(tmp_path / f"{number}.tar"))) == 3
    lacking_it = Joined([parts[0], (Archive(tmp_path / "other.tar"), there.models()[1:])])
    with pytest.raises(NotFound, match="is a delta"):
        copy(lacking_it, lacking_it.models(), Archive(tmp_path / "no.tar"))


# --- a folder that grows


def test_what_comes_is_expected_no_more(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    copy(store, left.models, FolderBundle(tmp_path / "d", expects=left.expects))
    assert len(FolderBundle(tmp_path / "d").expects) == 1
    copy(store, store.models()[1:], FolderBundle(tmp_path / "d"))
    copy(store, store.models(), FolderBundle(tmp_path / "whole"))
    found, want = FolderBundle(tmp_path / "d"), FolderBundle(tmp_path / "whole")
    assert found.expects == frozenset()
    assert bits(found) == bits(want)
    assert not (tmp_path / "d" / "expects.json").exists()
    assert sha256sum(tmp_path / "d").returncode == 0
    assert verify(found).good
    by_name = {model.name: model for model in want.models()}
    assert all(by_name[model.name] == model for model in found.models())  # their BLAKE3s, too


def test_what_is_there_is_not_expected(tmp_path: Path) -> None:
    store, there, left = after(), before(), without(after(), before())
    copy(there, there.models(), FolderBundle(tmp_path / "d"))
    copy(store, left.models, FolderBundle(tmp_path / "d", expects=left.expects, replace=True))
    assert FolderBundle(tmp_path / "d").expects == frozenset()
    assert bits(FolderBundle(tmp_path / "d")) == bits(store)


def test_what_no_model_names_any_more_is_expected_no_more(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    copy(store, left.models, FolderBundle(tmp_path / "d", expects=left.expects))
    for name in ("tiny", "newcomer"):
        store.image(name, *OTHER)
        copy(store, [store.kept[Name.parse(name).folded]], FolderBundle(tmp_path / "d", replace=True))
    assert FolderBundle(tmp_path / "d").expects == frozenset()
    assert not (tmp_path / "d" / "expects.json").exists()


def test_what_others_wait_for_is_still_expected(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    copy(store, left.models, FolderBundle(tmp_path / "d", expects=left.expects))
    more = MemoryStore()
    more.image("more", (MODEL, b"GGUF more"))
    copy(more, more.models(), FolderBundle(tmp_path / "d"))
    assert FolderBundle(tmp_path / "d").expects == left.expects.digests
    assert verify(FolderBundle(tmp_path / "d")).good


def test_what_was_lost_is_not_expected_by_itself(tmp_path: Path) -> None:
    """Unless it is packed so: the documents say then what the folder lacks."""
    store, left = after(), without(after(), before())
    copy(store, left.models, FolderBundle(tmp_path / "d"))
    (tmp_path / "d" / "blobs" / "sha256" / Digest.of(WEIGHTS[1]).hex).unlink()
    assert not verify(FolderBundle(tmp_path / "d")).good
    copy(store, left.models, FolderBundle(tmp_path / "d", expects=left.expects))
    assert FolderBundle(tmp_path / "d").expects == left.expects.digests
    assert verify(FolderBundle(tmp_path / "d")).good


def test_what_a_killed_run_expected_goes(tmp_path: Path) -> None:
    store = before()
    copy(store, store.models()[:1], FolderBundle(tmp_path / "d"))
    (tmp_path / "d" / "expects.json.new").write_bytes(NOTHING.raw())
    copy(store, store.models(), FolderBundle(tmp_path / "d"))
    assert not (tmp_path / "d" / "expects.json.new").exists()


def test_a_blake3_that_nobody_here_computed_is_not_passed_on(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    copy(store, left.models, Archive(tmp_path / "full.tar"))
    full = Archive(tmp_path / "full.tar")
    for kind in ("archive", "folder"):
        delta = pack(kind, tmp_path / kind, full, left_out(full.models(), has(before())))
        known = {blob.digest: blob.blake3 for blob in blobs_of(delta.models())}
        assert [digest for digest, noted in known.items() if noted is None] == [Digest.of(WEIGHTS[1])]


@pytest.mark.parametrize("how", ["begins", "grows", "expects more"])
def test_dying_at_any_step(how: str, quick: Path) -> None:
    """The folder is what it was, or what it is to be; the next pack finishes."""
    store, left = after(), without(after(), before())
    first = left if how != "begins" else None
    then = Left(tuple(store.models())) if how == "grows" else left
    if how == "expects more":
        store.image("more", OTHER[0], (SYSTEM, b"And more."))
        then = without(store, before())
    want = first.expects.digests if first else frozenset()

    def work() -> None:
        copy(store, then.models, FolderBundle(path, expects=then.expects))

    step = 0
    while True:
        path = quick / f"d{step}"
        if first is not None:
            copy(store, first.models, FolderBundle(path, expects=first.expects))
        died = dying(work, step) == DIED
        if (path / "index.json").exists():
            found = FolderBundle(path)
            assert found.expects in (want, then.expects.digests)
            for blob in blobs_of(found.models()):
                if blob.digest not in found.expects:
                    with found.open(blob):
                        pass
        work()
        found = FolderBundle(path)
        assert found.expects == then.expects.digests
        assert verify(found).good
        assert not (path / "expects.json.new").exists()
        assert sha256sum(path).returncode == 0
        if not died:
            break
        step += 1
    assert step > 20


# --- verify; damage


def test_verify_knows(tmp_path: Path) -> None:
    store, left = after(), without(after(), before())
    for kind in ("archive", "folder"):
        verdict = verify(pack(kind, tmp_path / kind, store, left))
        assert verdict.good, verdict.problems
        assert verdict.unchecked == ["1 blob (80.3 kB) that the bundle, a delta, expects at the target."]
    template = tmp_path / "folder" / "blobs" / "sha256" / Digest.of(NEW[1][1]).hex
    template.write_bytes(b"x" * template.stat().st_size)
    assert [type(one) for one in verify(FolderBundle(tmp_path / "folder")).problems] == [Corrupt]
    template.unlink()
    assert [type(one) for one in verify(FolderBundle(tmp_path / "folder")).problems] == [NotFound]


def changed(path: Path, edit: Callable[[bytes], bytes | None]) -> Iterator[Source]:
    """The folder at *path* with its expects.json edited, as a folder, a tar and a pipe."""
    raw = edit((path / "expects.json").read_bytes())
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        names = ["oci-layout", "index.json", "SHA256SUMS", "expects.json", "README.txt"]
        blobs = sorted(path.glob("blobs/sha256/*"), key=lambda one: one.stat().st_size)
        for one in (*(path / name for name in names), *blobs):
            content = raw if one.name == "expects.json" else one.read_bytes()
            if content is not None:
                info = tarfile.TarInfo(one.relative_to(path).as_posix())
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path.with_suffix(".tar").write_bytes(made.getvalue())
    (path / "expects.json").unlink()
    if raw is not None:
        (path / "expects.json").write_bytes(raw)
    yield from (
        FolderBundle(path),
        Archive(path.with_suffix(".tar")),
        PipeSource(BytesReader(made.getvalue())),
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: None,
        lambda raw: raw[:-10],
        lambda raw: raw.replace(b"tiny", b"tinx"),
        lambda raw: NOTHING.raw(),
        lambda raw: b"",
    ],
    ids=["missing", "cut", "edited", "emptied", "empty"],
)
def test_expectations_that_were_changed(edit: Callable[[bytes], bytes | None], tmp_path: Path) -> None:
    """The fingerprint covers them: nobody can say later that a missing blob was expected."""
    pack("folder", tmp_path / "d", after(), without(after(), before()))
    for source in changed(tmp_path / "d", edit):
        with pytest.raises(Corrupt, match=r"expects\.json is (damaged|missing)"):
            source.models()


@pytest.mark.parametrize(
    ("expects", "word"),
    [
        ([Expected(Digest.of(b"else"), 4, Name.parse("x"), Digest.of(b"x"))], "no model"),
        ([Expected(Digest.of(WEIGHTS[1]), 4, Name.parse("x"), Digest.of(b"x"))], "no model"),
    ],
)
def test_expectations_that_fit_no_model(expects: Sequence[Expected], word: str, tmp_path: Path) -> None:
    pack("folder", tmp_path / "d", after(), without(after(), before()))
    raw = Expects.of(expects).raw()
    (tmp_path / "d" / "expects.json").write_bytes(raw)
    index = json.loads((tmp_path / "d" / "index.json").read_bytes())
    index["annotations"]["dev.ollama-modelpack.expects"] = str(Digest.of(raw))
    (tmp_path / "d" / "index.json").write_bytes(canonical_json(index))
    (tmp_path / "d" / "SHA256SUMS").unlink()
    with pytest.raises(Corrupt, match=word):
        FolderBundle(tmp_path / "d").models()
    del index["annotations"]["dev.ollama-modelpack.expects"]
    (tmp_path / "d" / "index.json").write_bytes(canonical_json(index))
    with pytest.raises(Corrupt):
        FolderBundle(tmp_path / "d").models()


# --- size and speed


def test_one_changed_template_of_twenty_models(tmp_path: Path) -> None:
    """Under 256 KiB and two seconds: weights that are known are not read."""
    store = MemoryStore()
    for number in range(20):
        store.image(
            f"m{number}", (MODEL, noise(MIB, number)), (TEMPLATE, b"t%d" % number), (LICENSE, noise(30_000))
        )
    models = ModelsDir(tmp_path / "models")
    copy(store, store.models(), models)
    (tmp_path / "there.json").write_bytes(of_directory(models).inventory.to_bytes())
    store.image("m7", (MODEL, noise(MIB, 7)), (TEMPLATE, b"changed"), (LICENSE, noise(30_000)))
    copy(store, [store.kept[Name.parse("m7").folded]], ModelsDir(tmp_path / "models", replace=True))
    models.file_of(Digest.of(noise(MIB, 7))).write_bytes(bytes(MIB))  # reading it would be seen
    for output in ("d.tar", "d", "-"):
        begun = time.perf_counter()
        done = modelpack("pack", "models", "-o", output, "--since", "there.json", cwd=tmp_path)
        assert time.perf_counter() - begun < 2
        assert done.returncode == 0, done.stderr
        assert b"left out: 19 models" in done.stderr
        assert b"expects 1 blob (1.05 MB) at the target" in done.stderr
        if output == "-":
            assert len(done.stdout) < 256 * 1024
    assert (tmp_path / "d.tar").stat().st_size < 256 * 1024


# --- the command line


def test_the_commands(tmp_path: Path, target: Path) -> None:
    store = after()
    copy(store, store.models(), ModelsDir(tmp_path / "models"))
    run = lambda *args: modelpack(*args, cwd=tmp_path)  # noqa: E731
    assert run("inventory", "--from", "target", "-o", "there.json").returncode == 0
    done = run("pack", "models", "-o", "d.tar", "--since", "there.json", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["there"] == ["registry.ollama.ai/library/other:latest"]
    assert [one["digest"] for one in told["expects"]] == [str(Digest.of(WEIGHTS[1]))]
    assert b"not checked: 1 blob" in run("verify", "d.tar").stdout
    seen = tree(tmp_path / "models")
    (tmp_path / "empty").mkdir()
    done = run("load", "d.tar", "--to", "empty")
    assert done.returncode == 3, done.stderr
    assert b"is a delta" in done.stderr
    assert tree(tmp_path / "empty") == {}
    assert run("load", "d.tar", "--to", "empty", "--dry-run").returncode == 3
    assert run("unpack", "d.tar", "plain").returncode == 3
    assert not (tmp_path / "plain").exists()
    done = run("load", "d.tar", "--to", "target", "--replace")
    assert done.returncode == 0, done.stderr
    assert bits(ModelsDir(target)) == bits(store)
    assert tree(tmp_path / "models") == seen
    done = run("pack", "models", "-o", "e.tar", "--since", "target")
    assert done.returncode == 5
    assert b"modelpack inventory" in done.stderr
    assert run("inventory", "--from", "target", "-o", "there.json").returncode == 0
    done = run("pack", "models", "-o", "e.tar", "--since", "there.json")
    assert (done.returncode, (tmp_path / "e.tar").exists()) == (0, False)
    assert b"nothing to pack" in done.stderr
    assert run("pack", "models", "-o", "e.tar", "--since", "there.json.gone").returncode == 3
