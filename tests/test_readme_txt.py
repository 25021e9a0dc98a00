"""README.txt of a bundle: its own lines, run by a shell that has no Python."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, TINY, MemoryStore, files_of, noise
from depots import ask, own_depot
from hypothesis import given
from hypothesis import strategies as st

from modelpack import Archive, Digest, Model, ModelsDir, Name, copy
from modelpack.documents.expects import NOTHING, Expected, Expects
from modelpack.documents.readme import MOST_IN_FULL, MOST_NAMED, readme
from modelpack.documents.recipe import Recipe
from modelpack.verbs.requests import create_request_of
from modelpack.words.blob import (
    ADAPTER,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Blob,
)
from modelpack.words.digest import ZERO

BUNDLE = FIXTURES / "bundle-v1.tar"
PLAIN = ("sh", "tar", "install", "mkdir", "cp", "sha256sum", "cut", "grep", "cat")
SHELLS = [path for path in ("/bin/dash", "/bin/bash", "/bin/sh") if Path(path).exists()]
WITH_CURL = (*PLAIN, "curl", "tr", "sed", "tail")


def tools(place: Path, names: tuple[str, ...]) -> dict[str, str]:
    """An environment whose PATH has *names* and nothing else."""
    place.mkdir()
    for name in names:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        (place / name).symlink_to(found)
    return {"PATH": str(place)}


def ran(
    script: str, where: Path, environment: dict[str, str], program: str = "/bin/sh"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "-eu", "-c", script], cwd=where, env=environment, capture_output=True, text=True
    )


def shell(script: str, where: Path, environment: dict[str, str], program: str = "/bin/sh") -> str:
    done = ran(script, where, environment, program)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code(text: str, *beginnings: str) -> str:
    """The indented lines of the paragraphs of *text* that begin so."""
    parts = [
        part
        for part in re.split(r"\n\n+", text)
        if part.startswith(tuple(f"    {one}" for one in beginnings))
    ]
    assert parts, beginnings
    return "\n".join(parts)


def of_model(text: str, name: str) -> str:
    """What is said of the model called *name*."""
    return re.split(r"\n\n\n", text.split(f"\n{name}\n{'-' * len(name)}\n")[1])[0]


def unpacked(bundle: Path, place: Path, environment: dict[str, str]) -> str:
    """Unpack and check *bundle* as its README.txt says; the text."""
    models = Archive(bundle).models()
    text = readme(models, script=None).decode("ascii")
    place.mkdir()
    shutil.copy(bundle, place / "bundle.tar")
    said = shell(code(text, "tar", "mkdir bundle", "sha256sum -c"), place, environment)
    assert said.count(": OK\n") == len(said.splitlines()) > 5
    return text


def test_tar_mkdir_and_install_are_enough(tmp_path: Path) -> None:
    """Every model of the bundle that is no recipe ends in a models directory, to the byte and with its ID."""
    environment = tools(tmp_path / "bin", PLAIN)
    text = unpacked(BUNDLE, tmp_path / "here", environment)
    models = tmp_path / "my models"
    lines = code(text, "MODELS=").replace("/usr/share/ollama/.ollama/models", f"'{models}'")
    for name in ("tiny:latest", "team/full:1.0"):
        lines += "\n" + code(of_model(text, name), "mkdir -p")
    shell(lines, tmp_path / "here" / "bundle", environment)
    bundle = Archive(BUNDLE)
    other = ModelsDir(tmp_path / "other")
    copy(bundle, bundle.models()[:2], other)
    assert files_of(models) == files_of(tmp_path / "other")
    assert ModelsDir(models).strays(ModelsDir(models).models()) == []


@pytest.mark.parametrize("program", SHELLS)
def test_another_model_keeps_its_name(tmp_path: Path, program: str) -> None:
    """It is neither replaced nor passed over in silence; the same one again is well."""
    environment = tools(tmp_path / "bin", PLAIN)
    text = unpacked(BUNDLE, tmp_path / "here", environment)
    lines = code(text, "MODELS=").replace("/usr/share/ollama/.ollama/models", str(tmp_path / "models"))
    lines += "\n" + code(of_model(text, "tiny:latest"), "mkdir -p")
    for _ in range(2):
        shell(lines, tmp_path / "here" / "bundle", environment, program)
    (manifest,) = (tmp_path / "models" / "manifests").rglob("latest")
    manifest.write_bytes(b"another")
    done = ran(lines, tmp_path / "here" / "bundle", environment, program)
    assert (done.returncode, "for another model" in done.stderr) == (1, True)
    assert manifest.read_bytes() == b"another"
    other = tmp_path / "models" / "blobs" / f"sha256-{weights()}"
    other.write_bytes(b"damaged")
    manifest.unlink()
    shell(lines, tmp_path / "here" / "bundle", environment, program)
    assert Digest.of(other.read_bytes()).hex == weights()


def weights() -> str:
    digest = Archive(BUNDLE).models()[0].blobs[0].digest
    assert digest is not None
    return digest.hex


def pattern_for(model: Model, models: Path) -> str:
    """The lines for models that have none of their own, filled in for *model*."""
    many = [dataclasses.replace(model, name=Name.parse(f"m{number}")) for number in range(MOST_IN_FULL)]
    text = readme([*many, model], script=None).decode("ascii")
    rest = text.split("THE OTHER MODELS")[1]
    host, namespace, called, tag = model.name.parts
    assert f"    {model.document.id.hex} {model.name}\n" in rest
    pattern = code(rest, "mkdir -p").replace("HOST/NAMESPACE/MODEL", f"{host}/{namespace}/{called}")
    pattern = pattern.replace("/TAG", f"/{tag}").replace("sha256/ID", f"sha256/{model.document.id.hex}")
    pattern = pattern.replace("put ID", f"put {model.document.id.hex}")
    lines = code(text, "MODELS=").replace("/usr/share/ollama/.ollama/models", str(models))
    return f"{lines}\n{pattern}"


def test_the_pattern_for_the_others_works(tmp_path: Path) -> None:
    """With ID, host, namespace, model and tag filled in, it installs a model."""
    environment = tools(tmp_path / "bin", PLAIN)
    full = Archive(BUNDLE).models()[1]
    unpacked(BUNDLE, tmp_path / "here", environment)
    shell(pattern_for(full, tmp_path / "models"), tmp_path / "here" / "bundle", environment)
    (there,) = ModelsDir(tmp_path / "models").models()
    assert there == full or there.document.raw == full.document.raw
    assert ModelsDir(tmp_path / "models").missing([there]) == []


@pytest.mark.parametrize("program", SHELLS)
def test_the_pattern_installs_whole_models_only(tmp_path: Path, program: str) -> None:
    """A blob that is nowhere: no manifest. One that the target has, as a delta expects: a whole model."""
    environment = tools(tmp_path / "bin", PLAIN)
    unpacked(BUNDLE, tmp_path / "here", environment)
    here, models = tmp_path / "here" / "bundle", tmp_path / "models"
    lines = pattern_for(Archive(BUNDLE).models()[0], models)
    missing = here / "blobs" / "sha256" / weights()
    raw = missing.read_bytes()
    missing.unlink()
    assert ran(lines, here, environment, program).returncode != 0
    assert list(models.rglob("latest")) == []
    (models / "blobs" / f"sha256-{weights()}").write_bytes(b"x" + raw[1:])
    assert ran(lines, here, environment, program).returncode != 0
    assert list(models.rglob("latest")) == []
    (models / "blobs" / f"sha256-{weights()}").write_bytes(raw)
    shell(lines, here, environment, program)
    store = ModelsDir(models)
    assert (len(store.models()), store.missing(store.models()), store.strays(store.models())) == (1, [], [])
    (manifest,) = models.rglob("latest")
    manifest.write_bytes(b"another")
    assert "for another model" in ran(lines, here, environment, program).stderr
    assert manifest.read_bytes() == b"another"


def created(tmp_path: Path, bundle: Path, *names: str, program: str = "/bin/sh") -> list[dict[str, Any]]:
    """Run the lines of README.txt for a server, and ask that for the models, and what each is like."""
    environment = tools(tmp_path / "bin", WITH_CURL)
    text = unpacked(bundle, tmp_path / "here", environment)
    with own_depot(tmp_path / "depot") as depot:
        lines = code(text, "OLLAMA=").replace("http://127.0.0.1:11434", depot.url)
        for name in names:
            lines += "\n" + code(of_model(text, name), "send", "printf")
        said = shell(lines, tmp_path / "here" / "bundle", environment, program)
        assert said.splitlines() == ['{"status":"success"}'] * len(names)
        return [ask(depot.url, "POST", "/api/show", {"model": name}).json for name in names]


def test_curl_is_enough(tmp_path: Path) -> None:
    """A server has the models then, with templates, texts and parameters as they were."""
    tiny, full = created(tmp_path, BUNDLE, "tiny:latest", "team/full:1.0")
    request = create_request_of(Archive(BUNDLE), Archive(BUNDLE).models()[1])
    assert full["template"] == request["template"]
    assert full["system"] == request["system"]
    assert str(full["license"]).split() == ["MIT", "and", "another"]
    assert full["messages"] == request["messages"]
    assert "num_ctx" in str(full["parameters"])
    assert tiny["details"] == full["details"]


@pytest.mark.parametrize("program", SHELLS)
def test_every_text_survives_the_shell(tmp_path: Path, program: str) -> None:
    """Quotes, backslashes, line ends, control characters, what a shell or sed would obey, ends without a
    newline; of the config the renderer, the first parser, and what it can do.
    """
    system = "a \"b\" 'c' \\d \\\\n $HOME `id` $(id) %s & | / [x]*\t\r\n\n ü – \u2028 {{ .x }}\x7f\n\n"
    system += "".join(map(chr, range(32))) + "1\\u0001\\"
    store = MemoryStore()
    config = b'{"model_format":"gguf","renderer":"qwen3-coder","parser":"qwen3-coder",'
    config += b'"capabilities":["completion","tools","thinking"],"x":{"parser":"another"}}\n'
    layers = [
        (TEMPLATE, b'{{ "\\n" }}{{ .Prompt }}'),
        (SYSTEM, system.encode()),
        (LICENSE, b'"\n'),
        (LICENSE, b"\\"),
        (PARAMS, b'{"stop":["\\"","\'","\\\\"]}\n'),
        (MESSAGES, b'[{"role":"user","content":"it\'s"}]\n'),
    ]
    store.image("tiny", TINY[0], *layers, config=config)
    copy(store, store.models(), Archive(tmp_path / "b.tar"))
    (shown,) = created(tmp_path, tmp_path / "b.tar", "tiny:latest", program=program)
    assert shown["system"] == system
    assert shown["template"] == '{{ "\\n" }}{{ .Prompt }}'
    assert {"RENDERER qwen3-coder", "PARSER qwen3-coder"} <= set(shown["modelfile"].splitlines())
    assert shown["messages"] == [{"role": "user", "content": "it's"}]
    assert set(shown["capabilities"]) == {"completion", "tools", "thinking"}


@pytest.mark.parametrize(
    ("config", "sent"),
    [
        ('{"capabilities":["a","b"]}', ',"info":{"capabilities":["a","b"]}'),
        (
            '{\n  "parser": "p",\n  "capabilities": [\n    "a"\n  ]\n}',
            ',"info":{"capabilities": [    "a"  ]}',
        ),
        ('{"capabilities":[]}', ""),
        ('{"capabilities":null}', ""),
        ("{}", ""),
    ],
)
def test_what_a_model_can_do_is_sent_where_it_is_said(tmp_path: Path, config: str, sent: str) -> None:
    """And nothing where it is not: what is printed stands in a JSON document as it is."""
    environment = tools(tmp_path / "bin", WITH_CURL)
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "1").write_text(config)
    lines = code(readme([], script=None).decode("ascii"), "OLLAMA=")
    assert shell(f"{lines}\ninfo 1; word 1 parser", tmp_path, environment).split("\n")[0] == sent


def test_signatures_are_checked_by_ssh_keygen_alone(tmp_path: Path) -> None:
    """The lines say that a good one is good before the tar is unpacked, and fail where a byte was changed."""
    environment = tools(tmp_path / "bin", (*PLAIN, "ssh-keygen"))
    text = unpacked(BUNDLE, tmp_path / "here", environment)
    assert text.index("    tar xOf") < text.index("    ssh-keygen -Y verify") < text.index("    mkdir bundle")
    here = tmp_path / "here"
    run = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(tmp_path / "key")]
    subprocess.run(run, check=True)
    (tmp_path / "signers").write_text(f"me@example.com {(tmp_path / 'key.pub').read_text()}")
    sign = ["ssh-keygen", "-Y", "sign", "-n", "modelpack-bundle", "-f", str(tmp_path / "key")]
    done = subprocess.run(sign, input=(here / "SHA256SUMS").read_bytes(), capture_output=True, check=True)
    (here / "bundle.tar.sig").write_bytes(done.stdout)
    lines = (
        code(text, "ssh-keygen")
        .replace("SIGNERS", str(tmp_path / "signers"))
        .replace("WHO", "me@example.com")
    )
    said = shell(lines, here, environment)
    assert said.startswith("me@example.com\nGood ")
    sums = here / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(AssertionError):
        shell(lines, here, environment)


def test_volumes_are_joined_as_it_says(tmp_path: Path) -> None:
    """sha256sum and cat make the tar of them again."""
    environment = tools(tmp_path / "bin", PLAIN)
    text = readme(Archive(BUNDLE).models(), script=None, volumes=True).decode("ascii")
    cut = ["split", "-b", "100000", "-d", "-a", "3", "--numeric-suffixes=1", str(BUNDLE), "set.tar."]
    subprocess.run(cut, cwd=tmp_path, check=True)
    volumes = sorted(tmp_path.glob("set.tar.*"))
    assert len(volumes) > 1
    (tmp_path / "set.sha256").write_text(
        "".join(f"{Digest.of(one.read_bytes()).hex}  {one.name}\n" for one in volumes) + f"{'0' * 64}  gone\n"
    )
    shell(code(text, "sha256sum -c --ignore-missing"), tmp_path, environment)
    assert (tmp_path / "bundle.tar").read_bytes() == BUNDLE.read_bytes()


UNREAD = Digest("sha256", "5" * 64)


def models_of(digest: Digest | None) -> list[Model]:
    store = MemoryStore()
    image = store.image("tiny", *TINY, (ADAPTER, noise(100)), (LICENSE, b"x"), unread=1)
    recipe = Recipe.compose({"quantize": "q8_0"}, {"files": {"a.gguf": Blob(5, MODEL, key="k")}})
    both = [image, Model(Name.parse("host:1/ns/other:x"), recipe)]
    known = {
        blob.id: dataclasses.replace(blob, digest=digest)
        for model in both
        for blob in model.blobs
        if not blob.digest
    }
    return [model.settled(known) for model in both]


def test_its_length_depends_on_no_digest() -> None:
    """It is laid out before blobs are read."""
    for script in (None, ZERO):
        first, second = (readme(models_of(one), script=script) for one in (None, UNREAD))
        assert len(first) == len(second)
        assert first != second
        assert (b"0" * 64 in first, b"5" * 64 in second) == (True, True)


@given(
    st.integers(0, 2 * MOST_NAMED),
    st.booleans(),
    st.lists(st.from_regex(r"[a-z][a-z.]{0,20}", fullmatch=True)),
)
def test_it_is_ascii_and_bounded(count: int, volumes: bool, attachments: list[str]) -> None:
    """However many models there are."""
    one, recipe = models_of(UNREAD)
    models = [dataclasses.replace(one, name=Name.parse(f"m{number}")) for number in range(count)]
    raw = readme([*models, recipe], script=ZERO, volumes=volumes, attachments=attachments)
    assert raw == readme([*models, recipe], script=ZERO, volumes=volumes, attachments=attachments)
    assert raw.isascii()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert len(raw) < 200_000
    for name in attachments:
        assert f"    attachments/{name}\n".encode() in raw


def test_a_delta_says_what_is_not_there() -> None:
    """Blobs that are expected at the target are in no line; the model is marked."""
    store = MemoryStore()
    model = store.image("tiny", *TINY)
    weights = model.blobs[0]
    assert weights.digest is not None
    expects = Expects((Expected(weights.digest, weights.size, model.name, model.document.id),))
    whole, delta = (readme([model], script=None, expects=one).decode() for one in (NOTHING, expects))
    assert f"put {weights.digest.hex}" in whole
    assert f"put {weights.digest.hex}" not in delta
    assert f"send {weights.digest.hex}" not in delta
    assert ("INCOMPLETE:" in whole, "INCOMPLETE:" in delta) == (False, True)


def test_what_no_server_makes_is_said() -> None:
    """Tensors of Ollama's own kind go into a directory only, and no line claims otherwise."""
    store = MemoryStore()
    text = readme([store.image("t", (TENSOR, b"x"))], script=None).decode().split("\nt:latest\n")[1]
    assert "No server makes it" in text
    assert "create" not in text
