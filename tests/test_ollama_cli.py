"""`modelpack ollama`: every command over real HTTP, against a depot, or a fake for what a depot cannot do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from depots import FIXTURES, digest_of, make
from servers import FakeOllama, say, stream
from terminals import on_terminal

from modelpack.cli.main import group
from modelpack.cli.ollama_shared import when
from modelpack.depot.app import Depot
from modelpack.depot.serve import running
from modelpack.errors import NotFound, Partly, Refused, Unreachable, Usage
from modelpack.hands.ollama import Ollama

TINY = FIXTURES / "tiny-llama.gguf"
A, B = ("sha256:" + letter * 64 for letter in "ab")
ROOT = Path(__file__).parents[1]
SHOW = [sys.executable, "-m", "modelpack", "ollama", "show", "odd", "--modelfile"]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A depot with the model `tiny`; it is $OLLAMA_HOST."""
    with running(Depot(tmp_path / "models", writable=True)) as url:
        assert (
            make(url, "tiny", license="MIT\nsecond\nthird", system="S", parameters={"stop": ["x"]}).status
            == 200
        )
        monkeypatch.setenv("OLLAMA_HOST", url)
        yield url


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    fake = FakeOllama()
    with fake.running() as url:
        monkeypatch.setenv("OLLAMA_HOST", url)
        yield fake


