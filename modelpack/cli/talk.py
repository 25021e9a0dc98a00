"""Results on stdout, talk on stderr; text from elsewhere made harmless on both."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Taken, Unchecked, Unsupported
from modelpack.words.text import visible

_T = TypeVar("_T")


def result(text: str = "") -> None:
    """A line of the result."""
    click.echo(visible(text))


def result_json(value: Any) -> None:
    """The result for scripts."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def error_json(one: ModelpackError) -> dict[str, str]:
    """An error, for scripts."""
    return {"kind": type(one).__name__, "what": one.what, "where": one.where, "advice": one.advice}


def failed_json(failed: Mapping[str, ModelpackError]) -> list[dict[str, Any]]:
    """Errors by the names of models, for scripts."""
    return [{"name": name, **error_json(one)} for name, one in failed.items()]


def talk(text: str, *, quiet: bool = False) -> None:
    """A line for people, which no script should read."""
    if not quiet:
        _say(visible(text))


def warn(text: str) -> None:
    """Something the user should know; --quiet does not silence it."""
    _say(f"warning: {visible(text)}")


def complain(error: ModelpackError | str) -> None:
    """Say what went wrong, where, and what to do."""
    if isinstance(error, str):
        _say(f"modelpack: {visible(error)}")
        return
    place = f"{visible(error.where)}: " if error.where else ""
    _say(f"modelpack: {place}{visible(error.what)}")
    if error.advice:
        _say(f"  {visible(error.advice)}")


def complain_of(failed: Mapping[str, ModelpackError]) -> None:
    """Say of each model that failed what went wrong."""
    from modelpack.words.name import Name  # here: every command pays for what this module imports

    for name, error in failed.items():
        error.where = error.where or str(Name.parse(name))
        complain(error)


def leave_by(problems: Sequence[ModelpackError]) -> None:
    """Say what is wrong, and leave by it: damaged where anything is; unread is not damaged."""
    for problem in problems:
        complain(problem)
    if any(isinstance(one, Corrupt | NotFound | Refused) for one in problems):
        raise SystemExit(Corrupt.exit_code)
    for worst in (Unsupported, Unchecked):
        if any(isinstance(one, worst) for one in problems):
            raise SystemExit(worst.exit_code)
    if problems:
        raise SystemExit(Local.exit_code)


def _say(text: str) -> None:
    """*text* on stderr, in lines of the terminal's width; whole where no terminal is, for grep's sake.

    No word is cut, be it longer than a line: digests, paths and commands are there to be copied.
    """
    if sys.stderr.isatty():
        said = text.lstrip(" ")
        indent = text[: len(text) - len(said)]
        text = textwrap.fill(
            said,
            shutil.get_terminal_size().columns,
            initial_indent=indent,
            subsequent_indent=indent or "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    click.echo(text, err=True)


def bundle_lines(what: object, fingerprint: object) -> list[str]:
    """How every command that touches a bundle says which one it is; two lines, for digests are long."""
    return [f"{what}: a bundle with the fingerprint", f"  {fingerprint}"]


def counted(count: int, word: str) -> str:
    """`1 model`, `2 models`."""
    return f"{count} {word}" + ("" if count == 1 else "s")


def table(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines of *rows* in columns, the last one as long as it likes."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def asking(work: Callable[[bool], _T], replace: bool, rest: Callable[[], None]) -> _T:
    """Do *work*; where a name is taken and somebody sits at the terminal, *rest*, ask, and do it again."""
    try:
        return work(replace)
    except Taken as taken:
        if replace or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        rest()
        complain(ModelpackError(taken.what, where=taken.where))
        if not click.confirm("Replace it?", default=False, err=True):
            raise
        return work(True)
