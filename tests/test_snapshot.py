"""Model folders: which files are taken, that all are whole, and that no link leads out of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_safetensors import safetensors

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported, Usage
from modelpack.hands.links import within
from modelpack.stores import files_snapshot
from modelpack.stores.files_snapshot import licences, snapshot_files, snapshot_name, snapshot_of

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
REVISION = "c1899de289a04d12100db370d81485cdf75e47ca"
INDEX = "model.safetensors.index.json"


def weights(*names: str) -> bytes:
    return safetensors(*((name, "BF16", (4, 2)) for name in names or ("w",)))


def write(folder: Path, name: str, content: bytes | str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def folder_of(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write(folder, name, content)
    return folder


def index_of(*shards: str) -> str:
    return json.dumps(
        {"metadata": {}, "weight_map": {f"t{place}": name for place, name in enumerate(shards)}}
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The smallest folder that is taken."""
    return folder_of(tmp_path / "model", {"config.json": "{}", "model.safetensors": weights()})


def test_what_ollama_takes(model: Path) -> None:
    """parser.go, filesForModel; no licences, no documentation, no files of other programs."""
    taken: dict[str, bytes | str] = {
        "model.fp32-00001-of-00001.safetensors": weights("other"),
        "tokenizer.json": "\ufeff {}",
        "merges.json": "[]",
        "chat_template.jinja": "{{ messages }}",
        "tokenizer.model": b"\n\x0e\n\x05<unk>",
        "1_Pooling/config.json": "{}",
        "2_Dense/model.safetensors": weights(),
    }
    left: dict[str, bytes | str] = dict.fromkeys(
        (
            "README.md", "LICENSE", "consolidated.safetensors", "pytorch_model.bin", "training_args.bin",
            "original/tokenizer.model", "onnx/deep/config.json", ".git/config.json", "._config.json",
            "diffusion.safetensors", "1_Pooling/other.safetensors", "Modelfile", "chat_template.jinja.bak",
            "model.safetensors.part", "2_Dense/chat_template.jinja",
        ),
        "whatever",
    )  # fmt: skip
    folder_of(model, taken | left)
    found = snapshot_files(model)
    assert list(found) == sorted([*taken, "config.json", "model.safetensors"])
    assert found == {name: model / name for name in found}


