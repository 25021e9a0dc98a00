"""What `modelpack inspect` says of models: several in a table, one in full."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from modelpack.cli.talk import counted, table
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import ModelpackError
from modelpack.stores import Source
from modelpack.verbs.headers import ggufs
from modelpack.verbs.inspect import Inspected
from modelpack.verbs.shared import Common, shared
from modelpack.words.blob import Blob
from modelpack.words.text import size

_WIDTH = 80
_GROUPS = 5
"""Lines about what is shared, at most; the others save less."""
_KINDS = 3
"""Kinds of blobs that such a line names, at most; the others are smaller."""


def table_lines(found: Inspected) -> Iterator[str]:
    """A line for each of several models, what they share, and what that comes to."""
    sums = shared(found.models)
    rows = [["NAME", "ID", "SIZE", "OWN", ""]]
    for cost in sums.costs:
        mark = "" if isinstance(cost.model.document, Image) else "recipe"
        rows.append([str(cost.model.name), _id(cost.model, "-"), size(cost.alone), size(cost.own), mark])
    yield ""
    yield from fitted(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if sums.common:
        yield ""
        yield "  SHARED"
        yield from _common_lines(sums.common)
    yield ""
    total = f"{counted(len(found.models), 'model')}: {size(sums.together)}"
    yield f"{total}; alone they would take {size(sums.alone)}" if sums.common else f"{total}, nothing shared"
    yield "OWN: bytes that no other model here has. LOCATOR#NAME shows one model in full."


def fitted(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines of *rows* in columns; where one would pass *width*, its first cell stands on a line before it."""
    longest = max(len(row[0]) for row in rows)
    if width is not None:
        rest = sum(2 + max(len(row[column]) for row in rows) for column in range(1, len(rows[0])))
        longest = min(longest, max(20, width - 2 - rest))
    lines = table([[row[0].ljust(longest)[:longest], *row[1:]] for row in rows], "  ")
    whole = []
    for row, line in zip(rows, lines, strict=True):
        if len(row[0]) > longest:
            whole.append(f"  {row[0]}")
            line = " " * (2 + longest) + line[2 + longest :]
        whole.append(line.rstrip())
    return whole


def _common_lines(common: Sequence[Common]) -> Iterator[str]:
    rows = [[size(one.size), _kinds(one.blobs)] for one in common[:_GROUPS]]
    used = 6 + max(len(row[0]) for row in rows) + max(len(row[1]) for row in rows)
    for row, one in zip(rows, common, strict=False):
        row.append(fitting([str(model.name) for model in one.models], _WIDTH - used))
    yield from table(rows, "  ")
    if len(common) > _GROUPS:
        saved = sum(one.saved for one in common[_GROUPS:])
        yield f"  and {counted(len(common) - _GROUPS, 'more group')} of blobs, which save {size(saved)}"


def _kinds(blobs: Sequence[Blob]) -> str:
    kinds = list(dict.fromkeys(blob.kind for blob in sorted(blobs, key=lambda blob: -blob.size)))
    return ", ".join(kinds[:_KINDS]) + (", …" if len(kinds) > _KINDS else "")


def fitting(names: Sequence[str], room: int) -> str:
    """As many of *names* as *room* has characters for, one at least."""
    for count in range(len(names), 0, -1):
        more = f" and {len(names) - count} more" if count < len(names) else ""
        text = ", ".join(names[:count]) + more
        if len(text) <= room:
            break
    return text