def ollama(*args: object, code: int = 0) -> Result:
    done = CliRunner().invoke(group, ["ollama", *map(str, args)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def fails(kind: type[BaseException], *args: object) -> tuple[Result, Any]:
    done = ollama(*args, code=1)
    assert type(done.exception) is kind, (done.output, done.exception)
    return done, done.exception


def told(*args: object) -> Any:
    """What --json prints: one document, and nothing else on stdout."""
    return json.loads(ollama(*args, "--json").stdout)


# --- list, show, ps, version


def test_list_looks_as_ollamas(url: str) -> None:
    head, row = ollama("list").stdout.splitlines()
    assert re.fullmatch(r"NAME +ID +SIZE +MODIFIED", head)
    with Ollama(url) as client:
        (listed,) = client.list()
    assert re.fullmatch(rf"tiny:latest    {listed.digest.short}    80\.\d kB    .* ago", row)
    assert head.index("ID") == row.index(listed.digest.short)
    assert ollama("ls").stdout.splitlines()[0] == head


def test_list_for_scripts(url: str) -> None:
    (model,) = told("list", "--capability", "completion", "--host", url)["models"]
    assert (model["name"], model["capabilities"], model["context_length"]) == (
        "tiny:latest",
        ["completion"],
        256,
    )
    assert (model["remote"], model["family"], model["quantization"]) == (False, "llama", "F16")
    assert told("list", "--capability", "vision") == {"models": [], "failed": []}


@pytest.mark.parametrize(
    ("wish", "there"),
    [
        (("--family", "llama"), True), (("--family", "bert"), False),
        (("--quantization", "f16"), True), (("--quantization", "q4_0"), False),
        (("--max-size", "1MiB"), True), (("--max-size", "1kB"), False),
        (("--min-context", "256"), True), (("--min-context", "257"), False),
        (("TI",), True), (("iny",), False),
    ],
)  # fmt: skip
def test_list_takes_wishes(url: str, wish: tuple[str, ...], there: bool) -> None:
    done = ollama("list", *wish)
    assert ("tiny:latest" in done.stdout) is there
    assert ("none of 1 model" in done.stderr) is not there


def test_a_list_of_nothing_says_so(url: str) -> None:
    done = ollama("list", "--capability", "completion", "--capability", "flying")
    assert "no model there says flying; they say: completion" in done.stderr
    ollama("rm", "tiny", "--yes")
    assert "has no models" in ollama("list").stderr
    assert ollama("list", "--max-size", "many", code=2).stdout == ""


def test_models_that_cannot_be_asked_are_reported(fake: FakeOllama) -> None:
    fake.models = {"good:latest": {}, "bad:latest": {"x": 1}}
    answer = fake._shown

    def shown(name: str) -> dict[str, Any]:
        return {**answer(name), "capabilities": ["tools"]}

    fake._shown = shown  # type: ignore[method-assign]
    plain = fake._answer

    def gone(at: Any) -> None:
        if at.path == "/api/show":
            fake.models.pop("bad:latest", None)
        plain(at)

    fake._answer = gone  # type: ignore[method-assign]
    fake.models["good:latest"]["files"] = {"f": A}
    done, error = fails(Partly, "list", "--capability", "tools")
    assert "good:latest" in done.stdout
    assert set(error.failed) == {"bad:latest"}


def test_show_in_sections(url: str) -> None:
    text = ollama("show", "tiny").stdout
    titles = ["Model", "Capabilities", "Parameters", "System", "License"]
    assert [line.strip() for line in text.splitlines() if re.match(r"  \S", line)] == titles
    assert "    architecture        llama\n    parameters          37K\n    context length      256\n" in text
    assert "    MIT\n    second\n    ...\n" in text
    verbose = ollama("show", "tiny", "--verbose").stdout
    assert "    llama.block_count " in verbose
    assert re.search(r"token_embd.weight +F16 +\[32, \d+\]", verbose)


@pytest.mark.parametrize(
    ("part", "text"),
    [("license", "MIT\nsecond\nthird\n"), ("system", "S\n"), ("template", "{{ .Prompt }}\n")],
)
def test_show_a_part(url: str, part: str, text: str) -> None:
    assert ollama("show", "tiny", f"--{part}").stdout == text
    assert told("show", "tiny", f"--{part}") == {part: text.rstrip("\n")}


def test_show_a_modelfile_that_create_takes(url: str, tmp_path: Path) -> None:
    text = ollama("show", "tiny", "--modelfile").stdout
    (tmp_path / "Modelfile").write_text(text, encoding="utf-8")
    ollama("create", "again", "-f", tmp_path / "Modelfile")
    assert ollama("show", "again", "--license").stdout == "MIT\nsecond\nthird\n"


def test_a_modelfile_into_a_file_is_as_it_is(url: str, tmp_path: Path) -> None:
    """What a terminal would hide is text of the model: a create from the file is the same model."""
    system = "Be kind \u2764\ufe0f\tand\nbrief."
    assert make(url, "odd", system=system).status == 200
    with (tmp_path / "Modelfile").open("wb") as file:
        subprocess.run(SHOW, stdout=file, check=True)
    ollama("create", "again", "-f", tmp_path / "Modelfile")
    with Ollama(url) as client:
        assert client.show("again").system == client.show("odd").system == system


def test_line_ends_of_a_modelfile_stay(fake: FakeOllama) -> None:
    fake.faults["POST /api/show"] = lambda at: say(at, 200, {"modelfile": "FROM x\r\nSYSTEM \x1b[2J\n"})
    assert ollama("show", "m", "--modelfile").stdout_bytes == b"FROM x\r\nSYSTEM \x1b[2J\n"


def test_a_modelfile_on_a_terminal_is_harmless(fake: FakeOllama) -> None:
    fake.faults["POST /api/show"] = lambda at: say(at, 200, {"modelfile": "SYSTEM \x1b[2J\u202e"})
    shown, told = on_terminal(SHOW)
    assert shown == b"SYSTEM \\x1b[2J\\u202e\r\n"
    assert b"escapes" in told


def test_lists_within_lists_are_cut(fake: FakeOllama) -> None:
    info = {"a.deep": json.loads("[" * 90 + "]" * 90), "b.map": {"x": [1]}, "c.pairs": [[1, 2], [3]]}
    fake.faults["POST /api/show"] = lambda at: say(at, 200, {"model_info": info})
    rows = [line.split(maxsplit=1) for line in ollama("show", "m", "-v").stdout.splitlines()]
    assert rows[-4:-1] == [["a.deep", "[[...]]"], ["b.map", "..."], ["c.pairs", "[[1, 2], [3]]"]]


def test_show_the_whole_answer(url: str) -> None:
    with Ollama(url) as client:
        assert told("show", "tiny") == client.show("tiny").raw


def test_text_of_a_server_is_harmless(fake: FakeOllama) -> None:
    evil = "\x1b[31mred\u202e\x07"
    model = {"name": evil, "digest": "1" * 64, "size": 1, "details": {}, "capabilities": [evil]}
    fake.faults["GET /api/tags"] = lambda at: say(at, 200, {"models": [model]})
    fake.faults["GET /api/ps"] = fake.faults["GET /api/tags"]
    fake.faults["GET /api/version"] = lambda at: say(at, 200, {"version": evil, "depot": evil})
    fake.faults["POST /api/show"] = lambda at: say(
        at,
        200,
        {
            "license": evil, "system": evil, "parameters": f"a {evil}", "capabilities": [evil],
            "model_info": {evil: [evil] * 9, "general.architecture": evil}, "modelfile": evil,
            "tensors": [{"name": evil, "type": evil, "shape": [1]}],
        },
    )  # fmt: skip
    for args in (["list"], ["ps"], ["version"], ["show", "m", "--verbose"]):
        done = ollama(*args)
        assert r"\x1b[31mred\u202e" in done.stdout
        assert not {"\x1b", "\u202e", "\x07"} & set(done.output)


def test_ps_looks_as_ollamas(fake: FakeOllama) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=4, seconds=30)).isoformat()
    one = {"digest": "1" * 64, "details": {"family": "llama"}, "context_length": 4096, "expires_at": soon}
    sizes = [("a", 10**9, 0), ("b", 10**9, 10**9), ("c", 10**9, 25 * 10**7), ("d", 0, 5)]
    models = [{**one, "name": name, "size": size, "size_vram": gpu} for name, size, gpu in sizes]
    models[0]["expires_at"] = "2020-01-01T00:00:00.123456789Z"
    models[1]["expires_at"] = "2318-03-05T00:00:00Z"
    fake.faults["GET /api/ps"] = lambda at: say(at, 200, {"models": models})
    head, *rows = [re.split(r" {4,}", line) for line in ollama("ps").stdout.splitlines()]
    assert head == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert [row[3] for row in rows] == ["100% CPU", "100% GPU", "75%/25% CPU/GPU", "Unknown"]
    assert [row[5] for row in rows] == ["Stopping...", "Forever", *["4 minutes from now"] * 2]
    assert rows[0][1:3] == ["111111111111", "1 GB"]
    assert told("ps")["models"][2]["size_vram"] == 25 * 10**7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second ago"), (1, "1 second ago"), (59, "59 seconds ago"),
        (60, "About a minute ago"), (125, "2 minutes ago"), (3599, "59 minutes ago"),
        (3600, "About an hour ago"), (47 * 3600, "47 hours ago"), (49 * 3600, "2 days ago"),
        (15 * 86400, "2 weeks ago"), (90 * 86400, "3 months ago"), (800 * 86400, "2 years ago"),
        (-90, "About a minute from now"), (-3e9, "Forever"),
    ],
)  # fmt: skip
def test_times_are_said_as_ollama_says_them(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert when((now - timedelta(seconds=seconds)).isoformat(), now=now) == text


@pytest.mark.parametrize(
    ("text", "said"), [("", "-"), (None, "-"), ("soon", "-"), ("0001-01-01T00:00:00Z", "Never")]
)
def test_times_that_are_none(text: str | None, said: str) -> None:
    assert when(text) == said


def test_version(url: str) -> None:
    assert re.match(rf"Ollama 0\.24\.0 at {url} \(a depot of modelpack", ollama("version").stdout)
    assert told("version")["version"] == "0.24.0"


def test_the_host_is_an_option_or_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    fails(Unreachable, "list")
    assert "tiny" in ollama("list", "--host", url.removeprefix("http://")).stdout


def test_a_key_comes_from_the_environment_alone(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "hush")
    ollama("list")
    assert fake.heads[0]["authorization"] == "Bearer hush"
    assert "No such option" in ollama("list", "--api-key", "hush", code=2).stderr


# --- create, copy, delete


def test_create_sends_only_what_is_missing(url: str, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM {TINY}\nSYSTEM hello\n", encoding="utf-8")
    done = told("create", "mine", "-f", tmp_path / "Modelfile")
    assert (done["status"], done["name"]) == ("success", "registry.ollama.ai/library/mine:latest")
    assert digest_of(TINY.read_bytes()) in done["present"]
    assert ollama("show", "mine", "--system").stdout == "hello\n"
    chat = FIXTURES / "tiny-chat.gguf"
    again = ollama("create", "mine", "-f", chat)  # another model of that name: replaced, as by ollama create
    assert re.match(r"created mine:latest  [0-9a-f]{12}  45\.\d kB sent\n", again.stdout)


def test_create_makes_a_modelfile_of_here_by_default(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, error = fails(NotFound, "create", "mine")
    assert "-f" in error.advice
    (tmp_path / "Modelfile").write_text("FROM tiny\nSYSTEM other\n", encoding="utf-8")
    assert "nothing to send" in ollama("create", "mine").stdout
    assert ollama("show", "mine", "--system").stdout == "other\n"


def test_create_from_a_model(fake: FakeOllama) -> None:
    fake.models["big:latest"] = {"files": {"a.gguf": A}}
    fake.faults["POST /api/show"] = lambda at: say(at, 200, {})
    assert told("create", "small", "--from", "big", "--quantize", "q8_0")["status"] == "success"
    assert fake.models["small:latest"] == {
        "from": "big:latest", "model": "small:latest", "quantize": "Q8_0", "stream": True,
    }  # fmt: skip
    _, error = fails(NotFound, "create", "x", "--from", "nobody")
    assert "pull nobody:latest" in error.advice
    fails(Usage, "create", "x", "--from", "big", "-f", TINY)


def test_create_uploads_to_a_server_that_rewrites(fake: FakeOllama) -> None:
    fake.version, fake.rewrite = {"version": "0.33.0"}, True
    done = ollama("create", "m", "-f", TINY)
    assert done.stdout.startswith("created m:latest")
    assert "keeps a rewritten copy" in done.stderr
    assert fake.received == TINY.stat().st_size


def test_copy(url: str) -> None:
    assert ollama("cp", "tiny", "team/other:v1").stdout == "copied tiny to team/other:v1\n"
    assert len(told("list")["models"]) == 2
    fails(NotFound, "copy", "nope", "x")


def test_delete_needs_yes_where_nobody_sits(url: str) -> None:
    _, error = fails(Usage, "delete", "tiny")
    assert "--yes" in error.advice
    assert len(told("list")["models"]) == 1
    assert ollama("rm", "tiny", "--yes").stdout == "deleted tiny\n"
    assert told("list")["models"] == []


def test_one_that_cannot_be_deleted_does_not_stop_the_others(url: str) -> None:
    ollama("cp", "tiny", "b")
    done, error = fails(Partly, "rm", "tiny", "nope", "b", "-y")
    assert done.stdout == "deleted tiny\ndeleted b\n"
    assert set(error.failed) == {"nope"}
    fails(NotFound, "rm", "nope", "-y")


def test_delete_for_scripts(url: str) -> None:
    done, _ = fails(Partly, "rm", "tiny", "nope", "-y", "--json")
    told = json.loads(done.stdout)
    assert (told["deleted"], [one["name"] for one in told["failed"]]) == (["tiny"], ["nope"])


# --- pull and push


def moving(*last: dict[str, Any]) -> Callable[[Any], None]:
    """What a server says while it pulls two layers."""
    lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
    for done in range(0, 101, 20):
        lines += [
            {"status": "pulling", "digest": each, "total": 10**9, "completed": done * 10**7}
            for each in (A, B)
        ]
    return lambda at: stream(at, [*lines, *last])


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_pull_and_push(fake: FakeOllama, verb: str) -> None:
    fake.faults[f"POST /api/{verb}"] = moving({"status": "success"})
    done = ollama(verb, "h:1/ns/m", "--insecure")
    assert (done.stdout, done.stderr) == (f"{verb}ed h:1/ns/m\n", "")
    assert told(verb, "m") == {"model": "m", "status": "success"}


def test_pull_says_what_came(fake: FakeOllama) -> None:
    fake.models["m:latest"] = {}
    fake.faults["POST /api/pull"] = moving({"status": "success"})
    assert re.match(r"pulled M  [0-9a-f]{12}  5 B\n", ollama("pull", "M").stdout)


def test_a_pull_that_fails(fake: FakeOllama) -> None:
    fake.faults["POST /api/pull"] = moving({"error": "max retries exceeded: \x1b[31m"})
    done, error = fails(Refused, "pull", "m")
    assert done.stdout == ""
    assert "max retries" in error.what
    fake.faults["POST /api/pull"] = moving()
    fails(Unreachable, "pull", "m")
    fake.faults["POST /api/pull"] = moving({"error": "pull model manifest: file does not exist"})
    fails(NotFound, "pull", "m")


def test_numbers_of_a_hostile_server_break_nothing(fake: FakeOllama) -> None:
    events = [
        {"status": "x", "digest": f"d{n}", "total": -(10**400), "completed": 10**400} for n in range(99)
    ]
    fake.faults["POST /api/pull"] = moving(*events, {"status": "success"})
    assert ollama("pull", "m").stdout == "pulled m\n"


# --- blobs


def test_blob_upload_and_check(url: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    digest = digest_of(b"hello")
    done, _ = fails(NotFound, "blob", "check", digest, digest_of(TINY.read_bytes()))
    assert done.stdout == f"missing  {digest}\nthere    {digest_of(TINY.read_bytes())}\n"
    assert "bytes were not looked at" in done.stderr
    sent = told("blob", "upload", tmp_path / "x", TINY)["blobs"]
    assert [(one["digest"], one["sent"]) for one in sent] == [(digest, 5), (digest_of(TINY.read_bytes()), 0)]
    assert ollama("blob", "upload", tmp_path / "x").stdout == f"{tmp_path / 'x'}  was there\n  {digest}\n"
    assert told("blob", "check", hashlib.sha256(b"hello").hexdigest()) == [{"digest": digest, "there": True}]


def test_a_file_that_is_not_there_does_not_stop_the_others(url: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    done, error = fails(Partly, "blob", "upload", tmp_path / "no", tmp_path / "x")
    assert done.stdout == f"{tmp_path / 'x'}  1 B sent\n  {digest_of(b'x')}\n"
    assert [type(one) for one in error.failed.values()] == [NotFound]
    fails(NotFound, "blob", "upload", tmp_path / "no")
    assert "not a digest" in ollama("blob", "check", "sha256:12", code=2).stderr


# --- as people meet it


COMMANDS = ["list", "show", "create", "copy", "delete", "pull", "push", "ps", "version", "blob", "blob check"]


@pytest.mark.parametrize("command", ["", *COMMANDS, "blob upload", "ls", "cp", "rm"])
def test_help_has_an_example_and_fits(command: str) -> None:
    text = CliRunner().invoke(group, ["ollama", *command.split(), "--help"], terminal_width=80).stdout
    assert "Example" in text
    assert max(map(len, text.splitlines())) <= 80


def test_short_names_are_listed_once() -> None:
    listed = re.findall(r"^  ([a-z]+)  ", ollama("--help").stdout, re.MULTILINE)
    assert listed == [*COMMANDS[:10]]


def test_model_names_are_completed(url: str) -> None:
    def completed(*words: str) -> list[str]:
        line = " ".join(["modelpack", "ollama", *words])
        environment = {
            "_MODELPACK_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1),
        }  # fmt: skip
        done = CliRunner().invoke(group, [], prog_name="modelpack", env=environment)
        return [each.partition(",")[2] for each in done.stdout.splitlines() if each]

    assert completed("show", "ti") == ["tiny:latest"]
    assert completed("show", "x") == []
    assert completed("show", "--host", "127.0.0.1:1", "ti") == []


def terminal(args: list[str], answer: bytes = b"") -> tuple[int, str]:
    """Run the program with a terminal; everything that it wrote, and its exit code."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    pytest.importorskip("termios").tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "modelpack", "ollama", *args]
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    return process.returncode, seen.decode()


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_delete_asks_at_a_terminal(url: str, answer: bytes, left: int) -> None:
    code, text = terminal(["rm", "tiny"], answer)
    assert code == 0
    assert f"Delete tiny at {url}?" in text
    assert len(told("list")["models"]) == left


def test_each_layer_has_a_bar(fake: FakeOllama) -> None:
    def lines() -> Iterator[dict[str, Any]]:
        for done in (0, 10, 40, 70, 100):
            for each in (A, B):
                yield {"status": "pulling", "digest": each, "total": 10**9, "completed": done * 10**7}
            yield {"status": "checking \x1b[5m"}
            time.sleep(0.45)
        yield {"status": "success"}

    fake.faults["POST /api/pull"] = lambda at: stream(at, lines())  # type: ignore[arg-type]
    code, text = terminal(["pull", "m"])
    assert code == 0
    for each in ("aaaaaaaaaaaa: ", "bbbbbbbbbbbb: ", "100%", "1.00G", r"checking \x1b[5m"):
        assert each in text
    assert "\x1b[5m" not in text
    assert text.rstrip().endswith("pulled m")
    code, text = terminal(["pull", "m", "--quiet"])
    assert text == "pulled m\r\n"


def test_exit_codes(url: str) -> None:
    """As the whole program gives them."""

    def run(*args: str) -> int:
        command = [sys.executable, "-m", "modelpack", "ollama", *args]
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, cwd=ROOT).returncode

    assert run("show", "nope") == 3
    assert run("rm", "tiny") == 2
    assert run("rm", "tiny", "nope", "--yes") == 8
    assert run("list", "--host", "127.0.0.1:1") == 7
    assert run("blob", "check", A) == 3
