"""How a plan, and what speaks against it, is shown."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from modelpack.cli.talk import failed_json, result, result_json, table, talk
from modelpack.verbs.plans import Plan
from modelpack.verbs.preflight import Finding
from modelpack.words.text import size, visible


def show_plan(
    todo: Plan, findings: Sequence[Finding], requests: Sequence[Mapping[str, Any]], as_json: bool
) -> None:
    """*todo* as the result: each model and its way, blobs, notes, *findings* (errors first), *requests*."""
    if as_json:
        result_json(plan_json(todo, findings, requests))
        return
    rows = [
        [str(model.name), model.document.id.short, "is there already" if placed else _would(todo, place)]
        for place, (model, placed) in enumerate(zip(todo.models, todo.placed, strict=True))
    ]
    rows += [[str(one.name), one.document.id.short, f"cannot: {why.what}"] for one, why in todo.failed]
    for line in table(rows):
        result(line)
    blobs = [("send", blob) for blob in todo.missing] + [("there", blob) for blob in todo.present]
    for line in table(
        [
            [word, one.kind, size(one.size), one.digest.file_name[:19] if one.digest else "?"]
            for word, one in blobs
        ],
        "  ",
    ):
        result(line)
    result(f"{size(todo.bytes)} to send")
    for place, (model, placed) in enumerate(zip(todo.models, todo.placed, strict=True)):
        if todo.ways and placed is None:
            way, why = todo.ways[place]
            _paragraph(f"{way}: {model.name}: {why}")
    for note in todo.notes:
        _paragraph(f"note: {note}")
    for one in findings:
        for line in _lines(one):
            _paragraph(line)
    for request in requests:
        result("POST /api/create")
        result_json(request)


def plan_json(
    todo: Plan, findings: Sequence[Finding], requests: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The same for scripts."""
    models: list[dict[str, Any]] = []
    for place, (model, placed) in enumerate(zip(todo.models, todo.placed, strict=True)):
        way = {"way": todo.ways[place][0], "why": todo.ways[place][1]} if todo.ways else {}
        there = placed is not None
        models.append({"name": model.name.full, "document": str(model.document.id), "there": there, **way})
    return {
        "models": models,
        "missing": [{"digest": str(one.digest), "size": one.size} for one in todo.missing],
        "present": [{"digest": str(one.digest), "size": one.size} for one in todo.present],
        "bytes": todo.bytes,
        "notes": list(todo.notes),
        "failed": failed_json({model.name.full: error for model, error in todo.failed}),
        "findings": [one.to_json() for one in findings],
        "create_requests": list(requests),
    }


def tell(findings: Sequence[Finding], *, quiet: bool = False) -> None:
    """Say *findings* on stderr, before something is done; with *quiet* no notes."""
    for one in findings:
        for line in _lines(one):
            for part in _wrapped(line, sys.stderr.isatty()).split("\n"):
                talk(part, quiet=quiet and one.level == "note")


def _would(todo: Plan, place: int) -> str:
    return f"would be loaded ({todo.ways[place][0]})" if todo.ways else "would be loaded"


def _lines(one: Finding) -> list[str]:
    name = f"{one.model}: " if one.model is not None else ""
    return [f"{one.level}: {name}{one.what}", *([f"  {one.advice}"] if one.advice else [])]


def _paragraph(text: str) -> None:
    for line in _wrapped(text, sys.stdout.isatty()).split("\n"):
        result(line)


def _wrapped(text: str, narrow: bool) -> str:
    """*text*, made safe, in lines of the terminal's width; whole where no terminal is, for grep's sake."""
    text = visible(text)
    if not narrow:
        return text
    indent = "  " if text.startswith("  ") else ""
    return click.wrap_text(text.strip(), shutil.get_terminal_size().columns, indent, "  ")
