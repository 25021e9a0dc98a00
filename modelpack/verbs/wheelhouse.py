"""Everything that a host without an index needs to install modelpack: wheels, pinned by hash, and a script.

modelpack's own wheel is written from what is running (see `wheel`). Its dependencies come by pip, which takes
none whose SHA-256 is not in `receiver/lock.txt`.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import machine

from modelpack.documents.sums import format_sums
from modelpack.errors import Corrupt, Local, NotFound, Refused, Unreachable, Unsupported, Usage, from_os
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import pour
from modelpack.hands.scratch import Scratch
from modelpack.verbs.wheel import NAME, own_wheel
from modelpack.version import __version__
from modelpack.words.digest import Digest
from modelpack.words.filename import systems_own
from modelpack.words.report import Report, Said, silent

PLATFORMS = {
    "linux-x86_64": ("manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "linux-aarch64": ("manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "macos-arm64": ("macosx_11_0_arm64",),
    "macos-x86_64": ("macosx_10_15_x86_64",),
    "windows-amd64": ("win_amd64",),
    "windows-arm64": ("win_arm64",),
}
"""Our words for platforms, and the tags that wheels have for them. Linux: glibc 2.17 and newer."""
REQUIREMENTS, SUMS, SHELL, BATCH = "requirements.txt", "SHA256SUMS", "install.sh", "install.bat"

_SYSTEMS = {"linux": "linux", "macosx": "macos", "win": "windows"}
_TAG = re.compile(r"[a-z0-9_]{3,60}", re.ASCII)
_MARKER = re.compile(r" ; [^\\\n]*(?= \\\n)")
_PYTHON = re.compile(r"3\.(1[1-9]|[2-9][0-9])", re.ASCII)
_MOST_SAID = 300

_INSTALL_SH = """\
#!/bin/sh
# Installs modelpack {version} into a virtual environment, from the files beside this script alone.
#     sh install.sh [DIRECTORY]          PYTHON=/path/to/python3.12 sh install.sh
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=${{1:-"$HOME/.local/share/modelpack"}}
python=${{PYTHON:-python3}}
"$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {{
    echo "Python 3.11 or newer is needed: PYTHON=/path/to/python3 sh $0" >&2
    exit 1
}}
"$python" -I -m venv "$venv"
"$venv/bin/python" -I -m pip --isolated install --quiet --disable-pip-version-check \\
    --no-index --find-links "$here" --require-hashes -r "$here/{requirements}"
"$venv/bin/python" -I -m modelpack --version
echo "installed: $venv/bin/modelpack"
"""
_INSTALL_BAT = """\
@echo off
rem Installs modelpack {version} into a virtual environment, from the files beside this script alone.
rem     install.bat [DIRECTORY]
setlocal
set "HERE=%~dp0."
set "VENV=%~1"
if "%VENV%"=="" set "VENV=%LOCALAPPDATA%\\modelpack"
if "%PYTHON%"=="" set "PYTHON=py -3"
%PYTHON% -I -m venv "%VENV%" || exit /b 1
"%VENV%\\Scripts\\python.exe" -I -m pip --isolated install --quiet --disable-pip-version-check ^
    --no-index --find-links "%HERE%" --require-hashes -r "%HERE%\\{requirements}" || exit /b 1
