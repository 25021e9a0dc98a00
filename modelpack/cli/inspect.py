"""`modelpack inspect`."""

from __future__ import annotations

from typing import Any

import click

from modelpack.cli.options import expect_option, json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import bundle_lines, complain, result, result_json, table
from modelpack.documents.gguf_header import Gguf
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError
from modelpack.stores import Source
from modelpack.verbs import locate
from modelpack.verbs.inspect import Inspected, ggufs, inspect
from modelpack.verbs.requests import create_request_of
from modelpack.verbs.transfer import settle
from modelpack.words.digest import Digest
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack inspect qwen3.tar
  modelpack inspect ~/.ollama/models#qwen3:8b
  modelpack inspect qwen3.tar --create-request"""
)
@click.argument("locator")
@click.option(
    "--create-request", is_flag=True, help="Print the JSON body of POST /api/create for each model."
)
@expect_option
@json_option
@quiet_option
def command(locator: str, create_request: bool, expect: Digest | None, as_json: bool, quiet: bool) -> None:
    """Show what a GGUF, a bundle or a models directory holds.

    Models with their IDs, layers and sizes, and what their GGUFs say. LOCATOR#NAME picks one model.
    """
    place = locate.Located.parse(locator)
    source = locate.source(place.text, expect=expect)
    found = inspect(source)
    models = list(found.models)
    if place.pick is not None or (create_request and not found.problems):
        models = locate.choose(models, [place.pick] if place.pick else [], place.text)
    if create_request:
        if not models:
            raise found.problems[0]
        with Progress(quiet=quiet) as progress:
            settled = settle(source, models, progress, blake3=False)
        requests = [create_request_of(source, one) for one in settled]
        result_json(requests[0] if len(requests) == 1 else requests)
        return
    # A models directory may hold hundreds: their GGUFs are opened where one was asked for.
    deep = found.kind != "models directory" or place.pick is not None
    if as_json:
        result_json(_as_json(source, found, models, deep))
    else:
        _show(locator, source, found, models, deep)
    if found.gguf is None and found.problems:
        for problem in found.problems:
            complain(problem)
        raise SystemExit(Corrupt.exit_code)


def _show(locator: str, source: Source, found: Inspected, models: list[Model], deep: bool) -> None:
    if found.fingerprint is None:
        result(f"{locator}: a {found.kind}")
    for line in bundle_lines(locator, found.fingerprint) if found.fingerprint is not None else ():
        result(line)
    if found.gguf is not None:
        _show_gguf(found.gguf, "  ")
        for problem in found.problems:
            result(f"  {problem.what}")
    if not deep:
        for line in table([[str(one.name), one.document.id.short, size(one.size)] for one in models], "  "):
            result(line)
        return
    for model in models:
        result()
        document = model.document
        unread = any(blob.digest is None for blob in model.blobs)
        kind = "image" if isinstance(document, Image) else "recipe"
        result(f"{model.name}  {'ID not known before packing' if unread else document.id.short}  {kind}")
        rows = [
            [blob.kind, size(blob.size), blob.digest.short if blob.digest else "-", blob.title or ""]
            for blob in ((*document.layers, document.config) if isinstance(document, Image) else model.blobs)
        ]
        for line in table(rows, "  "):
            result(line.rstrip())
        for blob, gguf in ggufs(source, model) if found.gguf is None else ():
            if isinstance(gguf, ModelpackError):
                result(f"  {blob.kind}: {gguf.what}")
            else:
                _show_gguf(gguf, "  ")


def _show_gguf(gguf: Gguf, indent: str) -> None:
    for line in table(
        [[key, str(value)] for key, value in _facts(gguf).items() if value is not None], indent
    ):
        result(line)


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


def _as_json(source: Source, found: Inspected, models: list[Model], deep: bool) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "fingerprint": str(found.fingerprint) if found.fingerprint is not None else None,
        "gguf": _gguf_json(found.gguf) if found.gguf is not None else None,
        "models": [_model_json(source, one, deep and found.gguf is None) for one in models],
        "problems": [
            {"kind": type(one).__name__, "what": one.what, "where": one.where} for one in found.problems
        ],
    }


def _model_json(source: Source, model: Model, deep: bool) -> dict[str, Any]:
    document = model.document
    unread = any(blob.digest is None for blob in model.blobs)
    blobs = (*document.layers, document.config) if isinstance(document, Image) else model.blobs
    headers = ggufs(source, model) if deep else ()
    return {
        "name": model.name.full,
        "kind": "image" if isinstance(document, Image) else "recipe",
        "id": None if unread else str(document.id),
        "size": model.size,
        "layers": [
            {
                "media_type": blob.media_type,
                "size": blob.size,
                "digest": str(blob.digest) if blob.digest is not None else None,
                "blake3": str(blob.blake3) if blob.blake3 is not None else None,
                "title": blob.title,
            }
            for blob in blobs
        ],
        "ggufs": [
            {"digest": str(blob.digest)}
            | ({"error": gguf.what} if isinstance(gguf, ModelpackError) else _gguf_json(gguf))
            for blob, gguf in headers
        ],
    }


def _gguf_json(gguf: Gguf) -> dict[str, Any]:
    facts = _facts(gguf)
    return {key.replace(" ", "_"): value for key, value in facts.items()} | {
        "gguf": gguf.version,
        "chat_template": gguf.has_chat_template,
    }
