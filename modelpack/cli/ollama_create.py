"""`modelpack ollama create`."""

from __future__ import annotations

import os

import click

from modelpack.cli.ollama_layers import Layers
from modelpack.cli.ollama_shared import connected, host_option
from modelpack.cli.options import NameType, json_option, quiet_option
from modelpack.cli.talk import result, result_json, warn
from modelpack.documents.config import QUANTIZATIONS
from modelpack.errors import NotFound
from modelpack.verbs.create import create_model
from modelpack.words.name import Name
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack ollama create mine -f ./Modelfile
  modelpack ollama create mine -f qwen3-8b.gguf --host 10.0.0.5
  modelpack ollama create small --from qwen3:8b-fp16 --quantize q4_K_M""",
)
@click.argument("model", type=NameType())
@click.option(
    "-f",
    "--file",
    "place",
    metavar="FILE",
    help="A Modelfile, a GGUF (with its shards), a folder of either or of a Hugging Face model; by default "
    "./Modelfile.",
)
@click.option("--from", "from_", type=NameType(), metavar="MODEL", help="Make it from a model that is there.")
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS, case_sensitive=False),
    metavar="TYPE",
    help=f"Let the server quantize: {', '.join(QUANTIZATIONS)}.",
)
@host_option
@json_option
@quiet_option
def command(
    model: Name,
    place: str | None,
    from_: Name | None,
    quantize: str | None,
    host: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a model on the server from files of this machine.

    Only blobs that are missing there are sent. A FROM that is a model's name means the server's own. A
    model that has the name MODEL loses it.
    """
    if from_ is None:
        place = "Modelfile" if place is None else place
        if not os.path.lexists(os.path.expanduser(place)) and "#" not in place:
            raise NotFound(
                "no such file or directory", where=place, advice="Name it with -f FILE, or --from MODEL."
            )
    with connected(host) as client, Layers("creating", quiet=quiet) as layers:
        receipt = create_model(
            client, model, place, from_=from_, quantize=quantize, report=layers, hear=layers.hear
        )
    if as_json:
        result_json({"status": "success", **receipt.to_json()})
        return
    known = receipt.id.short if receipt.id else "-"
    sent = f"{size(receipt.bytes_sent)} sent" if receipt.sent else "nothing to send"
    how = "was there already" if receipt.there else sent
    result(f"created {receipt.name}  {known}  {how}")
    if receipt.note:
        warn(receipt.note)
