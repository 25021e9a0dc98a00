"""--require-signature, --signers, --signature and --policy, of the commands that read bundles."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from modelpack.cli.options import once
from modelpack.documents.policy import VARIABLE
from modelpack.errors import Usage
from modelpack.verbs.trust import Trust, read_policy

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, readable=False)  # what cannot be read has words of its own


def trust_options(function: _F) -> _F:
    """The four options, as one argument `trust`. `$MODELPACK_POLICY` counts beside --policy, not below it."""

    @functools.wraps(function)
    def command(
        *args: Any,
        require_signature: bool,
        signers: Path | None,
        signature: Path | None,
        policy: tuple[Path, ...],
        **named: Any,
    ) -> Any:
        named_ones = list(policy)
        if (standing := os.environ.get(VARIABLE)) is not None:
            if not standing:  # as of a unit file with a variable that was never set
                raise Usage(f"${VARIABLE} is empty", advice="Unset it, or name the policy file.")
            named_ones.append(Path(standing))
        found = [read_policy(one) for one in dict.fromkeys(named_ones)]
        asked = functools.reduce(lambda one, other: one.and_also(other), found) if found else None
        return function(*args, trust=Trust(signers, signature, require_signature, asked), **named)

    for option in (
        click.option(
            "--policy",
            metavar="FILE",
            type=_FILE,
            multiple=True,
            help=f"What this site asks of every bundle (also ${VARIABLE}).",
        ),
        click.option(
            "--signature",
            metavar="FILE",
            type=_FILE,
            callback=once,
            multiple=True,
            help="The signature, where it lies elsewhere.",
        ),
        click.option(
            "--signers",
            metavar="FILE",
            type=_FILE,
            callback=once,
            multiple=True,
            help="Who may sign (allowed_signers); unsigned is refused then.",
        ),
        click.option("--require-signature", is_flag=True, help="Refuse what is not signed."),
    ):
        command = option(command)
    return command  # type: ignore[return-value]
