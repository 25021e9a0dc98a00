"""What the commands of `modelpack ollama` share: the server, names completed, several things one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from modelpack.cli.talk import complain, counted, table
from modelpack.errors import ModelpackError, Partly, Unreachable
from modelpack.words.text import visible

if TYPE_CHECKING:
    from modelpack.hands.ollama import Ollama

_F = TypeVar("_F", bound=Callable[..., Any])
_PATIENCE = 2.0  # seconds that a completion waits for a server


def host_option(function: _F) -> _F:
    """--host."""
    return click.option(
        "--host", metavar="HOST", help="host[:port] or http[s]://...; by default $OLLAMA_HOST."
    )(function)


def insecure_option(function: _F) -> _F:
    """--insecure."""
    return click.option(
        "--insecure", is_flag=True, help="Let the server use a registry without TLS, or with any certificate."
    )(function)


@contextmanager
def connected(host: str | None, timeout: float = 300.0) -> Iterator[Ollama]:
    """A client of the server; hung up at the end."""
    from modelpack.hands.ollama import Ollama

    client = Ollama(host, timeout=timeout)
    try:
        yield client
    finally:
        client.close()


class ModelType(click.ParamType[str]):
    """A model's name as the server takes it, which says what is none; completed from what is installed."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The installed models that begin so; none where no server answers soon."""
        try:
            with connected(ctx.params.get("host"), _PATIENCE) as client:
                names = [one.name for one in client.list()]
        except ModelpackError:  # a completion has nobody to complain to
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete) and name.isprintable()]


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table as `ollama list` sets it: names in capitals, four spaces between columns."""
    cells = [[visible(cell) for cell in row] for row in (head, *rows)]
    return [line.rstrip() for line in table([[*(f"{one}  " for one in row[:-1]), row[-1]] for row in cells])]


def one_by_one(names: Sequence[str], work: Callable[[str], None]) -> dict[str, ModelpackError]:
    """*work* on each; the errors of those that failed. A server that is gone fails the rest, too."""
    failed: dict[str, ModelpackError] = {}
    gone: Unreachable | None = None
    for name in dict.fromkeys(names):
        try:
            if gone is not None:
                raise gone
            work(name)
        except ModelpackError as error:
            failed[name] = error
            gone = error if isinstance(error, Unreachable) else None
    return failed


def leave_failed(failed: dict[str, ModelpackError], names: Sequence[str], word: str, verb: str) -> None:
    """Raise what went wrong: the error itself of a single one, Partly of several."""
    if not failed:
        return
    if len(set(names)) == 1:
        raise next(iter(failed.values()))
    for error in dict.fromkeys(failed.values()):
        complain(error)
    raise Partly(f"{len(failed)} of {counted(len(set(names)), word)} {verb}", failed=failed)


def when(text: str | None, *, now: datetime | None = None) -> str:
    """How long ago *text* (RFC 3339) was, or how long it is until then, for people; `-` where it is none.

    The steps are those of Ollama's format/time.go.
    """
    try:
        then = datetime.fromisoformat(text or "")
    except ValueError:
        return "-"
    if then.year <= 1:
        return "Never"  # Go's zero
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    if seconds < -20 * 365 * 86400:
        return "Forever"
    return f"{_span(abs(seconds))} {'ago' if seconds >= 0 else 'from now'}"


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if minutes < 1:
        return counted(int(seconds), "second")
    if hours < 1 or minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for most, unit, word in ((48, 1, "hour"), (336, 24, "day"), (1440, 168, "week"), (17520, 720, "month")):
        if hours < most:
            return f"{hours // unit} {word}s"
    return f"{int(seconds) // 31536000} years"
