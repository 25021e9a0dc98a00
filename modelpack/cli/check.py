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
from modelpack.documents.record import Record
from modelpack.errors import ModelpackError, Unchecked
from modelpack.verbs.check import Checked, Found, Now, check, problems_of, worst
from modelpack.verbs.record import kind_of, read
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
    records: dict[Path, Record] = {}
    unread: dict[Path, ModelpackError] = {}
    for file in files:
        try:
            records[file] = read(file)
        except ModelpackError as error:  # of our own file: it says nothing of the host
            unread[file] = Unchecked(f"this receipt cannot be read: {error.what}", where=file)
    places = [record.host.where for record in records.values() if record.host.kind == REGISTRY]
    only_registries(places[0] if places else None, access)
    if access.credentials is not None:
        one_secret(places, access)
    with Progress(quiet=quiet) as progress:
        checked = {
            file: check(record, prove=prove, access=access, calling=calling, report=progress)
            for file, record in records.items()
        }
    problems = [*problems_of(list(checked.values())), *unread.values()]
    if as_json:
        result_json([
            _json(file, checked[file]) if file in checked else _unread(file, unread[file])
            for file in dict.fromkeys(files)
        ])  # fmt: skip
    else:
        _show(list(checked.values()), quiet)
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
    if now.blobs_read:
        return f"{said}, {counted(now.blobs_read, 'blob')} read back"
    return f"{said} ID" if now.found is Found.SAME else said


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
                "problems": [_problem(each) for each in now.problems],
            }
            for now in one.models
        ],
        "remarks": list(one.remarks),
        "problems": [],
    }


def _unread(file: Path, error: ModelpackError) -> dict[str, Any]:
    """As `_json`, of a receipt of which nothing is known."""
    return {
        "receipt": str(file), "kind": None, "where": None, "models": [], "remarks": [],
        "problems": [_problem(error)],
    }  # fmt: skip


def _problem(error: ModelpackError) -> dict[str, str]:
    return {"kind": kind_of(error), "what": error.what, "where": error.where, "advice": error.advice}
