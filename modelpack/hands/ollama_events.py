"""What a server tells while it creates, pulls or pushes: a stream of events that ends with success.

Facts: server/routes.go (streamResponse, waitForStream, PullHandler, PushHandler), server/images.go
(PullModel, PushModel) of Ollama v0.33, and what 0.24 and 0.33 answered.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from modelpack.errors import ModelpackError, NotFound, Refused, Unreachable
from modelpack.hands.answers import Event
from modelpack.hands.call import Call, current_call, under
from modelpack.hands.http import Answer, Http

_WORDS = 2000  # characters of an error line that are passed on
_NOT_IN_REGISTRY = "pull model manifest: file does not exist"
# A push of what is not installed: the file of its manifest cannot be opened, on Unix and on Windows.
_NOT_INSTALLED = re.compile(r"open .*[/\\]manifests[/\\].*(no such file|cannot find the)", re.DOTALL)


class Events:
    """The events of one request, which was sent when this was made. An iterator, usable by `with`.

    Ends after `success`. Raises Refused for an error line, with the server's own words, and NotFound where
    they say that the model does not exist; Unreachable for a stream that ends without success, and where it
    was closed before. There is no time limit between events. One thread may iterate; any may close.
    """

    def __init__(self, http: Http, path: str, data: Mapping[str, Any], name: str = "") -> None:
        """Send *data* to *path*; *name* is the model that may not exist. Raises as `Http.ask` does."""
        self._call = current_call() or Call()
        self._asked, self._where, self._name = f"POST {path}", http.base, name
        self._last = Event("")
        self._ended = False
        try:
            with under(self._call):
                self._answer = http.ask("POST", path, data=data, patient=True)
        except Refused as error:
            raise failure(error, name) from None
        self._lines = self._answer.lines()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._ended:
            raise StopIteration
        try:
            with under(self._call):
                event = self._next()
        except BaseException:
            self._end()
            raise
        if event.status == "success":
            self._end()
        self._last = event
        return event

    def _next(self) -> Event:
        line = next(self._lines, None)
        if self._call.closed:
            raise Unreachable("was broken off here", where=self._where)
        if line is None:
            raise unfinished(self._asked, self._where)
        return _event(self._answer, line, self._name)

    def last(self) -> Event:
        """Read on to the end; the last event, `success`."""
        for _ in self:
            pass
        return self._last

    def close(self) -> None:
        """Break the transfer off where it has not ended: an Ollama that notices gives its work up."""
        if not self._ended:
            self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._lines.close()
        self._answer.close()

    def __del__(self) -> None:
        # Of one that is dropped in the middle, as by `break`, nobody else could close the connection.
        if hasattr(self, "_lines") and not self._ended:
            with contextlib.suppress(Exception):
                self.__exit__(None, None, None)


def result(http: Http, path: str, data: Mapping[str, Any], name: str = "") -> Event:
    """The one result of a request that is not streamed; raises what `Events` would."""
    try:
        with http.ask("POST", path, data={**data, "stream": False}, patient=True) as answer:
            value = answer.json()
    except Refused as error:
        raise failure(error, name) from None
    event = _event(answer, value, name)
    if event.status != "success":
        raise unfinished(f"POST {path}", http.base)
    return event


def _event(answer: Answer, value: dict[str, Any], name: str) -> Event:
    """*value* of *answer* as an event; raises the error that it tells of instead."""
    if value.get("error") is None:
        return Event.read(value)
    status, words = value.get("status"), answer.masked(str(value["error"]))[:_WORDS]
    refused = Refused(
        words, where=answer.where, status=status if isinstance(status, int) else None, words=words
    )
    raise failure(refused, name)


def failure(refused: Refused, name: str) -> ModelpackError:
    """*refused*, or NotFound where it means that there is no model *name*."""
    words = refused.words
    missing = (
        words == _NOT_IN_REGISTRY
        or _NOT_INSTALLED.match(words) is not None
        or (refused.status == 404 and words.startswith("model ") and "not found" in words)
    )
    if not missing:
        return refused
    return NotFound(f"there is no model {name[:400]!r}: {words}", where=refused.where)


def unfinished(asked: str, where: str) -> Unreachable:
    """The error for an answer that ends well, but without success."""
    return Unreachable(
        f"its answer to {asked} ended before it said success",
        where=where,
        advice="The server was stopped or ran out of memory or disk: see its log, then run again.",
    )
