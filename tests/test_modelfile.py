"""Modelfiles read as Ollama reads them, and written so that it reads the same.

What is expected of odd ones was derived from Ollama's parser, and seen of it (v0.33).
"""

from __future__ import annotations

import math
import struct
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.documents.gojson import go_json
from modelpack.documents.gotext import unprintable
from modelpack.documents.modelfile import (
    Command,
    Modelfile,
    looks_like_modelfile,
    parse_modelfile,
    write_modelfile,
)
from modelpack.documents.modelfile_grammar import LIMIT, MOST
from modelpack.documents.parameters import DEPRECATED, PARAMETERS, Kind, parse_parameter
from modelpack.errors import Corrupt, ModelpackError, Unsupported
from modelpack.words.blob import MIB, SMALL

WHOLE = """\
# a comment, with "quotes

FROM ./model.gguf
from ./mmproj.gguf
ADAPTER ./lora with spaces.gguf
Draft ./draft.gguf
TEMPLATE \"\"\"{{ .System }}
{{ .Prompt }}\"\"\"
SYSTEM You are "kind".
RENDERER qwen3
PARSER qwen3
REQUIRES v0.14.0
PARAMETER temperature 0.1
PARAMETER num_ctx 4096
PARAMETER stop "<|a|>"
PARAMETER stop <|b|>
PARAMETER use_mmap F
LICENSE MIT
LICENSE "Apache
2.0"
MESSAGE user hi: there
MESSAGE assistant " ho "
"""
BODY = {
    "template": "{{ .System }}\n{{ .Prompt }}",
    "system": 'You are "kind".',
    "renderer": "qwen3",
    "parser": "qwen3",
    "requires": "0.14.0",
    "license": ["MIT", "Apache\n2.0"],
    "parameters": {"temperature": 0.1, "num_ctx": 4096, "stop": ["<|a|>", "<|b|>"], "use_mmap": False},
    "messages": [{"role": "user", "content": "hi: there"}, {"role": "assistant", "content": " ho "}],
}


def system(text: str) -> str:
    """What *text*, the rest of a file after `SYSTEM `, says."""
    (_, command) = parse_modelfile(f"FROM x\nSYSTEM {text}".encode()).commands
    return command.value


def refused(text: str | bytes) -> Corrupt:
    with pytest.raises(Corrupt) as caught:
        parse_modelfile(text if isinstance(text, bytes) else text.encode(), "Modelfile")
    assert caught.value.where == "Modelfile"
    return caught.value


def test_every_instruction() -> None:
    found = parse_modelfile(WHOLE.encode())
    assert found.body == BODY
    assert found.remarks == ()
    assert found.sources == (Command("from", "./model.gguf", 3), Command("from", "./mmproj.gguf", 4))
    assert found.adapters == (Command("adapter", "./lora with spaces.gguf", 5),)
    assert found.drafts == (Command("draft", "./draft.gguf", 6),)
    assert [each.line for each in found.commands] == [*range(3, 8), *range(9, 20), 21, 22]
    assert found.commands[9] == Command("parameter", "0.1", 13, "temperature")
    assert found.commands[16] == Command("message", "hi: there", 21, "user")


