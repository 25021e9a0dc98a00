"""Receipts as files: what they say, that cut and edited ones are noticed, and that they appear whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import DIED, FULL, ROOT, TINY, MemoryStore, dying
from hypothesis import given
from hypothesis import strategies as st

from modelpack.documents.model import Model
from modelpack.documents.receipt import Receipt, State, Tried
from modelpack.documents.record import LIMIT, STEPS, WAYS, Arrived, Failure, Host, Record, Seen
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.record import FILE, host_of, nameless, now, read, record_of, write
from modelpack.verbs.transfer import copy
from modelpack.words.digest import Digest
from modelpack.words.name import Name

HOST = Host("server", "http://127.0.0.1:11434", "0.33.0")
WHEN = {"started": "2026-01-31T23:59:59Z", "ended": "2026-02-01T00:00:10Z"}

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw.hex()))
texts = st.text(max_size=30)
sizes = st.integers(0, 1 << 62)
words = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_-]{0,9}", fullmatch=True)
names = st.builds(Name, words, words, words, words)
tries = st.builds(Tried, st.booleans(), st.sampled_from(["token", "vector"]), texts, sizes, texts, sizes)
blobs = st.builds(Seen, digests, sizes, texts, st.sampled_from(State))
models = st.builds(
    Arrived, names, digests, st.none() | digests, st.sampled_from(WAYS),
    st.sampled_from(["bytes", "blobs", "meaning", None]), st.booleans(), texts, texts,
    st.lists(blobs, max_size=3).map(tuple), st.none() | tries,
)  # fmt: skip
failures = st.builds(Failure, st.sampled_from(STEPS), st.none() | names, texts, texts, texts, texts)
hosts = st.builds(
    Host,
    st.sampled_from(["server", "models directory", "registry"]),
    texts.filter(lambda text: "://" not in text),
    st.none() | texts,
)
times = st.sampled_from(list(WHEN.values()))
records = st.builds(
    Record, texts, st.none() | digests, hosts, times, times,
    st.lists(models, max_size=3).map(tuple), st.lists(failures, max_size=2).map(tuple),
)  # fmt: skip


def made(*, way: str = "exact", same: bool | None = True, **more: Any) -> Receipt:
    store = MemoryStore()
    model = store.image("tiny", *TINY)
    return Receipt(model, model.name, model.document.id, same, way, **more)


def a_record(receipt: Receipt | None = None, **failed: dict[str, ModelpackError]) -> Record:
    return record_of([receipt or made()], failed, HOST, bundle=Digest.of(b"bundle"), **WHEN)


def summed(value: dict[str, Any]) -> bytes:
    """*value* with a sum that fits, as somebody would make it who means it."""
    rest = {key: one for key, one in value.items() if key != "sum"}
    raw = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    return json.dumps(rest | {"sum": str(Digest.of(raw))}).encode()


@given(records)
def test_what_is_written_is_read(record: Record) -> None:
    assert Record.parse(record.to_bytes(), "a test") == record


@given(records, st.data())
def test_an_edited_one_is_noticed(record: Record, data: st.DataObject) -> None:
    """Any byte: what is read is the same, or it is no receipt any more."""
    raw = bytearray(record.to_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    try:
        found = Record.parse(bytes(raw), "a test")
    except (Corrupt, Unsupported):
        return
    assert found == record


@given(records, st.floats(0, 1, exclude_max=True))
def test_a_cut_one_is_noticed(record: Record, part: float) -> None:
    raw = record.to_bytes().rstrip()
    with pytest.raises(Corrupt):
        Record.parse(raw[: int(len(raw) * part)], "a test")


@given(st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda one: st.lists(one, max_size=3)
       | st.dictionaries(texts, one, max_size=3), max_leaves=8), st.data())  # fmt: skip
def test_a_sum_makes_no_receipt_of_anything(value: Any, data: st.DataObject) -> None:
    """Whatever stands at whatever place, with a sum that fits: refused, or read as what is written again."""
    whole = a_record(made(tried=Tried(True, "token")), load={"tiny": Refused("no")}).to_json()
    at: Any = whole
    while True:
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
        if not at[key] or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    try:
        found = Record.parse(summed(whole), "a test")
    except (Corrupt, Unsupported):
        return
    assert {**found.to_json(), "sum": 0} == {**whole, "sum": 0}


@pytest.mark.parametrize("version", [2, 0, "1", True, None, 1.0])
def test_another_version_is_said(version: object) -> None:
    raw = summed(a_record().to_json() | {"version": version, "more": 1})
    with pytest.raises(Unsupported, match=rf"schema version {version}; this modelpack reads version 1"):
        Record.parse(raw, "a test")


@pytest.mark.parametrize("raw", [b"{}", b'{"schema": "else"}', b'{"schemaVersion": 2, "layers": []}'])
def test_other_json_is_no_receipt(raw: bytes) -> None:
    with pytest.raises(Unsupported, match="no receipt"):
        Record.parse(raw, "a test")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"[" * 100_000, b"x" * (LIMIT + 1), b"[{}," * 600_000])
def test_noise_is_no_receipt(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        Record.parse(raw, "a test")


def test_credentials_are_refused_and_not_repeated() -> None:
    value = a_record().to_json()
    value["host"] = {"kind": "server", "where": "http://me:hunter2@host:1", "version": None}
    with pytest.raises(Corrupt, match="password") as caught:
        Record.parse(summed(value), "a test")
    assert "hunter2" not in str(caught.value)


def test_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert host_of({"kind": "models directory", "where": "/home/alice/models"}).where == "~/models"
    assert host_of({"kind": "models directory", "where": "~/models"}).where == "~/models"
    assert host_of({"kind": "server", "where": "http://me:pw@host:1/x"}).where == "http://host:1/x"
    assert (
        nameless("/home/alice: no; '/home/alice/b.tar', /home/alice2/x") == "~: no; '~/b.tar', /home/alice2/x"
    )
    error = Refused("said no", where="/home/alice/b.tar", advice="see http://a:b@c/")
    raw = a_record(load={"tiny": error}).to_bytes()
    assert b"alice" not in raw
    assert b"a:b@" not in raw


def test_a_bundle_has_no_receipt() -> None:
    with pytest.raises(Unsupported):
        host_of({"kind": "bundle", "where": "b.tar"})


# --- what is known of blobs


def states(receipt: Receipt) -> dict[str, str]:
    return {blob.kind: str(state) for blob, state in receipt.states()}


def test_states_of_the_ways() -> None:
    blobs = made().model.blobs
    weights, rest = blobs[:1], blobs[1:]
    sent = made(sent=rest, present=weights)
    assert states(sent) == {
        "model": "seen by name only", "template": "sent", "params": "sent", "config": "sent",
    }  # fmt: skip
    assert states(replace(sent, way="directory"))["model"] == "seen by name and size"
    created = replace(sent, way="create", same_bytes=False)
    assert states(created) == {
        "model": "seen by name only", "template": "told", "params": "told", "config": "told",
    }  # fmt: skip
    there = made(way="create", same=False, present=blobs, there=True)
    assert set(states(there).values()) == {"not looked at"}
    assert weights[0].digest is not None
    assert states(replace(sent, proven=frozenset([weights[0].digest])))["model"] == "read back"


def test_the_same_is_said_in_three_words() -> None:
    assert made(same=True).same == "bytes"
    assert made(same=False).same == "blobs"
    assert made(way="create", same=False).same == "meaning"
    assert made(way="create", same=False, note="The server made something else of it.").same is None
    assert made(same=None).same is None


# --- the file


def test_written_whole_and_for_all_to_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    old = os.umask(0o077)
    try:
        write(path, a_record())
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert read(path) == a_record()
    assert os.listdir(tmp_path) == ["r.json"]


def test_only_a_receipt_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write(path, a_record())
    other = replace(a_record(), modelpack="other")
    FILE.check(path)
    write(path, other)
    assert read(path) == other
    for content in (b"", b"mine", other.to_bytes()[:-50]):
        path.write_bytes(content)
        for attempt in (lambda: FILE.check(path), lambda: write(path, other)):
            with pytest.raises(Refused, match="is there already"):
                attempt()
        assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        FILE.check(tmp_path / "none" / "r.json")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    for name in ("dir", "link"):
        with pytest.raises(Refused):
            FILE.check(tmp_path / name)


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(2 * 1024 * 1024 - 64 * 1024))
    blob = Seen(Digest.of(b""), 0, "x" * 1000, State.SENT)
    large = replace(a_record(), models=(replace(a_record().models[0], blobs=(blob,) * 500),))
    with pytest.raises(ModelpackError):
        write(small_disk / "r.json", large)
    assert os.listdir(small_disk) == ["fill"]


def test_killed_while_it_is_written(quick: Path) -> None:
    """After every step that the disk sees: no receipt, or a whole one."""
    for step in range(40):
        status = dying(lambda: write(quick / "r.json", a_record()), step)
        if (quick / "r.json").exists():
            assert read(quick / "r.json") == a_record()
        if status != DIED:
            assert step > 3
            return
    raise AssertionError("never ended")


def test_now_is_utc() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", now())


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_sum_as_the_docs_make_it(tmp_path: Path) -> None:
    write(tmp_path / "r.json", a_record(load={"tiny": Unreachable("nobody — there\x7f")}))
    done = subprocess.run(
        "jq -cSa 'del(.sum)' r.json | sha256sum", shell=True, cwd=tmp_path, capture_output=True, check=True
    )
    assert "sha256:" + done.stdout.decode().split()[0] == json.loads((tmp_path / "r.json").read_text())["sum"]


# --- the schema

SCHEMA = json.loads((ROOT / "docs" / "receipt.schema.json").read_text())
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def violations(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """What of *value* is not as *schema* says: just as much of JSON Schema as ours uses."""
    known = {"$schema", "$defs", "$ref", "title", "description", "type", "required", "properties", "items",
             "additionalProperties", "enum", "const", "pattern", "minimum", "anyOf"}  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    wrong: list[str] = []
    if "$ref" in schema:
        wrong += violations(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], at)
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "integer" and type(value) is int:
            break
        if kind != "integer" and isinstance(value, TYPES[kind]):
            break
    else:
        wrong += [f"{at} is no {kinds}"] if kinds else []
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{at} is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        wrong.append(f"{at} is not {schema['const']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        wrong.append(f"{at} does not match")
    if "minimum" in schema and isinstance(value, int) and value < schema["minimum"]:
        wrong.append(f"{at} is too small")
    if "anyOf" in schema and all(violations(value, one, at) for one in schema["anyOf"]):
        wrong.append(f"{at} is none of several")
    if isinstance(value, dict) and "properties" in schema:
        wrong += [f"{at} misses {key}" for key in schema["required"] if key not in value]
        wrong += [f"{at} has {key}" for key in value if key not in schema["properties"]]
        for key in value.keys() & schema["properties"].keys():
            wrong += violations(value[key], schema["properties"][key], f"{at}.{key}")
    if isinstance(value, list):
        for place, one in enumerate(value):
            wrong += violations(one, schema["items"], f"{at}[{place}]")
    return wrong


@given(records)
def test_every_receipt_is_as_the_schema_says(record: Record) -> None:
    assert violations(record.to_json(), SCHEMA) == []


def test_the_schema_can_say_no() -> None:
    good = a_record(made(tried=Tried(True, "token"), present=made().model.blobs)).to_json()
    assert violations(good, SCHEMA) == []
    assert violations(good | {"more": 1}, SCHEMA)
    assert violations({key: one for key, one in good.items() if key != "host"}, SCHEMA)
    for change in (
        {"way": "else"},
        {"id": "x"},
        {"there": 1},
        {"blobs": [{}]},
        {"tried": {}},
        {"name": None},
    ):
        assert violations(good | {"models": [good["models"][0] | change]}, SCHEMA), change


def test_the_schema_lists_what_there_is() -> None:
    defs = SCHEMA["$defs"]
    assert defs["blob"]["properties"]["state"]["enum"] == [str(one) for one in State]
    assert defs["model"]["properties"]["way"]["enum"] == list(WAYS)
    assert defs["failure"]["properties"]["step"]["enum"] == list(STEPS)
    for key, kind in {"model": Arrived, "blob": Seen, "tried": Tried, "failure": Failure}.items():
        assert defs[key]["required"] == list(kind.__dataclass_fields__)


def test_a_real_load(tmp_path: Path) -> None:
    """Into a models directory, twice: sent, then there by name and size."""
    store = MemoryStore()
    store.image("full", *FULL)
    target = ModelsDir(tmp_path / "models")
    (first,) = copy(store, store.models(), target)
    (second,) = copy(store, store.models(), target)
    host = host_of({"kind": "models directory", "where": str(tmp_path / "models")})
    for receipt, state in ((first, "sent"), (second, "seen by name and size")):
        record = record_of([receipt], {}, host, bundle=None, **WHEN)
        value = record.to_json()
        assert violations(value, SCHEMA) == []
        (model,) = value["models"]
        assert (model["way"], model["same"], model["id"]) == ("directory", "bytes", model["document"])
        assert {one["state"] for one in model["blobs"]} == {state}
        assert [one["digest"] for one in model["blobs"]] == [str(one.digest) for one in _model(store).blobs]


def _model(store: MemoryStore) -> Model:
    (model,) = store.models()
    return model
