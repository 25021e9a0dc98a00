"""`modelpack repair`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelpack.cli.options import callback_options, json_option, quiet_option, registry_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import (
    bundle_lines,
    complain,
    counted,
    error_json,
    leave_by,
    result,
    result_json,
    table,
    talk,
    warn,
)
from modelpack.cli.trust_options import trust_options
from modelpack.errors import Local, Partly
from modelpack.hands.hashing import blamed
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs import locate
from modelpack.verbs.registries import HTTPS, Access, is_registry, one_secret
from modelpack.verbs.repair import Mended, Repaired, Spare, repair
from modelpack.verbs.repair_volumes import repair_volumes
from modelpack.verbs.trust import Trust, check
from modelpack.verbs.volumes import has_volumes
from modelpack.verbs.volumes_papers import set_of
from modelpack.verbs.volumes_signed import stems_in
from modelpack.words.text import size

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@click.command(
    epilog="""\b
Examples:
  sudo modelpack repair /usr/share/ollama/.ollama/models --from qwen3.tar
  modelpack repair bundle/ --from ~/.ollama/models --from http://10.0.0.5:11434"""
)
@click.argument("what", metavar="MODELS_DIR|BUNDLE")
@click.option(
    "--from",
    "sources",
    metavar="LOCATOR",
    multiple=True,
    required=True,
    help="Where right bytes are taken from; several times: the first that has them.",
)
@callback_options
@registry_options
@trust_options
@json_option
@quiet_option
def command(
    what: str,
    sources: tuple[str, ...],
    access: Access,
    calling: Calling | None,
    trust: Trust,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put back what is damaged or missing in a models directory or a bundle.

    Everything is checked as `verify` does it. Each bad blob is taken from the first LOCATOR that has it, and
    hashed on its way; a manifest that cannot be read, from one that has a model of that name. What stood
    there is kept aside. Nothing is deleted, and Ollama may run meanwhile. Signatures and policies are held
    against each LOCATOR; of volumes, against the set that is repaired.
    """
    one_secret(sources, access)
    place = locate.Located.parse(what)
    paths = [Path(one) for one in sources]
    if has_volumes(Path(place.text)) and all(one.exists() for one in paths):
        folder, stem = set_of(Path(place.text))
        signed = None
        if trust != Trust():
            stems = [stem] if stem is not None else stems_in([folder])
            media = [one if one.is_dir() else one.absolute().parent for one in paths]
            whole = VolumeSet([folder, *media], stem=stems[0] if len(stems) == 1 else None)
            signed = check(whole, trust, what)
        with Progress(quiet=quiet) as progress:
            done = repair_volumes(folder, paths, stem, progress, signed=signed)
        _leave(what, done, as_json=as_json, quiet=quiet)
        return
    with Progress(quiet=quiet) as progress, ExitStack() as stack:
        store = locate.source(place.text, report=progress)
        spares = []
        for text in sources:
            found = locate.Located.parse(text)
            by = access if is_registry(found.text) or not any(map(is_registry, sources)) else HTTPS
            source = locate.source(found.text, access=by, calling=calling, report=progress)
            if isinstance(source, AbstractContextManager):  # a server calls back: until we have done
                stack.enter_context(source)
            if trust != Trust():
                check(source, trust, text).hold(source)
            spares.append(Spare(text, source, [found.pick] if found.pick else [], progress))
        with blamed(what):
            done = repair(store, spares, [place.pick] if place.pick else [], progress)
    _leave(what, done, as_json=as_json, quiet=quiet)


def _leave(what: str, done: Repaired, *, as_json: bool, quiet: bool) -> None:
    """Show what came of it, and leave by it."""
    if as_json:
        result_json(_as_json(done))
    else:
        _show(what, done, quiet)
    if done.good:
        return
    full = any(isinstance(one, Local) for one in done.left)
    if not full and not done.mended:
        leave_by(done.left)
    for one in done.left:
        complain(one)
    raise SystemExit(Local.exit_code if full else Partly.exit_code)


def _show(what: str, done: Repaired, quiet: bool) -> None:
    for line in bundle_lines(what, done.fingerprint) if done.fingerprint is not None else ():
        talk(line, quiet=quiet)
    rows = [[one.kind, _shown(one), size(one.bytes), f"from {one.source}"] for one in done.mended]
    for line in table(rows):
        result(line)
    for one in done.mended:
        if one.doubt:
            warn(f"{one.name} is back {one.doubt}")
    for aside in dict.fromkeys(one.aside for one in done.mended if one.aside):
        talk(f"kept aside: {aside}", quiet=quiet)
    if done.good:
        result(f"good: {counted(len(done.mended), 'repair')}" if done.mended else "good: nothing to repair")
    else:
        put_back = f"{counted(len(done.mended), 'repair')}, {counted(len(done.left), 'problem')} left"
        result(put_back)
    for sentence in done.unchecked:
        result(f"not checked: {sentence}")


def _shown(one: Mended) -> str:
    return f"{one.name} ({one.users})" if one.users else one.name


def _as_json(done: Repaired) -> dict[str, object]:
    return {
        "good": done.good,
        "fingerprint": str(done.fingerprint) if done.fingerprint else None,
        "repaired": [
            {
                "kind": one.kind,
                "name": one.name,
                "bytes": one.bytes,
                "source": one.source,
                "aside": one.aside or None,
                "users": one.users,
                "doubt": one.doubt or None,
            }
            for one in done.mended
        ],
        "left": [error_json(one) for one in done.left],
        "unchecked": done.unchecked,
    }
