"""`modelpack pack`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from modelpack.cli.options import NameType, callback_options, json_option, quiet_option, registry_options
from modelpack.cli.pack_media import Media, media_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import asking, bundle_lines, complain, counted, result, result_json, table, talk, warn
from modelpack.cli.words import REMARKS
from modelpack.documents.config import QUANTIZATIONS
from modelpack.documents.model import blobs_of
from modelpack.documents.receipt import Receipt
from modelpack.documents.recipe import Recipe
from modelpack.errors import Partly, Usage
from modelpack.stores import Identified
from modelpack.stores.wrappers import closed
from modelpack.verbs import locate
from modelpack.verbs import since as delta
from modelpack.verbs.gather import Gathered, gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.registries import Access
from modelpack.verbs.since import Left
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name
from modelpack.words.text import size

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@click.command(
    epilog="""\b
Examples:
  modelpack pack qwen3-8b.gguf -o qwen3.tar
  modelpack pack qwen3:8b gemma3:4b -o models.tar
  modelpack pack qwen3:8b -o set/ --volume-size dvd --attach approval.pdf
  modelpack pack ./Modelfile -o bundle/ --name qwen3:8b
  modelpack pack oci://registry.ollama.ai/library/qwen3:8b -o qwen3.tar
  modelpack pack ./big-00001-of-00003.gguf -o - | ssh host modelpack load -"""
)
@click.argument("source", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="NAME.tar: one file. -: stdout. Else a folder."
)
@click.option("--name", type=NameType(), help="The model's name; by default the file's.")
@click.option(
    "--from",
    "from_",
    metavar="DIR|URL",
    help="Where installed models are: a directory, or a server. By default $OLLAMA_MODELS, the Linux "
    "service's, the home's.",
)
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS, case_sensitive=False),
    metavar="TYPE",
    help=f"Let the server that it is loaded to quantize: {', '.join(QUANTIZATIONS)}.",
)
@click.option(
    "--since",
    multiple=True,
    metavar="WHAT",
    help="Leave out what an inventory, an earlier bundle or a receipt says is there. May be repeated.",
)
@click.option("--replace", is_flag=True, help="Replace another archive, or another model of that name.")
@media_options
@callback_options
@registry_options
@json_option
@quiet_option
def command(
    source: tuple[str, ...],
    output: str,
    name: Name | None,
    from_: str | None,
    quantize: str | None,
    since: tuple[str, ...],
    replace: bool,
    access: Access,
    calling: Calling | None,
    media: Media,
    as_json: bool,
    quiet: bool,
) -> None:
    """Pack models into a bundle: one file, or one folder that grows.

    \b
    A SOURCE is
      a GGUF, alone or in shards (the first, or their folder)
      a Modelfile, or its folder
      a folder of a Hugging Face model
      an installed model (qwen3:8b), or a models directory
      a bundle, file or folder (BUNDLE#NAME: one of its models)
      a model in a registry (oci://HOST[:PORT]/NAMESPACE/MODEL[:TAG])
      the models of a server (http://HOST:11434, http://HOST:11434#qwen3:8b)

    Every file is read once; hashes are computed on the way. An interrupted pack leaves nothing that looks
    like a bundle.
    """
    if as_json and output == "-":
        raise Usage("--json and -o - would both write to standard output")
    if output == "-" and (media.only or media.read_back):
        raise Usage("--only and --read-back are for what lies on a medium, and -o - is a pipe")
    afar = from_ is not None and locate.is_server(from_)
    if from_ is not None and afar:
        source = tuple(locate.at_server(from_, text) for text in source)
    with Progress(quiet=quiet) as progress:
        look = Installed.here(None if afar else from_)
        found = gather(
            source,
            look=look,
            name=name,
            quantize=quantize,
            access=access,
            calling=calling,
            report=progress,
        )
        progress.rest()
        _tell(found, quiet)
        with closed(found.source):
            left = (
                delta.since(since, found.source, found.models, look, progress)
                if since
                else Left(tuple(found.models))
            )
            progress.rest()
            _tell_left(left, quiet)
            if not left.models:
                if as_json:
                    names = [model.name.full for model in left.there]
                    result_json(
                        {"bundle": None, "fingerprint": None, "models": [], "there": names, "expects": []}
                    )
                _complain_of_left_out(found, ())
                return
            extras = media.extras(found.attached, progress, quiet=quiet)
            if media.only:
                media.again(found.source, left, extras, output, progress, as_json, quiet=quiet)
                return
            target, receipts = asking(
                lambda yes: (
                    kept := locate.bundle_target(
                        output, replace=yes, expects=left.expects, extras=extras, cut=media.cut
                    ),
                    copy(found.source, left.models, kept, progress),
                ),
                replace,
                progress.rest,
            )
    fingerprint = target.fingerprint if isinstance(target, Identified) else None
    if as_json:
        result_json(
            {
                "bundle": output,
                "fingerprint": str(fingerprint),
                "models": [one.to_json() for one in receipts],
                "there": [model.name.full for model in left.there],
                "expects": left.expects.to_json(),
                "left_out": [{"what": what, "why": str(why)} for what, why in found.left_out],
            }
        )
    else:
        say = partial(talk, quiet=quiet) if output == "-" else result
        if all(receipt.there for receipt in receipts):
            talk(f"{output} has just this already; its blobs were not read again (verify does).", quiet=quiet)
        for line in bundle_lines(output, fingerprint) if fingerprint is not None else ():
            say(line)
        for line in table([_row(one) for one in receipts], "  "):
            say(line)
        if any(isinstance(one.model.document, Recipe) for one in receipts):
            talk("recipe: a server makes the model, and gives it an ID of its own", quiet=quiet)
    with Progress(quiet=quiet) as progress:
        media.look(output, progress, quiet=quiet)
    _complain_of_left_out(found, receipts)


def _complain_of_left_out(found: Gathered, receipts: Sequence[Receipt]) -> None:
    """Raise Partly where models of a whole directory or server could not be had."""
    if not found.left_out:
        return
    for _, why in found.left_out:
        complain(why)
    count = len(found.left_out)
    raise Partly(
        f"{counted(count, 'model')} left out, {len(receipts)} packed",
        failed=dict(found.left_out),
        done=receipts,
    )


def _tell(found: Gathered, quiet: bool) -> None:
    for name, place in found.found:
        talk(f"{name} is in {place}", quiet=quiet)
    several = len(found.models) > 1
    for name, remark in found.remarks:
        if remark in REMARKS:
            warn(f"{name}: {REMARKS[remark]}" if several else REMARKS[remark])
    for note in found.notes:
        warn(note)


def _tell_left(left: Left, quiet: bool) -> None:
    if left.there:
        total = size(sum(blob.size for blob in blobs_of(left.there)))
        talk(f"left out: {counted(len(left.there), 'model')} there already, {total}", quiet=quiet)
    if not left.models:
        talk("nothing to pack: all of it is there already; no bundle was written", quiet=quiet)
    elif left.expects:
        count, total = counted(len(left.expects.blobs), "blob"), size(left.expects.size)
        talk(f"the bundle is a delta: it expects {count} ({total}) at the target", quiet=quiet)


def _row(receipt: Receipt) -> list[str]:
    document = receipt.model.document
    known = "recipe" if isinstance(document, Recipe) else document.id.short
    return [str(receipt.name), known, size(receipt.model.size)]
