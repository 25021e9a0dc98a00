"""The body of `POST /api/create`, from typed arguments, a Modelfile or a recipe.

Facts: api/types.go (CreateRequest) of Ollama v0.33. What an older server ignores without a word,
`documents.create.fields_lost` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from modelpack.errors import Corrupt, Usage
from modelpack.words.digest import Digest
from modelpack.words.name import Name

Files = Mapping[str, Digest | str]
"""File names, relative and with `/` only, to the digests of blobs that are on the server."""

_FILES = ("files", "adapters", "draft_files")
_WEIGHTS = (".gguf", ".safetensors", ".bin")


class Instruction(Protocol):
    """A FROM, ADAPTER or DRAFT of a Modelfile."""

    @property
    def value(self) -> str:
        """A path or a name."""
        ...


class Said(Protocol):
    """A parsed Modelfile (`documents.modelfile.Modelfile`)."""

    @property
    def body(self) -> Mapping[str, Any]:
        """Fields of a create request."""
        ...

    @property
    def sources(self) -> Sequence[Instruction]:
        """Its FROM instructions."""
        ...

    @property
    def adapters(self) -> Sequence[Instruction]:
        """Its ADAPTER instruction."""
        ...

    @property
    def drafts(self) -> Sequence[Instruction]:
        """Its DRAFT instructions."""
        ...


class Body(Protocol):
    """A recipe (`documents.recipe.Recipe`)."""

    @property
    def body(self) -> Mapping[str, Any]:
        """A create request without `model` and `stream`."""
        ...


class Fields(TypedDict, total=False):
    """What a model is made of; None is as good as missing.

    `from_` is an installed model, which with `quantize` is quantized. Over what `modelfile` or `recipe` say
    stands what is given by itself. A Modelfile's FROM is `from_`, unless `from_` or `files` are given.
    """

    from_: str | None
    files: Files | None
    adapters: Files | None
    template: str | None
    system: str | None
    license: str | Sequence[str] | None
    parameters: Mapping[str, Any] | None
    messages: Sequence[Mapping[str, Any]] | None
    quantize: str | None
    renderer: str | None
    parser: str | None
    requires: str | None
    info: Mapping[str, Any] | None
    draft_files: Files | None
    draft_quantize: str | None
    remote_host: str | None
    modelfile: Said | None
    recipe: Body | None


def request_of(model: str, fields: Fields) -> dict[str, Any]:
    """The request that makes *model*, without `stream`.

    Raises Usage for a field that there is none of, for a Modelfile and a recipe at once, for a Modelfile that
    names local files which `from_`, `files`, `adapters` or `draft_files` do not stand for, and for digests
    that are none.
    """
    unknown = sorted(fields.keys() - Fields.__annotations__.keys())
    if unknown:
        raise Usage(f"a create request has no field {unknown[0]!r}")
    given = {key.rstrip("_"): value for key, value in fields.items() if value is not None}
    modelfile, recipe = fields.get("modelfile"), fields.get("recipe")
    for key in ("modelfile", "recipe"):
        given.pop(key, None)
    if modelfile is not None and recipe is not None:
        raise Usage("a Modelfile and a recipe are given: one of them says what to create")
    request: dict[str, Any] = {"model": model}
    if recipe is not None:
        request |= recipe.body
    if modelfile is not None:
        request |= _of_modelfile(modelfile, given)
    request |= given
    for key in _FILES:
        if key in request:
            request[key] = {name: _digest(key, value) for name, value in request[key].items()}
    for key in ("license", "messages"):
        if key in request and not isinstance(request[key], str):
            request[key] = list(request[key])
    return request


def _of_modelfile(modelfile: Said, given: Mapping[str, Any]) -> dict[str, Any]:
    request = dict(modelfile.body)
    for instructions, word, keys in (
        (modelfile.adapters, "ADAPTER", ("adapters",)),
        (modelfile.drafts, "DRAFT", ("draft_files",)),
    ):
        if instructions and not any(key in given for key in keys):
            raise _local(word, instructions[0].value)
    if "from" in given or "files" in given:
        return request
    base = modelfile.sources[0].value
    if len(modelfile.sources) > 1 or base.lower().endswith(_WEIGHTS):
        raise _local("FROM", base)
    try:
        Name.parse(base)
    except Usage:
        raise _local("FROM", base) from None
    return request | {"from": base}


def _local(word: str, value: str) -> Usage:
    return Usage(
        f"the Modelfile's {word} names a local file ({value[:200]!r})",
        advice="Upload it (upload_file) and give its name and digest, or let `modelpack load` do all of it.",
    )


def _digest(key: str, value: Any) -> str:
    try:
        return str(Digest.parse(str(value) if isinstance(value, Digest) else value))
    except Corrupt as error:
        raise Usage(f"{key}: {error.what}") from None