"%VENV%\\Scripts\\python.exe" -I -m modelpack --version || exit /b 1
echo installed: %VENV%\\Scripts\\modelpack.exe
"""


@dataclass(frozen=True)
class Collected:
    """What lies in a wheelhouse: digest and bytes of each file by its name; for whom, for which Pythons."""

    files: dict[str, tuple[Digest, int]]
    platforms: tuple[str, ...]
    pythons: tuple[str, ...]


def collect(
    directory: Path, platforms: Sequence[str] = (), pythons: Sequence[str] = (), report: Report = silent
) -> Collected:
    """Make *directory*, new or empty, the wheelhouse for *platforms* and *pythons*; this host's where none.

    Platforms are words of PLATFORMS or tags as wheels have them, Pythons `3.11` and newer. An earlier
    wheelhouse there is brought up to date. Raises Usage, Refused where other things are there, Local where
    pip is missing or fails, Unsupported where there is no such wheel, Unreachable where no index answers,
    Corrupt where it gives other bytes than the lock names.
    """
    platforms = tuple(dict.fromkeys(platforms or [_here()]))
    pythons = tuple(dict.fromkeys(pythons or [f"{sys.version_info[0]}.{sys.version_info[1]}"]))
    for python in pythons:
        if not _PYTHON.fullmatch(python):
            raise Usage(f"{python[:40]!r} is no Python for modelpack", advice="It needs 3.11 or newer: 3.12.")
    for platform in platforms:
        tags_of(platform)
    pip()
    name, own = own_wheel()
    with Folder.at(directory, create=True) as folder:
        _refuse(folder)
        for platform in platforms:
            for python in pythons:
                report(Said(f"wheels for {platform}, Python {python}"))
                _download(directory, platform, python)
        pinned = f"{NAME}=={__version__} \\\n    --hash={Digest.of(own)}\n"
        texts = {name: own, REQUIREMENTS: (locked() + pinned).encode()}
        windows = [is_windows(platform) for platform in platforms]
        words = {"version": __version__, "requirements": REQUIREMENTS}
        if not all(windows):
            texts[SHELL] = _INSTALL_SH.format(**words).encode()
        if any(windows):
            texts[BATCH] = _INSTALL_BAT.format(**words).replace("\n", "\r\n").encode()
        for one, raw in texts.items():
            _write(folder, one, raw)
        files = {one: _hashed(folder, one) for one in folder.names() if one != SUMS and not systems_own(one)}
        for one, (digest, _) in list(files.items()):
            if one.endswith(".whl") and digest.hex not in texts[REQUIREMENTS].decode():
                del files[one]  # of another version, or anybody's: install.sh does not take it
        _write(folder, SUMS, format_sums([(digest, one) for one, (digest, _) in files.items()]))
    return Collected(files, platforms, pythons)


def tags_of(platform: str) -> tuple[str, ...]:
    """The tags of wheels for *platform*; Usage where it is no tag, nor one of our words."""
    if platform in PLATFORMS:
        return PLATFORMS[platform]
    if not _TAG.fullmatch(platform):
        raise Usage(
            f"{platform[:60]!r} is no platform",
            advice=f"Name {', '.join(PLATFORMS)}, or a tag as wheels have it (manylinux_2_28_ppc64le).",
        )
    return (platform,)


def is_windows(platform: str) -> bool:
    """Whether *platform* is Windows."""
    return platform.startswith("win")


def _here() -> str:
    """The word for the platform that this runs on, or its tag."""
    tag = sysconfig.get_platform()
    system = next((ours for theirs, ours in _SYSTEMS.items() if tag.startswith(theirs)), tag)
    word = f"{system}-{machine().lower()}"
    return word if word in PLATFORMS else re.sub(r"[-.]", "_", tag)


def _refuse(folder: Folder) -> None:
    """Raise Refused where *folder* holds what no wheelhouse does."""
    ours = {REQUIREMENTS, SUMS, SHELL, BATCH}
    others = [
        one for one in folder.names() if one not in ours and not one.endswith(".whl") and not systems_own(one)
    ]
    if others:
        raise Refused(
            f"has other things in it ({', '.join(others[:3])})",
            where=folder.path,
            advice="Name a new or an empty directory.",
        )


def _write(folder: Folder, name: str, raw: bytes) -> None:
    with Scratch(folder, ".modelpack-", 0o755 if name == SHELL else 0o644).new(len(raw)) as file:
        file.writer.write_at(memoryview(raw), 0)
        file.appear(folder, name)


def _hashed(folder: Folder, name: str) -> tuple[Digest, int]:
    size = folder.file_size(name)
    if size is None:
        raise NotFound("went away", where=folder.path / name)
    with FileReader(folder.open_file(name), 0, size, folder.path / name) as reader:
        return pour(reader, size).sha256 or Digest.of(b""), size


# --- dependencies


def locked(*, markers: bool = True) -> str:
    """The lock, as pip reads it; without *markers* for every host.

    Where pip fetches for another host, it reads markers as if for its own: a lock with them would lack
    colorama, which Windows needs, and what older Pythons need.
    """
    text = importlib.resources.files("modelpack").joinpath("receiver", "lock.txt").read_text("utf-8")
    return text if markers else _MARKER.sub("", text)


def pip() -> list[str]:
    """How pip is called; Local where this Python has none."""
    if importlib.util.find_spec("pip") is None:
        raise Local(
            "this Python has no pip, which fetches the wheels",
            where=sys.executable,
            advice="`python3 -m ensurepip`, or your system's package (python3-pip), brings it.",
        )
    return [sys.executable, "-P", "-m", "pip"]


def _download(into: Path, platform: str, python: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / REQUIREMENTS
        wanted.write_text(locked(markers=False), "utf-8")
        command = [*pip(), "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--implementation", "cp"]
        command += ["--python-version", python, "--dest", str(into), "-r", str(wanted)]
        command += [word for tag in tags_of(platform) for word in ("--platform", tag)]
        try:
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        except OSError as error:
            raise from_os(error, sys.executable) from error
    if done.returncode:
        _fail(done.stderr.decode("utf-8", "replace"), platform, python)


def _fail(said: str, platform: str, python: str) -> None:
    """Raise what pip meant by *said*."""
    lines = [line.strip() for line in said.splitlines() if "ERROR:" in line] or said.strip().splitlines()[-1:]
    what = f"pip says: {(lines or ['nothing'])[-1].removeprefix('ERROR: ')[:_MOST_SAID]}"
    if "DO NOT MATCH THE HASHES" in said:
        raise Corrupt(
            "the index gave other bytes than the lock of modelpack names",
            where=re.sub(r"\s+", " ", said.partition("\n")[2])[:_MOST_SAID].strip(),
            advice="Do not use them. Another index (PIP_INDEX_URL) may have the right ones.",
        )
    if "Retrying (" in said or "Could not fetch URL" in said:
        raise Unreachable(
            what, advice="Is an index in reach? PIP_INDEX_URL and PIP_FIND_LINKS name another, as for pip."
        )
    if "No matching distribution" in said or "Could not find a version" in said:
        raise Unsupported(
            what,
            where=f"{platform}, Python {python}",
            advice="There is no such wheel for that platform and that Python. Is it among those of an index "
            "that pip asks here?",
        )
    raise Local(what, where="pip")