def model_lines(source: Source, found: Inspected) -> Iterator[str]:
    """The only model of *found*, if there is one: its layers, what of them is its own, what its GGUFs say."""
    if found.gguf is not None:
        yield from _gguf_lines(found.gguf)
        yield from (f"  {problem.what}" for problem in found.problems)
    for model in found.models:
        yield ""
        kind = "image" if isinstance(model.document, Image) else "recipe"
        yield f"{model.name}  {_id(model, 'ID not known before packing')}  {kind}"
        rows = [
            [blob.kind, size(blob.size), blob.digest.short if blob.digest else "-", blob.title or ""]
            for blob in _blobs(model)
        ]
        yield from (line.rstrip() for line in table(rows, "  "))
        total = f"  {size(model.size)} in all"
        own = shared([model, *found.beside]).costs[0].own
        yield f"{total}, {size(own)} of it in no other model here" if found.beside else total
        for blob, gguf in ggufs(source, model) if found.gguf is None else ():
            yield ""
            if isinstance(gguf, ModelpackError):
                yield f"  {blob.kind}: {gguf.what}"
            else:
                yield from _gguf_lines(gguf)
    if not found.models and found.gguf is None:
        yield "  no model that can be read" if found.problems else "  no model"


def _id(model: Model, unknown: str) -> str:
    return unknown if any(blob.digest is None for blob in model.blobs) else model.document.id.short


def _blobs(model: Model) -> Sequence[Blob]:
    document = model.document
    return (*document.layers, document.config) if isinstance(document, Image) else document.files


def _gguf_lines(gguf: Gguf) -> list[str]:
    return table([[key, str(value)] for key, value in _facts(gguf).items() if value is not None], "  ")


def _facts(gguf: Gguf) -> dict[str, Any]:
    split = gguf.split
    return {
        "role": gguf.role,
        "gguf": f"version {gguf.version}",
        "architecture": gguf.architecture,
        "parameters": gguf.parameter_count,
        "file type": gguf.file_type,
        "context length": gguf.context_length,
        "embedding length": gguf.embedding_length,
        "tensors": len(gguf.tensors),
        "metadata keys": len(gguf.metadata),
        "chat template": "yes" if gguf.has_chat_template else "no",
        "shard": f"{split.no + 1} of {split.count}" if split is not None else None,
    }


def models_json(source: Source, found: Inspected) -> dict[str, Any]:
    """All of it, for scripts; `ggufs` only of a single model, as they have to be opened."""
    sums = shared([*found.models, *found.beside])
    deep = len(found.models) == 1 and found.gguf is None
    return {
        "kind": found.kind,
        "fingerprint": str(found.fingerprint) if found.fingerprint is not None else None,
        "gguf": _gguf_json(found.gguf) if found.gguf is not None else None,
        "models": [
            _model_json(model) | {"own": cost.own, "ggufs": _ggufs_json(source, model) if deep else []}
            for model, cost in zip(found.models, sums.costs, strict=False)
        ],
        "shared": [
            {
                "size": one.size,
                "saved": one.saved,
                "blobs": [str(blob) for blob in one.blobs],
                "models": [model.name.full for model in one.models],
            }
            for one in sums.common
        ],
        "expected": found.delta.to_json(),
        "size": sums.together,
        "alone": sums.alone,
        "problems": [
            {"kind": type(one).__name__, "what": one.what, "where": one.where} for one in found.problems
        ],
        "remarks": list(found.remarks),
    }


def _model_json(model: Model) -> dict[str, Any]:
    unread = any(blob.digest is None for blob in model.blobs)
    return {
        "name": model.name.full,
        "kind": "image" if isinstance(model.document, Image) else "recipe",
        "id": None if unread else str(model.document.id),
        "size": model.size,
        "layers": [
            {
                "media_type": blob.media_type,
                "size": blob.size,
                "digest": str(blob.digest) if blob.digest is not None else None,
                "blake3": str(blob.blake3) if blob.blake3 is not None else None,
                "title": blob.title,
            }
            for blob in _blobs(model)
        ],
    }


def _ggufs_json(source: Source, model: Model) -> list[dict[str, Any]]:
    return [
        {"digest": str(blob.digest)}
        | ({"error": gguf.what} if isinstance(gguf, ModelpackError) else _gguf_json(gguf))
        for blob, gguf in ggufs(source, model)
    ]


def _gguf_json(gguf: Gguf) -> dict[str, Any]:
    facts = _facts(gguf)
    return {key.replace(" ", "_"): value for key, value in facts.items()} | {
        "gguf": gguf.version,
        "chat_template": gguf.has_chat_template,
    }
