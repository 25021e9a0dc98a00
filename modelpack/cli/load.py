"""`modelpack load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from modelpack.cli.loading import Loading, loading_options
from modelpack.cli.plan import show as show_plan
from modelpack.cli.plan_shown import tell
from modelpack.cli.progress import Progress
from modelpack.cli.record_shown import states_shown, tried_shown, unproven_shown, ways_shown
from modelpack.cli.talk import (
    asking,
    complain,
    complain_of,
    failed_json,
    result,
    result_json,
    table,
    talk,
    warn,
)
from modelpack.documents.receipt import Receipt
from modelpack.errors import ModelpackError, Partly, Usage
from modelpack.stores import Target
from modelpack.stores.wrappers import closed
from modelpack.verbs.afterwards import Afterwards
from modelpack.verbs.plans import Plan
from modelpack.verbs.preflight import preflight, stop
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack load qwen3.tar
  modelpack load qwen3.tar --to http://10.0.0.5:11434 --receipt qwen3.json
  sudo modelpack load bundle/ --to /usr/share/ollama/.ollama/models
  ssh host cat qwen3.tar | modelpack load -"""
)
@loading_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `modelpack plan`.")
@click.option("--force", is_flag=True, help="Load in spite of warnings.")
@click.option("--prove", is_flag=True, help="Read back and hash what was there before.")
@click.option("--try", "try_", is_flag=True, help="Ask each model for one token.")
@click.option(
    "--receipt", metavar="FILE", type=click.Path(path_type=Path), help="Write down what arrived, as JSON."
)
def command(
    ends: Loading,
    dry_run: bool,
    force: bool,
    prove: bool,
    try_: bool,
    receipt: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load models from a BUNDLE into an Ollama server, a models directory or a registry.

    All models are loaded, or those named. Only blobs that are missing there are sent, straight from their
    place in the bundle; a model gets its name last. `-` reads the bundle from a pipe.

    A server that can call this machine back ends with the same model, to the byte and the ID; any other makes
    a model of the same meaning (create). Which way it goes is decided before the first byte, and said.
    """
    if receipt is not None and str(receipt) == "-":
        raise Usage("--receipt needs a file: standard output is for the result")
    if dry_run:
        if prove or try_ or receipt is not None:
            raise Usage("--prove, --try and --receipt are of what was loaded: not with --dry-run")
        show_plan(ends, as_json, quiet)
        return
    failed: Mapping[str, ModelpackError] = {}
    partly: Partly | None = None
    with Progress(quiet=quiet) as progress, closed(ends.source):

        def work(replace: bool) -> tuple[list[Receipt], Afterwards]:
            target = ends.target(replace=replace)
            after = Afterwards(
                target, receipt=receipt, proving=prove, trying=try_, bundle=ends.fingerprint,
                access=ends.access, calling=ends.wish.calling if ends.wish is not None else None,
            )  # fmt: skip

            def agree(todo: Plan) -> None:
                progress.rest()
                _agree(todo, ends, target, force=force, quiet=quiet)

            try:
                return copy(ends.source, ends.models, target, progress, agree=agree), after
            except Partly as error:
                nonlocal partly
                partly = error
                return [one for one in error.done if isinstance(one, Receipt)], after

        receipts, after = asking(work, ends.replace, progress.rest)
        failed = partly.failed if partly is not None else {}
        aftermath = after.finish(receipts, failed, progress)
    if as_json:
        result_json(
            {
                "fingerprint": str(ends.fingerprint) if ends.fingerprint is not None else None,
                "models": [one.to_json() for one in aftermath.receipts],
                "failed": failed_json(failed),
                "afterwards": {step: failed_json(errors) for step, errors in aftermath.failed.items()},
            }
        )
    else:
        _show(aftermath.receipts, failed, quiet)
    problems = [*([partly] if partly is not None else []), *aftermath.errors]
    for problem in problems[1:]:
        complain(problem)
    if problems:
        raise problems[0]


def _agree(todo: Plan, ends: Loading, target: Target, *, force: bool, quiet: bool) -> None:
    """Say which way models go, and what speaks against it; raises where that is too much."""
    pending = [way for way, placed in zip(todo.ways, todo.placed, strict=False) if placed is None]
    for way, why in dict.fromkeys(pending):
        talk(f"{way}: {why}", quiet=quiet)
    findings = preflight(todo, ends.source, target)
    tell(findings, quiet=quiet)
    stop(findings, force=force)


def _moved(receipt: Receipt) -> str:
    return "was there already" if receipt.there else f"{size(receipt.bytes_sent)} sent"


def _show(receipts: Sequence[Receipt], failed: Mapping[str, ModelpackError], quiet: bool) -> None:
    rows = [
        [str(one.name), one.id.short if one.id else "-", size(one.model.size), _moved(one)]
        for one in receipts
    ]
    rows += [[str(Name.parse(name)), "-", "-", "failed"] for name in failed]
    for line in table(rows):
        result(line)
    complain_of(failed)
    for line in [*ways_shown(receipts), *states_shown(receipts), *tried_shown(receipts)]:
        talk(line, quiet=quiet)
    for name, what in unproven_shown(receipts).items():
        warn(f"{name}: {what}")
    for one in receipts:
        if one.note:
            warn(f"{one.name}: {one.note}")
