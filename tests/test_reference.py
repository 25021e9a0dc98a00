"""Names in registries: what is one, what becomes of a model's name, and that nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import Unsupported, Usage
from modelpack.words.challenge import parse_challenges
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reference import Reference

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci://reg:5000", Reference("reg:5000")),
        ("oci://reg:5000/", Reference("reg:5000")),
        ("oci://reg:5000/ns", Reference("reg:5000", "ns")),
        ("oci://reg:5000/ns/", Reference("reg:5000", "ns")),
        ("OCI://Reg:5000/NS/Qwen3:8B", Reference("reg:5000", "ns/qwen3", "8B")),
        ("reg/a/b/c:x", Reference("reg", "a/b/c", "x")),
        ("oci://[::1]:5000/ns/m:t", Reference("[::1]:5000", "ns/m", "t")),
        (f"oci://reg/ns/m@{DIGEST}", Reference("reg", "ns/m", None, DIGEST)),
        (f"oci://reg/ns/m:t@{DIGEST}", Reference("reg", "ns/m", "t", DIGEST)),
        ("oci://registry.ollama.ai/Qwen3:8b", Reference("registry.ollama.ai", "library/Qwen3", "8b")),
        ("oci://hf.co/Some/Model-GGUF:Q4_K_M", Reference("hf.co", "Some/Model-GGUF", "Q4_K_M")),
        ("oci://registry.ollama.ai/me", Reference("registry.ollama.ai", "me")),
        ("oci://docker.io/busybox:1", Reference("docker.io", "library/busybox", "1")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert Reference.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "oci://", "oci:///ns/m:t", "oci://host name/x:y", "oci://host:0/x:y", "oci://host:99999/x:y",
        "oci://host:port/x:y", "oci://h/../etc:t", "oci://h/a/../b:t", "oci://h/a//b:t", "oci://h/./b:t",
        "oci://h/.a/b:t", "oci://h/a/b/:t", "oci://h/a%2f..%2fb:t", "oci://h/a b:t", "oci://h/a/b:../x",
        "oci://h/a/b:", "oci://h/a/b:-x", "oci://h/a/b:" + "x" * 129, "oci://h/a/b@sha256:12",
        "oci://h/a/b@md5:0", "oci://h/" + "a/" * 130 + "b:t", "oci://h/a/b?x=y:t", "oci://h/a/b#c",
        "oci://h/a/b:t\r\nX: y", "oci://h\n/a/b:t", "oci://h/a/b\\c:t", "oci://h/a___b:t", "oci://-h/a:t",
        "oci://h/:t", f"oci://h/@{DIGEST}", "oci://h/ａ/b:t", f"oci://h/a@blake3:{'0' * 64}",
    ],
)  # fmt: skip
def test_no_references(text: str) -> None:
    with pytest.raises(Usage):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text", ["oci://me:hunter2@host/ns/m:t", "oci://me:hun/ter2@host/ns", "me:hunter2@h"]
)
def test_a_password_in_an_address_is_not_repeated(text: str) -> None:
    with pytest.raises(Usage) as caught:
        Reference.parse(text)
    assert "hunter2" not in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("oci://reg:5000/ns/qwen3:8b", "reg:5000/ns/qwen3:8b"),
        ("oci://reg:5000/qwen3", "reg:5000/library/qwen3:latest"),
        ("oci://registry.ollama.ai/library/qwen3:8b", "qwen3:8b"),
        ("oci://hf.co/Some/Model-GGUF:Q4_K_M", "hf.co/Some/Model-GGUF:Q4_K_M"),
        ("oci://reg/a/b.x/m:t", "reg/a-b-x/m:t"),
        (f"oci://reg/ns/m@{DIGEST}", f"reg/ns/m:{DIGEST.short}"),
        ("oci://[::1]:5000/ns/m:t", "_:1:5000/ns/m:t"),
    ],
)
def test_what_a_model_is_called(text: str, name: str) -> None:
    assert Reference.parse(text).name() == Name.parse(name)


@pytest.mark.parametrize(
    ("place", "name", "expected"),
    [
        ("oci://reg:5000/ns", "qwen3:8b", "oci://reg:5000/ns/qwen3:8b"),
        ("oci://reg:5000/ns", "hf.co/Someone/Qwen3:Q4_K_M", "oci://reg:5000/ns/qwen3:Q4_K_M"),
        ("oci://reg:5000", "qwen3", "oci://reg:5000/library/qwen3:latest"),
        ("oci://reg:5000", "Someone/Tiny:x", "oci://reg:5000/someone/tiny:x"),
        ("oci://reg:5000/ns/other:tag", "qwen3:8b", "oci://reg:5000/ns/other:tag"),
        ("oci://registry.ollama.ai/me", "Big", "oci://registry.ollama.ai/me/Big:latest"),
    ],
)
def test_where_a_model_goes(place: str, name: str, expected: str) -> None:
    assert str(Reference.parse(place).at(Name.parse(name))) == expected


@pytest.mark.parametrize("name", ["_x", "a..b", "a-", "a___b", "a._b"])
def test_a_model_whose_name_no_registry_takes(name: str) -> None:
    with pytest.raises(Unsupported):
        Reference("reg").at(Name.parse(name))


def test_names_of_registries_themselves() -> None:
    assert Reference.of(Name.parse("reg:5000/ns/Qwen3:8B")) == Reference("reg:5000", "ns/qwen3", "8B")
    assert Reference.of(Name.parse("qwen3")) == Reference("registry.ollama.ai", "library/qwen3", "latest")


_part = st.from_regex(r"[a-z0-9]{1,20}([._-][a-z0-9]{1,10}){0,2}", fullmatch=True)


@given(
    st.lists(_part, min_size=1, max_size=5),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True),
)
def test_every_reference_has_a_name(parts: list[str], tag: str) -> None:
    reference = Reference.parse(f"oci://reg:5000/{'/'.join(parts)}:{tag}")
    assert Name.parse(reference.name().full) == reference.name()
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except Usage:
        return
    assert ".." not in found.repository.split("/")
    assert found.host.isascii()
    assert found.host.isprintable()


# --- challenges


def test_challenges() -> None:
    text = (
        'Basic realm="a, \\"b\\"", Bearer realm="https://auth.example/token",Service=reg , '
        'scope="repository:a/b:pull,push", Negotiate YWJj==, Custom'
    )
    found = parse_challenges(text)
    assert [one.scheme for one in found] == ["basic", "bearer", "negotiate", "custom"]
    assert found[0].parameters == {"realm": 'a, "b"'}
    assert found[1].parameters == {
        "realm": "https://auth.example/token",
        "service": "reg",
        "scope": "repository:a/b:pull,push",
    }


@pytest.mark.parametrize("text", ["", ",,,", '="x"', 'realm="x"', "Bearer " + "a=b," * 10_000, "B" * 100_000])
def test_bad_challenges_are_bounded(text: str) -> None:
    found = parse_challenges(text)
    assert len(found) <= 32
    assert all(len(one.parameters) <= 32 for one in found)


@given(st.text(max_size=200))
def test_no_challenge_breaks_the_reader(text: str) -> None:
    parse_challenges(text)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=30), max_size=5))
def test_quoted_values_come_back(values: dict[str, str]) -> None:
    quoted = ", ".join(
        f'{key}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for key, value in values.items()
    )
    (found,) = parse_challenges(f"Bearer {quoted}")
    assert found.parameters == values


def test_a_place_that_is_read_is_a_model() -> None:
    assert Reference.parse("oci://registry.ollama.ai/qwen3").model() == Reference(
        "registry.ollama.ai", "library/qwen3", "latest"
    )
    assert str(Reference.parse("oci://reg/qwen3").model()) == "oci://reg/qwen3:latest"
    assert Reference.parse(f"oci://reg/m@{DIGEST}").model().tag is None
