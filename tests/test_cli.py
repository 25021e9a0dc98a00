"""The command line as people and scripts meet it: real processes, real files, exit codes, words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SHARED
from servers import FakeOllama

from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "tiny-llama.gguf"
COMMANDS = ("pack", "load", "inspect", "verify", "hash", "serve", "completion")


def modelpack(*args: object, cwd: Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command; a traceback on stderr fails the test, whatever it is about."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA", "MODELPACK"))}
    done = subprocess.run(
        [sys.executable, "-m", "modelpack", *map(str, args)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=clean | {"OLLAMA_HOST": "127.0.0.1:9", "NO_COLOR": "1"} | env,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert b"a bug in modelpack" not in done.stderr, done.stderr.decode()
    return done


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A bundle of the tiny model, in one file."""
    done = modelpack("pack", TINY, "-o", "b.tar", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "b.tar"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, tmp_path: Path) -> None:
    """Every command's help has an example, and fits 80 columns."""
    done = modelpack(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert b"Example" in done.stdout
    assert max(map(len, done.stdout.decode().splitlines())) <= 80


def test_python_m_is_the_same(tmp_path: Path) -> None:
    """`python -m modelpack` and the installed command say the same."""
    script = shutil.which("modelpack", path=str(Path(sys.executable).parent))
    assert script is not None
    by_name = subprocess.run([script, "--help"], capture_output=True, check=True).stdout
    assert by_name == modelpack("--help", cwd=tmp_path).stdout


def test_the_main_job(tmp_path: Path) -> None:
    """A GGUF leaves in a bundle and is a model on the other side, under its file's name."""
    assert modelpack("pack", TINY, "-o", "b.tar", cwd=tmp_path).returncode == 0
    assert modelpack("load", "b.tar", "--to", "models", cwd=tmp_path).returncode == 0
    shown = modelpack("inspect", "models", "--json", cwd=tmp_path)
    (model,) = json.loads(shown.stdout)["models"]
    assert model["name"] == "registry.ollama.ai/library/tiny-llama:latest"
    (weights,) = [one for one in model["layers"] if one["media_type"].endswith(".model")]
    digest = weights["digest"].removeprefix("sha256:")
    assert (tmp_path / "models" / "blobs" / f"sha256-{digest}").read_bytes() == TINY.read_bytes()
    assert modelpack("verify", "models", cwd=tmp_path).returncode == 0


def test_pack_twice_says_that_nothing_was_read_again(tiny: Path) -> None:
    """The same pack again does nothing, and says what it did not look at."""
    before = tiny.stat()
    done = modelpack("pack", TINY, "-o", tiny.name, cwd=tiny.parent)
    assert done.returncode == 0
    assert b"not read again" in done.stderr
    assert (tiny.stat().st_ino, tiny.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_archive_is_replaced_only_on_demand(tiny: Path) -> None:
    """Refused without --replace, and then nothing changed."""
    before = tiny.read_bytes()
    done = modelpack("pack", FIXTURES / "tiny-chat.gguf", "-o", tiny.name, cwd=tiny.parent)
    assert done.returncode == 6
    assert b"--replace" in done.stderr
    assert tiny.read_bytes() == before
    done = modelpack("pack", FIXTURES / "tiny-chat.gguf", "-o", tiny.name, "--replace", cwd=tiny.parent)
    assert done.returncode == 0
    assert [str(one.name) for one in Archive(tiny).models()] == ["tiny-chat:latest"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".zip", ".zst"])
def test_compressed_outputs_are_usage_errors(suffix: str, tmp_path: Path) -> None:
    """Refused before anything is read, with what to write instead."""
    done = modelpack("pack", TINY, "-o", f"b{suffix}", cwd=tmp_path)
    assert done.returncode == 2
    assert b"NAME.tar" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_file_and_pipe_hold_the_same(tiny: Path) -> None:
    """Three forms of one bundle have one fingerprint; the file and the pipe are the same bytes."""
    where = tiny.parent
    folder = json.loads(modelpack("pack", TINY, "-o", "b", "--json", cwd=where).stdout)
    piped = modelpack("pack", TINY, "-o", "-", cwd=where)
    assert folder["fingerprint"] == str(Archive(tiny).fingerprint)
    assert piped.stdout == tiny.read_bytes()
    assert folder["fingerprint"].encode() in piped.stderr
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=where / "b", check=True)


