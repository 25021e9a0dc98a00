"""`modelpack wheelhouse`: a directory from which a host without an index installs modelpack."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from conftest import sha256sum

from modelpack.errors import Corrupt, Local, NotFound, Refused, Unreachable, Unsupported, Usage
from modelpack.verbs import wheel, wheelhouse
from modelpack.version import __version__

ROOT = Path(__file__).parents[1]
OWN = f"ollama_modelpack-{__version__}-py3-none-any.whl"
PINNED = ["blake3", "certifi", "charset-normalizer", "click", "colorama", "idna", "requests", "tqdm",
          "typing-extensions", "urllib3"]  # fmt: skip


def entries() -> dict[str, list[str]]:
    """The hashes of each pinned dependency."""
    found: dict[str, list[str]] = {}
    for line in wheelhouse.locked().splitlines():
        if "==" in line and not line.startswith("#"):
            name = line.partition("==")[0]
            found[name] = []
        elif "--hash=sha256:" in line:
            found[name].append(line.partition("sha256:")[2].strip(" \\"))
    return found


# --- the wheel of what is running


def test_its_wheel_is_a_wheel() -> None:
    """Every file has its line in RECORD, with the right hash; twice it is the same, byte for byte."""
    name, raw = wheel.own_wheel()
    assert (name, raw) == (OWN, wheel.own_wheel()[1])
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        files = {one: archive.read(one) for one in archive.namelist()}
    record = next(one for one in files if one.endswith("/RECORD"))
    rows = {path: (digest, size) for path, digest, size in csv.reader(files[record].decode().splitlines())}
    assert rows.pop(record) == ("", "")
    assert rows == {
        path: (
            "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
            str(len(data)),
        )
        for path, data in files.items()
        if path != record
    }
    ours = {
        f"modelpack/{path.relative_to(ROOT / 'modelpack').as_posix()}"
        for path in (ROOT / "modelpack").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {one for one in files if one.startswith("modelpack/")} == ours
    assert files[next(one for one in files if one.endswith("LICENSE"))] == (ROOT / "LICENSE").read_bytes()


def test_it_needs_what_pyproject_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert list(wheel.NEEDS) == project["dependencies"]
    assert project["requires-python"] == wheel.PYTHON
    assert project["name"] == wheel.NAME
    _, raw = wheel.own_wheel()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        about = f"ollama_modelpack-{__version__}.dist-info"
        assert f"Summary: {project['description']}\n" in archive.read(f"{about}/METADATA").decode()
        script = project["scripts"]["modelpack"]
        assert f"modelpack = {script}" in archive.read(f"{about}/entry_points.txt").decode()


# --- the lock


def test_the_lock_pins_all_of_it() -> None:
    """Every direct dependency in a version that is allowed, and what those need; hashes, no twice."""
    found = entries()
    assert list(found) == PINNED
    assert all(hashes and hashes == sorted(set(hashes)) for hashes in found.values())
    assert all(
        len(one) == 64 and set(one) <= set("0123456789abcdef") for each in found.values() for one in each
    )
    assert len(found["blake3"]) >= 3 * 6  # Pythons by platforms
    assert {one.partition(">")[0] for one in wheel.NEEDS} <= set(found)


def test_markers_are_for_the_other_side() -> None:
    """pip reads them for the host that it runs on: what is fetched for another one is named without."""
    plain = wheelhouse.locked(markers=False)
    assert ";" not in plain
    assert [line.split()[0] for line in plain.splitlines() if "==" in line] == [
        line.split()[0] for line in wheelhouse.locked().splitlines() if "==" in line
    ]
    assert "colorama==0.4.6 ; sys_platform == 'win32'" in wheelhouse.locked()


# --- a host without an index


def collected(into: Path, *asked: list[str]) -> wheelhouse.Collected:
    """A wheelhouse, where an index (or a directory of wheels that pip is told of) is in reach."""
    try:
        return wheelhouse.collect(into, *asked)
    except Unreachable as error:
        pytest.skip(f"no package index is in reach: {error.what}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("house") / "usb stick"
    collected(into)
    return into


def test_it_installs_without_an_index(house: Path, tmp_path: Path) -> None:
    """A fresh environment, no net, a hostile working directory: `modelpack --version` runs from it."""
    venv, planted = tmp_path / "v e n v", tmp_path / "here"
    planted.mkdir()
    for name in ("pip.py", "venv.py", "sitecustomize.py", "modelpack.py"):
        (planted / name).write_text("raise SystemExit('planted')\n")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": ":.",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "0",
        "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
    }  # fmt: skip
    assert sha256sum(house).returncode == 0
    done = subprocess.run(
        ["sh", house / "install.sh", venv], cwd=planted, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"modelpack {__version__}", f"installed: {venv}/bin/modelpack"]
    run = [venv / "bin" / "modelpack", "inspect", ROOT / "fixtures" / "bundle-v1.tar"]
    shown = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "team/full:1.0" in shown.stdout
    code = (
        "import modelpack, sys, hashlib; from modelpack.verbs.wheel import own_wheel\n"
        "sys.stdout.write(modelpack.__file__ + '\\n' + hashlib.sha256(own_wheel()[1]).hexdigest())"
    )
    python = [venv / "bin" / "python", "-I", "-c", code]
    where, digest = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split("\n")
    assert where.startswith(str(venv))
    assert digest == hashlib.sha256((house / OWN).read_bytes()).hexdigest()  # the wheel makes itself


def test_a_changed_wheel_is_refused(house: Path, tmp_path: Path) -> None:
    """Whichever it is; nothing of it runs."""
    copy = tmp_path / "house"
    subprocess.run(["cp", "-a", house, copy], check=True)
    raw = bytearray((copy / OWN).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / OWN).write_bytes(raw)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(
        ["sh", copy / "install.sh", tmp_path / "venv"], env=env, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "HASHES" in done.stderr
    assert not (tmp_path / "venv" / "bin" / "modelpack").exists()


def test_a_second_time_it_is_the_same(house: Path) -> None:
    before = {one.name: one.read_bytes() for one in house.iterdir()}
    found = wheelhouse.collect(house)
    assert {one.name: one.read_bytes() for one in house.iterdir()} == before
    assert set(found.files) == before.keys() - {"SHA256SUMS"}


def test_wheels_that_nobody_asked_for_are_not_vouched_for(house: Path, tmp_path: Path) -> None:
    copy = tmp_path / "house"
    subprocess.run(["cp", "-a", house, copy], check=True)
    (copy / "evil-1.0-py3-none-any.whl").write_bytes(b"evil\n")
    found = wheelhouse.collect(copy)
    assert found.files.keys() == {one.name for one in house.iterdir()} - {"SHA256SUMS"}
    assert (copy / "SHA256SUMS").read_bytes() == (house / "SHA256SUMS").read_bytes()


def test_every_platform_can_be_had(tmp_path: Path) -> None:
    """The lock has the hashes of all of them; one directory serves several kinds of hosts."""
    found = collected(tmp_path / "house", list(wheelhouse.PLATFORMS), ["3.13"])
    names = [name.partition("-")[0] for name in found.files if name.endswith(".whl")]
    assert names.count("blake3") == len(wheelhouse.PLATFORMS)
    assert names.count("colorama") == names.count("click") == names.count("ollama_modelpack") == 1
    assert {"install.bat", "install.sh"} <= found.files.keys()
    assert (tmp_path / "house" / "install.bat").read_bytes().count(b"\r\n") > 5
    assert sha256sum(tmp_path / "house").returncode == 0


def test_a_script_for_each_system(tmp_path: Path) -> None:
    found = collected(tmp_path / "house", ["windows-amd64"], ["3.11"])
    assert "install.bat" in found.files
    assert "install.sh" not in found.files


# --- what goes wrong, with an index of our own


class Index:
    """A package index that has one project, in one wheel; as real ones speak."""

    def __init__(self, raw: bytes, name: str = "blake3", tag: str = "py3-none-any") -> None:
        outer = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                version = wheelhouse.locked().partition(f"\n{name}==")[2].split()[0]
                file = f"{name}-{version}-{tag}.whl"
                page = f'<html><body><a href="/files/{file}">{file}</a></body></html>'.encode()
                known = self.path in (f"/simple/{name}/", f"/files/{file}")
                body = raw if self.path.startswith("/files/") else page
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Index]]:
    made: list[Index] = []

    def make(raw: bytes, **more: str) -> Index:
        made.append(Index(raw, **more))
        only(monkeypatch, f"http://127.0.0.1:{made[-1].server.server_port}/simple")
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def only(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let pip ask *url* and nobody else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("INDEX_URL", url), ("RETRIES", "1"), ("TIMEOUT", "2"), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_other_bytes_are_damage(index: Callable[[bytes], Index], tmp_path: Path) -> None:
    """An index that gives something else under that name: nothing of it is kept as if it were good."""
    there = index(wheel.own_wheel()[1])
    with pytest.raises(Corrupt, match="other bytes"):
        wheelhouse.collect(tmp_path / "house")
    assert any(path.startswith("/files/") for path in there.asked)
    assert list((tmp_path / "house").iterdir()) == []


def test_no_such_wheel(index: Callable[..., Index], tmp_path: Path) -> None:
    index(b"", tag="cp27-cp27m-win32")
    with pytest.raises(Unsupported, match="blake3") as caught:
        wheelhouse.collect(tmp_path / "house", ["linux-x86_64"], ["3.12"])
    assert caught.value.where == "linux-x86_64, Python 3.12"


def test_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "http://127.0.0.1:9/simple")
    with pytest.raises(Unreachable, match="pip says"):
        wheelhouse.collect(tmp_path / "house")


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Local, match="no pip"):
        wheelhouse.collect(tmp_path / "house")
    assert not (tmp_path / "house").exists()


def test_a_planted_pip_is_not_run(
    index: Callable[[bytes], Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip is that of the Python that runs, wherever it is started."""
    index(b"no wheel")
    (tmp_path / "pip.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Corrupt):
        wheelhouse.collect(tmp_path / "house")
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    for platforms, pythons in (
        (["no such"], []),
        (["-v"], []),
        ([], ["3.10"]),
        ([], ["2"]),
        ([], ["3.12; x"]),
    ):
        with pytest.raises(Usage):
            wheelhouse.collect(tmp_path / "house", platforms, pythons)
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "mine.txt").write_text("mine")
    with pytest.raises(Refused, match=r"mine\.txt"):
        wheelhouse.collect(tmp_path / "house")
    (tmp_path / "file").write_text("")
    with pytest.raises((Refused, NotFound, Local)):
        wheelhouse.collect(tmp_path / "file")


def test_the_command(house: Path) -> None:
    """What it prints: every file with its digest, for a call by telephone; or JSON."""
    from click.testing import CliRunner

    from modelpack.cli.wheelhouse import command

    done = CliRunner().invoke(command, [str(house)])
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256((house / "requirements.txt").read_bytes()).hexdigest()
    assert f"  {digest}  requirements.txt" in done.stdout.splitlines()
    assert "on the other side: sh install.sh" in done.stderr
    found = json.loads(CliRunner().invoke(command, [str(house), "--json"]).stdout)
    assert found["files"]["requirements.txt"]["digest"] == f"sha256:{digest}"
