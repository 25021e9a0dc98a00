"""Hosts as they are now, asked where receipts say that models went: a server, a directory, a registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelpack.documents.model import Model
from modelpack.documents.record import MODELS_DIRECTORY, SERVER, Host
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unchecked, Unreachable, Unsupported, Usage
from modelpack.stores import Source
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.registries import HTTPS, Access
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reference import Reference

if TYPE_CHECKING:  # requests costs a third of a start
    from modelpack.hands.answers import Listed
    from modelpack.hands.callback import Calling
    from modelpack.hands.ollama import Ollama
    from modelpack.hands.registry import Registry
    from modelpack.stores.server import ServerSource


class There(Protocol):
    """A host that is asked. Each method raises what keeps it from answering."""

    def version(self) -> str | None:
        """Ollama's version; None where none runs there."""
        ...

    def id_of(self, name: Name, *, anew: bool = False) -> Digest | None:
        """The ID that *name* has there; None where there is none of that name.

        A host may have been asked once for all its models, unless it is to be asked *anew*.
        """
        ...

    def faults(self, name: Name, blobs: Mapping[Digest, int]) -> Sequence[ModelpackError]:
        """What is wrong with *blobs* (sizes by digest) of model *name*, as far as names and sizes tell."""
        ...

    def read(self, name: Name) -> tuple[Source, Model] | None:
        """The model of that name as it is there now, and where its blobs are read."""
        ...


@contextlib.contextmanager
def opened(
    host: Host, *, access: Access = HTTPS, calling: Calling | None = None, ours: bool = False
) -> Iterator[There]:
    """*host*, to be asked. Nothing is bound or asked before a call.

    *ours* says that this user named the host just now. Where only a file names it, no secret of the
    environment goes there: `OLLAMA_API_KEY` only to the host of `OLLAMA_HOST`. Raises Corrupt for an address
    that is none, Unchecked for a directory that is not there.
    """
    if host.kind == SERVER:
        from modelpack.hands.ollama import Ollama, parse_host

        with _address(host):
            if parse_host(host.where) != host.where:  # or another one would be asked than is shown
                raise Usage("is no address as a receipt has it: http[s]://HOST:PORT")
        known = ours or _of_environment() == host.where
        client = Ollama(host.where, api_key=None if known else "")
        with client, contextlib.ExitStack() as stack:
            yield _Server(client, calling, stack)
    elif host.kind == MODELS_DIRECTORY:
        yield _Directory(_path(host))
    else:
        with _address(host):
            place = Reference.parse(host.where)
        with access.client(place) if ours else _stranger(place, access) as registry:
            yield _Registry(registry, place)


def check_readable(host: Host, calling: Calling | None = None) -> None:
    """Raise Unreachable or Unsupported where *host*, a server that this user named, does not call back.

    Only so can its blobs be read. Any other host is read directly.
    """
    if host.kind != SERVER:
        return
    from modelpack.hands.callback import Callback, Calling, reach
    from modelpack.hands.ollama import Ollama

    with Ollama(host.where) as client:
        try:
            with Callback(client.base, calling or Calling()) as callback:
                reach(client, callback)
        except (Unreachable, Unsupported) as error:
            error.advice = f"Leave --prove away: what is there cannot be read back. Or: {error.advice}"
            raise


@contextlib.contextmanager
def _address(host: Host) -> Iterator[None]:
    try:
        yield
    except Usage as error:
        raise Corrupt(error.what, where=host.where[:200]) from None


def _of_environment() -> str:
    """The server that `OLLAMA_HOST` names; empty where that is no address."""
    from modelpack.hands.ollama import parse_host

    try:
        return parse_host(os.environ.get("OLLAMA_HOST", ""))
    except Usage:
        return ""