def test_a_damaged_manifest_is_damaged_to_every_command(tiny: Path) -> None:
    """And not absent."""
    where = tiny.parent
    assert modelpack("load", tiny.name, "--to", "m", cwd=where).returncode == 0
    (where / "m/manifests/registry.ollama.ai/library/tiny-llama/latest").write_bytes(b"{")
    for command in ("inspect", "verify", "pack -o x", "load --to y", "unpack"):
        words = command.split()
        last = ["z"] if command == "unpack" else []
        done = modelpack(words[0], "m#tiny-llama", *words[1:], *last, cwd=where)
        assert (done.returncode, b"JSON" in done.stderr) == (4, True), done.stderr
    assert modelpack("verify", "m#other", cwd=where).returncode == 3


def test_load_reads_a_pipe(tiny: Path) -> None:
    """`load -` takes the bundle from standard input."""
    done = modelpack("load", "-", "--to", "m", "--as", "team/x:1", cwd=tiny.parent, stdin=tiny.read_bytes())
    assert done.returncode == 0, done.stderr
    assert [str(one.name) for one in ModelsDir(tiny.parent / "m").models()] == ["team/x:1"]


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 3000, -1024, -1])
def test_a_cut_pipe_loads_nothing(tiny: Path, cut: int) -> None:
    """However early a pipe ends, no model appears and the exit code says damaged."""
    done = modelpack("load", "-", "--to", "m", cwd=tiny.parent, stdin=tiny.read_bytes()[:cut])
    assert done.returncode == 4, done.stderr
    assert ModelsDir(tiny.parent / "m").models() == []


def test_expect_takes_only_that_bundle(tiny: Path) -> None:
    """--expect refuses another fingerprint on load and verify, and takes the right one."""
    right = str(Archive(tiny).fingerprint)
    for command in (("verify", tiny), ("load", tiny, "--to", "m")):
        assert modelpack(*command, "--expect", "0" * 64, cwd=tiny.parent).returncode == 6
        assert not (tiny.parent / "m").exists()
        assert modelpack(*command, "--expect", right, cwd=tiny.parent).returncode == 0


def test_a_taken_name_is_refused_without_replace(tiny: Path) -> None:
    """Another model's name is given away only with --replace; --as goes beside it."""
    where = tiny.parent
    modelpack("pack", FIXTURES / "tiny-chat.gguf", "-o", "c.tar", "--name", "tiny-llama", cwd=where)
    assert modelpack("load", "c.tar", "--to", "m", cwd=where).returncode == 0
    before = ModelsDir(where / "m").models()
    assert modelpack("load", tiny, "--to", "m", cwd=where).returncode == 6
    assert ModelsDir(where / "m").models() == before
    assert modelpack("load", tiny, "--to", "m", "--as", "other", cwd=where).returncode == 0
    assert modelpack("load", tiny, "--to", "m", "--replace", cwd=where).returncode == 0
    assert len(ModelsDir(where / "m").models()) == 2


def test_a_dry_run_changes_nothing(tiny: Path) -> None:
    """The plan names what would be sent, and no directory is made for it."""
    done = modelpack("load", tiny, "--to", "m", "--dry-run", "--json", cwd=tiny.parent)
    plan = json.loads(done.stdout)
    assert plan["bytes"] == sum(one["size"] for one in plan["missing"]) > TINY.stat().st_size
    assert not (tiny.parent / "m").exists()


