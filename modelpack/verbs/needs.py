"""What models need of the Ollama that is to run them, against the version that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelpack.documents.gguf_header import Gguf
from modelpack.documents.gojson import parse_object
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.needs import HEADERS_TELL_BEFORE, Need, needs_of
from modelpack.errors import ModelpackError, Unsupported
from modelpack.hands.answers import version_number
from modelpack.hands.hashing import read_small
from modelpack.stores import Afar, OneWay, Source, Target
from modelpack.verbs.findings import Finding, client_of, coming, described, is_made, unchecked
from modelpack.verbs.headers import gguf_blobs, gguf_of
from modelpack.verbs.plans import Plan
from modelpack.words.blob import KIB

_CONFIG_MOST = 64 * KIB  # Ollama's have a few hundred bytes
_SHOWN = 3

Version = tuple[int, int, int]


def on_versions(todo: Plan, source: Source, target: Target) -> Iterator[Finding]:
    """A warning for each need that is not met there; a note where no version can be compared.

    A depot runs nothing, so nothing is said of one. Raises what keeps the version from being read.
    """
    models = coming(todo)
    about = described(target)
    if not models or not about or about.get("kind") == "bundle":
        return
    client = client_of(target)
    if client is not None and client.about().is_depot:  # it runs nothing
        return
    text = about.get("version", "")
    version = version_number(text)
    if isinstance(source, OneWay):
        yield Finding(
            "note", None, "could not be checked: what the models need of the Ollama there (a pipe gives each "
            "byte once)", "Save the bundle as a file first, and look at that.",
        )  # fmt: skip
        return
    unknown: list[str] = []
    for model, way in models:
        needs, problem = _needs(model, source, version, is_made(target, way))
        if problem is not None:
            yield problem
        if version is not None:
            yield from (_unmet(model, need, text) for need in needs if not _meets(need, version))
        else:
            unknown += _least(model, needs)
    if version is None:
        told = f"what is there calls itself {text}" if text else "which Ollama runs there is not known"
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        asked = f"; {', '.join(unknown[:_SHOWN])}{more}" if unknown else ""
        if unknown or text:
            yield Finding("note", None, f"no version could be compared: {told}{asked}")


def _least(model: Model, needs: Sequence[Need]) -> list[str]:
    """The latest of what *needs* ask for, as a few words."""
    known = [(number, need.since) for need in needs if need.grave and (number := version_number(need.since))]
    return [f"{model.name} needs {max(known)[1]} or later"] if known else []


def _meets(need: Need, version: Version) -> bool:
    since = version_number(need.since)
    return since is None or version >= since


def _unmet(model: Model, need: Need, text: str) -> Finding:
    return Finding(
        "warning" if need.grave else "note",
        model.name,
        f"{need.what} needs Ollama {need.since} or later, and there is {text}: {need.otherwise}",
        "Update the Ollama there." if need.grave else "",
    )


def _needs(
    model: Model, source: Source, version: Version | None, create: bool
) -> tuple[tuple[Need, ...], Finding | None]:
    """What *model* needs, and what could not be looked at for that."""
    problem: Finding | None = None
    config: Mapping[str, Any] = {}
    document = model.document
    if isinstance(document, Image):
        try:
            config = config_of(document, source)
        except ModelpackError as error:
            problem = unchecked(model.name, "its config", error)
    before = version_number(HEADERS_TELL_BEFORE) or (0, 0, 0)
    wanted = not config.get("model_family") or (version is not None and version < before)
    headers: list[Gguf] = []
    if wanted and isinstance(source, Afar) and source.afar():
        what = "could not be checked: the headers of its GGUFs (they are not read over a net)"
        problem = problem or Finding("note", model.name, what)
    elif wanted:
        for blob in gguf_blobs(model):
            header = gguf_of(source, blob)
            if isinstance(header, Gguf):
                headers.append(header)
            else:
                problem = problem or unchecked(model.name, "the header of its GGUF", header)
    return needs_of(model, config, headers, create=create), problem


def config_of(image: Image, source: Source) -> Mapping[str, Any]:
    """What the config of *image* says; raises what keeps it from being read, Unsupported over 64 KiB."""
    blob = image.config
    if blob.size > _CONFIG_MOST:
        raise Unsupported(f"its config has {blob.size} bytes, where a few hundred are usual")
    with source.open(blob) as reader:
        return parse_object(read_small(reader, blob), "config")