def test_consolidated_weights_and_a_tokenizer_below(tmp_path: Path) -> None:
    files = {
        "consolidated.safetensors": weights(),
        "config.json": "{}",
        "original/tokenizer.model": "dGV4dA== 0\n",
        "sub/model.safetensors": "not looked at",
    }
    found = snapshot_files(folder_of(tmp_path, files))
    assert list(found) == ["config.json", "consolidated.safetensors", "original/tokenizer.model"]
    write(tmp_path, INDEX, index_of("model-00001-of-00001.safetensors"))  # those left out when downloading
    assert INDEX in snapshot_files(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapters.safetensors", "model.safetensors"])
def test_adapters(tmp_path: Path, name: str) -> None:
    """Under the names that PEFT and MLX give them, and under the one that Ollama's command finds."""
    folder_of(tmp_path, {name: weights(), "adapter_config.json": "{}", "0000100_adapters.safetensors": "x"})
    assert list(snapshot_files(tmp_path, adapter=True)) == ["adapter_config.json", name]
    with pytest.raises(NotFound, match=r"holds an adapter|has no config\.json"):
        snapshot_files(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(NotFound, match=r"has no adapter_config\.json"):
        snapshot_files(tmp_path, adapter=True)


def test_an_adapter_beside_a_model(model: Path) -> None:
    folder_of(model, {"adapter_model.safetensors": weights(), "adapter_config.json": "{}"})
    assert "adapter_model.safetensors" not in snapshot_files(model)
    (model / "model.safetensors").unlink()
    write(model, INDEX, index_of("model-00001-of-00001.safetensors"))
    taken = ["adapter_config.json", "adapter_model.safetensors", "config.json", INDEX]
    assert list(snapshot_files(model, adapter=True)) == taken


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({}, NotFound, r"has no model\*\.safetensors"),
        ({"config.json": "{}"}, NotFound, r"has no model\*\.safetensors"),
        ({"weights.safetensors": ""}, NotFound, r"but weights\.safetensors"),
        ({"model.safetensors": weights()}, NotFound, r"has no config\.json"),
        ({"pytorch_model.bin": b"PK\3\4", "config.json": "{}"}, Unsupported, "PyTorch"),
        ({"consolidated.00.pth": b"PK\3\4", "config.json": "{}"}, Unsupported, "PyTorch"),
    ],
)
def test_no_model(tmp_path: Path, files: dict[str, bytes | str], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        snapshot_files(folder_of(tmp_path, files))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", weights()[:-3], "3 are missing"),
        ("model.safetensors", POINTER, "Git LFS pointer"),
        ("model.safetensors", "<html>", "web page"),
        ("2_Dense/model.safetensors", weights() + b"\0", "goes on for 1 bytes"),
        ("tokenizer.model", POINTER, "Git LFS pointer"),
        ("tokenizer.json", POINTER, "Git LFS pointer"),
        ("chat_template.jinja", POINTER, "Git LFS pointer"),
        ("config.json", "", "is empty"),
        ("config.json", "Entry not found", "plain text"),
        (
            "1_Pooling/config.json",
            b"\0\1\2\3",
            "does not begin as a JSON document does, but with 00 01 02 03",
        ),
    ],
)
def test_a_damaged_file_is_named(model: Path, name: str, content: bytes | str, says: str) -> None:
    write(model, name, content)
    with pytest.raises(Corrupt, match=says) as caught:
        snapshot_files(model)
    assert caught.value.where == str(model / name)


def test_all_damaged_files_are_named_at_once(model: Path) -> None:
    """As after a `git clone` without LFS."""
    names = [f"model-{number:05}-of-00012.safetensors" for number in range(1, 13)]
    (model / "model.safetensors").unlink()
    folder_of(model, dict.fromkeys(names, POINTER))
    with pytest.raises(Corrupt) as caught:
        snapshot_files(model)
    assert caught.value.what.startswith(
        f"12 files are not what they should be: {names[0]} is a Git LFS pointer"
    )
    assert f"{names[9]} is" in caught.value.what
    assert caught.value.what.endswith("and 2 more")
    assert caught.value.where == str(model)


def test_missing_shards_are_named(model: Path) -> None:
    shards = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
    (model / "model.safetensors").unlink()
    folder_of(model, {name: weights(name) for name in shards})
    write(model, INDEX, index_of(*shards))
    assert set(shards) < set(snapshot_files(model))
    (model / shards[1]).unlink()
    with pytest.raises(NotFound) as caught:
        snapshot_files(model)
    assert caught.value.what == f"{shards[1]} is missing: its index names it"
    (model / INDEX).unlink()
    with pytest.raises(NotFound) as caught:
        snapshot_files(model)
    assert caught.value.what == f"{shards[1]} is missing: the others' names count it"
    for name in (shards[0], *shards[2:]):
        (model / name).unlink()
    write(model, INDEX, index_of(*shards, "../../etc/passwd"))
    with pytest.raises(NotFound, match=r"etc/passwd, model-00001.*model-00004.* are missing: .* names them"):
        snapshot_files(model)


def test_shards_may_be_counted_from_zero(model: Path) -> None:
    (model / "model.safetensors").unlink()
    for number in range(3):
        write(model, f"model-{number:05}-of-00003.safetensors", weights(str(number)))
    assert len(snapshot_files(model)) == 4


def test_an_index_beside_a_whole_file_counts_for_nothing(model: Path) -> None:
    write(model, INDEX, index_of("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"))
    assert INDEX in snapshot_files(model)