BAD = {
    "empty.gguf": (b"", 4, "empty"),
    "lfs.gguf": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", 4, "Git LFS"),
    "page.gguf": (b"<!DOCTYPE html>\n<html><head>", 4, "web page"),
    "text.gguf": (b"hello, this is no model at all, only some text\n", 4, "text"),
    "cut.gguf": (TINY.read_bytes()[:60_000], 4, "missing"),
    "big-endian.gguf": ((FIXTURES / "tiny-vocab-big-endian.gguf").read_bytes(), 5, "big-endian"),
    "lies.gguf": (b"GGUF\x03\0\0\0" + b"\xff" * 16, 4, ""),
    "shard.gguf": ((FIXTURES / "tiny-llama-00001-of-00003.gguf").read_bytes(), 5, "shard 1 of 3"),
    "lora.gguf": ((FIXTURES / "tiny-lora.gguf").read_bytes(), 5, "adapter"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_for_what_they_are(name: str, tmp_path: Path) -> None:
    """pack says what the file is, with the exit code of its kind, and writes nothing."""
    data, code, word = BAD[name]
    (tmp_path / name).write_bytes(data)
    done = modelpack("pack", name, "-o", "b.tar", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert name in done.stderr.decode()
    assert word in done.stderr.decode()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_wrong_places_get_a_hint(tiny: Path) -> None:
    """A host without a scheme, a directory that is none, a server that is not there."""
    done = modelpack("load", tiny, "--to", "localhost:11434", cwd=tiny.parent)
    assert (done.returncode, b"http://localhost:11434" in done.stderr) == (2, True)
    (tiny.parent / "other").mkdir()
    (tiny.parent / "other" / "thesis.doc").touch()
    assert modelpack("load", tiny, "--to", "other", cwd=tiny.parent).returncode == 6
    done = modelpack("load", tiny, cwd=tiny.parent)
    assert (done.returncode, b"127.0.0.1:9" in done.stderr) == (7, True)
    assert modelpack("load", "nowhere.tar", cwd=tiny.parent).returncode == 3
    assert modelpack("load", tiny, "other-model", "--to", "m", cwd=tiny.parent).returncode == 3


def test_verify_lists_every_problem(tiny: Path) -> None:
    """Two damaged blobs and a changed README are three problems, each named; exit code 4."""
    where = tiny.parent
    assert modelpack("pack", TINY, "-o", "b", cwd=where).returncode == 0
    for blob in Archive(tiny).models()[0].blobs:
        assert blob.digest is not None
        flip(where / "b" / "blobs" / "sha256" / blob.digest.hex)
    flip(where / "b" / "README.txt")
    done = modelpack("verify", "b", "--json", cwd=where)
    assert done.returncode == 4
    assert [one["kind"] for one in json.loads(done.stdout)["problems"]] == ["Corrupt"] * 3


def test_verify_goes_on_where_a_document_is_damaged(tiny: Path) -> None:
    """Files are then held against SHA256SUMS: the damaged weights are found beside the damaged document."""
    where = tiny.parent
    assert modelpack("pack", TINY, "-o", "b", cwd=where).returncode == 0
    model = Archive(tiny).models()[0]
    for digest in (model.document.id, model.blobs[0].digest):
        assert digest is not None
        flip(where / "b" / "blobs" / "sha256" / digest.hex)
    done = modelpack("verify", "b", cwd=where)
    assert done.returncode == 4
    assert model.blobs[0].digest is not None
    assert model.blobs[0].digest.hex in done.stderr.decode()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_verify_picks_one_model(tiny: Path) -> None:
    """LOCATOR#NAME checks that model alone: another one's damage does not matter."""
    where = tiny.parent
    for name in ("a", "b"):
        source = FIXTURES / ("tiny-chat.gguf" if name == "b" else "tiny-llama.gguf")
        assert modelpack("pack", source, "-o", "set", "--name", name, cwd=where).returncode == 0
    bundle = FolderBundle(where / "set")
    weights = bundle.models()[1].blobs[0].digest
    assert weights is not None
    flip(where / "set" / "blobs" / "sha256" / weights.hex)
    assert modelpack("verify", "set#a", cwd=where).returncode == 0
    assert modelpack("verify", "set#b", cwd=where).returncode == 4
    assert modelpack("verify", "set", cwd=where).returncode == 4


@pytest.mark.parametrize("place", ["", "ftp://h/x", "s3://bucket/x"])
def test_addresses_that_are_none_are_refused(tiny: Path, place: str) -> None:
    """An unset variable or an unknown scheme never becomes a directory."""
    for command in (("load", tiny, "--to", place), ("pack", TINY, "-o", place), ("inspect", place)):
        before = sorted(tiny.parent.iterdir())
        assert modelpack(*command, cwd=tiny.parent).returncode == 2
        assert sorted(tiny.parent.iterdir()) == before


def test_a_killed_first_pack_is_taken_up(tmp_path: Path) -> None:
    """A folder that has everything but its index is finished by the next pack; a fresh volume is empty."""
    assert modelpack("pack", TINY, "-o", "b", cwd=tmp_path).returncode == 0
    (tmp_path / "b" / "index.json").unlink()
    (tmp_path / "b" / "SHA256SUMS").rename(tmp_path / "b" / "SHA256SUMS.new")
    (tmp_path / "b" / "lost+found").mkdir()
    assert modelpack("pack", TINY, "-o", "b", cwd=tmp_path).returncode == 0
    assert modelpack("verify", "b", cwd=tmp_path).returncode == 0


def test_closed_streams_are_no_bug(tiny: Path) -> None:
    """Whoever starts us without standard streams gets the same exit codes."""
    command = f"{sys.executable} -m modelpack load {tiny} --to m"
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(f"{command} {closed}", shell=True, cwd=tiny.parent, capture_output=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(f"{sys.executable} -m modelpack load - --to m <&-", shell=True, cwd=tiny.parent)
    assert done.returncode == 4


def test_ctrl_c_stops_hashing_soon(tmp_path: Path) -> None:
    """hash and verify of a huge file end within seconds of SIGINT, with 130."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(64 << 30)
    process = subprocess.Popen(
        [sys.executable, "-m", "modelpack", "hash", "huge"], cwd=tmp_path, stderr=subprocess.PIPE
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130, said


def test_a_second_load_reads_its_pipe_to_the_end(tiny: Path) -> None:
    """Where everything is there, the writer of the pipe does not fail for it; a cut pipe is still noticed."""
    data = tiny.read_bytes()
    assert modelpack("load", "-", "--to", "m", cwd=tiny.parent, stdin=data).returncode == 0
    assert modelpack("load", "-", "--to", "m", cwd=tiny.parent, stdin=data).returncode == 0
    assert modelpack("load", "-", "--to", "m", cwd=tiny.parent, stdin=data[:-2000]).returncode == 4


def test_quiet_is_quiet(tiny: Path) -> None:
    """--quiet leaves stderr empty where all goes well."""
    for command in (("load", tiny, "--to", "m"), ("pack", TINY, "-o", "-"), ("verify", tiny), ("hash", TINY)):
        assert modelpack(*command, "-q", cwd=tiny.parent).stderr == b""


def test_verify_says_what_it_did_not_check(tmp_path: Path) -> None:
    """A loose GGUF has no hash: verify says so and calls nothing damaged."""
    done = modelpack("verify", TINY, cwd=tmp_path)
    assert done.returncode == 0
    assert b"not checked" in done.stdout


def test_hash_says_both_and_goes_on(tmp_path: Path) -> None:
    """One file that cannot be read does not hide the others' hashes; exit code 8."""
    done = modelpack("hash", TINY, "nowhere", "--json", cwd=tmp_path)
    (one,) = json.loads(done.stdout)
    assert done.returncode == 8
    expected = subprocess.run(["sha256sum", TINY], capture_output=True, text=True, check=True).stdout
    assert one["sha256"] == expected.split()[0]
    assert modelpack("hash", "nowhere", cwd=tmp_path).returncode == 3


def test_text_from_elsewhere_is_never_obeyed(tiny: Path) -> None:
    """Terminal escapes and bidi marks in file names are shown as escapes, on both streams."""
    evil = "x\x1b[31m\u202egpj.gguf"
    shutil.copy(TINY, tiny.parent / evil)
    for command in (("inspect", evil), ("hash", evil), ("pack", evil, "-o", "e.tar"), ("inspect", "e.tar")):
        done = modelpack(*command, cwd=tiny.parent)
        assert done.returncode == 0, done.stderr
        for stream in (done.stdout, done.stderr):
            assert b"\x1b" not in stream
            assert "\u202e".encode() not in stream


def test_inspect_prints_the_create_request(tiny: Path) -> None:
    """--create-request is a JSON body that a server takes as it is."""
    request = json.loads(modelpack("inspect", tiny, "--create-request", cwd=tiny.parent).stdout)
    assert set(request) == {"model", "files"}
    loose = json.loads(modelpack("inspect", TINY, "--create-request", cwd=tiny.parent).stdout)
    assert loose == request


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    """Each script names the variable by which click completes."""
    assert b"_MODELPACK_COMPLETE" in modelpack("completion", shell, cwd=tmp_path).stdout


def test_completion_completes(tmp_path: Path) -> None:
    """Command names come back for their beginnings."""
    said = modelpack(
        cwd=tmp_path, _MODELPACK_COMPLETE="bash_complete", COMP_WORDS="modelpack ve", COMP_CWORD="1"
    )
    assert b"verify" in said.stdout


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """SIGINT in the middle of a load from a pipe: exit code 130, no model, no unfinished file."""
    modelpack("pack", TINY, "-o", "b.tar", cwd=tmp_path)
    data = (tmp_path / "b.tar").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelpack", "load", "-", "--to", "m"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(data[:-40_000])
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not list((tmp_path / "m").rglob("modelpack-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert ModelsDir(tmp_path / "m").models() == []
    assert [one for one in (tmp_path / "m").rglob("*") if one.is_file()] == []


def everything() -> list[Path]:
    """Every GGUF at hand: this repository's, and ../shared's where it is."""
    shared = sorted((SHARED / "gguf").glob("*.gguf")) if SHARED is not None else []
    return [*sorted(FIXTURES.glob("*.gguf")), *shared]


@pytest.mark.parametrize("path", everything(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_gguf_goes_through_every_command(path: Path, tmp_path: Path) -> None:
    """pack, inspect, verify, hash and load of each: it arrives byte for byte, or is refused with a reason."""
    packed = modelpack("pack", path, "-o", "b.tar", cwd=tmp_path)
    assert modelpack("hash", path, cwd=tmp_path).returncode == 0
    if packed.returncode == 5:  # an adapter, a projector, another byte order: no model by itself
        assert modelpack("inspect", path, cwd=tmp_path).returncode in (0, 5)
        return
    assert packed.returncode == 0, packed.stderr
    for command in (
        ("inspect", path),
        ("inspect", "b.tar"),
        ("verify", path),
        ("verify", "b.tar", "--sha256"),
    ):
        assert modelpack(*command, cwd=tmp_path).returncode == 0
    assert modelpack("load", "b.tar", "--to", "m", cwd=tmp_path).returncode == 0
    (model,) = ModelsDir(tmp_path / "m").models()
    largest = max(model.blobs, key=lambda blob: blob.size)
    assert largest.digest is not None
    arrived = (tmp_path / "m" / "blobs" / largest.digest.file_name).read_bytes()
    if "-of-" in path.name:  # merged with the others; tests/test_pack_files.py has the vector
        assert len(arrived) > path.stat().st_size
    else:
        assert arrived == path.read_bytes()


# --- over HTTP


class CountingProxy:
    """Passes bytes to a server and counts those that clients sent."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, count: bool) -> None:
        with source, target:
            try:
                while data := source.recv(65536):
                    self.sent += len(data) if count else 0
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[CountingProxy]:
    """A writable depot in a process of its own, behind a proxy that counts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelpack", "serve", "depot", "--port", "0", "--writable"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    proxy = CountingProxy(int(line.split("http://127.0.0.1:")[1].split()[0].rstrip("/;)")))
    yield proxy
    proxy.close()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert "Traceback" not in said, said


def test_a_second_load_sends_no_blob(tiny: Path, depot: CountingProxy) -> None:
    """The counting proxy sees the weights go over once; the second load sends requests only."""
    first = modelpack("load", tiny, "--to", depot.url, "--json", cwd=tiny.parent)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["models"][0]["way"] == "exact"
    assert depot.sent > TINY.stat().st_size
    depot.sent = 0
    second = modelpack("load", tiny, "--to", depot.url, "--json", cwd=tiny.parent)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["models"][0]["bytes_sent"] == 0
    assert depot.sent < 4096


def test_a_dry_run_to_a_server_shows_the_request(tiny: Path, depot: CountingProxy) -> None:
    """What is there, what is not, how many bytes, the way, and the create request; and nothing was sent."""
    done = modelpack("load", tiny, "--to", depot.url, "--dry-run", "--create", "--json", cwd=tiny.parent)
    plan = json.loads(done.stdout)
    assert plan["create_requests"][0]["files"]
    exact = json.loads(modelpack("plan", tiny, "--to", depot.url, "--json", cwd=tiny.parent).stdout)
    assert (exact["create_requests"], exact["models"][0]["way"]) == ([], "exact")
    assert plan["bytes"] > TINY.stat().st_size
    assert depot.sent < 4096
    assert list((tiny.parent / "depot").rglob("sha256-*")) == []


def test_a_pipe_loads_into_a_server(tiny: Path, depot: CountingProxy) -> None:
    """`load -` to a server: blobs are posted as they come by."""
    done = modelpack("load", "-", "--to", depot.url, cwd=tiny.parent, stdin=tiny.read_bytes())
    assert done.returncode == 0, done.stderr
    assert len(ModelsDir(tiny.parent / "depot").models()) == 1


def test_a_load_with_its_proof(tiny: Path, depot: CountingProxy) -> None:
    """--receipt writes what arrived, --prove reads back what was there; check tells drift."""
    cwd = tiny.parent
    first = modelpack("load", tiny, "--to", depot.url, "--receipt", "r.json", cwd=cwd)
    assert first.returncode == 0, first.stderr
    assert b"exact: the server can call back" in first.stderr
    again = modelpack("load", tiny, "--to", depot.url, "--prove", "--receipt", "r.json", "--json", cwd=cwd)
    assert again.returncode == 0, again.stderr
    record = json.loads((cwd / "r.json").read_text())
    assert {blob["state"] for blob in record["models"][0]["blobs"]} == {"read back"}
    assert json.loads(again.stdout)["models"][0]["there"] is True
    assert modelpack("check", "r.json", cwd=cwd).returncode == 0
    gone = modelpack("ollama", "delete", "tiny-llama", "--yes", "--host", depot.url, cwd=cwd)
    assert gone.returncode == 0, gone.stderr
    assert modelpack("check", "r.json", cwd=cwd).returncode == 12


def test_a_receipt_takes_no_other_files_place(tiny: Path, depot: CountingProxy) -> None:
    """Refused before anything moves."""
    (tiny.parent / "r.json").write_text("mine")
    done = modelpack("load", tiny, "--to", depot.url, "--receipt", "r.json", cwd=tiny.parent)
    assert done.returncode == 6
    assert depot.sent < 4096
    assert (tiny.parent / "r.json").read_text() == "mine"


def test_a_depot_runs_nothing_to_try(tiny: Path, depot: CountingProxy) -> None:
    """--try is refused before anything moves."""
    done = modelpack("load", tiny, "--to", depot.url, "--try", cwd=tiny.parent)
    assert done.returncode == 5
    assert b"no engine" in done.stderr
    assert depot.sent < 4096


def test_warnings_stop_a_load_unless_forced(tmp_path: Path, depot: CountingProxy) -> None:
    """A model that wants a newer Ollama than is there (a directory has none: nothing to compare with)."""
    (tmp_path / "Modelfile").write_text(f"FROM {TINY}\nREQUIRES 99.0.0\n")
    assert modelpack("pack", "./Modelfile", "-o", "n.tar", "--name", "n", cwd=tmp_path).returncode == 0
    fake = FakeOllama("0.24.0")
    with fake.running() as url:
        done = modelpack("load", "n.tar", "--to", url, cwd=tmp_path)
        assert done.returncode == 5, done.stderr
        assert b"99.0.0" in done.stderr
        assert b"--force loads all the same" in done.stderr
        assert fake.received == 0
        planned = modelpack("plan", "n.tar", "--to", url, "--json", cwd=tmp_path)
        assert {one["level"] for one in json.loads(planned.stdout)["findings"]} >= {"warning"}
        assert modelpack("load", "n.tar", "--to", url, "--force", cwd=tmp_path).returncode == 0


def test_a_model_from_one_server_to_another(tiny: Path, depot: CountingProxy, tmp_path: Path) -> None:
    """Read back here and loaded there, with no disk between."""
    assert modelpack("load", tiny, "--to", depot.url, cwd=tiny.parent).returncode == 0
    fake = FakeOllama("0.33.0")
    with fake.running() as url:
        done = modelpack("load", f"{depot.url}#tiny-llama", "--to", url, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["models"][0]["same"] == "bytes"
    packed = modelpack("pack", "tiny-llama", "--from", depot.url, "-o", "c.tar", cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
