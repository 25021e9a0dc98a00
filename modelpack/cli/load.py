"""`modelpack load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

import click

from modelpack.cli.options import NameType, expect_option, json_option, quiet_option, registry_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import (
    asking,
    bundle_lines,
    complain_of,
    counted,
    failed_json,
    result,
    result_json,
    table,
    talk,
    warn,
)
from modelpack.cli.words import WAYS
from modelpack.documents.receipt import Receipt
from modelpack.errors import ModelpackError, Partly, Unsupported, Usage
from modelpack.stores import Identified, OneWay, Source
from modelpack.verbs import locate
from modelpack.verbs.plans import Plan, plan
from modelpack.verbs.registries import HTTPS, Access, is_registry, one_secret
from modelpack.verbs.requests import create_request_of, makes_requests
from modelpack.verbs.transfer import copy
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack load qwen3.tar
  modelpack load qwen3.tar --to http://10.0.0.5:11434 --dry-run
  sudo modelpack load bundle/ --to /usr/share/ollama/.ollama/models
  ssh host cat qwen3.tar | modelpack load -"""
)
@click.argument("bundle")
@click.argument("model", nargs=-1)
@click.option(
    "--to",
    metavar="TARGET",
    help="http://HOST[:PORT], a models directory, or oci://HOST[:PORT]/NAMESPACE; by default $OLLAMA_HOST.",
)
@click.option("--as", "name", type=NameType(), help="Another name for the model there.")
@click.option("--replace", is_flag=True, help="Replace another model that has the name.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--as-artifact", is_flag=True, help="To a registry: as modelpack's own artifacts, recipes too.")
@registry_options
@expect_option
@json_option
@quiet_option
def command(
    bundle: str,
    model: tuple[str, ...],
    to: str | None,
    name: Name | None,
    replace: bool,
    dry_run: bool,
    access: Access,
    expect: Digest | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load models from a BUNDLE into an Ollama server, a models directory or a registry.

    All models are loaded, or those named. Only blobs that are missing there are sent, straight from their
    place in the bundle; a model gets its name last. `-` reads the bundle from a pipe.
    """
    place = locate.Located.parse(bundle)
    afar = is_registry(place.text)
    one_secret([place.text, to], access)
    source = locate.source(place.text, expect=expect, access=access if afar else HTTPS)
    by = HTTPS if afar and not is_registry(to or "") else access
    chosen = locate.picked(source, [*model, *([place.pick] if place.pick else [])], bundle)
    if name is not None:
        if len(chosen) > 1:
            raise Usage("--as needs a single model", advice="Name it: modelpack load BUNDLE MODEL --as NAME")
        chosen = [changed(chosen[0], name=name)]
    for line in bundle_lines(bundle, source.fingerprint) if isinstance(source, Identified) else ():
        talk(line, quiet=quiet)
    partly: Partly | None = None
    with Progress(quiet=quiet) as progress:
        if dry_run:
            target = locate.target(to, source, replace=replace, access=by)
            todo = plan(source, chosen, target, progress)
            requests = _requests(source, todo) if makes_requests(target) else []
        else:
            try:
                receipts = asking(
                    lambda yes: copy(
                        source, chosen, locate.target(to, source, replace=yes, access=by), progress
                    ),
                    replace,
                    progress.rest,
                )
            except Partly as error:
                partly = error
                receipts = [one for one in error.done if isinstance(one, Receipt)]
    if dry_run:
        _show_plan(todo, requests, as_json)
        if todo.failed:
            raise SystemExit(Partly.exit_code)
    elif as_json:
        result_json(
            {
                "fingerprint": _fingerprint(source),
                "models": [one.to_json() for one in receipts],
                "failed": failed_json(partly.failed) if partly else [],
            }
        )
    else:
        _show(receipts, partly.failed if partly else {}, quiet)
    if partly is not None:
        raise partly


def _fingerprint(source: Source) -> str | None:
    return str(source.fingerprint) if isinstance(source, Identified) else None


def _requests(source: Source, todo: Plan) -> list[dict[str, Any]]:
    if isinstance(source, OneWay):
        raise Unsupported(
            "a pipe's small files come after the plan is made, so the create request cannot be shown",
            advice="Use --dry-run on a file or a folder.",
        )
    return [create_request_of(source, one) for one in todo.models]


def _show_plan(todo: Plan, requests: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        result_json(
            {
                "models": [
                    {"name": one.name.full, "document": str(one.document.id), "there": placed is not None}
                    for one, placed in zip(todo.models, todo.placed, strict=True)
                ],
                "missing": [{"digest": str(one.digest), "size": one.size} for one in todo.missing],
                "present": [{"digest": str(one.digest), "size": one.size} for one in todo.present],
                "bytes": todo.bytes,
                "notes": list(todo.notes),
                "failed": failed_json({model.name.full: error for model, error in todo.failed}),
                "create_requests": list(requests),
            }
        )
        return
    rows = [
        [str(one.name), one.document.id.short, "is there already" if placed else "would be loaded"]
        for one, placed in zip(todo.models, todo.placed, strict=True)
    ]
    rows += [[str(one.name), one.document.id.short, f"cannot: {why.what}"] for one, why in todo.failed]
    for line in table(rows):
        result(line)
    blobs = [("send", blob) for blob in todo.missing] + [("there", blob) for blob in todo.present]
    for line in table(
        [
            [word, one.kind, size(one.size), one.digest.file_name[:19] if one.digest else "?"]
            for word, one in blobs
        ],
        "  ",
    ):
        result(line)
    result(f"{size(todo.bytes)} to send")
    for note in todo.notes:
        warn(note)
    for request in requests:
        result("POST /api/create")
        result_json(request)


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
    for way in dict.fromkeys(one.way for one in receipts):
        talk(f"{way}: {WAYS.get(way, way)}", quiet=quiet)
    by_name = {blob.id: blob for one in receipts if one.same_bytes and not one.there for blob in one.present}
    if by_name:
        count, bytes_there = len(by_name), size(sum(blob.size for blob in by_name.values()))
        talk(f"{counted(count, 'blob')} ({bytes_there}) there before, by name and size alone", quiet=quiet)
    for one in receipts:
        if one.note:
            warn(f"{one.name}: {one.note}")
