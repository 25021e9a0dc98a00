"""`modelpack plan`."""

from __future__ import annotations

from typing import Any

import click

from modelpack.cli.loading import Loading, loading_options
from modelpack.cli.plan_shown import show_plan
from modelpack.cli.progress import Progress
from modelpack.errors import Partly, Unsupported
from modelpack.stores import OneWay, Source, Target
from modelpack.stores.wrappers import closed
from modelpack.verbs.plans import Plan, plan
from modelpack.verbs.preflight import preflight
from modelpack.verbs.requests import create_request_of, makes_requests


@click.command(
    epilog="""\b
Examples:
  modelpack plan qwen3.tar --to http://10.0.0.5:11434
  modelpack plan qwen3.tar --to inventory.json"""
)
@loading_options
def command(ends: Loading, as_json: bool, quiet: bool) -> None:
    """Say what `load` would do, and what speaks against it; nothing is changed.

    TARGET may also be what `modelpack inventory` wrote of a host: before the trip it tells what would have to
    travel.
    """
    show(ends, as_json, quiet)


def show(ends: Loading, as_json: bool, quiet: bool) -> None:
    """Plan, look, and show both; leaves by 8 where some models cannot be had there, and where a name is taken
    and nothing else is left, by the code that `load` would leave by.
    """
    with Progress(quiet=quiet) as progress, closed(ends.source):
        target = ends.target(replace=ends.replace)
        todo = plan(ends.source, ends.models, target, progress)
        findings = preflight(todo, ends.source, target)
        requests = _requests(ends.source, todo, target)
    show_plan(todo, findings, requests, as_json)
    if todo.failed:
        raise SystemExit(Partly.exit_code if todo.models else todo.failed[0][1].exit_code)
    if any(one.level == "error" for one in findings):
        raise SystemExit(Unsupported.exit_code)


def _requests(source: Source, todo: Plan, target: Target) -> list[dict[str, Any]]:
    ways = [way for way, _ in todo.ways] or ["create" if makes_requests(target) else ""] * len(todo.models)
    made = [model for model, way in zip(todo.models, ways, strict=True) if way == "create"]
    if made and isinstance(source, OneWay):
        raise Unsupported(
            "a pipe's small files come after the plan is made, so the create request cannot be shown",
            advice="Plan with a file or a folder.",
        )
    return [create_request_of(source, one) for one in made]
