"""A depot on a port: until a signal comes, or for the length of a `with`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modelpack.depot.app import Depot
from modelpack.depot.wire import DepotServer
from modelpack.errors import Local, Usage
from modelpack.hands.wire import is_loopback
from modelpack.words.blob import KIB
from modelpack.words.report import Report, silent

_M_MMAP_THRESHOLD = -3  # malloc.h


@contextlib.contextmanager
def running(app: Depot, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve *app* from threads of this process; gives its URL. Port 0: any that is free.

    Raises Usage for an address other than loopback while the depot has no token, and Local where the port
    cannot be had.
    """
    server = _prepared(app, host, port)
    thread = threading.Thread(target=server.serve, name="depot", daemon=True)
    thread.start()
    try:
        bound, number = server.bind_addr
        yield f"http://[{bound}]:{number}" if ":" in bound else f"http://{bound}:{number}"
    finally:
        server.stop()
        thread.join()


def serve(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 11435,
    writable: bool = False,
    token: str | None = None,
    hosts: Iterable[str] = (),
    ready: Callable[[str], None] = lambda _url: None,
    report: Report = silent,
) -> int:
    """Serve the models directory at *path* until SIGINT or SIGTERM, whose number is returned.

    The arguments between are those of `Depot`; *ready* is told the URL. To be called in the main thread:
    signals come there. Uploads that are under way are broken off, and leave nothing. Raises what `running`
    does.
    """
    _give_back_memory()
    app = Depot(path, writable=writable, token=token, hosts=hosts, report=report)
    got: list[int] = []
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        got.append(number)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running(app, host, port) as url:
            ready(url)
            while not stop.wait(0.5):  # without a limit, Windows would not let Ctrl-C through
                pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return got[0]


def _give_back_memory() -> None:
    """Let freed memory go back: glibc keeps more of it for each thread, the larger the blocks were."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 256 * KIB)


def _prepared(app: Depot, host: str, port: int) -> DepotServer:
    if not is_loopback(host) and not app.guard.has_token:
        raise Usage(
            f"{host} can be reached from elsewhere, so the depot needs a token",
            advice="Make one (openssl rand -hex 32) and give it in a file or in the environment.",
        )
    app.guard.allow(host)
    # Cheroot would take descriptor 3 for its socket where this is set, whoever it was meant for.
    os.environ.pop("LISTEN_PID", None)
    server = DepotServer((host, port), app, app.tell)
    try:
        server.prepare()
    except OSError as error:
        raise Local(f"cannot listen there: {error}", where=f"{host}:{port}") from error
    return server
