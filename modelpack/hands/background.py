"""Threads for asyncio: calls that are broken off where nobody awaits them any more, and streams of events."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from modelpack.errors import Unreachable
from modelpack.hands.answers import Event
from modelpack.hands.call import Call, under
from modelpack.hands.crew import GRACE
from modelpack.hands.ollama_events import Events

_T = TypeVar("_T")
NAME = "modelpack-aio"
"""How the threads are called."""

_THREADS = 16  # calls at a time, save streams: each of those has a thread of its own


class Background:
    """The threads of one client, and what is under way in them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=NAME)
        self._running: dict[Future[Any], Call] = {}
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def run(self, work: Callable[[], _T]) -> _T:
        """What *work* gives in a thread; what it asks is broken off where nobody waits to the end."""
        return await self.wait_for(self._threads, Call(), work)

    async def wait_for(self, threads: ThreadPoolExecutor, call: Call, work: Callable[[], _T]) -> _T:
        """The same in one of *threads*, what it asks under *call*."""
        future = threads.submit(within, call, work)
        self._running[future] = call
        future.add_done_callback(lambda done: self._running.pop(done, None))
        try:
            return await asyncio.wrap_future(future)
        finally:
            if not future.done():
                call.close()

    async def aclose(self) -> None:
        """Break off whatever is still under way, and end the threads."""
        for stream in tuple(self.streams):
            stream.close()
        running = dict(self._running)
        for call in running.values():
            call.close()
        await ended(running)
        self._threads.shutdown(wait=all(future.done() for future in running), cancel_futures=True)


class Stream:
    """What a server tells of a create, pull or push: an async iterator of `Event`, usable by `async with`.

    Awaited, it reads on to the end and gives the last event. The next event is fetched only when it is asked
    for: a slow consumer slows the server down, and nothing piles up here. Cancelling, `aclose`, leaving the
    `async with`, or dropping it (as `break` in `async for … in client.pull(…)` does) closes the connection.
    Raises what `modelpack.Events` raises.
    """

    def __init__(self, background: Background, begin: Callable[[], Events]) -> None:
        self._background, self._begin = background, begin
        self._call = Call()
        self._events: Events | None = None
        self._ended = False
        self._threads: ThreadPoolExecutor | None = None
        background.streams.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        try:
            event = await self._background.wait_for(self._threads, self._call, self._next)
        except BaseException:
            self.close()
            raise
        if event is None:
            self.close()
            raise StopAsyncIteration
        return event

    def _next(self) -> Event | None:
        """In a thread: the next event; None at the end."""
        if self._events is None:
            self._events = self._begin()
        return next(self._events, None)

    async def last(self) -> Event:
        """Read on to the end; the last event, `success`."""
        found = Event("")
        async with self:
            async for event in self:
                found = event
        return found

    def __await__(self) -> Generator[Any, None, Event]:
        return self.last().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def aclose(self) -> None:
        """The same as `close`."""
        self.close()

    def close(self) -> None:
        """Break the transfer off where it has not ended."""
        if not self._ended:
            self._ended = True
            events, self._events = self._events, None
            if events is not None:
                events.close()
            self._call.close()
            if self._threads is not None:
                # What is left to close is closed by the one thread that reads it, and then that ends.
                with contextlib.suppress(RuntimeError):  # the interpreter is going
                    self._threads.submit(_put_down, events)
                self._threads.shutdown(wait=False)


def within(call: Call, work: Callable[[], _T]) -> _T:
    """What *work* gives; what it asks belongs to *call*. Unreachable where that was broken off before."""
    if call.closed:
        raise Unreachable("was broken off here")
    with under(call):
        return work()


def _put_down(events: Events | None) -> None:
    if events is not None:
        events.__exit__(None, None, None)


def in_loop(heard: Callable[..., object]) -> Callable[..., None]:
    """*heard*, called in the loop that runs now, from whatever thread."""
    loop = asyncio.get_running_loop()

    def tell(*values: object) -> None:
        loop.call_soon_threadsafe(heard, *values)

    return tell


async def ended(futures: Iterable[Future[Any]]) -> None:
    """Wait until *futures* are done, GRACE seconds at most, whatever came of them."""
    waiting = [asyncio.wrap_future(future) for future in futures if not future.done()]
    if waiting:
        done, _ = await asyncio.wait(waiting, timeout=GRACE)
        for each in done:
            if not each.cancelled():
                each.exception()  # retrieved: nobody else asks
