"""`modelpack ollama show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from modelpack.cli.ollama_shared import ModelType, connected, host_option
from modelpack.cli.options import json_option
from modelpack.cli.talk import result, result_json
from modelpack.cli.verbatim import verbatim
from modelpack.errors import Usage
from modelpack.hands.answers import Shown
from modelpack.words.text import visible

_PARTS = ("modelfile", "parameters", "template", "system", "license")
_LINE = 72  # characters of a line of text that are shown of a summary
_ITEMS = 3  # of a list in the metadata
Rows = list[list[str]]


@click.command(
    epilog="""\b
Examples:
  modelpack ollama show qwen3:8b
  modelpack ollama show qwen3:8b --modelfile > Modelfile
  modelpack ollama show qwen3:8b --json | jq .capabilities"""
)
@click.argument("model", type=ModelType())
@click.option("--modelfile", is_flag=True, help="Print its Modelfile.")
@click.option("--parameters", is_flag=True, help="Print its parameters.")
@click.option("--template", is_flag=True, help="Print its template.")
@click.option("--system", is_flag=True, help="Print its system message.")
@click.option("--license", "license_", is_flag=True, help="Print its licences.")
@click.option("-v", "--verbose", is_flag=True, help="Also the GGUF's metadata and tensors.")
@host_option
@json_option
def command(
    model: str,
    modelfile: bool,
    parameters: bool,
    template: bool,
    system: bool,
    license_: bool,
    verbose: bool,
    host: str | None,
    as_json: bool,
) -> None:
    """Show what a model is, and what it can do.

    --json prints what the server answers, whole.
    """
    asked = (modelfile, parameters, template, system, license_)
    chosen = [part for part, wanted in zip(_PARTS, asked, strict=True) if wanted]
    if len(chosen) > 1:
        raise Usage(f"{' and '.join(f'--{one}' for one in chosen)} are asked for one at a time")
    with connected(host) as client:
        shown = client.show(model, verbose=verbose)
    if as_json:
        result_json({chosen[0]: getattr(shown, chosen[0])} if chosen else shown.raw)
    elif chosen:
        verbatim(getattr(shown, chosen[0]) or "")
    else:
        for title, rows in _sections(shown, verbose):
            _section(title, rows)


def _section(title: str, rows: Rows) -> None:
    """A title, and rows in columns below it, as `ollama show` sets them."""
    result(f"  {title}")
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [
        max((len(row[at]) for row in cells if len(row) > at + 1), default=0)
        for at in range(max(map(len, cells), default=0))
    ]
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        result("    " + "    ".join([*padded, row[-1]]))
    result()


def _sections(shown: Shown, verbose: bool) -> Iterator[tuple[str, Rows]]:
    yield "Model", _model(shown)
    if shown.capabilities:
        yield "Capabilities", [[one] for one in shown.capabilities]
    if shown.projector_info:
        yield "Projector", _projector(shown.projector_info)
    if shown.parameters:
        yield "Parameters", [line.split(maxsplit=1) for line in shown.parameters.splitlines() if line.strip()]
    if verbose and shown.model_info:
        yield "Metadata", [[key, _value(value)] for key, value in sorted(shown.model_info.items())]
    if verbose and shown.tensors:
        yield (
            "Tensors",
            [[one.name or "?", one.type or "?", _value(list(one.shape))] for one in shown.tensors],
        )
    if shown.system:
        yield "System", _head(shown.system)
    if shown.license:
        yield "License", _head(shown.license)


def _model(shown: Shown) -> Rows:
    info, details = shown.model_info, shown.details
    arch = info.get("general.architecture")
    rows = [
        ("Remote model", shown.remote_model),
        ("Remote URL", shown.remote_host),
        ("architecture", arch or details.family),
        ("parameters", details.parameter_size or _count(info.get("general.parameter_count"))),
        ("context length", info.get(f"{arch}.context_length") or details.context_length),
        ("embedding length", info.get(f"{arch}.embedding_length") or details.embedding_length),
        ("quantization", details.quantization_level),
        ("requires", shown.requires),
    ]
    return [[name, _value(value)] for name, value in rows if value]


def _projector(info: Mapping[str, Any]) -> Rows:
    arch = info.get("general.architecture")

    def of(suffix: str) -> Any:
        return next(
            (found for kind in ("vision", "audio") if (found := info.get(f"{arch}.{kind}.{suffix}"))), None
        )

    rows = [
        ("architecture", arch),
        ("parameters", _count(info.get("general.parameter_count"))),
        ("embedding length", of("embedding_length")),
        ("dimensions", of("projection_dim")),
    ]
    return [[name, _value(value)] for name, value in rows if value]


def _count(value: Any) -> str:
    """A number of parameters as Ollama writes it: 37K, 7.62B."""
    if type(value) is not int or value <= 0:
        return ""
    for scale, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}" if value < 1000 * scale else f"{value // scale}{letter}"
    return str(value)


def _value(value: Any, depth: int = 2) -> str:
    """A value of the metadata in one short line; of lists within lists as many as *depth*."""
    if isinstance(value, dict) or (isinstance(value, list) and not depth):
        return "..."
    if isinstance(value, list):
        shown = ", ".join(_value(one, depth - 1) for one in value[:_ITEMS])
        return f"[{shown}, ..., {len(value)} in all]" if len(value) > _ITEMS else f"[{shown}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return _cut(str(value))


def _head(text: str) -> Rows:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [[_cut(line)] for line in lines[:2]] + ([["..."]] if len(lines) > 2 else [])


def _cut(line: str) -> str:
    return line if len(line) <= _LINE else line[: _LINE - 3] + "..."
