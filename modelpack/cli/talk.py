"""Results on stdout, talk on stderr; text from elsewhere made harmless on both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from modelpack.errors import ModelpackError, Taken, Usage
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.text import visible

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def result(text: str = "") -> None:
    """A line of the result."""
    click.echo(visible(text))


def result_json(value: Any) -> None:
    """The result for scripts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def talk(text: str, *, quiet: bool = False) -> None:
    """A line for people, which no script should read."""
    if not quiet:
        click.echo(visible(text), err=True)


def warn(text: str) -> None:
    """Something the user should know; --quiet does not silence it."""
    click.echo(f"warning: {visible(text)}", err=True)


def complain(error: ModelpackError | str) -> None:
    """Say what went wrong, where, and what to do."""
    if isinstance(error, str):
        click.echo(f"modelpack: {visible(error)}", err=True)
        return
    place = f"{visible(error.where)}: " if error.where else ""
    click.echo(f"modelpack: {place}{visible(error.what)}", err=True)
    if error.advice:
        click.echo(f"  {visible(error.advice)}", err=True)


def bundle_lines(what: object, fingerprint: Digest) -> list[str]:
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


class DigestType(click.ParamType[Digest]):
    """`sha256:` and 64 hex digits; the prefix may be left out."""

    name = "digest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Digest:
        if isinstance(value, Digest):
            return value
        try:
            return Digest.parse(value if ":" in value else f"sha256:{value}")
        except ModelpackError as error:
            self.fail(error.what, param, ctx)


class NameType(click.ParamType[Name]):
    """A model's name."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Name:
        if isinstance(value, Name):
            return value
        try:
            return Name.parse(value)
        except Usage as error:
            self.fail(error.what, param, ctx)


def json_option(function: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def quiet_option(function: _F) -> _F:
    """--quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no talk on stderr.")(function)


def expect_option(function: _F) -> _F:
    """--expect."""
    return click.option(
        "--expect",
        type=DigestType(),
        metavar="DIGEST",
        help="Refuse any bundle but the one with this fingerprint.",
    )(function)


def asking(work: Callable[[bool], _T], replace: bool) -> _T:
    """Do *work*; where a name is taken and somebody sits at the terminal, ask, and do it again."""
    try:
        return work(replace)
    except Taken as taken:
        if replace or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        complain(ModelpackError(taken.what, where=taken.where))
        if not click.confirm("Replace it?", default=False, err=True):
            raise
        return work(True)
