"""`modelpack ollama pull` and `push`: a transfer between the server and a registry."""

from __future__ import annotations

from collections.abc import Iterable

import click

from modelpack.cli.ollama_layers import Layers
from modelpack.cli.ollama_shared import ModelType, connected, host_option, insecure_option
from modelpack.cli.options import json_option, quiet_option
from modelpack.cli.talk import result, result_json
from modelpack.errors import Usage
from modelpack.hands.answers import Event
from modelpack.hands.ollama import Ollama
from modelpack.words.name import Name
from modelpack.words.text import size


@click.command(
    "pull",
    epilog="""\b
Examples:
  modelpack ollama pull qwen3:8b
  modelpack ollama pull --insecure 10.0.0.7:11435/library/qwen3:8b""",
)
@click.argument("model", type=ModelType())
@insecure_option
@host_option
@json_option
@quiet_option
def pull_command(model: str, insecure: bool, host: str | None, as_json: bool, quiet: bool) -> None:
    """Let the server pull a model from its registry.

    The server fetches, not this machine. Broken off (Ctrl-C), it keeps what has come, and the next pull
    goes on from there.
    """
    with connected(host) as client:
        with client.pull(model, insecure=insecure) as events:
            last = _follow(events, "pulling", quiet)
        if as_json:
            result_json({"model": model, "status": last.status})
        else:
            result(f"pulled {model}{_installed_as(client, model)}")


@click.command(
    "push",
    epilog="""\b
Examples:
  modelpack ollama copy mine 10.0.0.7:11435/library/mine
  modelpack ollama push --insecure 10.0.0.7:11435/library/mine""",
)
@click.argument("model", type=ModelType())
@insecure_option
@host_option
@json_option
@quiet_option
def push_command(model: str, insecure: bool, host: str | None, as_json: bool, quiet: bool) -> None:
    """Let the server push a model to a registry.

    MODEL tells which: HOST[:PORT]/NAMESPACE/NAME[:TAG].

    The server sends, not this machine; `modelpack load BUNDLE --to oci://...` needs no server.
    """
    with connected(host) as client, client.push(model, insecure=insecure) as events:
        last = _follow(events, "pushing", quiet)
    if as_json:
        result_json({"model": model, "status": last.status})
    else:
        result(f"pushed {model}")


def _follow(events: Iterable[Event], doing: str, quiet: bool) -> Event:
    last = Event("")
    with Layers(doing, quiet=quiet) as layers:
        for last in events:
            layers.event(last)
    return last


def _installed_as(client: Ollama, model: str) -> str:
    """The ID and the size that the server lists for *model*."""
    try:
        found = client.installed().get(Name.parse(model).folded)
    except Usage:  # a name that the server takes and we do not know
        return ""
    return f"  {found.digest.short}  {size(found.size or 0)}" if found else ""