@pytest.mark.parametrize(
    ("text", "value"),
    {
        "a b \t": "a b",
        " \t a": "a",
        "": "",
        " \nPARSER y": None,
        "a # b": "a # b",
        "# a": "# a",
        "'a'": "'a'",
        'a "b"': 'a "b"',
        "a\\": "a\\",
        '"a"': "a",
        '" a "  \t': " a ",
        '"\\"a\\""': '\\"a\\"',
        '""': "",
        '"" x"': '" x',
        '"a" b"': 'a" b',
        '"a" b\nc"': 'a" b\nc',
        '"\n"': "\n",
        '"a\r\n\r\tb"\r\n': "a\r\n\r\tb",
        '"""a"""': "a",
        '""""""': "",
        '"""a""" b\n"""': 'a""" b\n',
        '"""a"\n""\nb"""': 'a"\n""\nb',
        '""""a""""': '"a"',
        '"""""\nb"""': '""\nb',
        '"""a"""\rPARSER y': None,
        "a\rPARSER y": None,
        '"\nFROM y\nSYSTEM """': '\nFROM y\nSYSTEM ""',
    }.items(),
)
def test_where_a_value_ends(text: str, value: str | None) -> None:
    if value is None:
        assert parse_modelfile(f"FROM x\nSYSTEM {text}".encode()).commands[2].value == "y"
    else:
        assert system(text) == value
        assert system(text + "\n") == value


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "FROM x\n\nTEMPLAT y",
            3,
            "'TEMPLAT' is not an instruction; those that Ollama knows are FROM, ADAPTER",
        ),
        ("FROM x\nhello world", 2, "'hello'"),
        ("FROM x\n1SYSTEM y", 2, "'1SYSTEM'"),
        ("FROM x\nSYSTEM\u00a0y", 2, "'SYSTEMy'"),
        ("FROM x\n\u200b# y", 2, "'#'"),
        ("FROM x\nSYSTEM\n", 2, "SYSTEM needs a space"),
        ("FROM x\r\nSYSTEM", 2, "SYSTEM needs a space"),
        ("FROM x\rSYSTEM", 2, "SYSTEM needs a space"),
        ('FROM x\n\n SYSTEM """a\nb"" \n', 3, "SYSTEM does not end"),
        ('FROM x\nLICENSE "', 2, "LICENSE does not end"),
        ('FROM x\nLICENSE """""', 2, "LICENSE does not end"),
        ("FROM x\nMESSAGE tool y", 2, "system, user, assistant"),
        ("FROM x\nMESSAGE User y", 2, "a role"),
        ("FROM x\nMESSAGE  user y", 2, "a role"),
        ("FROM x\nMESSAGE user", 2, "a role"),
        ("FROM x\nPARAMETER top_k", 2, "PARAMETER needs"),
        ("FROM x\nPARAMETER  top_k 1", 2, "PARAMETER needs"),
        ("FROM x\nPARAMETER top-k 1", 2, "PARAMETER needs"),
        ("FROM x\nPARAMETER Top_k 1", 2, "'Top_k' is not a parameter; those that Ollama knows are draft_"),
        ("FROM x\nPARAMETER model y", 2, "'model' is not a parameter"),
        ("FROM x\nPARAMETER top_k 1.0", 2, "top_k is an integer, which '1.0' is not"),
        ("FROM x\nPARAMETER top_k ", 2, "top_k is an integer, which '' is not"),
        ("FROM x\nPARAMETER top_k y\nPARAMETER top_k 1", 2, "which 'y' is not"),
        ("FROM x\nREQUIRES new", 2, "'new' is not a version"),
        ('FROM x\nADAPTER ""', 2, "ADAPTER names nothing"),
        ("FROM ", 1, "FROM names nothing"),
        ("FROM x\nDRAFT \n", 2, "DRAFT names nothing"),
        ("FROM x\nSYSTEM a\0b", 2, "a NUL character"),
        (b"FROM x\nSYSTEM \xff", 2, "it is not UTF-8"),
        (b"FROM x\r\n\r\nSYSTEM \xed\xa0\x80", 3, "it is not UTF-8"),
        (b"\xef\xbb\xbfFROM x\n\xfc", 2, "it is not UTF-8"),
        (b"\xff\xfeF\0R\0O\0M\0 \0x\0\n\0\0\xd8 \0", 2, "it is not UTF-16-LE"),
        (b"\xfe\xff\0F\0", 1, "it is not UTF-16-BE"),
        ("FROM x\n".encode("utf-16-le"), 1, "UTF-16 without a byte order mark?"),
        ("FROM x\n".encode("utf-16-be"), 1, "UTF-16 without a byte order mark?"),
        ("FROM x\n".encode("utf-32"), 1, "a NUL character"),
    ],
)
def test_what_ollama_would_not_take(text: str | bytes, line: int, words: str) -> None:
    error = refused(text)
    assert f": line {line}: " in error.what
    assert words in error.what


