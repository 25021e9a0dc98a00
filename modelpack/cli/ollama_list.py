"""`modelpack ollama list`, `ps` and `version`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from modelpack.cli.ollama_shared import columns, connected, host_option, when
from modelpack.cli.options import json_option
from modelpack.cli.talk import complain_of, counted, failed_json, result, result_json, talk
from modelpack.errors import Partly, Usage
from modelpack.hands.answers import Running
from modelpack.verbs.discover import Discovered, Discovery, Found
from modelpack.words.text import parse_size, size, visible


class SizeType(click.ParamType[int]):
    """Bytes, as people write them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes that *value* spells."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except Usage as error:
            self.fail(f"{error.what}. {error.advice}", param, ctx)


@click.command(
    "list",
    epilog="""\b
Examples:
  modelpack ollama list
  modelpack ollama list qwen --host 10.0.0.5
  modelpack ollama list --capability vision --capability tools --json
  modelpack ollama list --max-size 8GiB --min-context 32768""",
)
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option(
    "--capability",
    multiple=True,
    metavar="WORD",
    help="completion, vision, tools, thinking, embedding, ...; given twice, both are needed.",
)
@click.option("--family", metavar="NAME", help="llama, qwen3, ...")
@click.option("--quantization", metavar="TYPE", help="Q4_K_M, F16, ...")
@click.option("--max-size", type=SizeType(), metavar="SIZE", help="No larger than 8GiB, 500MB, ...")
@click.option("--min-context", type=click.IntRange(1), metavar="TOKENS", help="With a context that long.")
@host_option
@json_option
def list_command(
    prefix: str,
    capability: tuple[str, ...],
    family: str | None,
    quantization: str | None,
    max_size: int | None,
    min_context: int | None,
    host: str | None,
    as_json: bool,
) -> None:
    """List the installed models, or those that can do something.

    PREFIX is how their names begin. What a model can do is what the server says of it. Servers before 0.33
    tell that of one model at a time: each is asked once. In --json, null is what was not asked or is not
    known.
    """
    with connected(host) as client:
        discovery = Discovery(client)
        whole = discovery.find(
            capability=capability,
            family=family,
            quantization=quantization,
            max_size=max_size,
            min_context=min_context,
        )
        found = [one for one in whole if one.name.lower().startswith(prefix.lower())]
        problems = {
            name: error for name, error in whole.problems.items() if name.lower().startswith(prefix.lower())
        }
        if as_json:
            result_json({"models": [_json(one) for one in found], "failed": failed_json(problems)})
        else:
            for line in columns(("NAME", "ID", "SIZE", "MODIFIED"), [_row(one) for one in found]):
                result(line)
        if not found and not problems:
            _say_nothing_fits(discovery.find(), capability, client.base)
    if problems:
        complain_of(problems)
        raise Partly(
            f"{counted(len(problems), 'model')} could not be asked what it can do"
            if len(problems) == 1
            else f"{len(problems)} models could not be asked what they can do",
            failed=problems,
        )


def _say_nothing_fits(every: Discovered, capability: tuple[str, ...], base: str) -> None:
    if not every:
        talk(f"{base} has no models")
        return
    talk(f"none of {counted(len(every), 'model')} at {base} fits")
    known = sorted({word for one in every for word in one.capabilities or ()})
    unknown = [word for word in capability if word.lower() not in known]
    if unknown and known:
        talk(f"  no model there says {', '.join(unknown)}; they say: {', '.join(known)}")


def _row(one: Found) -> list[str]:
    return [
        one.name,
        one.id.short,
        "-" if one.remote or one.size is None else size(one.size),
        when(one.modified_at),
    ]


def _json(one: Found) -> dict[str, Any]:
    return {
        "name": one.name,
        "id": str(one.id),
        "size": one.size,
        "modified_at": one.modified_at,
        "family": one.family,
        "families": list(one.families),
        "parameter_size": one.parameter_size,
        "quantization": one.quantization,
        "context_length": one.context_length,
        "capabilities": None if one.capabilities is None else list(one.capabilities),
        "remote": one.remote,
    }


@click.command(
    "ps",
    epilog="""\b
Examples:
  modelpack ollama ps
  modelpack ollama ps --host 10.0.0.5 --json""",
)
@host_option
@json_option
def ps_command(host: str | None, as_json: bool) -> None:
    """List the models that are loaded and ready to answer."""
    with connected(host) as client:
        models = client.running()
    if as_json:
        result_json({"models": [_running_json(one) for one in models]})
        return
    head = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    for line in columns(head, [_running_row(one) for one in models]):
        result(line)


def _running_row(one: Running) -> list[str]:
    return [
        one.name,
        one.digest.short,
        "-" if one.size is None else size(one.size),
        _processor(one.size or 0, one.size_vram or 0),
        "-" if one.context_length is None else str(one.context_length),
        _until(one.expires_at),
    ]


def _processor(whole: int, gpu: int) -> str:
    """Where a model lies: *gpu* bytes of *whole* on a GPU, as `ollama ps` says it."""
    if gpu == 0:
        return "100% CPU"
    if gpu == whole:
        return "100% GPU"
    if not 0 < gpu < whole:
        return "Unknown"
    share = min(100, int(100 * (whole - gpu) / whole + 0.5))
    return f"{share}%/{100 - share}% CPU/GPU"


def _until(text: str | None) -> str:
    told = when(text)
    try:
        over = datetime.fromisoformat(text or "") < datetime.now(UTC)
    except (ValueError, TypeError):
        return told
    return "Stopping..." if over and told != "Never" else told


def _running_json(one: Running) -> dict[str, Any]:
    return {
        "name": one.name,
        "id": str(one.digest),
        "size": one.size,
        "size_vram": one.size_vram,
        "context_length": one.context_length,
        "expires_at": one.expires_at,
        "family": one.details.family,
        "parameter_size": one.details.parameter_size,
        "quantization": one.details.quantization_level,
    }


@click.command(
    "version",
    epilog="""\b
Examples:
  modelpack ollama version --host 10.0.0.5
  modelpack ollama version --json""",
)
@host_option
@json_option
def version_command(host: str | None, as_json: bool) -> None:
    """Say which Ollama the server is."""
    with connected(host) as client:
        about = client.about()
    if as_json:
        result_json({"host": client.base, "version": about.text, "depot": about.more.get("depot")})
        return
    depot = f" (a depot of modelpack {visible(about.more['depot'])[:40]})" if about.is_depot else ""
    result(f"Ollama {about.text} at {client.base}{depot}")
