"""`ssh-keygen -Y`: the program that signs, and that says whether a signature holds.

It is started by absolute path from directories of the system, with a private directory as its own, an
environment of a few variables, bounded output and bounded time. It ends with 255 whatever went wrong; only
its own words that a signature is good count as good, never the status alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelpack.errors import Local, Unchecked, from_os
from modelpack.hands.disk import open_path
from modelpack.words.blob import KIB

NO_TOOL = (
    "Install OpenSSH 8.2 or newer; or compare the fingerprint by another road, as on paper "
    "(`modelpack verify --expect FINGERPRINT`)."
)
_PATIENCE = 30.0  # seconds for an answer
_TYPING = 300.0  # seconds for a passphrase, or a touch of a security key
_MOST = 64 * KIB  # bytes of output
_PRINCIPALS = 16  # that are tried of one line
_WINDOWS = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "OpenSSH")
_PLACES: tuple[Path, ...] = (
    (_WINDOWS, Path(r"C:\Program Files\OpenSSH"), Path(r"C:\Program Files\Git\usr\bin"))
    if sys.platform == "win32"
    else tuple(map(Path, ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin")))
)
_NAME = "ssh-keygen.exe" if sys.platform == "win32" else "ssh-keygen"
_KEY = r"(\S+) key (SHA256:[A-Za-z0-9+/]+)"

# Signatures over b"modelpack\n" by keys that were thrown away. Two kinds, since a build may know one alone.
_KNOWN_NAMESPACE = "modelpack-probe"
_KNOWN_DATA = b"modelpack\n"
_KNOWN = (
    (
        b"probe ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL5T58agf9Bh4j3ivCX9rrSykxkpvPh055Amagz2Q0Nq",
        b"""-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgvlPnxqB/0GHiPeK8Jf2utLKTGS
m8+HTnkCZqDPZDQ2oAAAAPbW9kZWxwYWNrLXByb2JlAAAAAAAAAAZzaGE1MTIAAABTAAAA
C3NzaC1lZDI1NTE5AAAAQIhe+mttuQyBV7prlpsgtJs89dr6m/4Z7zy8uO/0I5kXEkTvN7
Dk1DMW9I5vMH/t5/jcr5F2jHUpSknt93c2wAk=
-----END SSH SIGNATURE-----
""",
    ),
    (
        b"probe ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPnLHKS4y0LGgGl97sH"
        b"WMD8sGrM9WKIJDUgoAHyrpaD7yBanSJVnugUJ7rm5mkXbDhJ3wb5UcRac3y3gPSMcojA=",
        b"""-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAE
