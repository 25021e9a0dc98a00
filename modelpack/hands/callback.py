"""The small registry: it lives for seconds inside modelpack, and an Ollama server is asked to come to it.

A pull of a name that it answers with 404 shows whether the way back is open; a pull of a manifest alone makes
a model of blobs that were uploaded; a push reads a model back. It answers only names that it gave out, which
nobody can guess; everything else is a bare 404. It listens between `__enter__` and `__exit__` only.

Facts: server/images.go of Ollama v0.33, and what 0.24 and 0.33 were seen to ask.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from modelpack.errors import ModelpackError, NotFound, Unreachable, Unsupported
from modelpack.hands.call import Call, under
from modelpack.hands.callback_address import Bound, Calling, bind
from modelpack.hands.callback_port import Answers
from modelpack.hands.callback_push import Received
from modelpack.hands.callback_wire import Request
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import NAMESPACE, temporary
from modelpack.words.blob import MANIFEST, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.name import DEFAULT_TAG, Name

__all__ = ["Callback", "Caller", "Calling", "Knock", "Offered", "Received", "reach"]

_AGENT = re.compile(r"ollama/v?(\d{1,5})\.(\d{1,5})\.(\d{1,5})\S*(?: \(\S+ (\w+)\))?", re.ASCII)
_AGENT_LENGTH = 200
_MOST_WANTED = 10_000  # digests
_ITS_ANSWER = 1.0  # seconds to let a pull end by itself


@dataclass(frozen=True)
class Caller:
    """Who came: its address as seen here, and what it calls itself (text from elsewhere)."""

    address: str
    user_agent: str

    @property
    def system(self) -> str:
        """`windows`, `linux` or `darwin`; empty where it does not say."""
        found = _AGENT.match(self.user_agent)
        return found[4] if found is not None and found[4] in ("windows", "linux", "darwin") else ""

    @property
    def version(self) -> tuple[int, int, int] | None:
        """Of Ollama; None where it is something else."""
        found = _AGENT.match(self.user_agent)
        return (int(found[1]), int(found[2]), int(found[3])) if found is not None else None


class Knock:
    """A name under which there is nothing: 404 for every request. `caller` is who came first."""

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self.moved = threading.Event()
        """Set when somebody came; others may set it to wake whoever waits."""

    def wait(self, seconds: float) -> Caller | None:
        """Who came; None where nobody did in so many seconds."""
        self.moved.wait(seconds)
        return self.caller

    def handle(self, request: Request, rest: str) -> None:  # noqa: ARG002 - one form
        """Answer *request*."""
        agent = request.headers.get("user-agent", "")[:_AGENT_LENGTH]
        self.caller = self.caller or Caller(request.address, agent)
        self.moved.set()
        request.answer(404)


class Offered:
    """A name with a manifest and no blob: `served` counts who got it, `wanted` has blobs asked for."""

    def __init__(self, manifest: bytes) -> None:
        self.served = 0
        self.wanted: set[str] = set()
        self._manifest, self._digest = manifest, str(Digest.of(manifest))
        self._lock = threading.Lock()

    def handle(self, request: Request, rest: str) -> None:
        """Answer *request* for *rest* of the path, below the repository."""
        kind, _, what = rest.partition("/")
        if request.method in ("GET", "HEAD") and kind == "manifests" and what in (DEFAULT_TAG, self._digest):
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": self._digest}
            if request.method == "HEAD":
                headers["Content-Length"] = str(len(self._manifest))
            else:
                with self._lock:
                    self.served += 1
            request.answer(200, self._manifest, headers)
            return
        if request.method in ("GET", "HEAD") and kind == "blobs" and len(what) < 100:
            with self._lock:
                if len(self.wanted) < _MOST_WANTED:
                    self.wanted.add(what)
        request.answer(404)


class Callback:
    """The small registry for the server whose base URL is *server*; to be used by `with`, from any thread.

    It may be entered again while it is open, and listens until it was left as often. Where a port was named,
    others of this process that name it, too, share it.
    """

    def __init__(self, server: str, calling: Calling = Calling()) -> None:  # noqa: B008 - it never changes
        self._server, self._calling = server, calling
        self._bound: Bound | None = None
        self._entered = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Listen. Raises Local for an address or a port that cannot be had, Unsupported, Unreachable."""
        with self._lock:
            if self._bound is None:
                self._bound = bind(self._server, self._calling)
            self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered and self._bound is not None:
                self._bound.port.leave()
                self._bound = None

    @property
    def told(self) -> str:
        """What the server is told: HOST:PORT, or HOST alone for port 80; the host part of names."""
        return self._here.told

    @property
    def listening(self) -> str:
        """ADDR:PORT that is bound here, for messages."""
        return self._here.listening

    @property
    def _here(self) -> Bound:
        if self._bound is None:
            raise RuntimeError("the small registry is not open")
        return self._bound

    def name(self, id: Digest) -> Name:  # noqa: A002 - the model's
        """A new name here that nobody can guess, with the first twelve digits of *id* in it."""
        return temporary(self.told, id)

    @contextlib.contextmanager
    def knock(self, name: Name) -> Iterator[Knock]:
        """Answer *name* with 404, and see who comes."""
        found = Knock()
        with self._answering(name, found):
            yield found

    @contextlib.contextmanager
    def offer(self, name: Name, manifest: bytes) -> Iterator[Offered]:
        """Have *manifest* under *name*, and none of its blobs."""
        found = Offered(manifest)
        with self._answering(name, found):
            yield found

    @contextlib.contextmanager
    def receive(self, name: Name, wanted: Blob | None = None) -> Iterator[Received]:
        """Take a push of *name*; of its blobs only *wanted* (of known digest) is missing here."""
        found = Received(f"http://{self.told}/v2/{NAMESPACE}/{name.model}", name.tag, wanted)
        with self._answering(name, found):
            try:
                yield found
            finally:
                found.close()

    @contextlib.contextmanager
    def _answering(self, name: Name, found: Answers) -> Iterator[None]:
        names = self._here.port.names
        names[name.model] = found
        try:
            yield
        finally:
            names.pop(name.model, None)


