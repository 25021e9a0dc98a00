"""diff: names and IDs, what differs in a model, what cannot be compared, and what is shown of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import FIXTURES, TINY, WEIGHTS, MemoryStore
from depots import own_depot
from hypothesis import given
from hypothesis import strategies as st

from modelpack.cli.diff import command
from modelpack.documents.difference import Difference, Entry, matched
from modelpack.documents.difference_facts import facts_of_image, facts_of_show
from modelpack.documents.difference_gguf import Header
from modelpack.documents.difference_parts import compare_facts
from modelpack.documents.difference_text import LINES, LONGEST, text_diff
from modelpack.documents.image import Image
from modelpack.documents.inventory import Held, Inventory
from modelpack.documents.receipt import Receipt
from modelpack.documents.record import Arrived, Host, Record
from modelpack.errors import Corrupt, NotFound, Unchecked, Usage
from modelpack.hands.ollama import Ollama
from modelpack.stores import Source
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.server_create import ServerCreate
from modelpack.verbs.diff import diff
from modelpack.verbs.telling import telling
from modelpack.verbs.transfer import copy
from modelpack.words.blob import ADAPTER, LICENSE, MESSAGES, MIB, MODEL, PARAMS, SYSTEM, TEMPLATE
from modelpack.words.digest import Digest
from modelpack.words.name import Name

BASE = ((MODEL, WEIGHTS), (TEMPLATE, b"{{ .System }}\n{{ .Prompt }}\n"))


def run(*args: object) -> Result:
    """The command, in this process; what it raised is raised again, unless it is an exit code."""
    done = CliRunner().invoke(command, [*map(str, args), "-q"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def tar(path: Path, store: MemoryStore) -> Path:
    copy(store, store.models(), Archive(path))
    return path


def directory(path: Path, store: MemoryStore) -> Path:
    copy(store, store.models(), ModelsDir(path))
    return path


def one(name: str, *layers: tuple[str, bytes], config: bytes = b"{}") -> MemoryStore:
    store = MemoryStore()
    store.image(name, *layers, config=config)
    return store


def small_gguf(path: Path, **pairs: Any) -> Path:
    """A GGUF of one tensor; `a__b` stands for the key a.b."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    for key, value in pairs.items():
        key = key.replace("__", ".")
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), dtype=np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def changes(found: Difference) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Of the only model that changed: part, key, before and after."""
    (changed,) = found.changed
    said: dict[str, dict[str, tuple[Any, Any]]] = {}
    for each in changed.changes:
        said.setdefault(each.part, {})[each.key] = (each.before, each.after)
    return said


# --- names and IDs


def test_the_same(tmp_path: Path) -> None:
    store = one("tiny", *TINY)
    places = [tar(tmp_path / "a.tar", store), directory(tmp_path / "models", store)]
    copy(store, store.models(), FolderBundle(tmp_path / "folder"))
    for place in (*places, tmp_path / "folder"):
        done = run(places[0], place)
        assert done.exit_code == 0
        assert "the same: tiny:latest" in done.stdout


def test_one_changed_template(tmp_path: Path) -> None:
    store, other = one("m", *BASE), one("m", BASE[0], (TEMPLATE, b"{{ .System }}\n<|{{ .Prompt }}\n"))
    for each in (store, other):
        each.image("unchanged", *TINY)
    a, b = tar(tmp_path / "a.tar", store), tar(tmp_path / "b.tar", other)
    done = run(a, b)
    assert done.exit_code == 12
    assert "-{{ .Prompt }}" in done.stdout
    assert "+<|{{ .Prompt }}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 changed, the same: unchanged:latest")
    assert list(changes(diff(str(a), str(b)))) == ["template"]
    value = json.loads(run(a, b, "--json").stdout)
    assert value["same"] is False
    assert [each["part"] for each in value["changed"][0]["changes"]] == ["template"]


def test_added_removed_and_renamed(tmp_path: Path) -> None:
    store, other = one("stays", *TINY), one("stays", *TINY)
    store.image("gone", (MODEL, b"gone"))
    other.image("come", (MODEL, b"come"))
    for kept, name in ((store, "old"), (other, "new")):
        kept.image(name, *BASE, config=b'{"one":"model"}')
    twin = dataclasses.replace(other.models()[0], name=Name.parse("twin"))
    other.add(twin)
    done = run(tar(tmp_path / "a.tar", store), directory(tmp_path / "b", other))
    assert done.exit_code == 12
    lines = done.stdout.splitlines()
    assert any(line.startswith("- gone:latest") for line in lines)
    assert any(line.startswith("+ come:latest") for line in lines)
    assert any("+ twin:latest" in line and "the same model as stays:latest" in line for line in lines)
    assert any("old:latest" in line and "is called new:latest there" in line for line in lines)
    assert lines[-1] == f"1 removed, 2 added, 1 renamed, the same: stays:latest ({twin.document.id.short})"


def test_names_are_compared_without_case(tmp_path: Path) -> None:
    store, other = one("Tiny", *TINY), one("tiny", *TINY)
    for each in (store, other):
        each.image("second", *TINY, config=b"{}")
    assert run(tar(tmp_path / "a.tar", store), directory(tmp_path / "b", other)).exit_code == 0


_NAMES = st.lists(
    st.tuples(st.sampled_from(["a", "A", "b", "c", "C"]), st.integers(0, 3)),
    max_size=5,
    unique_by=lambda each: each[0],
)


@given(_NAMES, _NAMES)
def test_every_model_is_told_of_once(a: list[tuple[str, int]], b: list[tuple[str, int]]) -> None:
    left, right = (
        [Entry(Name.parse(name), Digest.of(b"%d" % number)) for name, number in side] for side in (a, b)
    )
    found = matched(left, right)
    told = [*(pair[0] for pair in (*found.pairs, *found.renamed)), *(each.entry for each in found.removed)]
    assert sorted(told, key=str) == sorted(left, key=str)
    told = [*(pair[1] for pair in (*found.pairs, *found.renamed)), *(each.entry for each in found.added)]
    assert sorted(told, key=str) == sorted(right, key=str)
    assert all(one.name.folded == two.name.folded for one, two in found.pairs)
    assert all(one.ids & two.ids and one.name.folded != two.name.folded for one, two in found.renamed)


# --- one model


def test_a_model_of_each_whatever_its_name(tmp_path: Path) -> None:
    store = one("x", *BASE)
    store.image("y", *BASE, (SYSTEM, b"You."))
    bundle = tar(tmp_path / "a.tar", store)
    assert list(changes(diff(f"{bundle}#x", f"{bundle}#y"))) == ["system", "config"]
    assert run(f"{bundle}#x", f"{bundle}#x").exit_code == 0
    with pytest.raises(NotFound, match=r"has no model.*it has: x:latest, y:latest"):
        run(f"{bundle}#z", bundle)


def test_a_picked_model_is_looked_for_on_the_other_side(tmp_path: Path) -> None:
    store = one("x", *BASE)
    store.image("y", *TINY, config=b"{}")
    a, b = tar(tmp_path / "a.tar", store), tar(tmp_path / "b.tar", one("y", *TINY))
    assert run(f"{a}#y", a).exit_code == 0
    assert run(f"{a}#y", b).exit_code == 0
    assert list(changes(diff(f"{a}#x", str(b)))) == ["template", "parameters"]  # the only one there
    store.image("z", *TINY, config=b"{}")
    c = tar(tmp_path / "c.tar", store)
    done = run(f"{c}#x", directory(tmp_path / "d", store))
    assert done.exit_code == 0


def test_every_part_of_a_model(tmp_path: Path) -> None:
    before = one(
        "m", *BASE, (ADAPTER, b"adapter"), (SYSTEM, b"old"), (LICENSE, b"MIT"), (LICENSE, b"BSD"),
        (PARAMS, b'{"temperature":0.5,"stop":["a","b"],"seed":1}'),
        (MESSAGES, b'[{"role":"user","content":"hi"}]'), config=b'{"renderer":"qwen3","os":"linux"}',
    )  # fmt: skip
    after = one(
        "m", *BASE, (SYSTEM, b"new"), (LICENSE, b"BSD"), (LICENSE, b"Apache"),
        (PARAMS, b'{"temperature":0.7,"stop":["a"],"seed":1}'),
        (MESSAGES, b'[{"role":"user","content":"ho"}]'), config=b'{"parser":"qwen3","os":"linux"}',
    )  # fmt: skip
    found = changes(diff(str(tar(tmp_path / "a.tar", before)), str(directory(tmp_path / "b", after))))
    assert found["parameters"] == {"temperature": (0.5, 0.7), "stop": (["a", "b"], "a")}
    assert found["config"] == {"renderer": ("qwen3", None), "parser": (None, "qwen3")}
    assert found["adapter"][""][1] is None
    assert found["licence"][""][0]["digest"] == str(Digest.of(b"MIT"))
    assert found["licence"][""][1]["digest"] == str(Digest.of(b"Apache"))
    assert set(found) == {"adapter", "system", "parameters", "licence", "messages", "config"}


def test_what_is_only_written_otherwise_is_said_so(tmp_path: Path) -> None:
    a = tar(tmp_path / "a.tar", one("m", *BASE, (PARAMS, b'{"seed":1}'), config=b"{}"))
    b = tar(tmp_path / "b.tar", one("m", *BASE, (PARAMS, b'{"seed": 1.0}\n'), config=b"{}"))
    done = run(a, b)
    assert done.exit_code == 12
    assert "parameters: the same, written otherwise" in done.stdout
    store = one("m", *BASE, config=b"{}")
    model = store.models()[0]
    newline = dataclasses.replace(model, document=type(model.document).parse(model.document.raw + b"\n", ""))
    store.add(newline)
    c, d = tar(tmp_path / "c.tar", store), tar(tmp_path / "d.tar", one("m", *BASE, config=b"{}"))
    assert "manifest: the same blobs, written down otherwise" in run(c, d).stdout


# --- GGUFs


def test_metadata_key_by_key(tmp_path: Path) -> None:
    a = small_gguf(tmp_path / "a.gguf", llama__rope=1.5, general__name="x", tokens=["a", "b"], few=[1, 2])
    b = small_gguf(tmp_path / "b.gguf", llama__rope=2.5, tokens=["a", "c"], few=[1, 2], more=7)
    found = changes(diff(str(a), str(b)))
    said = found["weights metadata"]
    assert said["llama.rope"] == (1.5, 2.5)
    assert said["general.name"] == ("x", None)
    assert said["more"] == (None, 7)
    assert [side["count"] for side in said["tokens"]] == [2, 2]
    assert said["tokens"][0]["digest"] != said["tokens"][1]["digest"]
    assert "few" not in said
    assert "weights tensors" not in found
    assert run(a, b).exit_code == 12


def test_an_array_is_told_by_the_digest_of_its_bytes(tmp_path: Path) -> None:
    """Length, then bytes, for each string: type and count of the array stand before them."""
    place = small_gguf(tmp_path / "a.gguf", tokens=["ab", "c"], last=5)
    other = small_gguf(tmp_path / "b.gguf", tokens=["ab", "d"], last=5)
    before, after = changes(diff(str(place), str(other)))["weights metadata"]["tokens"]
    for value, third in ((before, b"c"), (after, b"d")):
        items = b"".join(len(each).to_bytes(8, "little") + each for each in (b"ab", third))
        raw = (8).to_bytes(4, "little") + (2).to_bytes(8, "little") + items
        assert value == {"of": "string", "count": 2, "digest": str(Digest.of(raw))}


def test_numbers_of_tensors_alone(tmp_path: Path) -> None:
    a = small_gguf(tmp_path / "a.gguf")
    raw = bytearray(a.read_bytes())
    raw[-1] ^= 1
    (tmp_path / "b.gguf").write_bytes(raw)
    done = run(a, tmp_path / "b.gguf")
    assert done.exit_code == 12
    assert "weights tensors: their numbers; the headers say the same" in done.stdout


def test_the_same_file_under_another_name(tmp_path: Path) -> None:
    a, b = small_gguf(tmp_path / "a.gguf"), small_gguf(tmp_path / "b.gguf")
    done = run(a, b)
    assert done.exit_code == 0
    assert "the same: a:latest and b:latest" in done.stdout


def test_weights_that_are_no_gguf_are_compared_by_digests(tmp_path: Path) -> None:
    a = tar(tmp_path / "a.tar", one("m", (MODEL, b"x" * 100), config=b"{}"))
    b = tar(tmp_path / "b.tar", one("m", (MODEL, b"y" * 100), config=b"{}"))
    (changed,) = diff(str(a), str(b)).changed
    assert [each.part for each in changed.changes] == ["weights"]
    assert len(changed.unsure) == 2
    assert "the inside of its weights" in changed.unsure[0]


# --- sides that have no bytes


def inventory_of(source: Source, *, blobs: bool = True) -> bytes:
    return Inventory.of(
        Held(
            model.name,
            model.document.id,
            model.size,
            tuple(sorted((blob.digest, blob.size) for blob in model.blobs if blob.digest)) if blobs else None,
        )
        for model in source.models()
    ).to_bytes()


def test_inventories(tmp_path: Path) -> None:
    store, other = one("m", *BASE, config=b"{}"), one("m", *TINY, config=b"{}")
    a = tmp_path / "a.json"
    a.write_bytes(inventory_of(store))
    b = tmp_path / "without-a-suffix"
    b.write_bytes(inventory_of(other))
    assert run(a, a).exit_code == 0
    assert run(a, tar(tmp_path / "a.tar", store)).exit_code == 0
    (changed,) = diff(str(a), str(directory(tmp_path / "models", other))).changed
    assert {each.part for each in changed.changes} == {"blob", "template", "parameters"}
    assert "one side has no bytes" in " ".join(changed.unsure)
    done = run(a, b)
    assert done.exit_code == 12
    assert "not compared: anything but digests" in done.stdout


def test_an_inventory_of_a_server_knows_ids_alone(tmp_path: Path) -> None:
    store, other = one("m", *BASE), one("m", *TINY)
    a = tmp_path / "a.json"
    a.write_bytes(inventory_of(store, blobs=False))
    done = run(a, tar(tmp_path / "b.tar", other))
    assert done.exit_code == 12
    assert "not compared: an inventory of a server tells IDs alone" in done.stdout


def record_of(store: MemoryStore, id_: Digest | None = None) -> bytes:
    receipts = [
        Receipt(model, model.name, id_ or model.document.id, True, "exact", sent=model.blobs)
        for model in store.models()
    ]
    host = Host("server", "http://127.0.0.1:11434", "0.33.0")
    times = ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z")
    return Record("1", None, host, *times, tuple(map(Arrived.of, receipts))).to_bytes()


def test_what_a_server_made_of_a_model_is_not_the_model(tmp_path: Path) -> None:
    """The receipt of a create: another ID, and so another model; of which the receipt knows no blob."""
    store = one("m", *BASE)
    (model,) = store.models()
    theirs = Digest.of(b"theirs")
    for note in ("", "The server made something else of it."):
        receipt = Receipt(model, model.name, theirs, False, "create", sent=model.blobs, note=note)
        file = receipt_file(tmp_path / "r.json", receipt)
        done = run(tar(tmp_path / "a.tar", store), file)
        assert done.exit_code == 12
        assert f"→ {theirs.short}" in done.stdout
        assert f"not compared: the server made it itself of {model.document.id.short}" in done.stdout
        (tmp_path / "a.tar").unlink()
    same = receipt_file(tmp_path / "s.json", Receipt(model, model.name, theirs, False, "exact"))
    assert run(tar(tmp_path / "a.tar", store), same).exit_code == 0  # an old server: the same blobs


def test_a_receipt_whose_proof_found_damage_is_not_called_the_same(tmp_path: Path) -> None:
    store = one("m", *BASE)
    (model,) = store.models()
    wrong = frozenset([model.blobs[0].digest or Digest.of(b"")])
    receipt = Receipt(model, model.name, model.document.id, None, "exact", present=model.blobs, wrong=wrong)
    file, bundle = receipt_file(tmp_path / "r.json", receipt), tar(tmp_path / "a.tar", store)
    done = run(bundle, file)
    assert done.exit_code == 11
    assert "was read back and is wrong" in done.stdout
    with pytest.raises(Unchecked):
        run(bundle, f"{file}#m")


@pytest.mark.parametrize("raw", [b"", b"[[[", b'"s"', b"\xff"])
def test_messages_that_cannot_be_read(tmp_path: Path, raw: bytes) -> None:
    a = directory(tmp_path / "a", one("m", *BASE, (MESSAGES, raw)))
    b = directory(tmp_path / "b", one("m", *BASE))
    for pair in ((a, b), (b, a)):
        assert run(*pair).exit_code == 12


def test_names_for_a_moment_are_no_models(tmp_path: Path) -> None:
    store = one("m", *BASE)
    a = directory(tmp_path / "a", store)
    store.image(f"10.0.0.7:4000/modelpack/{12 * 'a'}-{32 * 'b'}", *BASE)
    assert run(a, directory(tmp_path / "b", store)).exit_code == 0


def receipt_file(path: Path, receipt: Receipt) -> Path:
    host = Host("server", "http://127.0.0.1:11434", "0.33.0")
    times = ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z")
    path.write_bytes(Record("1", None, host, *times, (Arrived.of(receipt),)).to_bytes())
    return path


def test_receipts(tmp_path: Path) -> None:
    store = one("m", *BASE, config=b"{}")
    a, bundle = tmp_path / "receipt", tar(tmp_path / "a.tar", store)
    a.write_bytes(record_of(store))
    assert run(a, bundle).exit_code == 0
    other = tar(tmp_path / "b.tar", one("m", BASE[0], (TEMPLATE, b"other"), config=b"{}"))
    found = changes(diff(str(a), str(other)))
    assert list(found) == ["template"]  # the receipt says which kind each blob is
    a.write_bytes(record_of(store, Digest.of(b"what the server made of it")))
    assert run(a, bundle).exit_code == 0  # it was made of this document


def test_content_decides_what_a_file_tells(tmp_path: Path) -> None:
    place = tmp_path / "some.tar"
    place.write_bytes(inventory_of(one("m", *BASE)))
    assert isinstance(telling(place), Inventory)
    place.write_bytes(record_of(one("m", *BASE)))
    assert isinstance(telling(place), Record)
    for raw in (b"", b"GGUF", b'{"schema":"of somebody else"}', b'{"layers":[]}'):
        place.write_bytes(raw)
        assert telling(place) is None
    assert telling(tmp_path) is None
    for raw in (b'{"schema":"modelpack.inv', b"{" * 3_000_000, b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"):
        place.write_bytes(raw)
        with pytest.raises(Corrupt):
            telling(place)


# --- what cannot be read


def test_a_manifest_that_cannot_be_read_is_not_taken_for_a_removed_model(tmp_path: Path) -> None:
    store = one("m", *BASE)
    store.image("n", *TINY)
    a, b = tar(tmp_path / "a.tar", store), directory(tmp_path / "b", store)
    (b / "manifests/registry.ollama.ai/library/m/latest").write_bytes(b"{")
    done = run(a, b)
    assert done.exit_code == 11
    assert "not compared:" in done.stdout
    assert "1 not compared, the same: n:latest" in done.stdout
    assert json.loads(run(a, b, "--json").stdout)["same"] is None
    (b / "manifests/registry.ollama.ai/library/m/.DS_Store").write_bytes(b"x")
    (b / "manifests/registry.ollama.ai/library/m/latest").unlink()
    done = run(a, b)
    assert (done.exit_code, "- m:latest" in done.stdout) == (12, True)


def test_a_damaged_text_is_said_to_be_not_compared(tmp_path: Path) -> None:
    a = tar(tmp_path / "a.tar", one("m", *BASE, config=b"{}"))
    b = directory(tmp_path / "b", one("m", BASE[0], (TEMPLATE, b"other"), config=b"{}"))
    ModelsDir(b).file_of(Digest.of(b"other")).write_bytes(b"ohter")
    (changed,) = diff(str(a), str(b)).changed
    assert [each.part for each in changed.changes] == ["template"]
    assert "cannot be read" in changed.unsure[0]
    assert not changed.changes[0].lines


def test_nothing_is_read_that_both_have(tmp_path: Path) -> None:
    a = tar(tmp_path / "a.tar", one("m", *BASE, config=b"{}"))
    b = directory(tmp_path / "b", one("m", BASE[0], (TEMPLATE, b"other"), config=b"{}"))
    ModelsDir(b).file_of(Digest.of(WEIGHTS)).write_bytes(bytes(len(WEIGHTS)))  # no GGUF any more
    (changed,) = diff(str(a), str(b)).changed
    assert ([each.part for each in changed.changes], changed.unsure) == (["template"], ())


def test_both_sides_from_one_pipe() -> None:
    with pytest.raises(Usage):
        run("-", "-")


# --- servers


def test_a_server_against_a_bundle(tmp_path: Path) -> None:
    store = one("m", *BASE, (SYSTEM, b"old"))
    store.image("n", *TINY)
    bundle = tar(tmp_path / "a.tar", store)
    with own_depot(tmp_path / "models") as depot, Ollama(depot.url) as client:
        copy(store, store.models(), ModelsDir(tmp_path / "models"))
        done = run(bundle, depot.url)
        assert done.exit_code == 0
        assert "the same: 2 models" in done.stdout
        other = one("m", *BASE, (SYSTEM, b"new"))
        copy(other, other.models(), ServerCreate(client, source=other, replace=True))
        found = diff(f"{bundle}#m", depot.url)
        assert found.changed[0].before.name == found.changed[0].after.name == Name.parse("m")
        assert "system" in changes(found)
        assert not found.changed[0].unsure  # it was read back
        assert len(client.list()) == 2
        client.copy("n", f"127.0.0.1:1/modelpack/{'a' * 12}-{'b' * 32}")  # a load is under way
        assert not diff(str(bundle), depot.url).added
        done = run(bundle, f"{depot.url}#m", "--no-listen")
        assert done.exit_code == 12
        assert "system" in done.stdout
        assert "not compared: what /api/show does not tell" in done.stdout


def test_an_image_against_an_answer_of_show() -> None:
    """A server shows a template where there is none, and joins licences."""
    store = one("m", BASE[0], (LICENSE, b"MIT"), (LICENSE, b"BSD"), config=b"{}")
    image = store.models()[0].document
    assert isinstance(image, Image)
    ours = facts_of_image(image, store.bytes, {})
    shown = {"modelfile": f"FROM /x/sha256-{image.layers[0].digest.hex}\nTEMPLATE {{{{ .Prompt }}}}\n"}
    shown |= {"template": "{{ .Prompt }}", "license": "MIT\nBSD"}
    assert compare_facts(ours, facts_of_show(shown)) == ((), ())
    (found,) = compare_facts(ours, facts_of_show(shown | {"license": "MIT"}))[0]
    assert found.part == "licence"


def test_two_answers_of_show() -> None:
    def shown(**more: Any) -> dict[str, Any]:
        files = f"FROM /x/blobs/sha256-{'a' * 64}\nFROM C:\\b\\sha256-{'b' * 64}\n"
        text = f"# Modelfile\n\n{files}TEMPLATE {{{{ .Prompt }}}}\nSYSTEM be\nRENDERER r\n"
        found: dict[str, Any] = {
            "modelfile": text, "template": "{{ .Prompt }}", "system": "be", "parameters": "seed      1\n",
            "details": {"family": "llama"}, "model_info": {"a.b": 1, "long": None},
        }  # fmt: skip
        return found | more

    ours = facts_of_show(shown())
    assert [(file.part, file.digest) for file in ours.files] == [
        ("weights", Digest("sha256", "a" * 64)),
        ("projector", Digest("sha256", "b" * 64)),
    ]
    assert ours.config == {"model_family": "llama", "renderer": "r"}
    assert compare_facts(ours, ours) == ((), ())
    found, _ = compare_facts(ours, facts_of_show(shown(parameters='seed 2\nstop "a"', details=None)))
    assert {(each.part, each.key) for each in found} == {("parameters", "seed"), ("parameters", "stop")}


@given(
    st.recursive(
        st.none() | st.text(max_size=20) | st.integers() | st.just("FROM a/sha256-" + "a" * 64),
        lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=5), some, max_size=3),
        max_leaves=8,
    ).flatmap(
        lambda value: st.dictionaries(
            st.sampled_from(
                [
                    "modelfile",
                    "template",
                    "system",
                    "parameters",
                    "license",
                    "messages",
                    "details",
                    "model_info",
                ]
            ),
            st.just(value) | st.text(max_size=50),
        )
    )
)
def test_an_answer_of_show_may_be_anything(value: dict[str, Any]) -> None:
    facts = facts_of_show(value)
    assert compare_facts(facts, facts)[0] == ()


# --- what is shown


def test_hostile_texts_are_escaped_and_bounded(tmp_path: Path) -> None:
    bad = b"\x1b[31mred\r\n\xff\xfe\xe2\x80\xae" + b"\n".join(b"line %d" % each for each in range(500))
    a = tar(tmp_path / "a.tar", one("m", *BASE, config=b"{}"))
    params = json.dumps({"\x1b[2J": "\x1b\n"}).encode()
    config = json.dumps({"renderer": "\x1b]0;x\x07", "deep": [[[["\u202e" * 900]]]]}).encode()
    hostile = one("m", BASE[0], (TEMPLATE, bad), (PARAMS, params), config=config)
    done = run(a, tar(tmp_path / "b.tar", hostile))
    assert done.exit_code == 12
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "\\x1b[31mred" in done.stdout
    assert all(len(line) < 400 for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) < LINES + 20
    assert "more lines of this diff" in done.stdout


def test_a_diff_of_long_texts_takes_no_long_time() -> None:
    many = "\n".join("x" if each % 3 else str(each) for each in range(900))
    other = "\n".join("x" if each % 2 else str(each) for each in range(900))
    assert len(text_diff(many, other)) == LINES + 1
    assert text_diff("a" * MIB, "b" * MIB) == ()
    assert text_diff("\n" * 5000, "b") == ()


@given(st.text(max_size=300), st.text(max_size=300))
def test_text_diff_tells_of_every_difference(before: str, after: str) -> None:
    lines = text_diff(before, after)
    assert bool(lines) == (before != after)
    assert all(len(line) <= LONGEST + 40 for line in lines)


def test_a_long_line_is_compared_by_its_statements() -> None:
    line = "".join(f"{{% if a{each} %}}b{{% endif %}}" for each in range(30))
    lines = text_diff(line, line.replace("a7", "a99"))
    assert "-{% if a7 %}" in lines
    assert "+{% if a99 %}" in lines
    assert len(lines) < 8


def test_a_header_that_a_server_told_is_compared_as_far_as_it_goes() -> None:
    file = Header("F16", {"a": 9.999999747378752e-06, "b": 5, "c": "x"}, {"a": "float32", "b": "uint32"}, {})
    from modelpack.documents.difference_gguf import compare_headers

    assert compare_headers("weights", file, Header.told({"a": 1e-05, "b": 5, "more": 1}))[0] == []
    (found,) = compare_headers("weights", file, Header.told({"a": 1e-05, "b": 6}))[0]
    assert (found.key, found.before, found.after) == ("b", 5, 6)


def test_a_recipe_against_a_recipe(tmp_path: Path) -> None:
    store, other = MemoryStore(), MemoryStore()
    raw = (FIXTURES / "tiny-llama.gguf").read_bytes()
    store.recipe("m", **{"a.gguf": raw})
    other.recipe("m", **{"a.gguf": raw, "b.gguf": b"more"})
    found = changes(diff(str(tar(tmp_path / "a.tar", store)), str(tar(tmp_path / "b.tar", other))))
    assert list(found) == ["weights"]
    image = tar(tmp_path / "c.tar", one("m", *BASE))
    assert changes(diff(str(tmp_path / "a.tar"), str(image)))["document"][""] == ("recipe", "image")
