"""Several things done at a time, and put down soon when one of them fails or somebody presses Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import TypeVar

from modelpack.hands.call import Call, current_call, under
from modelpack.words.reader import Reader

_T = TypeVar("_T")
_R = TypeVar("_R")

GRACE = 5.0
"""Seconds that hands get to put things down after a failure or Ctrl-C."""

_NEXT_PIECE = 0.5  # of them, to notice by themselves

Gone = Callable[[], bool]


def in_parallel(things: Sequence[_T], work: Callable[[_T, Gone], _R], hands: int) -> Iterator[tuple[_T, _R]]:
    """*work* on each of *things*, *hands* at a time; each with what came of it, as they end.

    The first failure is raised here, and the others stop: *work* is given a function that says so, to be
    asked between pieces (see `Stoppable`). Whoever waits for a silent server is broken off soon after, unless
    requests of this thread belong to a call already: then whoever made that breaks it off.
    """
    stop = threading.Event()
    outer = current_call()  # what belongs to it here does so in the other threads, too
    call = outer or Call()

    def done(thing: _T) -> _R:
        with under(call):
            return work(thing, stop.is_set)

    pool = ThreadPoolExecutor(hands, thread_name_prefix="modelpack")
    futures = {pool.submit(done, thing): thing for thing in things}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # nothing to stop where all went well
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # Whoever reads or writes notices at the next piece, and can still tell the server that it gives up.
        begun = [future for future in futures if not future.cancelled()]
        if wait(begun, timeout=_NEXT_PIECE).not_done:
            if outer is None:
                call.close()
            wait(begun, timeout=GRACE - _NEXT_PIECE)


class Stopped(Exception):
    """Another hand failed, or somebody pressed Ctrl-C."""


class Stoppable:
    """*reader*, as long as nobody says stop."""

    def __init__(self, reader: Reader, gone: Gone) -> None:
        self._reader, self._gone = reader, gone

    def readinto(self, into: memoryview, /) -> int:
        """As Reader says; raises Stopped."""
        if self._gone():
            raise Stopped
        count = self._reader.readinto(into)
        if self._gone():  # it may have taken long: by now nobody may hold what this would be written to
            raise Stopped
        return count
