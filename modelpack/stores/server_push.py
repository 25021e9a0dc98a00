"""A push that a server was asked for, while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from modelpack.errors import Different, ModelpackError, Refused, Unreachable
from modelpack.hands.call import Call, under
from modelpack.hands.callback import Received
from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import was_raced
from modelpack.words.digest import Digest

_TRIES = 8
_PAUSE = 0.25  # seconds; each is twice the one before
_TO_END = 10.0  # seconds that the server may take once all that was wanted is here
_ANOTHERS = ("context canceled", "max retries exceeded")


def exactly(raw: bytes, id: Digest) -> bytes | None:  # noqa: A002 - the model's
    """The manifest of this ID that a server sends as *raw*; None where it is another.

    It decodes it and writes it anew, without the newline that a model made by create ends with.
    """
    return next((one for one in (raw, raw + b"\n") if Digest.of(one) == id), None)


class Pushing:
    """Asks the server to push *name*, in a thread, and tells *received* how that ends; to be used by `with`.

    *name* should be the model of this *id*: that is looked at where the blob does not come that is wanted.
    *renew* gives it the name again: a server that deletes another name has taken it along (seen on 0.24).

    The server keeps one upload of a blob at a time (server/upload.go, blobUploadManager): a second push of
    it, by whomever, waits for the first, is told how that went, and sends nothing to us. Such a push is asked
    for again.
    """

    def __init__(
        self,
        client: Ollama,
        name: str,
        id: Digest,  # noqa: A002
        received: Received,
        renew: Callable[[], object],
    ) -> None:
        self._client, self._name, self._id, self._received = client, name, id, received
        self._renew = renew
        self._call = Call()
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A push that is left early is broken off before its connection to us is: else the server tries on.
        if self._received.came:
            self._thread.join(_TO_END)
        self._call.close()
        self._thread.join(_TO_END)

    def _run(self) -> None:
        try:
            with under(self._call):
                self._push()
        except ModelpackError as error:
            self._received.fail(error)

    def _push(self) -> None:
        last = ""
        for attempt in range(_TRIES):
            try:
                self._once()
            except Refused as error:
                again = any(words in error.words for words in _ANOTHERS)
                if not (again or was_raced(error)) or self._received.failure is not None:
                    raise
                last = error.words
                if not again:
                    self._renew()
            if self._received.came:
                return
            self._check_same()
            if not self._call.wait(_PAUSE * 2**attempt):
                break
        raise Unreachable(
            f"says that it pushed, and sent nothing: {last}".removesuffix(": "), where=self._client.base
        )

    def _check_same(self) -> None:
        """Raise Different where another model was pushed: what is wanted never comes."""
        raw = self._received.pushed
        if raw is not None and exactly(raw, self._id) is None:
            raise Different(
                f"was given to another model meanwhile: {Digest.of(raw).short}, not {self._id.short}",
                where=self._client.base,
                advice="Run again.",
            )

    def _once(self) -> None:
        seen: object = None
        with self._client.push(self._name, insecure=True) as events:
            for event in events:
                if (event.digest, event.completed) != seen:
                    seen = (event.digest, event.completed)
                    self._received.go_on()
