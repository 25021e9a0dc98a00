"""`README.txt` of a bundle: plain words for whoever finds the disc in ten years and has no modelpack.

ASCII with line feeds. Digests that are not known yet stand as zeros: its length never depends on them. The
lines for a shell hold nothing from elsewhere but digests and the names of models, which need no quoting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import path_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.readme_texts import ABOUT, CHECK, CURL, DELTA, JOIN, REST, SCRIPT, SHELL
from modelpack.documents.recipe import Recipe
from modelpack.documents.sshsig import BUNDLE, SET
from modelpack.errors import Unsupported
from modelpack.words.blob import (
    ADAPTER,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SMALL,
    SYSTEM,
    TEMPLATE,
    TEXTS,
    Blob,
)
from modelpack.words.digest import ZERO, Digest

MOST_IN_FULL = 20
"""Models with lines of their own; of the others the name and the ID are told."""
MOST_NAMED = 500
"""Models that are named at all; index.json names every one."""
MOST_BLOBS = 50
"""Blobs of a model with lines of its own; others are told by the pattern."""

_FILES = {MODEL: "files", PROJECTOR: "files", ADAPTER: "adapters", DRAFT: "draft_files"}
_SINGLE = {MODEL, ADAPTER, DRAFT}
_LONGEST = 80  # characters of an attachment's name


def readme(
    models: Sequence[Model],
    *,
    script: Digest | None,
    volumes: bool = False,
    attachments: Sequence[str] = (),
    expects: Expects = NOTHING,
) -> bytes:
    """README.txt of a bundle of *models*, or of the set of its *volumes*.

    *script* is the SHA-256 of the restore.py that travels along, *attachments* are file names, *expects*
    tells which blobs the bundle does not hold. The same arguments give the same bytes.
    """
    parts = [ABOUT, *([JOIN.format(space=SET)] if volumes else []), CHECK.format(space=BUNDLE)]
    if script is not None:
        parts.append(SCRIPT.format(digest=script.hex))
    if attachments:
        named = [f"    {path_of(one)[:_LONGEST]}\n" for one in attachments[:MOST_NAMED]]
        parts.append("WHAT ELSE IS HERE\n\nFiles that came along with the models:\n\n" + "".join(named))
    parts += [SHELL, CURL]
    if any(blob in expects for model in models for blob in model.blobs):
        parts.append(DELTA)
    whole: list[Model] = []
    others: list[Model] = []
    for model in models:
        full = len(whole) < MOST_IN_FULL and len(model.blobs) <= MOST_BLOBS
        (whole if full else others).append(model)
    parts += [_model(model, expects, script is not None) for model in whole]
    if others:
        parts.append(_others(others))
    return "\n\n".join(parts).encode("ascii")


def _model(model: Model, expects: Expects, script: bool) -> str:
    """The lines of one model."""
    document, name = model.document, str(model.name)
    lines = [name, "-" * len(name), "", f"ID {document.id.hex}", f"{model.size} bytes"]
    if any(blob in expects for blob in model.blobs):
        lines.append("INCOMPLETE: files that are in no line below have to be there already")
    lines.append("")
    there = [blob for blob in model.blobs if blob not in expects]
    if isinstance(document, Image):
        host, namespace, called, tag = model.name.parts
        lines.append(f'    mkdir -p "$MODELS/manifests/{host}/{namespace}/{called}" &&')
        lines += [f"    put {_hex(blob)} &&" for blob in there]
        lines += [f"    put {document.id.hex} manifests/{host}/{namespace}/{called}/{tag}", ""]
        sent = [blob for blob in there if blob.media_type in _FILES]
        read = {document.config, *document.of_kind(*TEXTS)}
        body = [] if any(blob in expects for blob in read) else list(_body_of_image(document))
    else:
        lines += ["    Only a server can make this one of its files.", *_base(document), ""]
        body = ["','", f'"$(tail -c +2 blobs/sha256/{document.id.hex})"']  # all but its first brace
        sent = there
    if not body:
        way = ", or restore.py" if script else ""
        return "\n".join([*lines, f"    (No server makes it: it needs the models directory{way}.)"]) + "\n"
    lines += [f"    send {_hex(blob)} &&" for blob in sent]
    body.insert(0, f'\'{{"model":"{name}"\'')
    return (
        "\n".join([*lines, "    printf '%s' \\", *(f"        {part} \\" for part in body), "    | create"])
        + "\n"
    )


def _base(recipe: Recipe) -> Iterator[str]:
    try:
        if recipe.base is not None:
            yield f"    It is made from {recipe.base}, which has to be there before."
    except Unsupported:
        yield "    It is made from another model, which has to be there before."


def _body_of_image(image: Image) -> Iterator[str]:
    """What follows `"model"` in a create request, as words of a shell; nothing where no server makes it."""
    kinds = [layer.media_type for layer in image.layers]
    known = all(kind in _FILES or kind in TEXTS for kind in kinds)
    if not known or MODEL not in kinds or any(kinds.count(kind) > 1 for kind in (*_SINGLE, PARAMS)):
        return
    if any(blob.size > SMALL for blob in (image.config, *image.of_kind(*TEXTS))):
        return
    groups: dict[str, list[str]] = {}
    for place, layer in enumerate(image.layers):
        if layer.media_type in _FILES:
            file = f'"{layer.kind}-{place}.gguf":"sha256:{_hex(layer)}"'
            groups.setdefault(_FILES[layer.media_type], []).append(file)
    for key, files in groups.items():
        yield f"',\"{key}\":{{{','.join(files)}}}'"
    for key, of in (("template", (TEMPLATE, PROMPT)), ("system", (SYSTEM,))):
        if found := image.of_kind(*of):
            yield f""" ',"{key}":"' "$(text {_hex(found[-1])})" '"'""".strip()
    if found := image.of_kind(LICENSE):
        inner = """ '","' """.join(f'"$(text {_hex(each)})"' for each in found)
        yield f""" ',"license":["' {inner} '"]'""".strip()
    for key, kind in (("parameters", PARAMS), ("messages", MESSAGES)):
        if found := image.of_kind(kind):
            yield f""" ',"{key}":' "$(cat blobs/sha256/{_hex(found[-1])})" """.strip()
    for key in ("renderer", "parser", "requires"):
        yield f""" ',"{key}":"' "$(word {_hex(image.config)} {key})" '"'""".strip()
    yield f'"$(info {_hex(image.config)})"'
    yield "'}'"


def _others(models: Sequence[Model]) -> str:
    named = models[:MOST_NAMED]
    more = f", and {len(models) - len(named)} more that index.json names" if len(models) > len(named) else ""
    lines = [
        f"    {one.document.id.hex} {one.name}"
        + (" (only a server makes it)" * isinstance(one.document, Recipe))
        for one in named
    ]
    return "\n".join([REST.replace("WHAT", f"{len(named)} more{more}"), *lines, ""])


def _hex(blob: Blob) -> str:
    return (blob.digest or ZERO).hex
