"""Names, digests, sizes, and text made safe to show."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import Corrupt, ModelpackError, Usage
from modelpack.words.blob import GIB, KIB, MIB, MODEL, Blob
from modelpack.words.digest import ZERO, ZERO_BLAKE3, Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader, fill, read_at_most, read_exactly
from modelpack.words.text import parse_size, size, visible

PART80, PART350 = "8" * 80, "3" * 350

# Source: types/model/name_test.go of Ollama v0.33 (TestParseNameParts, testCases), defaults filled in.
NAMES = {
    "registry.ollama.ai/library/dolphin-mistral:7b-v2.6-dpo-laser-q6_K": (
        "registry.ollama.ai",
        "library",
        "dolphin-mistral",
        "7b-v2.6-dpo-laser-q6_K",
    ),
    "https://host:8080/namespace/model:tag": ("host:8080", "namespace", "model", "tag"),
    "host/namespace/model:tag": ("host", "namespace", "model", "tag"),
    "host:port/namespace/model:tag": ("host:port", "namespace", "model", "tag"),
    "host:https/namespace/model:tag": ("host:https", "namespace", "model", "tag"),
    "host/namespace/model": ("host", "namespace", "model", "latest"),
    "host:port/namespace/model": ("host:port", "namespace", "model", "latest"),
    "namespace/model": ("registry.ollama.ai", "namespace", "model", "latest"),
    "model": ("registry.ollama.ai", "library", "model", "latest"),
    "model:tag": ("registry.ollama.ai", "library", "model", "tag"),
    "h/nn/mm:t": ("h", "nn", "mm", "t"),
    "h/n/m:t": ("h", "n", "m", "t"),
    "m": ("registry.ollama.ai", "library", "m", "latest"),
    "_why/_the/_lucky:_stiff": ("_why", "_the", "_lucky", "_stiff"),
    "a./b/c.:d.": ("a.", "b", "c.", "d."),
    f"{PART80}/{PART80}/{PART80}:{PART80}": (PART80,) * 4,
    f"{PART350}/{PART80}/{PART80}:{PART80}": (PART350, PART80, PART80, PART80),
}
NOT_NAMES = [
    "",
    "n/m:",
    "@t",
    "m@d",
    "^",
    "mm:",
    ":tag",
    "/nn/mm",
    "//",
    "//mm",
    "hh//",
    "hh//mm",
    "//mm:@",
    "00@",
    "@",
    "-hh/nn/mm:tt",
    "hh/-nn/mm:tt",
    "hh/nn/-mm:tt",
    "hh/nn/mm:-tt",
    "hh/nn/.mm",
    "hh/nn/mm:.tt",
    "host/name:space/model:tag",
    "n.s/m",
    "a/b/c/d",
    "a:b:c",
    "model:tag/x",
    f"{PART350}3/n/m",
    f"h/{PART80}8/m",
    f"h/n/{PART80}8",
    f"h/n/m:{PART80}8",
    "..",
    "../m",
    "n/..",
    "m:..",
    "é",
    "m\n",
    "m\0",
    " m",
    "m ",
    "n\\m",
    "m\u202e",
    "m²",
    "m٣",
]


@pytest.mark.parametrize("text", NAMES)
def test_names(text: str) -> None:
    name = Name.parse(text)
    assert name.parts == NAMES[text]
    assert Name.parse(name.full) == Name.of_path(name.parts) == Name.parse(str(name)) == name


@pytest.mark.parametrize("text", NOT_NAMES)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(Usage) as caught:
        Name.parse(text)
    assert caught.value.advice


# Ollama takes neither: `cutPromised` calls an empty part missing.
@pytest.mark.parametrize("text", ["/mm", "/mm:t"])
def test_an_empty_namespace_is_no_name(text: str) -> None:
    with pytest.raises(Usage):
        Name.parse(text)


# Source: TestDisplayShortest there.
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("registry.ollama.ai/library/model:latest", "model:latest"),
        ("registry.ollama.ai/library/model:tag", "model:tag"),
        ("registry.ollama.ai/namespace/model:tag", "namespace/model:tag"),
        ("host/namespace/model:tag", "host/namespace/model:tag"),
        ("host/library/model:tag", "host/library/model:tag"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    assert str(Name.parse(text)) == shown


def test_case_is_kept_and_not_compared() -> None:
    one, two = Name.parse("Host/NS/Model:Tag"), Name.parse("host/ns/MODEL:tag")
    assert one != two
    assert one.folded == two.folded
    assert one.full == "Host/NS/Model:Tag"


# Source: TestParseNameFromFilepath there.
@pytest.mark.parametrize(
    "parts",
    [
        ("namespace", "model", "tag"),
        ("model",),
        (),
        ("..", "..", "model", "tag"),
        ("", "namespace", ".", "tag"),
        (".", ".", ".", "."),
        ("path", "to", "random", "file", "x"),
        ("h", "n", "m", ".DS_Store"),
        ("h", "n", "m", "._latest"),
        ("h", "n", "a/b", "t"),
    ],
)
def test_what_is_no_path(parts: tuple[str, ...]) -> None:
    with pytest.raises(Usage):
        Name.of_path(parts)
    assert Name.of_path(("host:port", "namespace", "model", "tag")).host == "host:port"


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M"),
        ("MODEL.GGUF", "MODEL"),
        ("big-00001-of-00003.gguf", "big"),
        ("a b (c).gguf", "a-b-c"),
        ("..gguf", "model"),
        (".gguf", "model"),
        ("-.-.gguf", "model"),
        ("日本.gguf", "model"),
        ("модель-7b.gguf", "7b"),
        ("x" * 200 + ".gguf", "x" * 80),
        ("x" * 79 + "-yy.gguf", "x" * 79),
        ("v1.5.gguf", "v1.5"),
        (os.fsdecode(b"\xffname\xfe.gguf"), "name"),
        ("a\u202egguf.gguf", "a-gguf"),
    ],
)
def test_names_of_files(file: str, model: str) -> None:
    assert Name.of_file(file) == Name.parse(model)


@given(st.text(max_size=100))
def test_any_file_has_a_name(file: str) -> None:
    name = Name.of_file(file)
    assert Name.parse(name.full) == name


@given(st.text(alphabet="abAB09_-.:/@ \\é", max_size=40))
def test_any_text_is_a_name_or_is_not(text: str) -> None:
    try:
        name = Name.parse(text)
    except Usage:
        return
    assert Name.of_path(name.parts) == name
    assert ".." not in name.parts
    assert all("/" not in part for part in name.parts)


def test_digests() -> None:
    text = "0123456789abcdef" * 4
    for spelt in (f"sha256:{text}", f"sha256-{text}", f"sha256:{text.upper()}"):
        digest = Digest.parse(spelt)
        assert str(digest) == f"sha256:{text}"
        assert (digest.file_name, digest.short) == (f"sha256-{text}", text[:12])
    assert Digest.parse(f"blake3:{text}").algorithm == "blake3"
    assert str(Digest.of(b"")) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert len(str(ZERO)) == len(str(ZERO_BLAKE3)) == 71
    for wrong in (
        "",
        text,
        f"sha256:{text[1:]}",
        f"sha256:{text}0",
        f"sha256:{text}\n",
        f"sha256 {text}",
        f"SHA256:{text}",
        f"sha512:{text * 2}",
        f"sha256:{'g' * 64}",
        f"sha256:{'٣' * 64}",
        f"md5:{text}",
        None,
        5,
        ["sha256"],
        b"sha256:",
        "x" * 10**6,
    ):
        with pytest.raises(Corrupt) as caught:
            Digest.parse(wrong, "here")
        assert len(str(caught.value)) < 300


def test_blobs() -> None:
    blob = Blob(5, MODEL, key="k")
    known = blob.settled(Blob(5, MODEL, Digest.of(b"x"), ZERO_BLAKE3, "t"))
    assert (blob.id, known.id, known.title, known.kind) == ("k", Digest.of(b"x"), "t", "model")
    assert known.settled(blob) == known


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("32MiB", 32 * MIB),
        ("4GB", 4 * 10**9),
        ("123456", 123456),
        ("1.5GiB", 3 * GIB // 2),
        ("2g", 2 * GIB),
        ("2G", 2 * GIB),
        ("10 kB", 10_000),
        ("10k", 10 * KIB),
        (" 7 B ", 7),
        ("0", 0),
        ("0.5k", 512),
        ("1TiB", 1 << 40),
        ("1.000001MB", 1_000_001),
        ("999999999999999", 10**15 - 1),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GB",
        "-1",
        "+1",
        "1e9",
        "1,5GB",
        "1.GB",
        ".5GB",
        "1PB",
        "4 G B",
        "0x10",
        "٣",
        "²",
        "1_000",
        "inf",
        "1" * 16,
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Usage):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (80_300, "80.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4_290_000_000, "4.29 GB"),
        (5 * 10**12, "5 TB"),
    ],
)
def test_sizes_as_people_write_them(count: int, text: str) -> None:
    assert size(count) == text
    assert parse_size(text) == pytest.approx(count, rel=0.01)


@given(st.integers(0, 10**16))
def test_any_size_is_short(count: int) -> None:
    assert len(size(count)) < 12
    assert "e" not in size(count) or count >= 10**15


HIDDEN = {
    "escape": "\x1b[31m",
    "delete": "\x7f",
    "C1": "\x9b31m",
    "bell": "\a",
    "backspace": "a\b",
    "carriage return": "a\rb",
    "null": "\0",
    "vertical tab": "\v",
    "bidi override": "\u202e",
    "bidi isolate": "\u2066x\u2069",
    "bidi mark": "\u200f\u061c",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "line separator": "\u2028\u2029",
    "no-break space": "\u00a0",
    "wide space": "\u3000",
    "Hangul filler": "\u3164\u115f\u1160\uffa0",
    "tags": "\U000e0041",
    "private": "\ue000",
    "surrogate": "\udcff",
    "unassigned": "\u0378",
    "combining grapheme joiner": "\u034f",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_what_a_terminal_would_obey_is_shown(what: str) -> None:
    shown = visible(f"a{HIDDEN[what]}z")
    assert shown.startswith("a")
    assert shown.endswith("z")
    assert "\\" in shown
    assert all(char.isprintable() for char in shown)
    shown.encode()


# Default_Ignorable_Code_Point of Unicode that is neither a control nor a format character.
@pytest.mark.parametrize("char", ["\ufe0e", "\ufe00", "\u180b", "\u17b4", "\U000e0100"])
def test_invisible_marks_are_shown(char: str) -> None:
    assert visible(f"a{char}z") != f"a{char}z"


def test_what_is_harmless_stays() -> None:
    text = "Qwen3 8B – «é» 日本語 עברית العربية ✓ 😀 \\ \"'"
    assert visible(text) == text
    assert visible("a\tb\nc") == "a\\tb\\nc"
    assert visible("a\tb\nc\r", lines=True) == "a\tb\nc\\r"
    assert visible(12) == "12"


@given(st.text(), st.booleans())
def test_any_text_can_be_shown(text: str, lines: bool) -> None:
    shown = visible(text, lines=lines)
    shown.encode()
    for char in shown:
        assert unicodedata.category(char)[0] != "C" or (lines and char in "\n\t")
    assert visible(shown, lines=lines) == shown


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_reading_with_bounds(data: bytes, count: int) -> None:
    assert len(data) <= 3000
    if len(data) <= count:
        assert read_at_most(BytesReader(data), count, "it") == data
    else:
        with pytest.raises(Corrupt):
            read_at_most(BytesReader(data), count, "it")
    if len(data) >= count:
        assert read_exactly(BytesReader(data), count, "it") == data[:count]
    else:
        with pytest.raises(Corrupt):
            read_exactly(BytesReader(data), count, "it")
    piece = bytearray(count)
    assert fill(BytesReader(data, 2), memoryview(piece)) == min(count, max(0, len(data) - 2))


def test_errors_say_what_where_and_what_to_do() -> None:
    error = ModelpackError("is cut", where="b.tar", advice="Copy it again.")
    assert str(error) == "b.tar: is cut\nCopy it again."
    codes = [kind.exit_code for kind in ModelpackError.__subclasses__()]
    assert sorted(codes) == list(range(2, 13))