@pytest.mark.parametrize("text", ["", "# FROM x", "SYSTEM x", "\ufeff", "PARSER x\n" * 3])
def test_a_file_without_from_is_none(text: str) -> None:
    assert "no FROM" in refused(text).what


@pytest.mark.parametrize(
    "encoded",
    [
        WHOLE.encode("utf-8-sig"),
        b"\xff\xfe" + WHOLE.encode("utf-16-le"),
        b"\xfe\xff" + WHOLE.encode("utf-16-be"),
        WHOLE.encode()[:-1],
    ],
)
def test_encodings(encoded: bytes) -> None:
    assert parse_modelfile(encoded) == parse_modelfile(WHOLE.encode())


def test_line_ends_of_other_systems() -> None:
    for end in ("\r\n", "\r"):
        found = parse_modelfile(WHOLE.replace("\n", end).encode())
        assert [each.line for each in found.commands] == [
            each.line for each in parse_modelfile(WHOLE.encode()).commands
        ]
        assert found.body["template"] == f"{{{{ .System }}}}{end}{{{{ .Prompt }}}}"


def test_invisible_characters_are_dropped_with_a_remark() -> None:
    text = '# \u00a0\n\ufeffFROM x\u3000y\nSYSTEM \u00a0"\u200d""\u00ad\n'
    text += 'a\x0cb\u2028\U000e0041\x7f\ufffd🙂"""\u00a0\n'
    found = parse_modelfile(text.encode())
    assert found.sources[0].value == "xy"
    assert found.body == {"system": "\nab\ufffd🙂"}
    assert found.remarks == ("Ollama drops 10 invisible characters of it; the first is on line 2.",)


def test_printable_is_what_go_says_whatever_python_knows() -> None:
    """Unicode 15.0: younger characters are dropped, older ones kept, by every Python."""
    every = "".join(map(chr, [*range(0x33000), *range(0xDFFF0, 0xE0200), *range(0x10FFF0, 0x110000)]))
    dropped = unprintable(every)
    here = {char for char in every if char != " " and unicodedata.category(char)[0] not in "LMNPS"}
    assert {unicodedata.category(char) for char in here - dropped} <= {"Cn"}  # assigned since this Python's
    version = tuple(map(int, unicodedata.unidata_version.split(".")))
    assert version > (15, 0, 0) or not dropped - here
    assert version != (15, 0, 0) or dropped == here
    assert unprintable("\U0001fae8 \u1e9e\u0378\U0002ebf0") == {"\u0378", "\U0002ebf0"}


def test_the_last_of_several_counts_with_a_remark() -> None:
    text = "FROM x\nSYSTEM a\nPARSER p\nsystem b\nSYSTEM c\nPARAMETER top_k 1\nPARAMETER top_k 2"
    found = parse_modelfile(text.encode())
    assert found.body == {"system": "c", "parser": "p", "parameters": {"top_k": 2}}
    assert found.remarks == ("SYSTEM stands there 3 times; the last counts, on line 5.",)
    assert parse_modelfile(b"FROM x\nSYSTEM a\nSYSTEM ").body == {}


def test_two_adapters_are_one_too_many() -> None:
    with pytest.raises(Unsupported, match="two adapters, on lines 2 and 4"):
        parse_modelfile(b"FROM x\nADAPTER a\n\nADAPTER a")


def test_empty_texts() -> None:
    """Licences, messages and stop words count when they are empty, as in Ollama; the others do not."""
    text = 'FROM x\nTEMPLATE ""\nPARSER \nLICENSE ""\nMESSAGE user ""\nPARAMETER stop ""'
    assert parse_modelfile(text.encode()).body == {
        "license": [""],
        "parameters": {"stop": [""]},
        "messages": [{"role": "user", "content": ""}],
    }


