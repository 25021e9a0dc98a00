"""`modelpack ollama copy` and `delete`."""

from __future__ import annotations

import sys

import click

from modelpack.cli.ollama_shared import ModelType, connected, host_option, leave_failed, one_by_one
from modelpack.cli.options import json_option
from modelpack.cli.talk import failed_json, result, result_json, talk
from modelpack.errors import Usage
from modelpack.words.text import visible


@click.command(
    "copy",
    epilog="""\b
Examples:
  modelpack ollama copy qwen3:8b mine
  modelpack ollama copy mine 10.0.0.7:11435/library/mine""",
)
@click.argument("source", type=ModelType())
@click.argument("destination", type=ModelType())
@host_option
@json_option
def copy_command(source: str, destination: str, host: str | None, as_json: bool) -> None:
    """Give a model a second name.

    No blob is copied. A model that has the name DESTINATION loses it.
    """
    with connected(host) as client:
        client.copy(source, destination)
    if as_json:
        result_json({"source": source, "destination": destination})
    else:
        result(f"copied {source} to {destination}")


@click.command(
    "delete",
    epilog="""\b
Examples:
  modelpack ollama delete qwen3:8b
  modelpack ollama delete qwen3:8b gemma3:4b --yes""",
)
@click.argument("model", nargs=-1, required=True, type=ModelType())
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@host_option
@json_option
def delete_command(model: tuple[str, ...], yes: bool, host: str | None, as_json: bool) -> None:
    """Delete models, and blobs that no other one needs.

    One that fails does not keep the others from being deleted.
    """
    with connected(host) as client:
        if not yes and not _agreed(f"Delete {visible(', '.join(dict.fromkeys(model)))} at {client.base}?"):
            talk("nothing was deleted")
            return
        done: list[str] = []

        def delete(name: str) -> None:
            client.delete(name)
            done.append(name)
            if not as_json:
                result(f"deleted {name}")

        failed = one_by_one(model, delete)
    if as_json:
        result_json({"deleted": done, "failed": failed_json(failed)})
    leave_failed(failed, model, "model", "could not be deleted")


def _agreed(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Usage(
            "delete asks, and nobody is there to answer", advice="Give --yes to delete without asking."
        )
    return click.confirm(question, default=False, err=True)
