"""`modelpack diff`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelpack.cli.options import callback_options, json_option, quiet_option, registry_options
from modelpack.cli.progress import Progress
from modelpack.cli.talk import counted, result, result_json
from modelpack.documents.difference import Change, Changed, Difference, Entry, Lone
from modelpack.errors import Different, Unchecked
from modelpack.verbs.diff import diff
from modelpack.verbs.registries import Access
from modelpack.words.text import size, visible

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling

_VALUE = 100
"""Characters of a value that are shown."""
_CHANGES = 20
"""Changes of one part that are shown: --json has them all."""
_MODELS = 200


@click.command(
    epilog="""\b
Examples:
  modelpack diff monday.tar tuesday.tar
  modelpack diff qwen3.tar#qwen3:8b http://10.0.0.7:11434
  modelpack diff inventory.json /usr/share/ollama/.ollama/models
  modelpack diff a.gguf b.gguf

\b
Exit codes: 0 the same, 12 differs, 11 not all could be compared and
nothing else differs."""
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@callback_options
@registry_options
@json_option
@quiet_option
def command(a: str, b: str, access: Access, calling: Calling | None, as_json: bool, quiet: bool) -> None:
    """Tell what it takes to get from A to B: models added, removed, changed, and what of them.

    A and B are bundles, models directories, servers (http://…), models in registries (oci://…), loose
    files, inventories or receipts; LOCATOR#NAME is one model. IDs are compared, and only of a model whose ID
    differs is looked into what: weights, template, system, parameters, licence, what its GGUFs say.
    """
    with Progress(quiet=quiet) as progress:
        found = diff(a, b, access=access, calling=calling, report=progress)
    if as_json:
        result_json(found.to_json())
    else:
        for line in _lines(found):
            result(line)
    if found.differs:
        raise SystemExit(Different.exit_code)
    if found.unsure:
        raise SystemExit(Unchecked.exit_code)


def _lines(found: Difference) -> Iterator[str]:
    """The whole answer: removed, added, renamed, changed, and a line that counts."""
    yield f"- {found.a}"
    yield f"+ {found.b}"
    rows = [*_alone("-", found.removed), *_alone("+", found.added)]
    rows += [f"  {one.name} ({_id(one)}) is called {two.name} there" for one, two in found.renamed]
    yield from rows[:_MODELS]
    if len(rows) > _MODELS:
        yield f"  and {len(rows) - _MODELS} more (--json lists them)"
    for each in found.changed[:_MODELS]:
        yield from _changed(each)
    if len(found.changed) > _MODELS:
        yield f"  and {len(found.changed) - _MODELS} more models that changed (--json lists them)"
    for sentence in found.unsure:
        yield f"not compared: {sentence}"
    counts = [
        f"{len(some)} {word}"
        for some, word in (
            (found.removed, "removed"),
            (found.added, "added"),
            (found.renamed, "renamed"),
            (found.changed, "changed"),
            (found.unsure, "not compared"),
        )
        if some
    ]
    same = f"the same: {counted(len(found.same), 'model')}"
    if len(found.same) == 1:
        ((one, two),) = found.same
        names = f"{one.name}" if one.name.folded == two.name.folded else f"{one.name} and {two.name}"
        same = f"the same: {names} ({_id(two)})"
    yield ", ".join([*counts, same] if found.same or not counts else counts)


def _alone(sign: str, some: Sequence[Lone]) -> Iterator[str]:
    for one in some:
        names = ", ".join(str(name) for name in one.twins[:3])
        more = f" and {len(one.twins) - 3} more" if len(one.twins) > 3 else ""
        total = f"  {size(one.entry.size)}" if one.entry.size is not None else ""
        yield (
            f"{sign} {one.entry.name}  {_id(one.entry)}{total}"
            + (f"  the same model as {names}{more}" if names else "")
        )


def _id(entry: Entry) -> str:
    return entry.id.short if entry.id is not None else "no ID"


def _changed(one: Changed) -> Iterator[str]:
    names = str(one.after.name)
    if one.before.name.folded != one.after.name.folded:
        names = f"{one.before.name} and {one.after.name}"
    yield f"! {names}  {_id(one.before)} → {_id(one.after)}"
    parts: dict[str, list[Change]] = {}
    for change in one.changes:
        parts.setdefault(change.part, []).append(change)
    for part, changes in parts.items():
        for change in changes[:_CHANGES]:
            yield from _change(change)
        if len(changes) > _CHANGES:
            yield f"    and {len(changes) - _CHANGES} more of {part} (--json lists them)"
    for sentence in one.unsure:
        yield f"    not compared: {sentence}"


def _change(one: Change) -> Iterator[str]:
    what = f"{one.part} {_clipped(one.key)}" if one.key else one.part
    if one.note:
        yield f"    {what}: {one.note}"
    elif one.before is not None or one.after is not None:
        yield f"    {what}: {_value(one.before)} → {_value(one.after)}"
    for line in one.lines:
        yield f"        {line}"


def _value(value: Any) -> str:
    """A value in a line; a blob or a text by its digest's first digits and its size."""
    if value is None:
        return "nothing"
    if isinstance(value, dict) and isinstance(value.get("digest"), str) and "size" in value:
        words = [str(value["digest"])[:19], size(value["size"]) if value["size"] is not None else ""]
        words += [str(value[key]) for key in ("type", "file") if key in value]
        if "begins" in value:
            words.append(json.dumps(value["begins"], ensure_ascii=False) + "…")
        return _clipped(" ".join(word for word in words if word))
    if isinstance(value, dict) and value.keys() == {"digests"}:
        return ", ".join(str(digest)[:19] for digest in value["digests"])
    if isinstance(value, dict) and {"of", "count", "digest"} == value.keys():
        return f"[{value['count']} {value['of']}s] {str(value['digest'])[:19]}"
    if isinstance(value, dict) and value.keys() == {"type", "value"}:
        return f"{_value(value['value'])} ({value['type']})"
    plain = isinstance(value, str) and value and value == value.strip()
    return _clipped(value if plain else json.dumps(value, ensure_ascii=False))


def _clipped(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"
