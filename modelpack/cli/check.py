"""`modelpack check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelpack.cli.options import callback_options, json_option, quiet_option, registry_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import complain, counted, result, result_json, table, talk
from modelpack.documents.receipt import REGISTRY
from modelpack.errors import ModelpackError
from modelpack.hands.hashing import blamed
from modelpack.verbs.check import Checked, Now, check, problems_of, unasked, worst
from modelpack.verbs.hosts import opened
from modelpack.verbs.record import read
from modelpack.verbs.registries import Access, one_secret, only_registries

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@click.command(
    epilog="""\b
Examples:
  modelpack check qwen3.receipt.json
  modelpack check --prove receipts/*.json"""
)
@click.argument("files", nargs=-1, required=True, metavar="RECEIPT...", type=click.Path(path_type=Path))
@click.option("--prove", is_flag=True, help="Read every blob back and hash it.")
@callback_options
@registry_options
@json_option
@quiet_option
def command(
    files: tuple[Path, ...], prove: bool, calling: Calling | None, access: Access, as_json: bool, quiet: bool
) -> None:
    """Ask hosts whether they still have what receipts of `load` say.

    Told is what drifted: models that are gone, or that are others under the same name; and blobs that are
    missing or, with --prove, damaged. A host that cannot be asked is never called damaged.
    """
    records = [read(file) for file in files]
    places = [record.host.where for record in records if record.host.kind == REGISTRY]
    only_registries(places[0] if places else None, access)
    if access.credentials is not None:
        one_secret(places, access)
    with Progress(quiet=quiet) as progress:
        checked = []
        for record in records:
            try:
                with blamed(record.host.where), opened(record.host, access=access, calling=calling) as there:
                    checked.append(check(record, there, prove=prove, report=progress))
            except ModelpackError as error:
                checked.append(unasked(record, error))
    problems = problems_of(checked)
    if as_json:
        result_json([_json(file, one) for file, one in zip(files, checked, strict=True)])
    else:
        _show(checked, quiet)
    for problem in problems:
        complain(problem)
    if problems:
        raise SystemExit(worst(problems))


def _show(checked: Sequence[Checked], quiet: bool) -> None:
    rows = [
        [str(now.model.name), now.model.id.short if now.model.id else "-", one.record.host.where, _said(now)]
        for one in checked
        for now in one.models
    ]
    for line in table(rows):
        result(line)
    for one in checked:
        for remark in one.remarks:
            talk(f"{one.record.host.where}: {remark}", quiet=quiet)


def _said(now: Now) -> str:
    said = str(now.found)
    return f"{said}, {counted(now.blobs_read, 'blob')} read back" if now.blobs_read else said


def _json(file: Path, one: Checked) -> dict[str, Any]:
    return {
        "receipt": str(file),
        "kind": one.record.host.kind,
        "where": one.record.host.where,
        "models": [
            {
                "name": now.model.name.full,
                "found": str(now.found),
                "was": str(now.model.id) if now.model.id else None,
                "id": str(now.id) if now.id else None,
                "blobs_read": now.blobs_read,
                "problems": [
                    {
                        "kind": type(each).__name__,
                        "what": each.what,
                        "where": each.where,
                        "advice": each.advice,
                    }
                    for each in now.problems
                ],
            }
            for now in one.models
        ],
        "remarks": list(one.remarks),
    }
