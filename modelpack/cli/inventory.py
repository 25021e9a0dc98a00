"""`modelpack inventory`."""

from __future__ import annotations

from pathlib import Path

import click

from modelpack.cli.options import quiet_option
from modelpack.cli.talk import complain, counted, talk, warn
from modelpack.cli.verbatim import verbatim
from modelpack.errors import Usage
from modelpack.verbs.inventory import inventory, write
from modelpack.verbs.targets import path_of
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack inventory -o there.json
  modelpack inventory --from http://10.0.0.5:11434 -o there.json
  modelpack inventory --from /usr/share/ollama/.ollama/models
  modelpack pack ~/.ollama/models -o update.tar --since there.json"""
)
@click.option(
    "--from",
    "from_",
    metavar="DIR|URL",
    help="A models directory or a server; by default the directory of this machine, else $OLLAMA_HOST.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it there; by default to standard output.")
@quiet_option
def command(from_: str | None, output: str | None, quiet: bool) -> None:
    """Write down what models a host has.

    Names, IDs, digests and sizes as JSON, and Ollama's version; nothing of the host, its paths, users or
    clock. `pack --since` leaves out what stands in it. A server tells its models' IDs, not their blobs.
    """
    path: Path | None = None
    if output is not None and output != "-":
        path = path_of(output)
        if path.is_dir():
            raise Usage("is a directory", where=output, advice="Name a file.")
    took = inventory(from_)
    models = took.inventory.models
    talk(
        f"{took.where}: {counted(len(models), 'model')}, {size(sum(one.size for one in models))}", quiet=quiet
    )
    for error in took.left_out:
        complain(error)
    if took.left_out:
        warn(f"{counted(len(took.left_out), 'model')} left out of the inventory: not whole there")
    if path is None:
        verbatim(took.inventory.to_bytes().decode("ascii").removesuffix("\n"))
    else:
        write(path, took.inventory)