# --- limits


def test_limits() -> None:
    assert "no Modelfile has more" in refused(bytes(LIMIT + 1)).what
    full = b'FROM x\nTEMPLATE """' + b"a" * SMALL + b'"""'
    assert len(parse_modelfile(full).body["template"]) == SMALL
    for text in ("a" * (SMALL + 1), "é" * (SMALL // 2 + 1)):
        with pytest.raises(Unsupported, match="line 3: its MESSAGE has more than 4194304 bytes"):
            parse_modelfile(f"FROM x\n\nMESSAGE user {text}".encode())
    parse_modelfile(b"FROM x\n" + b"LICENSE \n" * (MOST - 1))
    with pytest.raises(Unsupported, match="more than 10000 instructions"):
        parse_modelfile(b"FROM x\n" + b"LICENSE \n" * MOST)


@pytest.mark.parametrize(
    "text",
    [
        '"""' + '"\n' * (2 * MIB - 1) + '"""',
        '"""' + '""' * (2 * MIB - 1) + "x",
        '"' + '" ' * (2 * MIB - 1) + "x",
        '"' + "\u00a0" * MIB,
        '"\u00a0' * MIB,
        "\n" + "# \n" * MIB,
    ],
    ids=["quotes", "no end", "no end of one", "dropped", "dropped between", "comments"],
)
def test_megabytes_cost_no_more_than_their_length(text: str) -> None:
    """Minutes, were a pattern to try every place twice."""
    try:
        parse_modelfile(f"FROM x\nTEMPLATE {text}".encode())
    except ModelpackError:
        pass


# --- parameters


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.1", 0.1),
        ("temperature", "1", 1.0),
        ("temperature", "0.123456789", 0.12345679),
        ("temperature", "16777217", 16777216.0),
        ("temperature", "1_000.5_5e1_0", 1.00055e13),
        ("temperature", "-.5e-3", -0.0005),
        ("temperature", "5.", 5.0),
        ("temperature", "+0X_1.8P3", 12.0),
        ("temperature", "0x1_0p-1_0", 0.015625),
        ("temperature", "3.4028235677973365e38", 3.4028235e38),
        ("temperature", "1e-45", 1e-45),
        ("temperature", "1e-99999999999", 0.0),
        ("temperature", "226507.625", 226507.62),
        ("temperature", "1.262177448353619e-29", 1.2621775e-29),
        # Half way between two float32s, to the even one; read by way of a float64 the second would be, too.
        ("temperature", "1.000000059604644775390625", 1.0),
        ("temperature", "1.0000000596046447753906250000000000000000000000001", 1.0000001),
        ("num_ctx", "+4096", 4096),
        ("num_ctx", "-0", 0),
        ("num_ctx", "9223372036854775807", 2**63 - 1),
        ("num_ctx", "-9223372036854775808", -(2**63)),
        ("num_ctx", "0" * 700 + "8", 8),
        ("main_gpu", "1", 1),
        ("draft_num_predict", "4", 4),
        ("use_mmap", "T", True),
        ("use_mmap", "0", False),
        ("stop", " 1 ", " 1 "),
    ],
)
def test_values_of_parameters(name: str, text: str, value: Any) -> None:
    found = parse_parameter(name, text)
    assert (found, type(found)) == (value, type(value))
    said = parse_modelfile(f'FROM x\nPARAMETER {name} "{text}"'.encode()).body["parameters"]
    assert said == {name: [value] if name == "stop" else value}


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "temperature": "|.|e5|1e|1e+|1__0|_1|1_|1_.5|1._5|1_e5|1e_5|1e5_|0x1|0x|0xp1|0x.p1|0x_.8p0|0x1_p0|0b1"
        "|inf|+Inf|Infinity|nan|NaN| 1|1 |1,5|1f|--1|٣|1e39|-1e39|3.4028235677973367e38|0x1p128|" + "1" * 801,
        "num_ctx": "|+|-|1_000|0x10|1.0|1e3| 1|1\t|٣|9223372036854775808|-9223372036854775809|" + "0" * 801,
        "use_mmap": "|yes|TrUe|on|2|-1|01",
        "mirostat2": "1",
    }.items(),
)
def test_no_values_of_parameters(name: str, texts: str) -> None:
    for text in texts.split("|"):
        with pytest.raises(ValueError, match=name):
            parse_parameter(name, text)
        assert name in refused(f'FROM x\nPARAMETER {name} "{text}"').what


