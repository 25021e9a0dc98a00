"""`modelpack unpack`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelpack.cli.loading import warn_of_stripped
from modelpack.cli.options import callback_options, expect_option, json_option, quiet_option
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
from modelpack.cli.trust_options import trust_options
from modelpack.documents.extras import is_attached
from modelpack.documents.receipt import Receipt
from modelpack.documents.recipe import Recipe
from modelpack.errors import ModelpackError, Partly
from modelpack.stores import Identified
from modelpack.stores.plain import MODELFILE, PlainFolder, Record
from modelpack.stores.wrappers import closed
from modelpack.verbs import locate
from modelpack.verbs.attach import returned, uncovered
from modelpack.verbs.transfer import copy
from modelpack.verbs.trust import GOOD, Trust, check
from modelpack.words.blob import ADAPTER, DRAFT, MODEL, PROJECTOR
from modelpack.words.digest import Digest
from modelpack.words.text import size

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling

_OPTIONS = {MODEL: "-m", PROJECTOR: "--mmproj", ADAPTER: "--lora", DRAFT: "-md"}
"""How llama-server takes a GGUF of each kind."""


@click.command(
    epilog="""\b
Examples:
  modelpack unpack qwen3.tar qwen3/
  modelpack unpack models.tar out/ qwen3:8b
  modelpack unpack models.tar#qwen3:8b qwen3/
  ssh host cat qwen3.tar | modelpack unpack - qwen3/"""
)
@click.argument("bundle")
@click.argument("directory")
@click.argument("model", nargs=-1)
@click.option("--no-modelfile", is_flag=True, help="Write no Modelfile, as where it cannot hold a text.")
@click.option("--replace", is_flag=True, help="Replace another model, and files of the same names.")
@callback_options
@trust_options
@expect_option
@json_option
@quiet_option
def command(
    bundle: str,
    directory: str,
    model: tuple[str, ...],
    no_modelfile: bool,
    replace: bool,
    calling: Calling | None,
    trust: Trust,
    expect: Digest | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Unpack models from a BUNDLE into plain files, for llama.cpp and LM Studio.

    One model lies right in DIRECTORY: its GGUFs, Modelfile and licences; documents/ has the rest of it.
    Several get a folder each. `modelpack pack DIRECTORY` makes the same model again, with the same ID, as
    long as no file was changed. All models are unpacked, or those named. `-` reads the bundle from a pipe.
    """
    directory = os.path.expanduser(directory)
    place = locate.Located.parse(bundle)
    locate.only_servers([place.text], calling)
    partly: Partly | None = None
    attached: list[str] = []
    with closed(locate.source(place.text, expect=expect, calling=calling)) as source:
        signed = check(source, trust, bundle)
        chosen = locate.picked(source, [*model, *([place.pick] if place.pick else [])], bundle)
        signed.hold(source)
        warn_of_stripped(source, signed)
        if signed.state != GOOD and (expect is not None or trust.all.expect is not None):
            for path in uncovered(source):
                if is_attached(path):
                    warn(f"{path} is not covered by the fingerprint: only a signature says whose it is")
        fingerprint = source.fingerprint if isinstance(source, Identified) else None
        for line in bundle_lines(bundle, fingerprint) if fingerprint is not None else ():
            talk(line, quiet=quiet)
        with Progress(quiet=quiet) as progress:
            try:

                def work(yes: bool) -> list[Receipt]:
                    target = locate.plain_target(directory, source, modelfile=not no_modelfile, replace=yes)
                    with returned(source, Path(directory), replace=yes, report=progress) as back:
                        receipts = copy(source, chosen, target, progress)
                    attached[:] = [one.path for one in back]
                    return receipts

                receipts = asking(work, replace, progress.rest)
            except Partly as error:
                partly = error
                receipts = [one for one in error.done if isinstance(one, Receipt)]
    records = _records(directory) if receipts else {}
    failed = partly.failed if partly is not None else {}
    if as_json:
        result_json(
            {
                "directory": directory,
                "fingerprint": str(fingerprint) if fingerprint is not None else None,
                "models": [one.to_json() | _json(records[one.name.folded]) for one in receipts],
                "attachments": attached,
                "failed": failed_json(failed),
            }
        )
    else:
        _show(receipts, records, failed, directory, replace, quiet)
        for path in attached:
            result(f"attached: {os.path.join(directory, path)}")
    if partly is not None:
        raise partly


def _records(directory: str) -> dict[str, Record]:
    """What was unpacked there, by the folded name of the model."""
    plain = locate.plain_target(directory)
    return plain.unpacked() if isinstance(plain, PlainFolder) else {}


def _json(record: Record) -> dict[str, object]:
    return {
        "folder": record.folder,
        "files": {
            path: {"digest": str(blob.digest), "size": blob.size, "media_type": blob.media_type}
            for path, blob in record.files.items()
        },
        "modelfile": str(record.modelfile) if record.modelfile is not None else None,
    }


def _show(
    receipts: Sequence[Receipt],
    records: Mapping[str, Record],
    failed: Mapping[str, ModelpackError],
    directory: str,
    replaced: bool,
    quiet: bool,
) -> None:
    read = "every file was read" if replaced else "its files were not read again"
    for one in receipts:
        record = records[one.name.folded]
        there = f"  (was there already; {read})" if one.there else ""
        result(f"{one.name}  {one.model.document.id.short}  {os.path.join(directory, record.folder)}{there}")
        for line in table(_rows(record, directory), "  "):
            result(line)
        if one.note:
            warn(f"{one.name}: {one.note}")
    complain_of(failed)
    for line in _uses(records[receipts[0].name.folded], directory) if receipts else ():
        talk(line, quiet=quiet)


def _rows(record: Record, directory: str) -> list[list[str]]:
    named = {path: blob for path, blob in record.files.items() if not path.startswith("documents/")}
    rows = [[path, size(blob.size)] for path, blob in named.items()]
    if record.modelfile is not None:
        rows.append([MODELFILE, size(os.path.getsize(_path(directory, record, MODELFILE)))])
    others = [blob.size for path, blob in record.files.items() if path not in named]
    return [*rows, ["documents/", f"{counted(len(others) + 2, 'file')}, {size(sum(others))} of blobs"]]


def _uses(record: Record, directory: str) -> list[str]:
    """How llama.cpp and Ollama take *record*, as far as they can."""
    lines = []
    ggufs = [
        (_OPTIONS[blob.media_type], path)
        for path, blob in record.files.items()
        if blob.media_type in _OPTIONS
    ]
    if any(option == "-m" for option, _ in ggufs):
        ggufs.sort(key=lambda one: list(_OPTIONS.values()).index(one[0]))
        words = [word for option, path in ggufs for word in (option, _path(directory, record, path))]
        lines.append(f"llama.cpp: {shlex.join(['llama-server', *words])}")
    if record.modelfile is not None:
        words = ["ollama", "create", str(record.model.name), "-f", _path(directory, record, MODELFILE)]
        document = record.model.document
        if isinstance(document, Recipe) and isinstance(kind := document.body.get("quantize"), str):
            words += ["--quantize", kind]
        lines.append(f"Ollama:    {shlex.join(words)}")
    return lines


def _path(directory: str, record: Record, path: str) -> str:
    return os.path.join(directory, record.folder, *path.split("/"))
