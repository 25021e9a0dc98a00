"""A depot on a port: until a signal comes, or for the length of a `with`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modelpack.depot.app import Depot
from modelpack.depot.wire import DepotServer
from modelpack.errors import Local, Usage, from_os
from modelpack.hands.wire import is_loopback
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.words.blob import KIB
from modelpack.words.report import Report, silent

_M_MMAP_THRESHOLD = -3  # malloc.h


_OPEN_FILES = 4096  # connections, and a file for each that reads or sends a blob


@contextlib.contextmanager
def running(
    app: Depot, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve *app* from threads of this process, with *tls* as https; gives its URL. Port 0: any that is free.

    Raises Usage for an address other than loopback while the depot has no token (and is not for open pulls
    alone), and Local where the port cannot be had.
    """
    server = _prepared(app, host, port, tls)
    thread = threading.Thread(target=server.serve, name="depot", daemon=True)
    thread.start()
    try:
        bound, number = server.bind_addr
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://[{bound}]:{number}" if ":" in bound else f"{scheme}://{bound}:{number}"
    finally:
        app.stop()
        server.stop()
        thread.join()
        app.close()


def serve(
    place: Path | Archive | FolderBundle,
    *,
    host: str = "127.0.0.1",
    port: int = 11435,
    writable: bool = False,
    token: str | None = None,
    hosts: Iterable[str] = (),
    open_pulls: bool = False,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[str], None] = lambda _url: None,
    report: Report = silent,
) -> int:
    """Serve the models directory or bundle at *place* until SIGINT or SIGTERM, whose number is returned.

    The arguments between are those of `Depot` and `running`; *ready* is told the URL. To be called in the
    main thread: signals come there. Uploads that are under way are broken off, and leave nothing; so are its
    own pulls and pushes. Raises what `running` does.
    """
    _give_back_memory()
    _open_more_files()
    app = Depot(place, writable=writable, token=token, hosts=hosts, open_pulls=open_pulls, report=report)
    got: list[int] = []
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        got.append(number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running(app, host, port, tls) as url:
            ready(url)
            while not stop.wait(0.5):  # without a limit, Windows would not let Ctrl-C through
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return got[0]


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What https takes: a chain of certificates and the first one's key, both PEM; NotFound, Local, Usage."""
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise from_os(error, path) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # else OpenSSL would ask the terminal
    except (ssl.SSLError, ValueError) as error:
        raise Usage(
            f"is no certificate that fits the key {key} ({error})",
            where=certificate,
            advice="Both are PEM files, the key without a passphrase.",
        ) from None
    return context


def _open_more_files() -> None:
    """Let this process have more files open than the 1024 that many systems begin with."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_back_memory() -> None:
    """Let freed memory go back: glibc keeps more of it for each thread, the larger the blocks were."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 256 * KIB)


def _prepared(app: Depot, host: str, port: int, tls: ssl.SSLContext | None) -> DepotServer:
    if not is_loopback(host) and not app.guard.has_token:
        if not app.guard.open_pulls or app.writable:
            raise Usage(
                f"{host} can be reached from elsewhere, so the depot needs a token",
                advice="Make one (openssl rand -hex 32) and give it in a file or in the environment; or let "
                "anybody pull from it, read-only, with --open-pulls.",
            )
        app.guard.only_pulls = True
    app.guard.allow(host)
    # Cheroot would take descriptor 3 for its socket where this is set, whoever it was meant for.
    os.environ.pop("LISTEN_PID", None)
    server = DepotServer((host, port), app, app.tell, tls)
    try:
        server.prepare()
    except OSError as error:
        raise Local(f"cannot listen there: {error}", where=f"{host}:{port}") from error
    return server