def _path(host: Host) -> Path:
    path = Path(host.where)
    if host.where == "~" or host.where.startswith(("~/", "~\\")):
        path = path.expanduser()
    if not path.is_absolute():
        raise Corrupt("is no path from the root", where=host.where[:200])
    what = ""
    if not os.path.isdir(path):
        what = "no such directory here"
    elif not any(os.path.isdir(path / name) for name in ("manifests", "blobs")):
        what = "is no models directory: it has neither manifests/ nor blobs/"
    if what:
        advice = "Is a drive not mounted, or was this another machine?"
        raise Unchecked(what, where=path, advice=advice)
    return path


def _stranger(place: Reference, access: Access) -> Registry:
    from modelpack.hands.credentials import VARIABLE, Credential, Credentials
    from modelpack.hands.registry import Registry

    given = Credential.given(access.credentials()) if access.credentials is not None else None
    environ = {key: value for key, value in os.environ.items() if key != VARIABLE}
    return Registry(place.server, plain_http=access.plain_http, credentials=Credentials(given, environ))


class _Server:
    def __init__(self, client: Ollama, calling: Calling | None, stack: contextlib.ExitStack) -> None:
        self._client, self._calling, self._stack = client, calling, stack
        self._listed: Mapping[str, Listed] | None = None
        self._source: ServerSource | None = None

    def version(self) -> str | None:
        return self._client.version()

    def id_of(self, name: Name, *, anew: bool = False) -> Digest | None:
        if self._listed is None or anew:
            self._listed = self._client.installed()
        found = self._listed.get(name.folded)
        return found.digest if found is not None else None

    def faults(self, name: Name, blobs: Mapping[Digest, int]) -> Sequence[ModelpackError]:
        there = self._client.which(list(blobs))
        return [_missing(digest, name, self._client.base) for digest in blobs if digest not in there]

    def read(self, name: Name) -> tuple[Source, Model] | None:
        if self._source is None:
            from modelpack.hands.callback import Calling
            from modelpack.stores.server import ServerSource

            self._source = self._stack.enter_context(ServerSource(self._client, self._calling or Calling()))
        found = self._source.single(name)
        return (self._source, found) if found is not None else None


class _Directory:
    def __init__(self, path: Path) -> None:
        self._store = ModelsDir(path)

    def version(self) -> str | None:
        return None

    def id_of(self, name: Name, *, anew: bool = False) -> Digest | None:  # noqa: ARG002 - it always is
        found = self._store.find(name)
        return Digest.of(found[1]) if found is not None else None

    def faults(self, name: Name, _blobs: Mapping[Digest, int]) -> Sequence[ModelpackError]:
        found = self.read(name)
        try:
            return [error for _, error in self._store.look([found[1]])[0]] if found is not None else []
        except NotFound as error:  # no blobs/ at all
            return [error]

    def read(self, name: Name) -> tuple[Source, Model] | None:
        found = self._store.read(name)
        return (self._store, Model(*found)) if found is not None else None


class _Registry:
    def __init__(self, client: Registry, place: Reference) -> None:
        self._client, self._place = client, place

    def version(self) -> str | None:
        return None

    def id_of(self, name: Name, *, anew: bool = False) -> Digest | None:  # noqa: ARG002 - it always is
        found = self.read(name)
        return found[1].document.id if found is not None else None

    def faults(self, name: Name, blobs: Mapping[Digest, int]) -> Sequence[ModelpackError]:
        place = self._place.at(name)
        where = f"{self._client.base}/{place.repository}"
        wrong: list[ModelpackError] = []
        for digest, size in blobs.items():
            found = self._client.blob_size(place.repository, digest)
            if found is None:
                wrong.append(_missing(digest, name, where))
            elif found not in (size, -1):  # -1: it does not tell
                wrong.append(Corrupt(f"{Blob(size, '', digest)} has {found} bytes, not {size}", where=where))
        return wrong

    def read(self, name: Name) -> tuple[Source, Model] | None:
        from modelpack.stores.registry import RegistrySource

        source = RegistrySource(self._client, self._place.at(name))
        try:
            (model,) = source.models()
        except NotFound:
            return None
        return source, model


def _missing(digest: Digest, name: Name, where: object) -> NotFound:
    return NotFound(f"the blob {digest} of {name} is missing there", where=where)
