"""`modelpack gather`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from modelpack.cli.options import json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import bundle_lines, complain, counted, error_json, result, result_json, table, talk
from modelpack.cli.trust_options import trust_options
from modelpack.cli.volumes_shown import blocks
from modelpack.errors import Corrupt, NotFound
from modelpack.hands.slices_copies import need_of
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.collect import Collected, collect
from modelpack.verbs.trust import UNSIGNED, Signed, Trust, check
from modelpack.verbs.volumes_signed import stems_in
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack gather /media/cdrom --into set/
  modelpack gather /media/a /media/b --into set/"""
)
@click.argument("sources", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--into",
    metavar="SET",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder where the set comes together; made where it is missing.",
)
@trust_options
@json_option
@quiet_option
def command(sources: tuple[Path, ...], into: Path, trust: Trust, as_json: bool, quiet: bool) -> None:
    """Put the volumes of a set together in one folder, disc by disc.

    Run it once for each disc or stick. Every 16 MiB block is checked on its way and kept where it is good,
    whatever else is wrong with its volume: two damaged copies make a good one. What is needed yet is said in
    one line, and the command leaves with 3 until the set is whole.
    """
    signed = _checked(sources, into, trust) if trust != Trust() else None
    for line in signed.shown() if signed is not None and signed.state != UNSIGNED else ():
        talk(line, quiet=quiet)
    begun: list[Collected] = []
    try:
        with Progress(quiet=quiet) as progress:
            done = collect(sources, into, progress, signed=signed, begun=begun.append)
    finally:  # also where the medium is full: it is told how far it got
        for one in begun:
            if as_json:
                result_json(_as_json(one))
            else:
                _show(into, one, quiet)
    for problem in [*done.problems, *done.wrong]:
        complain(problem)
    if done.need:
        raise SystemExit(NotFound.exit_code)
    if done.wrong:
        raise SystemExit(Corrupt.exit_code)


def _checked(sources: Sequence[Path], into: Path, trust: Trust) -> Signed:
    """Whose the set is, by the papers of all media together, before anything of it is taken."""
    folders = [one if one.is_dir() else one.parent for one in sources]
    there = [into] if into.is_dir() else []
    stems = stems_in(there)
    return check(VolumeSet([*folders, *there], stem=stems[0] if len(stems) == 1 else None), trust, into)


def _show(into: Path, done: Collected, quiet: bool) -> None:
    for line in bundle_lines(into, done.descriptor.bundle):
        talk(line, quiet=quiet)
    rows = [
        [str(one.volume.n), one.volume.name, "good", f"{size(one.written)} from {', '.join(one.sources)}"]
        for one in done.made
    ]
    for n, lost in done.begun.items():
        volume = done.descriptor.volumes[n - 1]
        rows.append([str(n), volume.name, "in part", f"lacks {blocks(lost, len(volume.blocks))}"])
    for line in table(rows):
        result(line)
    for aside in (one.aside for one in done.made if one.aside):
        talk(f"kept aside: {aside}", quiet=quiet)
    total = len(done.descriptor.volumes)
    result(f"{total - len(done.need)} of {counted(total, 'volume')} in {into}")
    if done.need:
        result(need_of(done.need))


def _as_json(done: Collected) -> dict[str, object]:
    return {
        "good": not done.need and not done.wrong,
        "set": str(done.descriptor.id),
        "fingerprint": str(done.descriptor.bundle),
        "need": list(done.need),
        "there": done.there,
        "made": [
            {
                "volume": one.volume.n,
                "name": one.volume.name,
                "bytes": one.written,
                "sources": one.sources,
                "aside": one.aside or None,
            }
            for one in done.made
        ],
        "in_part": [{"volume": n, "lacking_blocks": list(lost)} for n, lost in done.begun.items()],
        "papers": done.papers,
        "problems": [error_json(one) for one in [*done.problems, *done.wrong]],
    }
