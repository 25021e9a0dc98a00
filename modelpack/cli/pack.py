"""`modelpack pack`."""

from __future__ import annotations

from dataclasses import replace as changed
from functools import partial

import click

from modelpack.cli.options import NameType, json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import asking, bundle_lines, result, result_json, table, talk, warn
from modelpack.cli.words import REMARKS
from modelpack.documents.receipt import Receipt
from modelpack.errors import Usage
from modelpack.stores import Identified
from modelpack.verbs import locate
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack pack qwen3-8b.gguf -o qwen3.tar
  modelpack pack qwen3-8b.gguf -o bundle/ --name qwen3:8b
  modelpack pack qwen3-8b.gguf -o - | ssh host modelpack load -"""
)
@click.argument("source")
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="NAME.tar: one file. -: stdout. Else a folder."
)
@click.option("--name", type=NameType(), help="The model's name; by default the file's.")
@click.option("--replace", is_flag=True, help="Replace another archive, or another model of that name.")
@json_option
@quiet_option
def command(source: str, output: str, name: Name | None, replace: bool, as_json: bool, quiet: bool) -> None:
    """Pack a GGUF into a bundle: one file, or one folder.

    SOURCE is read once; hashes are computed on the way. An interrupted pack leaves nothing that looks like
    a bundle.
    """
    place = locate.Located.parse(source)
    store = locate.source(place.text)
    models = locate.choose(store.models(), [place.pick] if place.pick else [], source)
    if name is not None:
        if len(models) > 1:
            raise Usage("--name needs a single model", where=source, advice="Pick one with SOURCE#NAME.")
        models = [changed(models[0], name=name)]
    if as_json and output == "-":
        raise Usage("--json and -o - would both write to standard output")
    for remark in locate.remarks(store):
        if remark in REMARKS:
            warn(REMARKS[remark])
    with Progress(quiet=quiet) as progress:
        target, receipts = asking(
            lambda yes: (
                kept := locate.bundle_target(output, replace=yes),
                copy(store, models, kept, progress),
            ),
            replace,
            progress.rest,
        )
    fingerprint = target.fingerprint if isinstance(target, Identified) else None
    if as_json:
        result_json(
            {"bundle": output, "fingerprint": str(fingerprint), "models": [one.to_json() for one in receipts]}
        )
        return
    say = partial(talk, quiet=quiet) if output == "-" else result
    if not any(receipt.sent for receipt in receipts):
        talk(f"{output} holds just this already; its blobs were not read again (verify does).", quiet=quiet)
    for line in bundle_lines(output, fingerprint) if fingerprint is not None else ():
        say(line)
    for line in table([_row(one) for one in receipts], "  "):
        say(line)


def _row(receipt: Receipt) -> list[str]:
    return [str(receipt.name), receipt.model.document.id.short, size(receipt.model.size)]
