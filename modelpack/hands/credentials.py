"""Who we are to a registry: from a file's content, the environment, or the files that docker and podman keep.

Never from the command line, where everybody can read it, and never shown.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpack.errors import Corrupt, Local, Usage, from_os
from modelpack.words.blob import KIB, MIB

VARIABLE = "MODELPACK_REGISTRY_AUTH"
"""`user:password`, or a token, for whichever registry is named."""
REALMS = "MODELPACK_REGISTRY_REALMS"
"""Hosts, with commas between, to which a registry may send us with our password for a token."""

_LONGEST = 64 * KIB
_FILE = 4 * MIB
_PATIENCE = 30.0  # seconds for a helper, which may have to unlock a keychain
_HELPER = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_DOCKER = "https://index.docker.io/v1/"
_DOCKER_HOSTS = {"docker.io", "index.docker.io", "registry-1.docker.io"}


@dataclass(frozen=True)
class Credential:
    """A user and a password; or a `token` to be sent as it is; or one that buys tokens (`identity`)."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @classmethod
    def given(cls, text: str) -> Credential:
        """From the content of a file or variable: `user:password`, or a token; Usage where it is neither."""
        text = text.strip("\r\n \t")
        if not text or len(text) > _LONGEST or not text.isprintable():
            raise Usage("the credentials are no text of one line: user:password, or a token")
        user, colon, password = text.partition(":")
        if colon:
            return cls(user, password)
        if not text.isascii() or " " in text:
            raise Usage("the credentials are neither user:password nor a token")
        return cls(token=text)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


class Credentials:
    """Where credentials are looked for; asked at the first time that a registry wants to know."""

    def __init__(self, given: Credential | None = None, environ: Mapping[str, str] | None = None) -> None:
        """*given* is for whichever registry is asked, and comes before all that the environment has."""
        self._given = given
        self._environ = os.environ if environ is None else environ

    def for_host(self, host: str) -> Credential | None:
        """Those for *host* (with its port, where it has one); None where nobody keeps any.

        Raises Corrupt for a file that is damaged, Local where it cannot be read or a helper fails: to go on
        without a name would end in a refusal that says nothing of the reason.
        """
        if self._given is not None:
            return self._given
        if text := self._environ.get(VARIABLE):
            return Credential.given(text)
        for path in self._files():
            config = _read(path)
            found = _in_config(config, host, path) if config is not None else None
            if found is not None:
                return found
        return None

    def realms(self) -> frozenset[str]:
        """Hosts that the user named as trusted with the password."""
        named = self._environ.get(REALMS, "").lower().split(",")
        return frozenset(host.strip() for host in named if host.strip())

    def _files(self) -> Iterator[Path]:
        get = self._environ.get
        if path := get("REGISTRY_AUTH_FILE"):
            yield Path(path)
        if folder := get("XDG_RUNTIME_DIR"):
            yield Path(folder, "containers", "auth.json")
        if folder := get("DOCKER_CONFIG"):
            yield Path(folder, "config.json")
        elif home := get("HOME") or get("USERPROFILE"):
            yield Path(home, ".docker", "config.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os(error, path) from None
    try:
        found = json.loads(raw) if len(raw) <= _FILE else None
    except (ValueError, RecursionError):  # whose words might repeat a secret
        found = None
    if not isinstance(found, dict):
        raise Corrupt(
            "is not a file of credentials: it is damaged", where=path, advice="Log in again to write it anew."
        )
    return found


def _in_config(config: Mapping[str, Any], host: str, path: Path) -> Credential | None:
    names = _names(host)
    helpers = config.get("credHelpers")
    for name in names:
        if isinstance(helpers, dict) and isinstance(helpers.get(name), str):
            return _from_helper(helpers[name], name, path)
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        for name in names[:2]:
            if found := _from_helper(store, name, path):
                return found
    auths = config.get("auths")
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        if _host_of(key) in names and isinstance(entry, dict) and entry:
            return _from_entry(entry, path)
    return None


def _names(host: str) -> list[str]:
    """How *host* may be spelled, the usual one first."""
    return [_DOCKER, *sorted(_DOCKER_HOSTS)] if host in _DOCKER_HOSTS else [host]


def _host_of(key: object) -> str:
    text = str(key).lower()
    if text.startswith("https://index.docker.io/"):
        return _DOCKER
    return re.sub(r"/(v1|v2)?/?$", "", re.sub(r"^https?://", "", text))


def _from_entry(entry: Mapping[str, Any], path: Path) -> Credential | None:
    def text(key: str) -> str:
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    if text("registrytoken"):
        return Credential(token=text("registrytoken"))
    user, password = text("username"), text("password")
    if text("auth"):
        try:
            user, colon, password = base64.b64decode(text("auth"), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise Corrupt(
                "holds credentials that are no base64 of user:password", where=path, advice="Log in again."
            ) from None
        password = password.rstrip("\0")
    if text("identitytoken"):
        return Credential(user, identity=text("identitytoken"))
    return Credential(user, password) if user or password else None


def _from_helper(helper: str, name: str, path: Path) -> Credential | None:
    """What `docker-credential-<helper> get` says of *name*, which it reads from its standard input."""
    program = shutil.which(f"docker-credential-{helper}") if _HELPER.fullmatch(helper) else None
    if program is None:
        raise Local(
            f"names a helper that is not here: docker-credential-{helper[:80]}",
            where=path,
            advice=f"Install it, or give the credentials by ${VARIABLE} or a file.",
        )
    failed = Local(
        f"docker-credential-{helper} gave no credentials for {name}",
        where=path,
        advice=f"Log in again, or give the credentials by ${VARIABLE} or a file.",
    )
    try:
        process = subprocess.Popen(
            [program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise from_os(error, program) from None
    timer = threading.Timer(_PATIENCE, process.kill)
    timer.start()
    with process:
        said = b""
        with contextlib.suppress(OSError):
            if process.stdin is not None and process.stdout is not None:
                process.stdin.write(f"{name}\n".encode())
                process.stdin.close()
                said = process.stdout.read(_LONGEST + 1)
        if len(said) > _LONGEST:
            process.kill()
        status = process.wait()
        timer.cancel()
    if status != 0:
        if b"not found" in said:  # as every helper says it
            return None
        raise failed
    try:
        found = json.loads(said)
        user, secret = found["Username"], found["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise failed from None
    if not (isinstance(user, str) and isinstance(secret, str)):
        raise failed
    return Credential(identity=secret) if user == "<token>" else Credential(user, secret)