def float32(value: float) -> float:
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.inf
    return float(single)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_is_written_with_the_fewest_digits(value: float) -> None:
    found = parse_parameter("top_p", repr(value))
    assert isinstance(found, float)
    assert float32(found) == value
    digits = len(Decimal(repr(found)).normalize().as_tuple().digits)
    assert digits == 1 or float32(float(f"{value:.{digits - 1}g}")) != value


def test_parameters_that_are_none_any_more() -> None:
    text = "FROM x\nPARAMETER mirostat_tau y\nPARAMETER f16_kv true\nPARAMETER top_k 1\n"
    found = parse_modelfile(text.encode())
    assert found.body == {"parameters": {"top_k": 1}}
    assert found.remarks == ("Ollama knows these parameters no more, and drops them: f16_kv, mirostat_tau.",)
    assert not DEPRECATED & PARAMETERS.keys()


@pytest.mark.parametrize(
    ("text", "good"),
    {
        "0.14.0 v0.14 1 1.2.3-rc.1 1.2.3-0a.b-+001.x v1.0.0+b": True,
        "01 1.02 1. 1.2.3. 1.2-rc 1-rc 1.2.3- 1.2.3-01 1.2.3-a..b 1.2.3+ vv1 V1 x 1.2.3.4 1.2.3-é ٣": False,
    }.items(),
)
def test_requires_a_version(text: str, good: bool) -> None:
    for each in text.split():
        if good:
            assert parse_modelfile(f"FROM x\nREQUIRES {each}".encode()).body == {"requires": each.lstrip("v")}
        else:
            refused(f"FROM x\nREQUIRES {each}")
    refused("FROM x\nREQUIRES ")


# --- writing


def write_and_read(body: dict[str, Any], *named: list[str]) -> Modelfile:
    return parse_modelfile(write_modelfile(body, *named))


def test_what_is_written() -> None:
    named = (["./model.gguf", "./mmproj.gguf"], ["./lora with spaces.gguf"], ["./draft.gguf"])
    assert write_modelfile(BODY, *named).decode() == (
        "FROM ./model.gguf\nFROM ./mmproj.gguf\nADAPTER ./lora with spaces.gguf\nDRAFT ./draft.gguf\n"
        'TEMPLATE """{{ .System }}\n{{ .Prompt }}"""\nSYSTEM You are "kind".\nRENDERER qwen3\nPARSER qwen3\n'
        "REQUIRES 0.14.0\nPARAMETER num_ctx 4096\nPARAMETER stop <|a|>\nPARAMETER stop <|b|>\n"
        "PARAMETER temperature 0.1\nPARAMETER use_mmap false\n"
        'LICENSE MIT\nLICENSE """Apache\n2.0"""\nMESSAGE user hi: there\nMESSAGE assistant " ho "\n'
    )
    assert (
        write_modelfile({"from": "y", "files": {"a": "b"}, "template": "", "license": []}, ["x"])
        == b"FROM x\n"
    )


