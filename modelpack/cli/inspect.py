"""`modelpack inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelpack.cli.inspect_models import model_lines, models_json, table_lines
from modelpack.cli.options import callback_options, expect_option, json_option, quiet_option, registry_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import bundle_lines, counted, leave_by, result, result_json, warn
from modelpack.cli.verbatim import verbatim
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, Unsupported, Usage
from modelpack.hands.hashing import blamed
from modelpack.stores import Source
from modelpack.stores.wrappers import closed
from modelpack.verbs import locate
from modelpack.verbs.attach import attachments_of
from modelpack.verbs.inspect import Inspected, inspect
from modelpack.verbs.registries import Access
from modelpack.words.digest import Digest
from modelpack.words.report import Report
from modelpack.words.text import size, visible

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@click.command(
    epilog="""\b
Examples:
  modelpack inspect qwen3.tar
  modelpack inspect ~/.ollama/models
  modelpack inspect qwen3:8b --modelfile
  modelpack inspect qwen3.gguf --key tokenizer.chat_template"""
)
@click.argument("locator")
@click.option("--metadata", "all_keys", is_flag=True, help="Print what the GGUFs say, key by key.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Print this key of the GGUFs, in full.")
@click.option("--modelfile", is_flag=True, help="Print a Modelfile, as `ollama show --modelfile` does.")
@click.option(
    "--create-request", is_flag=True, help="Print the JSON body of POST /api/create for each model."
)
@callback_options
@registry_options
@expect_option
@json_option
@quiet_option
def command(
    locator: str,
    all_keys: bool,
    keys: tuple[str, ...],
    modelfile: bool,
    create_request: bool,
    access: Access,
    calling: Calling | None,
    expect: Digest | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what is in a models directory, a bundle, a Modelfile or a GGUF, in a registry or a server.

    Several models are listed with their sizes and what they share; a single one is shown in full: its
    layers, and what its GGUF says. LOCATOR#NAME picks one model.
    """
    if sum((all_keys or bool(keys), modelfile, create_request)) > 1:
        raise Usage("--metadata or --key, --modelfile and --create-request are asked for one at a time")
    place = locate.Located.parse(locator)
    locate.only_servers([place.text], calling)
    with closed(locate.source(place.text, expect=expect, access=access, calling=calling)) as source:
        with Progress(quiet=quiet) as progress:
            with blamed(place.text):
                found = inspect(source, [place.pick] if place.pick else [])
            if create_request:
                _requests(source, _models(found, place.text), progress)
                return
        if modelfile:
            _modelfiles(source, _models(found, place.text), as_json)
        elif all_keys or keys:
            _metadata(source, found, keys, as_json)
        elif as_json:
            result_json(models_json(source, found))
        else:
            _show(place.text, source, found)
    for remark in found.remarks if not quiet else ():
        warn(remark)
    if found.gguf is None:
        leave_by(found.problems)
    elif not all_keys and not keys:
        # An adapter alone is whole, and no model; of a shard alone the rest is missing.
        leave_by([one for one in found.problems if not isinstance(one, Unsupported)])


def _models(found: Inspected, where: str) -> Sequence[Model]:
    if not found.models and found.problems:
        raise found.problems[0]
    return locate.choose(found.models, [], where)


def _requests(source: Source, models: Sequence[Model], report: Report) -> None:
    from modelpack.verbs.plans import settle
    from modelpack.verbs.requests import create_request_of

    requests = [create_request_of(source, one) for one in settle(source, models, report, blake3=False)]
    result_json(requests[0] if len(requests) == 1 else requests)


def _modelfiles(source: Source, models: Sequence[Model], as_json: bool) -> None:
    from modelpack.verbs.modelfiles import modelfile_of

    texts: dict[str, str] = {}
    problems: list[ModelpackError] = []
    for model in models:
        try:
            with blamed(model.name):
                texts[model.name.full] = modelfile_of(source, model)
        except ModelpackError as error:
            problems.append(error)
    if as_json:
        found = [{"name": name, "modelfile": text} for name, text in texts.items()]
        result_json(found[0] if len(models) == 1 and found else found)
    else:
        verbatim("\n".join(texts.values()))
    leave_by(problems)


def _metadata(source: Source, found: Inspected, keys: Sequence[str], as_json: bool) -> None:
    from modelpack.cli.inspect_metadata import metadata_json, metadata_lines
    from modelpack.verbs.metadata import metadata

    headers = metadata(source, found.models, keys)
    if as_json:
        result_json(metadata_json(headers))
    else:
        for line in metadata_lines(headers, in_full=bool(keys)):
            click.echo(visible(line))
    leave_by([one.header for one in headers if not isinstance(one.header, Gguf)])


def _show(place: str, source: Source, found: Inspected) -> None:
    if found.fingerprint is None:
        result(f"{place}: a {found.kind}")
    for line in bundle_lines(place, found.fingerprint) if found.fingerprint is not None else ():
        result(line)
    if delta := found.delta:
        of = list(dict.fromkeys(str(one.name) for one in delta.blobs))
        names = ", ".join(of[:3]) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
        count = counted(len(delta.blobs), "blob")
        result(f"  a delta: it expects {count} ({size(delta.size)}) at the target, of {names}")
    for one in attachments_of(source):
        result(f"  {one.path}  {size(one.blob.size)}  {one.blob.digest.short if one.blob.digest else ''}")
    lines = model_lines(source, found) if len(found.models) < 2 else table_lines(found)
    for line in lines:
        result(line)
