"""Ollama's config of a GGUF, byte for byte as real ones wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelpack.documents.config import (
    Defaults,
    Remark,
    defaults_for,
    human_number,
    ollama_config,
    remarks_on,
)
from modelpack.documents.gguf import Gguf, Place, Tensor, Value, read_gguf
from modelpack.words.reader import BytesReader

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = next((path for path in (ROOT.parent / "shared",) if path.is_dir()), None)
LLAMA = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"37K",'
    b'"file_type":"F16","architecture":"amd64","os":"linux"}\n'
)


def read(path: Path) -> Gguf:
    data = path.read_bytes()
    return read_gguf(BytesReader(data), len(data), where=path)


def made(metadata: dict[str, Value], *tensors: Tensor) -> Gguf:
    """A header that no file has; integers are uint32."""
    places = {
        key: Place("uint32" if isinstance(value, int) else "string", 0) for key, value in metadata.items()
    }
    checked = all(tensor.size is not None for tensor in tensors)
    return Gguf(3, 0, metadata, places, tensors, 32, 0, 0, 0, checked, None)


def of(architecture: str, **metadata: Value) -> Gguf:
    return made({"general.architecture": architecture} | metadata, Tensor("a", (1,), 0, 0, 4))


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-chat"])
def test_the_config_that_0_33_wrote(name: str) -> None:
    """0.33.0-rc2 was given these two fixtures, and wrote this."""
    expected = LLAMA if name == "tiny-llama" else LLAMA.replace(b"F16", b"Q8_0")
    assert ollama_config(read(FIXTURES / f"{name}.gguf")) == expected


@pytest.mark.skipif(SHARED is None, reason="../shared is not here")
def test_recorded_configs() -> None:
    """Every recorded model of 0.33 has the config made here of its GGUF, as uploaded and as rewritten."""
    assert SHARED is not None
    models = SHARED / "recorded" / "models-0.33"
    names = set()
    for path in (models / "manifests").glob("*/*/*/*"):
        manifest = json.loads(path.read_bytes())
        recorded = (models / "blobs" / manifest["config"]["digest"].replace(":", "-")).read_bytes()
        said = json.loads(recorded)
        asked = {key: said[key] for key in ("renderer", "parser", "requires") if key in said}
        for layer in manifest["layers"]:
            if layer["mediaType"].endswith(".model"):
                stored = read(models / "blobs" / layer["digest"].replace(":", "-"))
                assert ollama_config(stored, **asked) == recorded, path
        if said["file_type"] == "F16":
            uploaded = read(SHARED / "gguf" / "tiny-llama.gguf")
            assert ollama_config(uploaded, **asked) == recorded, path
        names.add(path.parent.name)
    assert names >= {"a", "b", "rp", "with-proj", "with-adapter", "split", "d", "q", "CaseD"}


def test_order_and_escapes() -> None:
    """Fields stand in Go's order, and text is escaped as Go does."""
    found = of("<&>")
    draft = of("small")
    assert ollama_config(found, renderer="r", parser="p", requires="0.30.0", draft=draft) == (
        b'{"model_format":"gguf","model_family":"\\u003c\\u0026\\u003e",'
        b'"model_families":["\\u003c\\u0026\\u003e"],"model_type":"1","file_type":"unknown",'
        b'"renderer":"r","parser":"p","requires":"0.30.0",'
        b'"draft":{"model_format":"gguf","architecture":"small"},"architecture":"amd64","os":"linux"}\n'
    )


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("gemma4", Defaults("gemma4", "gemma4", ("<turn|>",))),
        ("laguna", Defaults("laguna", "laguna")),
        ("nemotron_h", Defaults("nemotron-3-nano", "nemotron-3-nano")),
        ("nemotron_h_moe", Defaults("nemotron-3-nano", "nemotron-3-nano")),
        ("nemotron_h_omni", Defaults("nemotron-3-nano", "nemotron-3-nano")),
        ("gemma3", Defaults()),
        ("llama", Defaults()),
    ],
)
def test_defaults(architecture: str, expected: Defaults) -> None:
    """Renderer, parser and stop words come by architecture, each only where it is missing (seen on 0.33)."""
    found = of(architecture)
    assert defaults_for(found) == expected
    assert defaults_for(found, renderer="R") == Defaults("R", expected.parser, expected.stop)
    assert defaults_for(found, parser="P") == Defaults(expected.renderer, "P", expected.stop)
    assert defaults_for(found, renderer="R", parser="P") == Defaults("R", "P")
    config = json.loads(ollama_config(found, parser="P"))
    assert (config.get("renderer", ""), config["parser"]) == (expected.renderer, "P")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1500, "2K"),
        (2500, "2K"),  # to even, as Go's %.0f
        (37152, "37K"),
        (999_999, "1000K"),
        (1_000_000, "1M"),
        (22_566_000, "22.57M"),
        (137_000_000, "137M"),
        (999_999_999, "1000.00M"),
        (1_000_000_000, "1B"),
        (7_615_616_512, "7.6B"),
        (70_553_706_496, "70.6B"),
        (671_026_419_200, "671.0B"),
        (1 << 64, "18446744073.7B"),
    ],
)
def test_human_number(count: int, words: str) -> None:
    """Numbers as format.HumanNumber words them."""
    assert human_number(count) == words


def test_remarks_on_the_fixtures() -> None:
    """What each fixture calls for."""
    rewritten = Remark.SERVER_REWRITES
    said = {
        path.stem: remarks_on(read(path)) for path in FIXTURES.glob("*.gguf") if "endian" not in path.name
    }
    assert said["tiny-llama"] == {rewritten}
    assert said["tiny-chat"] == {rewritten, Remark.CHAT_TEMPLATE}
    assert said["tiny-vocab"] == {rewritten, Remark.NO_TENSORS}
    assert said["tiny-llama-00001-of-00003"] == {rewritten, Remark.SHARD}
    assert said["tiny-llama-00002-of-00003"] == {rewritten, Remark.SHARD, Remark.NO_ARCHITECTURE}
    assert said["tiny-mmproj"] == said["tiny-lora"] == set()


def test_remarks_on_oddities() -> None:
    """Unknown and scattered tensors, FP8, projectors without a type, models that see."""
    arch: dict[str, Value] = {"general.architecture": "x"}
    gap = made(arch, Tensor("a", (1,), 0, 0, 4), Tensor("b", (1,), 0, 64, 4))
    assert remarks_on(gap) == {Remark.SCATTERED, Remark.SERVER_REWRITES}
    unknown = made(arch, Tensor("a", (1,), 99, 0, None), Tensor("b", (1,), 0, 64, 4))
    assert remarks_on(unknown) == {Remark.UNKNOWN_TENSORS, Remark.SERVER_REWRITES}
    fp8 = arch | {"general.file_type": 1, "x.source_quantization": "hf_fp8", "x.source_fp8_tensors": ("a",)}
    assert Remark.SERVER_QUANTIZES in remarks_on(made(fp8, Tensor("a", (1,), 0, 0, 4)))
    assert Remark.SERVER_QUANTIZES not in remarks_on(made(fp8 | {"general.file_type": 0}))
    assert remarks_on(made(arch, Tensor("v.patch", (1,), 0, 0, 4))) == set()
    eye: dict[str, Value] = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    assert remarks_on(made(eye, Tensor("v.a", (1,), 0, 0, 4))) == {Remark.SERVER_REWRITES}
    typed = eye | {"clip.projector_type": "mlp"}
    assert remarks_on(made(typed, Tensor("v.a", (1,), 0, 0, 4))) == set()