@pytest.mark.parametrize(
    ("text", "form"),
    {
        '"a': '""a"',
        '"': '"""""""',
        '""': '""""""""',
        '"""a': '""""""a"""',
        'a "b" ': '"a "b" "',
        'a"\nb': '"""a"\nb"""',
        'a"""\nb"': None,
        'a"""b\n': '"""a"""b\n"""',
        'x"""\nADAPTER /etc/shadow\n"""': None,
        '""\n""': '"""""\n"""""',
        "a\rb": '"a\rb"',
        'a"\rb': '"""a"\rb"""',
        "\t": '"\t"',
        "a\u00a0": None,
        "\0": None,
        "\ud800": None,
    }.items(),
)
def test_quotes_that_hold_a_text(text: str, form: str | None) -> None:
    if form is None:
        with pytest.raises(Unsupported, match="no Modelfile can say it: SYSTEM: "):
            write_modelfile({"system": text}, ["x"])
    else:
        assert write_modelfile({"system": text}, ["x"]).decode() == f"FROM x\nSYSTEM {form}\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"system": "a\u200db"}, "SYSTEM: it has characters that Ollama drops: U\\+200D"),
        ({"system": 5}, "SYSTEM: its value is not a text"),
        ({"license": "MIT"}, "license: it is not a list"),
        ({"license": [None]}, "LICENSE"),
        ({"parameters": [1]}, "parameters: it is not a dict"),
        ({"parameters": {"mirostat": 1}}, "'mirostat' is no longer a parameter"),
        ({"parameters": {"num_gqa": 8}}, "'num_gqa' is not a parameter"),
        ({"parameters": {"stop": []}}, "stop is a list of strings"),
        ({"parameters": {"stop": ["a", 5]}}, "stop is a list of strings"),
        ({"parameters": {"stop": "a"}}, "stop is a list of strings"),
        ({"parameters": {"temperature": "0.5"}}, "temperature is a number"),
        ({"parameters": {"temperature": 0.123456789}}, "temperature is a number"),
        ({"parameters": {"temperature": 1e300}}, "temperature is a number"),
        ({"parameters": {"temperature": float("inf")}}, "temperature is a number"),
        ({"parameters": {"temperature": None}}, "temperature is a number"),
        ({"parameters": {"temperature": [0.5]}}, "temperature is a number"),
        ({"parameters": {"top_k": True}}, "top_k is an integer"),
        ({"parameters": {"top_k": 1.5}}, "top_k is an integer"),
        ({"parameters": {"top_k": 2**63}}, "top_k is an integer"),
        ({"parameters": {"use_mmap": 1}}, "use_mmap is true or false"),
        ({"parameters": {"use_mmap": {"a": {}}}}, "use_mmap is true or false"),
        ({"messages": {"role": "user", "content": "a"}}, "messages: it is not a list"),
        ({"messages": ["a"]}, "other parts"),
        ({"messages": [{"role": "user", "content": "a", "images": ["b"]}]}, "other parts"),
        ({"messages": [{"role": "user"}]}, "other parts"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "'tool' is none of its roles"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "none of its roles"),
        ({"messages": [{"role": "user", "content": None}]}, "MESSAGE user: its value is not a text"),
        ({"requires": "new"}, "'new' is not a version"),
        ({"requires": "v1.0.0"}, "something else"),
        ({"template": "a" * (SMALL + 1)}, "TEMPLATE has more than"),
    ],
)
def test_what_no_modelfile_says(body: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        write_modelfile(body, ["x"])


def test_names_that_no_modelfile_holds() -> None:
    for named in ([], ["x", ""], ["a\u200b"], ['a"""\nSYSTEM b'], [5]):
        with pytest.raises(Unsupported):
            write_modelfile({}, named)  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="two adapters"):
        write_modelfile({}, ["x"], ["a", "b"])


def test_whole_numbers_of_other_types_are_the_same_numbers() -> None:
    """JSON knows one kind of number, so what was read from it may be either."""
    body = {"parameters": {"num_ctx": 4096.0, "temperature": 1, "top_p": 1e-07}}
    assert write_and_read(body, ["x"]).body == body
    assert b"num_ctx 4096\n" in write_modelfile(body, ["x"])


