"""Options and kinds of arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from modelpack.errors import ModelpackError, Usage
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