def reach(client: Ollama, callback: Callback, seconds: float = 8.0) -> Caller:
    """Who comes when the server is asked to pull a name that is not there: so the way back is open.

    Unreachable, with the reason, where nobody comes in so many *seconds*. Unsupported for a server on Windows
    that is told a port: no directory there can have the colon (#12170).
    """
    name = callback.name(ZERO)
    failed: list[ModelpackError] = []
    call, ended = Call(), threading.Event()
    with callback.knock(name) as knock:

        def ask() -> None:
            try:
                with under(call):
                    client.pull(str(name), insecure=True).last()
            except ModelpackError as error:
                failed.append(error)
            finally:
                ended.set()
                knock.moved.set()

        end = time.monotonic() + seconds
        thread = threading.Thread(target=ask, name="callback", daemon=True)
        thread.start()
        caller = knock.wait(seconds)
        if caller is not None:
            ended.wait(max(0.0, min(_ITS_ANSWER, end - time.monotonic())))
        said = failed[0] if failed else None  # not what our own hanging up comes to
        asked = ended.is_set()
        call.close()
    if caller is None:
        raise _nobody(callback, said, asked, seconds)
    if caller.system == "windows" and ":" in callback.told:
        raise Unsupported(
            "runs on Windows, where a registry's name can hold no port",
            where=client.base,
            advice="Let it call port 80: --callback HOST:80 --listen ADDR:PORT, or --listen ADDR:80.",
        )
    return caller


def _nobody(callback: Callback, said: ModelpackError | None, asked: bool, seconds: float) -> Unreachable:
    where = callback.told
    behind = f" (here: {callback.listening})" if callback.listening != where else ""
    advice = (
        "Name an address of this machine that the server can reach: --callback HOST[:PORT], and "
        "--listen ADDR[:PORT] where something forwards to it."
    )
    if isinstance(said, NotFound) or (asked and said is None):
        what = (
            "the server's pull went elsewhere: a proxy (HTTP_PROXY) may be set on it, or another host answers"
        )
        advice = f"Set NO_PROXY there for this host. {advice}"
    elif said is not None:
        what = f"the server could not call back: it said {said.what!r}"
        if "proxyconnect" in said.what:
            advice = f"Its HTTP_PROXY does not lead here: set NO_PROXY there for this host. {advice}"
    else:
        what = f"nobody came to {where}{behind} within {seconds:.0f} seconds (a firewall or NAT between?)"
        return Unreachable(what, advice=advice)
    return Unreachable(what, where=f"{where}{behind}", advice=advice)