EE+cscpLjLQsaAaX3uwdYwPywasz1YogkNSCgAfKuloPvIFqdIlWe6BQnuubmaRdsOEnfB
vlRxFpzfLeA9IxyiMAAAAA9tb2RlbHBhY2stcHJvYmUAAAAAAAAABnNoYTUxMgAAAGMAAA
ATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAEgAAAAgJGgUumq3U0Llk+9rKMSUqxnNFtZY5wtb
6kT5HfNLGa0AAAAgZv+UvJOQc49yxl1e0UdfpFjB9veMrk7uHmBltAofyGM=
-----END SSH SIGNATURE-----
""",
    ),
)


@dataclass(frozen=True)
class Answer:
    """What ssh-keygen said: the `key` of a signature that holds (`ED25519 SHA256:…`), or None and why not."""

    key: str | None
    words: str


@dataclass(frozen=True)
class Keygen:
    """An ssh-keygen that is known to work."""

    program: Path

    def holds(self, data: bytes, signature: bytes, namespace: str) -> Answer:
        """Whether *signature* is over *data*, whoever made it."""
        status, said, words = self._run(
            ["-Y", "check-novalidate", "-n", namespace, "-s", "signature"], {"signature": signature}, data
        )
        found = re.fullmatch(rf'Good "{re.escape(namespace)}" signature with {_KEY}\s*', said)
        return Answer(f"{found[1]} {found[2]}" if found and status == 0 else None, words)

    def principals(self, signature: bytes, line: bytes) -> tuple[list[str], str]:
        """Whom *line* of an allowed_signers file names, where it is about the key; and what was said."""
        status, said, words = self._run(
            ["-Y", "find-principals", "-s", "signature", "-f", "signers"],
            {"signature": signature, "signers": line + b"\n"},
        )
        names = [one for one in said.splitlines() if one and not one.startswith("!")]
        return (names if status == 0 else [])[:_PRINCIPALS], words

    def verified(
        self,
        data: bytes,
        signature: bytes,
        namespace: str,
        who: str,
        line: bytes,
        revoked: bytes | None = None,
    ) -> Answer:
        """Whether *line* lets *who* sign for *namespace* now, the list *revoked* does not name the key, and
        *signature* is over *data*.
        """
        files = {"signature": signature, "signers": line + b"\n"}
        more = []
        if revoked is not None:
            files["revoked"], more = revoked, ["-r", "revoked"]
        status, said, words = self._run(
            ["-Y", "verify", "-f", "signers", "-I", who, "-n", namespace, "-s", "signature", *more],
            files,
            data,
        )
        good = f'Good "{re.escape(namespace)}" signature for {re.escape(who)} with {_KEY}'
        found = re.fullmatch(rf"{good}\s*", said)
        return Answer(f"{found[1]} {found[2]}" if found and status == 0 else None, words)

    def knows_itself(self, revoked: bytes | None = None) -> bool:
        """Whether a signature that is good is found so, and over other bytes is not; under *revoked*, too.

        Before 8.2 there is no find-principals. A list of revoked keys that cannot be read revokes everything.
        """
        for line, signature in _KNOWN:
            names, _ = self.principals(signature, line)
            answers = [
                self.verified(data, signature, _KNOWN_NAMESPACE, "probe", line, revoked).key is not None
                for data in (_KNOWN_DATA, b"other\n")
            ]
            if names == ["probe"] and answers == [True, False]:
                return True
        return False

    def sign(self, data: bytes, key: Path, namespace: str) -> bytes:
        """A signature over *data* by *key*, a private key's file or, for an agent, a public one's.

        ssh-keygen may ask for a passphrase, or for a touch, at the terminal. NotFound, Local.
        """
        os.close(open_path(key))  # it is there, and a file
        command = [str(self.program), "-q", "-Y", "sign", "-n", namespace, "-f", str(key.absolute())]
        try:
            with tempfile.TemporaryFile() as given:
                given.write(data)
                given.seek(0)
                process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE)  # its talk is shown
                status, said, _ = _answer(process, _TYPING)
        except OSError as error:
            raise from_os(error, self.program) from None
        if status != 0 or not said:
            raise Local(
                "ssh-keygen made no signature with this key",
                where=key,
                advice="What it said stands above. Does the agent hold the key (`ssh-add -l`)?",
            )
        return said

    def _run(
        self, command: Sequence[str], files: Mapping[str, bytes], data: bytes = b""
    ) -> tuple[int, str, str]:
        """Status, output and talk of a call that finds *files* in its directory, and *data* as its input."""
        kept = {name: os.environ[name] for name in ("TZ", "SYSTEMROOT") if name in os.environ}
        try:
            with tempfile.TemporaryDirectory(prefix="modelpack-") as here, tempfile.TemporaryFile() as given:
                for name, raw in files.items():
                    Path(here, name).write_bytes(raw)
                given.write(data)
                given.seek(0)
                process = subprocess.Popen(
                    [str(self.program), *command], stdin=given, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, cwd=here, env={"LC_ALL": "C", **kept},
                    process_group=None if sys.platform == "win32" else 0,
                )  # fmt: skip
                status, said, words = _answer(process, _PATIENCE)
        except OSError as error:
            raise Unchecked(
                f"could not check the signature: ssh-keygen could not be run ({error.strerror})",
                where=error.filename or self.program,
                advice=NO_TOOL,
            ) from None
        return status, said.decode("utf-8", "replace"), words.decode("utf-8", "replace").strip()


def _answer(process: subprocess.Popen[bytes], seconds: float) -> tuple[int, bytes, bytes]:
    """Status and bounded output; Unchecked where it takes longer. Whoever writes more is ended."""

    def read(pipe: IO[bytes] | None) -> bytes:
        raw = pipe.read(_MOST + 1) if pipe is not None else b""
        if len(raw) > _MOST:
            _end(process)
        return raw

    with process, ThreadPoolExecutor(2) as pool:
        pieces = [pool.submit(read, pipe) for pipe in (process.stdout, process.stderr)]
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Unchecked(
                f"could not check the signature: ssh-keygen did not end within {seconds:.0f} seconds",
                where=process.args[0] if isinstance(process.args, list) else "",
                advice=NO_TOOL,
            ) from None
        finally:
            _end(process)
        said, words = (one.result() for one in pieces)
    return status if len(said) <= _MOST else 255, said, words


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, with all that it started where it leads a group of its own."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == process.pid != os.getpgrp():
                os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()


@functools.cache
def keygen() -> Keygen:
    """The first ssh-keygen of the system's directories that works; Unchecked where there is none."""
    there = [place / _NAME for place in _PLACES if (place / _NAME).is_file()]
    for program in there:
        with contextlib.suppress(Unchecked):
            if Keygen(program).knows_itself():
                return Keygen(program)
    if there:
        raise Unchecked(
            "could not check the signature: ssh-keygen is too old (8.2 is needed), or does not work",
            where=there[0],
            advice=NO_TOOL,
        )
    raise Unchecked(
        f"could not check the signature: ssh-keygen is in none of {', '.join(map(str, _PLACES))}",
        advice=NO_TOOL,
    )
