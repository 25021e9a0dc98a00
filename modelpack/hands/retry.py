"""Asking again: what may help, how long to wait before, and when to stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from modelpack.errors import Refused
from modelpack.hands.call import rest
from modelpack.hands.wire import Broke

_T = TypeVar("_T")

TRIES = 4
"""The most times that one thing is asked."""
LONGEST = 30.0
"""Seconds; a server that asks for a longer pause is not asked again."""

_FIRST = 0.25  # seconds; each pause is twice the one before
_STATUSES = (429, 502, 503, 504)


class Busy(Refused):
    """A status that may be another one soon; `after` is the pause in seconds that the server asks for."""

    after: float | None = None

    @classmethod
    def of(cls, refused: Refused, headers: Mapping[str, str]) -> Refused:
        """*refused* as Busy where its status is of that kind."""
        if refused.status not in _STATUSES:
            return refused
        after = retry_after(headers.get("Retry-After", ""))
        advice = refused.advice
        if after is not None and after > LONGEST:
            advice = f"It asks to come again in {after:.0f} seconds. {advice}".rstrip()
        busy = cls(
            refused.what, where=refused.where, advice=advice, status=refused.status, words=refused.words
        )
        busy.after = after
        return busy


def retry_after(text: str) -> float | None:
    """Seconds that a `Retry-After` means, a number or a date (RFC 9110, 10.2.3); None for anything else."""
    from email.utils import parsedate_to_datetime

    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text[:100])
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def again(ask: Callable[[], _T]) -> _T:
    """What *ask* gives, asked up to TRIES times: only for what is safe to repeat.

    Tried again: 429, 502, 503 and 504 (Retry-After is honoured up to LONGEST, and beyond it the refusal is
    raised at once), and a connection that broke off. Not: a refused connection, an unknown host, time that
    ran out.
    """
    for number in range(TRIES - 1):
        try:
            return ask()
        except (Busy, Broke) as error:
            pause = _FIRST * 2**number
            if isinstance(error, Busy) and error.after is not None:
                if error.after > LONGEST:
                    raise
                pause = max(pause, error.after)
            pause *= random.uniform(1.0, 1.2)  # noqa: S311 - so that many clients do not come at once
            if not rest(pause):
                raise
    return ask()