# --- whatever comes

QUOTES = [
    '"',
    '"',
    '"""',
    '"""\n',
    '"\n',
    "\n",
    "\r",
    "\r\n",
    " ",
    "\t",
    "\nADAPTER /etc/shadow\n",
    "\nFROM y\n",
]
WORDS = [
    "FROM x\n",
    "SYSTEM ",
    "system ",
    "LICENSE ",
    "MESSAGE user ",
    "MESSAGE ",
    "PARAMETER ",
    "REQUIRES ",
    "PARSER ",
]
OTHERS = [
    "x",
    "é",
    "🙂",
    "#",
    ": ",
    "\u00a0",
    "\0",
    "\ufeff",
    "stop ",
    "temperature ",
    "0.7",
    "top_k 1",
    "1.2",
]
PIECES = st.sampled_from([*QUOTES, *WORDS, *OTHERS])
TEXTS = st.lists(PIECES, max_size=8).map("".join)
VALUES = {
    Kind.INT: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Kind.BOOL: st.booleans(),
    Kind.LIST: st.lists(TEXTS, min_size=1, max_size=3),
}
BODIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("template", "system", "renderer", "parser"), TEXTS),
        "requires": st.sampled_from(["0.14.0", "1", "1.2.3-a+b"]),
        "license": st.lists(TEXTS, max_size=2),
        "parameters": st.fixed_dictionaries(
            {}, optional={name: VALUES[kind] for name, kind in PARAMETERS.items()}
        ),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}
            ),
            max_size=2,
        ),
    },
)


@settings(max_examples=400, deadline=None)
@given(
    BODIES, st.lists(TEXTS, min_size=1, max_size=2), st.lists(TEXTS, max_size=1), st.lists(TEXTS, max_size=1)
)
def test_what_is_written_is_read_again(
    body: dict[str, Any], sources: list[str], adapters: list[str], drafts: list[str]
) -> None:
    try:
        raw = write_modelfile(body, sources, adapters, drafts)
    except Unsupported:
        return
    found = parse_modelfile(raw)
    assert found.body == {name: value for name, value in body.items() if value}
    assert [command.value for command in found.sources] == sources
    assert [command.value for command in found.adapters] == adapters
    assert [command.value for command in found.drafts] == drafts
    assert found.remarks == ()


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_a_text_stays_one_instruction(text: str) -> None:
    try:
        found = write_and_read({"system": text, "license": [text]}, ["x"])
    except Unsupported:
        assert unprintable(text) - set("\r\n\t") or any(f'"""{end}' in text for end in "\n\r \t")
        return
    assert [each.name for each in found.commands] == ["from", *["system"] * bool(text), "license"]


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | TEXTS.map(str.encode) | TEXTS.map(lambda text: f"FROM x\n{text}".encode()))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        found = parse_modelfile(raw)
    except ModelpackError:
        return
    go_json(found.body)
    assert looks_like_modelfile(raw)
    named = [[each.value for each in some] for some in (found.sources, found.adapters, found.drafts)]
    try:
        assert write_and_read(found.body, *named).body == found.body
    except Unsupported as error:
        assert '"""' in error.what  # noqa: PT017 - all else can be said again


@pytest.mark.parametrize(
    ("head", "looks"),
    [
        (b"FROM x", True),
        (b"\n# c\r\n\tparameter stop x", True),
        (b"\xff\xfe" + "FROM x".encode("utf-16-le"), True),
        (b"FROM x\n# caf\xc3", True),
        (b"FROM", False),
        (b"# a comment that goes on", False),
        (b"GGUF\x03\0\0\0", False),
        (b"From: me", False),
        (b"<html>", False),
        (b"", False),
    ],
)
def test_what_looks_like_a_modelfile(head: bytes, looks: bool) -> None:
    assert looks_like_modelfile(head) is looks