@pytest.mark.parametrize(
    ("content", "says"), [("{}", "weight_map"), (POINTER, "Git LFS"), ('{"weight_map": ', "not JSON")]
)
def test_a_damaged_index(model: Path, content: str, says: str) -> None:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    write(model, INDEX, content)
    with pytest.raises(Corrupt, match=says) as caught:
        snapshot_files(model)
    assert caught.value.where == str(model / INDEX)


def test_an_index_of_gigabytes_is_not_read(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    write(model, INDEX, "{")
    for size, says in ((5 << 30, "larger than 256 MiB"), (30_000_000, "larger than 25000000 bytes")):
        os.truncate(model / INDEX, size)
        with pytest.raises(Corrupt, match=says):
            snapshot_files(model)


def test_a_tensor_in_two_files(model: Path) -> None:
    """0.24 makes a model of twice the size of it, 0.33 refuses it after the upload (seen)."""
    write(model, "model.fp16.safetensors", weights("v", "w"))
    with pytest.raises(Unsupported, match=r"'w' is in model\.fp16\.safetensors and in model\.safetensors"):
        snapshot_files(model)


@pytest.mark.parametrize(
    "name", ["a\\b.json", "C:x.json", "a\nb.json", os.fsdecode(b"\xff.json"), "a:b/c.json"]
)
def test_names_that_no_request_can_hold(model: Path, name: str) -> None:
    write(model, name, "{}")
    with pytest.raises(Refused, match="the name"):
        snapshot_files(model)


def test_strange_names_of_other_files_do_no_harm(model: Path) -> None:
    write(model, os.fsdecode(b"\xff"), "")
    write(model, "a:b/\\", "")
    assert len(snapshot_files(model)) == 2


def test_a_folder_that_may_not_be_listed_is_passed_over(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(model, "lost+found/x.json", "{}")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "lost+found")
    assert list(snapshot_files(model)) == ["config.json", "model.safetensors"]


def test_bounds(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write(model, f"{number}/a.json", "{}")
    monkeypatch.setattr(files_snapshot, "ENTRIES_MOST", 12)
    assert len(snapshot_files(model)) == 7
    monkeypatch.setattr(files_snapshot, "ENTRIES_MOST", 11)
    with pytest.raises(Refused, match="more than 11 names"):
        snapshot_files(model)
    monkeypatch.undo()
    monkeypatch.setattr(files_snapshot, "FILES_MOST", 6)
    with pytest.raises(Refused, match="7 files of a model"):
        snapshot_files(model)
    monkeypatch.undo()
    monkeypatch.setattr(files_snapshot, "TEXT_MOST", 1)
    with pytest.raises(Corrupt, match="larger than"):
        snapshot_files(model)
    monkeypatch.undo()
    monkeypatch.setattr(files_snapshot, "TENSORS_MOST", 0)
    with pytest.raises(Unsupported, match="more than 0 tensors"):
        snapshot_files(model)


def test_licences(model: Path) -> None:
    taken = ["COPYING", "LICENCE.txt", "LICENSE", "LICENSE-MODEL", "license.md"]
    for name in (*taken, "LICENSE.json", "licenses/MIT", "unlicensed"):
        write(model, name, "{}")
    assert licences(model) == {name: model / name for name in taken}


# --- links


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A repository in Hugging Face's cache: files of a snapshot are relative links to blobs."""
    root = tmp_path / "hub" / "models--Qwen--Qwen3-0.6B"
    snapshot = root / "snapshots" / REVISION
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    files = {"config.json": b"{}", "model.safetensors": weights(), "1_Pooling/config.json": b"[]"}
    for number, (name, content) in enumerate(files.items()):
        write(root, f"blobs/{number:064}", content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (2 + name.count("/"))
        (snapshot / name).symlink_to(f"{up}blobs/{number:064}")
    return root


def test_a_snapshot_of_hugging_face(cache: Path, tmp_path: Path) -> None:
    """Links are followed and their names kept, however the folder itself is reached."""
    blobs = {
        "1_Pooling/config.json": cache / "blobs" / f"{2:064}",
        "config.json": cache / "blobs" / f"{0:064}",
        "model.safetensors": cache / "blobs" / f"{1:064}",
    }
    (tmp_path / "hub2").symlink_to("hub")
    (tmp_path / "mine").symlink_to(cache / "snapshots" / REVISION)
    for folder in (
        cache / "snapshots" / REVISION,
        tmp_path / "hub2" / cache.name / "snapshots" / REVISION,
        tmp_path / "mine",
    ):
        assert snapshot_files(folder) == blobs


def test_a_snapshot_links_to_its_own_blobs_only(cache: Path) -> None:
    other = cache.parent / "models--x--y"
    shutil.copytree(cache, other, symlinks=True)
    snapshot = cache / "snapshots" / REVISION
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(other / "blobs" / f"{0:064}")
    with pytest.raises(Refused, match="lies outside"):
        snapshot_files(snapshot)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../refs/main")
    with pytest.raises(Refused, match="lies outside"):
        snapshot_files(snapshot)
    (snapshot / "blobs.json").symlink_to("../../blobs")
    with pytest.raises(Refused, match="lies outside"):
        within(snapshot / "blobs.json", snapshot)


def test_what_lies_beside_snapshots_is_none(cache: Path) -> None:
    (cache / "refs" / "x").symlink_to(f"../blobs/{0:064}")
    for folder in (cache / "refs", cache / "snapshots"):
        with pytest.raises(Refused, match="lies outside"):
            within(cache / "refs" / "x", folder)
    (cache / "other" / REVISION).mkdir(parents=True)
    (cache / "other" / REVISION / "x").symlink_to(f"../../blobs/{0:064}")
    with pytest.raises(Refused, match="lies outside"):
        within(cache / "other" / REVISION / "x", cache / "other" / REVISION)


def test_blobs_that_are_links_themselves(cache: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    blob = cache / "blobs" / f"{0:064}"
    blob.unlink()
    blob.symlink_to(secret)
    with pytest.raises(Refused, match=f"really {secret}"):
        snapshot_files(cache / "snapshots" / REVISION)


def test_a_folder_is_no_cache_because_of_what_is_in_it(tmp_path: Path) -> None:
    """The cache's rule is for folders that lie in a cache, not for ones that hold something like it."""
    folder = tmp_path / "download"
    inner = folder / "models--a--b" / "snapshots"
    inner.mkdir(parents=True)
    write(tmp_path, "blobs/x", "secret")
    (inner / "x").symlink_to("../../../blobs/x")
    with pytest.raises(Refused, match="lies outside"):
        within(inner / "x", folder)


def test_links_inside_a_folder_are_followed(model: Path) -> None:
    (model / "config.json").rename(model / "real")
    (model / "step").symlink_to("real")
    (model / "config.json").symlink_to("step")
    (model / "2_Dense").symlink_to("deep/dense")
    write(model, "deep/dense/config.json", "{}")
    found = snapshot_files(model)
    assert found["config.json"] == model / "real"
    assert found["2_Dense/config.json"] == model / "deep" / "dense" / "config.json"


def test_links_out_of_a_folder_are_not(model: Path, tmp_path: Path) -> None:
    write(tmp_path, "secret/shadow.json", "{}")
    (model / "vocab.json").symlink_to("../secret/shadow.json")
    with pytest.raises(Refused, match="lies outside") as caught:
        snapshot_files(model)
    assert caught.value.where == str(model / "vocab.json")
    assert str(tmp_path / "secret" / "shadow.json") in caught.value.advice
    (model / "vocab.json").unlink()
    (model / "sub").symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match="lies outside"):
        snapshot_files(model)
    (model / "sub").unlink()
    (model / "LICENSE").symlink_to("../secret/shadow.json")
    with pytest.raises(Refused, match="lies outside"):
        licences(model)
    assert len(snapshot_files(model)) == 2


def test_a_name_that_begins_alike_is_another_folder(model: Path) -> None:
    write(model.parent, "model-2/x", "")
    with pytest.raises(Refused, match="lies outside"):
        within(model.parent / "model-2" / "x", model)


def test_links_that_lead_nowhere(model: Path) -> None:
    (model / "vocab.json").symlink_to("../../blobs/gone")
    with pytest.raises(NotFound, match=r"leads nowhere: \.\./\.\./blobs/gone") as caught:
        snapshot_files(model)
    assert "download" in caught.value.advice
    (model / "vocab.json").unlink()
    (model / "a.json").symlink_to("b.json")
    (model / "b.json").symlink_to("a.json")
    with pytest.raises(Refused, match="leads back to itself"):
        snapshot_files(model)
    (model / "a.json").unlink()
    (model / "b.json").unlink()
    (model / "round").symlink_to(".")  # the same files again, as Ollama's pattern has them
    assert list(snapshot_files(model)) == [
        "config.json", "model.safetensors", "round/config.json", "round/model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "is a FIFO"),
        (make_socket, "is a socket"),
    ],
)
def test_special_files(
    model: Path, make: Callable[[str], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)  # a socket's path must be short
    make("vocab.json")
    with pytest.raises(Refused, match=says):
        snapshot_files(model)


def test_devices(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is a device"):
        within(Path("/dev/null"), Path("/dev"))


@pytest.mark.parametrize(
    ("name", "error"),
    [("gone", NotFound), ("config.json/x", NotFound), ("a\0b", Refused), ("\ud800", Refused)],
)
def test_no_such_path(model: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        within(model / name, model)


@given(st.text(max_size=20))
def test_no_name_surprises(name: str) -> None:
    """Whatever a Modelfile names: a place inside, or an error of ours."""
    here = Path(__file__).parent
    try:
        assert within(here / name, here).is_relative_to(here)
    except ModelpackError:
        pass


# --- repositories


def test_the_snapshot_of_a_repository(cache: Path) -> None:
    snapshot = cache / "snapshots" / REVISION
    assert snapshot_of(cache) == snapshot
    assert snapshot_of(snapshot) == snapshot
    assert snapshot_of(cache.parent) == cache.parent
    other = cache / "snapshots" / ("f" * 40)
    (cache / "refs" / "main").write_text(other.name)
    assert snapshot_of(cache) == snapshot  # the only one
    other.mkdir()
    assert snapshot_of(cache) == other
    for text in ("", "0" * 40, "..", f"../{other.name}"):
        (cache / "refs" / "main").write_text(text)
        with pytest.raises(Usage, match=f"2 snapshots: {REVISION}, {other.name}"):
            snapshot_of(cache)
    shutil.rmtree(cache / "refs")
    with pytest.raises(Usage, match="2 snapshots"):
        snapshot_of(cache)
    shutil.rmtree(cache / "snapshots")
    (cache / "snapshots").mkdir()
    with pytest.raises(NotFound, match="holds no snapshot"):
        snapshot_of(cache)


def test_a_snapshot_that_is_a_link_out_of_its_repository(cache: Path, tmp_path: Path) -> None:
    shutil.rmtree(cache / "snapshots" / REVISION)
    (cache / "snapshots" / REVISION).symlink_to(tmp_path)
    with pytest.raises(Refused, match="lies outside"):
        snapshot_of(cache)


def test_what_a_model_is_called(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cache / "snapshots" / REVISION
    assert snapshot_name(snapshot) == snapshot_name(cache) == "Qwen3-0.6B"
    assert snapshot_name(Path("hub/models--gpt2/snapshots") / REVISION) == "gpt2"
    assert snapshot_name(snapshot / "1_Pooling") == "1_Pooling"
    assert snapshot_name(Path("some/dir/.")) == "dir"
    monkeypatch.chdir(snapshot)
    assert snapshot_name(Path(".")) == "Qwen3-0.6B"
    monkeypatch.chdir(cache)
    assert snapshot_of(Path(".")) == Path("snapshots") / REVISION
