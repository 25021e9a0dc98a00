"""Options and kinds of arguments that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from modelpack.errors import ModelpackError, Usage, from_os
from modelpack.verbs.registries import Access
from modelpack.words.blob import KIB
from modelpack.words.digest import Digest
from modelpack.words.name import Name

_F = TypeVar("_F", bound=Callable[..., Any])


class DigestType(click.ParamType[Digest]):
    """`sha256:` and 64 hex digits; the prefix may be left out."""

    name = "digest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Digest:
        """The digest that *value* spells."""
        if isinstance(value, Digest):
            return value
        try:
            found = Digest.parse(value if ":" in value else f"sha256:{value}")
        except ModelpackError as error:
            self.fail(error.what, param, ctx)
        if found.algorithm != "sha256":
            self.fail("a fingerprint is a SHA-256", param, ctx)
        return found


class NameType(click.ParamType[Name]):
    """A model's name."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Name:
        """The name that *value* spells."""
        if isinstance(value, Name):
            return value
        try:
            return Name.parse(value)
        except Usage as error:
            self.fail(error.what, param, ctx)


def once(_ctx: click.Context, option: click.Parameter, given: tuple[Any, ...]) -> Any:
    """The one value of an option that is `multiple`; Usage for two: which of them counts is no guess."""
    if len(set(given)) > 1:
        raise Usage(f"--{option.name} was given twice", advice="Name one.")
    return given[0] if given else None


def json_option(function: _F) -> _F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def quiet_option(function: _F) -> _F:
    """--quiet."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no talk on stderr.")(function)


def registry_options(function: _F) -> _F:
    """--plain-http and --credentials, as one argument `access`."""

    @functools.wraps(function)
    def command(*args: Any, plain_http: bool, credentials: str | None, **named: Any) -> Any:
        if credentials == "-" and "-" in (named.get("bundle"), *(named.get("source") or ())):
            raise Usage("--credentials - and a bundle from - would both read standard input")
        as_artifact = bool(named.pop("as_artifact", False))
        given = None if credentials is None else functools.cache(lambda: _read_secret(credentials))
        access = Access(plain_http=plain_http, credentials=given, as_artifact=as_artifact)
        return function(*args, access=access, **named)

    command = click.option(
        "--credentials",
        metavar="FILE",
        help="A file (-: standard input) with user:password or a token for the registry.",
    )(command)
    return click.option("--plain-http", is_flag=True, help="Talk to the registry by http.")(command)  # type: ignore[return-value]


def _read_secret(path: str) -> str:
    """The first 64 KiB of the file at *path*; what is wrong with it is said without its content."""
    try:
        with click.open_file(path, encoding="utf-8") as file:
            return str(file.read(64 * KIB))
    except OSError as error:
        raise from_os(error, path) from None
    except UnicodeDecodeError:
        raise Usage("holds no credentials: it is not text", where=path) from None


def callback_options(function: _F) -> _F:
    """--callback, --listen and --no-listen, as one argument `calling`; None where none is given."""

    @functools.wraps(function)
    def command(*args: Any, callback: str | None, listen: str | None, no_listen: bool, **named: Any) -> Any:
        calling = None
        if callback is not None or listen is not None or no_listen:
            from modelpack.hands.callback import Calling  # here: it brings a server along

            calling = Calling(callback, listen, no_listen)
        return function(*args, calling=calling, **named)

    command = click.option("--no-listen", is_flag=True, help="Open no port: nothing is called back.")(command)
    command = click.option(
        "--listen", metavar="ADDR[:PORT]", help="What is bound here; by default where --callback leads."
    )(command)
    return click.option(  # type: ignore[return-value]
        "--callback", metavar="HOST[:PORT]", help="Where the server finds this machine, to call back."
    )(command)


def way_options(function: _F) -> _F:
    """--exact, --create and those of `callback_options`, as one argument `wish`; None where none is given."""

    @functools.wraps(function)
    def command(*args: Any, exact: bool, create: bool, calling: Any, **named: Any) -> Any:
        wish = None
        if exact or create or calling is not None:
            from modelpack.hands.callback import Calling
            from modelpack.verbs.ways import Wish

            wish = Wish(exact, create, calling or Calling())
        return function(*args, wish=wish, **named)

    command = click.option("--create", is_flag=True, help="To a server: by its own create, whatever it can.")(
        callback_options(command)
    )
    return click.option(  # type: ignore[return-value]
        "--exact", is_flag=True, help="To a server: the same bytes and ID, or not at all."
    )(command)


def expect_option(function: _F) -> _F:
    """--expect."""
    return click.option(
        "--expect",
        type=DigestType(),
        multiple=True,
        callback=once,
        metavar="DIGEST",
        help="Refuse any bundle but the one with this fingerprint.",
    )(function)
