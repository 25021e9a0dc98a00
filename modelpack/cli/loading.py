"""What `load` and `plan` have in common: from where, which models, to where."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelpack.cli.options import (
    NameType,
    expect_option,
    json_option,
    quiet_option,
    registry_options,
    way_options,
)
from modelpack.cli.talk import bundle_lines, talk, warn
from modelpack.cli.trust_options import trust_options
from modelpack.documents.model import Model
from modelpack.errors import Usage
from modelpack.stores import Identified, Source, Target
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs import locate
from modelpack.verbs.attach import stripped
from modelpack.verbs.papers import Signable
from modelpack.verbs.registries import HTTPS, Access, is_registry, one_secret
from modelpack.verbs.trust import UNSIGNED, Signed, Trust, check
from modelpack.words.digest import Digest
from modelpack.words.name import Name

if TYPE_CHECKING:
    from modelpack.verbs.ways import Wish

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Loading:
    """The two ends: *models* of *source*, and where they go."""

    text: str
    source: Source
    models: list[Model]
    to: str | None
    access: Access
    wish: Wish | None
    replace: bool

    @property
    def fingerprint(self) -> Digest | None:
        """That of the bundle, where it is one."""
        return self.source.fingerprint if isinstance(self.source, Identified) else None

    def target(self, *, replace: bool) -> Target:
        """Where they go; `replace` lets them take names that are taken."""
        return locate.target(self.to, self.source, replace=replace, access=self.access, wish=self.wish)


def loading(
    bundle: str,
    model: tuple[str, ...],
    to: str | None,
    name: Name | None,
    replace: bool,
    access: Access,
    wish: Wish | None,
    expect: Digest | None,
    trust: Trust,
    also: Sequence[Path],
    quiet: bool,
) -> Loading:
    """The two ends that the options name; the bundle's signature and fingerprint are said.

    Nothing of a bundle is parsed before its signature is checked, where that is asked for.
    """
    place = locate.Located.parse(bundle)
    afar = is_registry(place.text)
    one_secret([place.text, to], access)
    calling = wish.calling if wish is not None and locate.is_server(place.text) else None
    source = locate.source(
        place.text, expect=expect, access=access if afar else HTTPS, calling=calling, also=also
    )
    if also and not isinstance(source, VolumeSet):
        raise Usage("--also is for sets of volumes", where=bundle)
    signed = check(source, trust, bundle)
    chosen = locate.picked(source, [*model, *([place.pick] if place.pick else [])], bundle)
    signed.hold(source)
    for line in signed.shown() if signed.state != UNSIGNED else ():
        talk(line, quiet=quiet)
    warn_of_stripped(source, signed)
    if name is not None:
        if len(chosen) > 1:
            raise Usage("--as needs a single model", advice="Name it: modelpack load BUNDLE MODEL --as NAME")
        chosen = [changed(chosen[0], name=name)]
    for line in bundle_lines(bundle, source.fingerprint) if isinstance(source, Identified) else ():
        talk(line, quiet=quiet)
    by = HTTPS if afar and not is_registry(to or "") else access
    return Loading(bundle, source, chosen, to, by, wish, replace)


def warn_of_stripped(source: Source, signed: Signed) -> None:
    """Say which of README.txt and restore.py did not come along; Corrupt where one was changed."""
    for path in stripped(source, signed.lines) if isinstance(source, Signable) else ():
        warn(f"{path} is missing: something on the bundle's way took it out")


def loading_options(function: _F) -> _F:
    """The arguments and options of both commands; *function* gets a `Loading`, `as_json` and `quiet`."""

    @functools.wraps(function)
    def command(
        *args: Any,
        bundle: str,
        model: tuple[str, ...],
        to: str | None,
        name: Name | None,
        replace: bool,
        access: Access,
        wish: Any,
        expect: Digest | None,
        trust: Trust,
        also: tuple[Path, ...],
        quiet: bool,
        **named: Any,
    ) -> Any:
        ends = loading(bundle, model, to, name, replace, access, wish, expect, trust, also, quiet)
        return function(*args, ends=ends, quiet=quiet, **named)

    for option in (
        quiet_option,
        json_option,
        expect_option,
        trust_options,
        click.option(
            "--also",
            metavar="DIR",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Another folder with volumes of the set; several times.",
        ),
        way_options,
        registry_options,
        click.option(
            "--as-artifact", is_flag=True, help="To a registry: as modelpack's own artifacts, recipes too."
        ),
        click.option("--replace", is_flag=True, help="Replace another model that has the name."),
        click.option("--as", "name", type=NameType(), help="Another name for the model there."),
        click.option(
            "--to",
            metavar="TARGET",
            help="http://HOST[:PORT], a models directory, or oci://HOST[:PORT]/NAMESPACE; by default "
            "$OLLAMA_HOST.",
        ),
        click.argument("model", nargs=-1),
        click.argument("bundle"),
    ):
        command = option(command)
    return command  # type: ignore[return-value]
