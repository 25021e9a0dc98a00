"""The threads of a depot: one for each connection that is busy, made when it is needed."""

from __future__ import annotations

import contextlib
from threading import Lock
from typing import Any

from cheroot.workers.threadpool import ThreadPool, WorkerThread

READERS, WRITERS, OTHERS = 256, 64, 64
"""Blobs that are sent at once, blobs that are taken at once (each needs a MiB), and threads beside those.

So neither slow readers nor stalled writers leave the others without a thread.
"""
THREADS = READERS + WRITERS + OTHERS


class Workers(ThreadPool):
    """Cheroot's pool, but it grows when work comes that no thread is free for. It never shrinks.

    An idle thread costs a few dozen KiB; a connection that is merely open has none.
    """

    _threads: list[WorkerThread]
    _queue: Any

    def __init__(self, server: Any) -> None:
        super().__init__(server, min=1, max=THREADS)
        self._free = 0  # threads that wait, less the work that waits for them
        self._counting = Lock()
        self.get = self._take

    def start(self) -> None:
        """Nothing: the first connection makes the first thread."""

    def put(self, obj: Any) -> None:
        """Have somebody work on the connection *obj*."""
        with self._counting:
            self._free -= 1
            if self._free < 0 and len(self._threads) < self.max:
                # Where the system has no more threads, those that there are do the work.
                with contextlib.suppress(RuntimeError):
                    worker = WorkerThread(self.server)  # type: ignore[no-untyped-call]
                    worker.start()
                    self._threads.append(worker)
        self._queue.put(obj)

    @property
    def spare(self) -> bool:
        """Whether most of the threads that there may be are free."""
        return len(self._threads) - max(self._free, 0) < THREADS // 4

    def _take(self) -> Any:
        with self._counting:
            self._free += 1
        return self._queue.get()
