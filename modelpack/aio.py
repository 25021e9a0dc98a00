"""The same client, from asyncio: every call awaitable, transfers as async iterators, cancellation that works.

    async with modelpack.aio.Ollama() as client:
        for model in await client.list():
            print(model.name)
        async for event in client.pull("qwen3:8b"):
            print(event.status, event.completed, event.total)

The calls run in threads of the client's own, so the loop never waits. Cancelling a task shuts the socket of
its call down: a server that is silent does not hold it. Errors are those of `modelpack.Ollama`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from modelpack.hands.answers import Event, Listed, Running, Shown, Version
from modelpack.hands.background import NAME, Background, Stream, ended, in_loop, within
from modelpack.hands.call import Call
from modelpack.hands.crew import Stopped
from modelpack.hands.ollama import Ollama as _Client
from modelpack.hands.ollama_create import Fields
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader
from modelpack.words.report import Report, Step, silent

if TYPE_CHECKING:
    from modelpack.documents.model import Model
    from modelpack.documents.receipt import Receipt
    from modelpack.stores import Source, Target

__all__ = ["Ollama", "Stream", "copy"]

_T = TypeVar("_T")


class Ollama:
    """`modelpack.Ollama`, awaitable; to be closed, or used by `async with`. Any event loop may use it."""

    def __init__(
        self,
        host: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        timeout: float = 300.0,
        ca: str | None = None,
    ) -> None:
        """As `modelpack.Ollama`. At most sixteen calls run at a time, others wait their turn."""
        self._client = _Client(host, headers=headers, api_key=api_key, timeout=timeout, ca=ca)
        self._background = Background()

    @property
    def base(self) -> str:
        """The base URL, without an end slash."""
        return self._client.base

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Break off whatever is still under way, and end the threads; the client cannot be used again."""
        await self._background.aclose()
        self._client.close()

    async def about(self) -> Version:
        """As `modelpack.Ollama.about`."""
        return await self._background.run(self._client.about)

    async def version(self) -> str:
        """As `modelpack.Ollama.version`."""
        return await self._background.run(self._client.version)

    async def list(self) -> tuple[Listed, ...]:
        """As `modelpack.Ollama.list`."""
        return await self._background.run(self._client.list)

    async def installed(self) -> dict[str, Listed]:
        """As `modelpack.Ollama.installed`."""
        return await self._background.run(self._client.installed)

    async def running(self) -> tuple[Running, ...]:
        """As `modelpack.Ollama.running`."""
        return await self._background.run(self._client.running)

    async def show(self, name: str, *, verbose: bool = False) -> Shown:
        """As `modelpack.Ollama.show`."""
        return await self._background.run(lambda: self._client.show(name, verbose=verbose))

    async def copy(self, source: str, destination: str) -> None:
        """As `modelpack.Ollama.copy`."""
        await self._background.run(lambda: self._client.copy(source, destination))

    async def delete(self, name: str) -> None:
        """As `modelpack.Ollama.delete`."""
        await self._background.run(lambda: self._client.delete(name))

    async def has_blob(self, digest: Digest) -> bool:
        """As `modelpack.Ollama.has_blob`."""
        return await self._background.run(lambda: self._client.has_blob(digest))

    async def which(self, digests: Sequence[Digest]) -> set[Digest]:
        """As `modelpack.Ollama.which`."""
        return await self._background.run(lambda: self._client.which(digests))

    async def upload_blob(
        self,
        digest: Digest,
        size: int,
        reader: Reader,
        moved: Callable[[int], None] = lambda _count: None,
        sent: Callable[[], None] = lambda: None,
    ) -> bool:
        """As `modelpack.Ollama.upload_blob`; `moved` and `sent` are called in the loop, *reader* is not."""
        heard, told = in_loop(moved), in_loop(sent)
        return await self._background.run(lambda: self._client.upload_blob(digest, size, reader, heard, told))

    async def upload_file(
        self,
        path: Path | str,
        *,
        digest: Digest | None = None,
        moved: Callable[[int], None] = lambda _count: None,
    ) -> Digest:
        """As `modelpack.Ollama.upload_file`; `moved` is called in the loop."""
        heard = in_loop(moved)
        return await self._background.run(lambda: self._client.upload_file(path, digest=digest, moved=heard))

    def create_from(self, request: Mapping[str, Any]) -> Stream:
        """As `modelpack.Ollama.create_from`; nothing is sent before it is awaited or iterated."""
        return Stream(self._background, lambda: self._client.create_from(request))

    @overload
    def create(self, model: str, *, stream: Literal[True] = ..., **fields: Unpack[Fields]) -> Stream:
        """The events."""

    @overload
    def create(
        self, model: str, *, stream: Literal[False], **fields: Unpack[Fields]
    ) -> Coroutine[Any, Any, Event]:
        """The one result."""

    def create(
        self, model: str, *, stream: bool = True, **fields: Unpack[Fields]
    ) -> Stream | Coroutine[Any, Any, Event]:
        """As `modelpack.Ollama.create`; nothing is sent before it is awaited or iterated."""
        if stream:
            return Stream(self._background, lambda: self._client.create(model, **fields))
        return self._background.run(lambda: self._client.create(model, stream=False, **fields))

    @overload
    def pull(self, model: str, *, insecure: bool = ..., stream: Literal[True] = ...) -> Stream:
        """The events."""

    @overload
    def pull(self, model: str, *, insecure: bool = ..., stream: Literal[False]) -> Coroutine[Any, Any, Event]:
        """The one result."""

    def pull(
        self, model: str, *, insecure: bool = False, stream: bool = True
    ) -> Stream | Coroutine[Any, Any, Event]:
        """As `modelpack.Ollama.pull`; nothing is sent before it is awaited or iterated."""
        if stream:
            return Stream(self._background, lambda: self._client.pull(model, insecure=insecure))
        return self._background.run(lambda: self._client.pull(model, insecure=insecure, stream=False))

    @overload
    def push(self, model: str, *, insecure: bool = ..., stream: Literal[True] = ...) -> Stream:
        """The events."""

    @overload
    def push(self, model: str, *, insecure: bool = ..., stream: Literal[False]) -> Coroutine[Any, Any, Event]:
        """The one result."""

    def push(
        self, model: str, *, insecure: bool = False, stream: bool = True
    ) -> Stream | Coroutine[Any, Any, Event]:
        """As `modelpack.Ollama.push`; nothing is sent before it is awaited or iterated."""
        if stream:
            return Stream(self._background, lambda: self._client.push(model, insecure=insecure))
        return self._background.run(lambda: self._client.push(model, insecure=insecure, stream=False))

    async def run(self, work: Callable[[_Client], _T]) -> _T:
        """What *work* does with the client that waits, in a thread: `await client.run(discover)`.

        Cancelled, what it asks of the server is broken off; the rest of its work is not.
        """
        return await self._background.run(lambda: work(self._client))


async def copy(
    source: Source, models: Sequence[Model], target: Target, report: Report = silent
) -> list[Receipt]:
    """`modelpack.copy` in a thread; *report* is called in the loop.

    Cancelled, it ends at the next block that is moved, and leaves what a copy that failed leaves: no model
    half there. It is waited for, five seconds at most: a server that is silent may hold its thread longer.
    """
    from modelpack.verbs.transfer import copy as work

    gone = threading.Event()
    heard = in_loop(report)

    def reported(step: Step) -> None:
        if gone.is_set():
            raise Stopped
        heard(step)

    call = Call()
    threads = ThreadPoolExecutor(1, thread_name_prefix=NAME)
    future = threads.submit(within, call, lambda: work(source, models, target, reported))
    threads.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(future)
    finally:
        if not future.done():
            gone.set()
            call.close()
            await ended([future])
