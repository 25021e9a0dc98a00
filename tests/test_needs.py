"""What a model needs of an Ollama: the tables, and what is read out of documents and headers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import MemoryStore
from depots import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from test_gguf import build, line, pair, parse

from modelpack.documents import needs
from modelpack.documents.architectures import FIRST
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.gguf_types import TENSOR_TYPES
from modelpack.documents.model import Model
from modelpack.documents.needs import HEADERS_TELL_BEFORE, PARSERS, RENDERERS, TENSORS, Need, needs_of
from modelpack.documents.recipe import Recipe
from modelpack.hands.answers import version_number
from modelpack.words.blob import DRAFT, MODEL, TEMPLATE, TENSOR
from modelpack.words.name import Name

TABLES = {
    "architectures": FIRST, "renderers": RENDERERS, "parsers": PARSERS, "tensors": TENSORS,
}  # fmt: skip


def image(*layers: tuple[str, bytes]) -> Model:
    return MemoryStore().image("m", *(layers or ((MODEL, b"weights"),)))


def header(name: str) -> Gguf:
    return parse((FIXTURES / name).read_bytes())


def made(*pairs: tuple[str, str, Any], kind: int = 0) -> Gguf:
    return parse(build([pair(*one) for one in pairs], [line("t", [256], kind, 0)], 4096))


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_well_formed(table: str) -> None:
    """A release of Ollama's between 0.5.1 and 0.33, and a name as a GGUF or a config has it."""
    rows: dict[Any, str] = TABLES[table]  # type: ignore[assignment]
    assert rows
    for name, version in rows.items():
        number = version_number(version)
        assert number is not None, name
        assert re.fullmatch(r"0\.\d+\.\d+", version), name
        assert (0, 5, 0) < number <= (0, 33, 0), name
        if table == "tensors":
            assert name == 4 or name in TENSOR_TYPES
        else:
            assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name), name


def test_an_architecture_stands_in_one_row() -> None:
    from modelpack.documents import architectures

    names = [name for _, text in architectures._SINCE for name in text.split()]
    assert len(names) == len(set(names))
    versions = [version_number(version) or (0, 0, 0) for version, _ in architectures._SINCE]
    assert versions == sorted(set(versions))


def test_known_rows() -> None:
    """As seen in Ollama's tags: the release in which each was added."""
    assert FIRST["gemma3"] == "0.6.0"
    assert FIRST["qwen3"] == "0.6.6"
    assert FIRST["gpt-oss"] == "0.11.5"
    assert FIRST["qwen35"] == "0.17.1"
    assert FIRST["gemma4"] == "0.20.0"
    assert "llama" not in FIRST
    assert RENDERERS["qwen3-coder"] == "0.12.0"
    assert PARSERS["harmony"] == "0.12.1"


def test_what_a_config_says() -> None:
    config = {
        "model_family": "gemma4", "renderer": "gemma4", "parser": "gemma4-no-thinking",
        "requires": "0.20.3", "capabilities": ["vision"],
    }  # fmt: skip
    found = {need.what: need for need in needs_of(image(), config)}
    assert {what: need.since for what, need in found.items()} == {
        "what its maker says (`requires`)": "0.20.3",
        "its renderer 'gemma4'": "0.20.0",
        "its parser 'gemma4-no-thinking'": "0.20.0",
        "the list of its capabilities": "0.12.0",
        "the architecture 'gemma4'": "0.20.0",
    }
    assert not found["the list of its capabilities"].grave


def test_an_unknown_renderer_needs_the_field() -> None:
    (need,) = needs_of(image(), {"renderer": "of-tomorrow"})
    assert need.since == "0.12.0"


def test_an_unknown_architecture_says_nothing() -> None:
    assert needs_of(image(), {"model_family": "of-tomorrow"}) == ()
    assert needs_of(image(), {"model_family": "llama"}) == ()


def test_layers() -> None:
    assert [need.since for need in needs_of(image((MODEL, b"w"), (DRAFT, b"d")), {})] == ["0.30.0"]
    assert [need.since for need in needs_of(image((TENSOR, b"w"), (TENSOR, b"x")), {})] == ["0.14.0"]


def test_a_recipe_says_it_in_its_body() -> None:
    raw = b'{"from":"a","info":{"capabilities":["tools"]},"renderer":"lfm2","requires":"0.14.0"}'
    found = needs_of(Model(Name.parse("m"), Recipe.parse(raw, [], "a test")), {})
    assert [need.since for need in found] == ["0.14.0", "0.14.3", "0.12.0"]


@pytest.mark.parametrize(("kind", "since"), TENSORS.items())
def test_types_of_tensors(kind: int, since: str) -> None:
    model = made(("general.architecture", "string", "llama"), kind=kind)
    (need,) = needs_of(image((MODEL, b"w"), (TEMPLATE, b"t")), {}, [model])
    assert need.since == since
    assert need.what.startswith("tensors of type ")


def test_the_header_tells_the_architecture_better_than_the_config() -> None:
    model = made(("general.architecture", "string", "qwen35"), ("qwen35.block_count", "uint32", 1))
    (need,) = needs_of(image(), {"model_family": "gemma4"}, [model])
    assert need.what == "the architecture 'qwen35'"


def test_a_chat_template_of_the_gguf_alone() -> None:
    (need,) = needs_of(image(), {}, [header("tiny-chat.gguf")])
    assert need.since == "0.30.0"
    assert not need.grave
    assert needs_of(image((MODEL, b"w"), (TEMPLATE, b"t")), {}, [header("tiny-chat.gguf")]) == ()
    assert needs_of(image(), {}, [header("tiny-llama.gguf")]) == ()


def test_what_create_alone_needs() -> None:
    shard = header("tiny-llama-00002-of-00003.gguf")
    assert needs_of(image(), {}, [shard]) == ()
    assert [need.since for need in needs_of(image(), {}, [shard], create=True)] == ["0.30.0"]
    clip = ("general.architecture", "string", "clip")
    new = made(clip, ("general.type", "string", "mmproj"))
    old = made(clip, ("clip.vision.block_count", "uint32", 3))
    assert [need.since for need in needs_of(image(), {}, [new], create=True)] == [HEADERS_TELL_BEFORE]
    assert needs_of(image(), {}, [old], create=True) == ()
    assert needs_of(image(), {}, [new]) == ()


def test_headers_tell_nothing_to_newer_ones() -> None:
    """What only a header can tell is old by then."""
    last = version_number(HEADERS_TELL_BEFORE) or (0, 0, 0)
    tables = [needs._MMPROJ, needs._SPLIT, needs.CHAT_TEMPLATE, *TENSORS.values()]
    assert all((version_number(since) or (9, 9, 9)) <= last for since in tables)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["requires", "renderer", "parser", "model_family", "capabilities", "info", "template"])


@given(st.dictionaries(KEYS, JSON | st.text(min_size=500, max_size=600), max_size=5))
def test_any_config_is_read(config: dict[str, Any]) -> None:
    for need in needs_of(image(), config):
        assert isinstance(need, Need)
        assert len(need.what) < 400
        assert len(need.since) <= 80
