"""Which installed models can do something: by what the server says of them, never by their names.

Since 0.33 `GET /api/tags` tells capabilities and context lengths; what it leaves out is asked of
`POST /api/show`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.errors import ModelpackError, Unreachable
from modelpack.hands.answers import Listed, Shown
from modelpack.hands.crew import Gone, in_parallel
from modelpack.hands.ollama import Ollama
from modelpack.words.digest import Digest

_ASKING = 4  # threads


@dataclass(frozen=True)
class Found:
    """An installed model: `id` as `ollama list` has it, `size` the bytes of its blobs, lengths in tokens.

    None is unknown: `capabilities` and `context_length` where the list does not tell them and nobody asked
    for them. A `remote` one (a cloud model) runs on another host. `modified_at` is as the server writes it.
    """

    name: str
    id: Digest
    size: int | None = None
    capabilities: tuple[str, ...] | None = None
    family: str | None = None
    families: tuple[str, ...] = ()
    quantization: str | None = None
    parameter_size: str | None = None
    context_length: int | None = None
    remote: bool = False
    modified_at: str | None = None


class Discovered(tuple[Found, ...]):
    """Models found, newest first, and `problems`: by name, why a model could not be asked what it can do."""

    problems: Mapping[str, ModelpackError]

    def __new__(
        cls, found: Iterable[Found] = (), problems: Mapping[str, ModelpackError] | None = None
    ) -> Discovered:
        """A tuple of *found*."""
        made = super().__new__(cls, found)
        made.problems = dict(problems or {})
        return made


@dataclass(frozen=True)
class _Told:
    """What show says of a model ID."""

    capabilities: tuple[str, ...]
    context_length: int | None


class Discovery:
    """A server's models, asked again and again: what `show` said is kept by ID, so only the list is new.

    Any thread may use it.
    """

    def __init__(self, client: Ollama) -> None:
        self._client = client
        self._told: dict[Digest, _Told] = {}

    def refresh(self) -> None:
        """Forget what models said: a server that was updated may say more of the same models."""
        self._told.clear()

    def find(
        self,
        *,
        capability: str | Iterable[str] = (),
        family: str | None = None,
        quantization: str | None = None,
        max_size: int | None = None,
        min_context: int | None = None,
    ) -> Discovered:
        """As `discover` says."""
        wanted = {each.lower() for each in ([capability] if isinstance(capability, str) else capability)}
        listed = [each for each in self._client.list() if _listed_fits(each, family, quantization, max_size)]
        mute = [
            each
            for each in listed
            if each.digest not in self._told
            and ((wanted and not each.capabilities) or (min_context is not None and not _length(each)))
        ]
        problems = self._ask(mute)
        found = []
        for each in listed:
            one = self._found(each)
            if wanted <= {word.lower() for word in one.capabilities or ()} and (
                min_context is None or (one.context_length or 0) >= min_context
            ):
                found.append(one)
        return Discovered(found, problems)

    def _ask(self, models: list[Listed]) -> dict[str, ModelpackError]:
        """Remember what show says of *models*, each ID once; the errors by name."""
        problems: dict[str, ModelpackError] = {}

        def show(one: Listed, _gone: Gone) -> _Told | ModelpackError:
            try:
                return _told(self._client.show(one.name))
            except Unreachable:
                raise
            except ModelpackError as error:
                return error

        for one, told in in_parallel(list({each.digest: each for each in models}.values()), show, _ASKING):
            if isinstance(told, _Told):
                self._told[one.digest] = told
            else:
                problems |= {each.name: told for each in models if each.digest == one.digest}
        return problems

    def _found(self, one: Listed) -> Found:
        told = self._told.get(one.digest)
        return Found(
            name=one.name,
            id=one.digest,
            size=one.size,
            capabilities=one.capabilities or (told.capabilities if told else None),
            family=one.details.family,
            families=one.details.families,
            quantization=one.details.quantization_level,
            parameter_size=one.details.parameter_size,
            context_length=_length(one) or (told.context_length if told else None),
            remote=bool(one.remote_model or one.remote_host),
            modified_at=one.modified_at,
        )


def discover(
    client: Ollama,
    *,
    capability: str | Iterable[str] = (),
    family: str | None = None,
    quantization: str | None = None,
    max_size: int | None = None,
    min_context: int | None = None,
) -> Discovered:
    """The installed models that have all of *capability* (`vision`, `tools`, `thinking`, `embedding`, …).

    Any word is allowed: a newer server may know more. *family* (`llama`) may be one of several,
    *quantization* is as the server spells it (`Q4_K_M`); both without case. *max_size* is in bytes,
    *min_context* in tokens. Models are shown only where the list lacks what is asked for; one that cannot be
    is in `problems` of the answer. Raises Unreachable and Refused, as the client does, for the list itself.
    """
    return Discovery(client).find(
        capability=capability,
        family=family,
        quantization=quantization,
        max_size=max_size,
        min_context=min_context,
    )


def _listed_fits(one: Listed, family: str | None, quantization: str | None, max_size: int | None) -> bool:
    own = one.details
    if family is not None and family.lower() not in {
        each.lower() for each in (own.family or "", *own.families)
    }:
        return False
    if quantization is not None and quantization.lower() != (own.quantization_level or "").lower():
        return False
    return max_size is None or (one.size is not None and one.size <= max_size)


def _length(one: Listed) -> int | None:
    return one.details.context_length or None  # 0 is what Go writes for a length that it does not know


def _told(shown: Shown) -> _Told:
    """What *shown* says; the length stands in the GGUF's own metadata, under its architecture."""
    info: Mapping[str, Any] = shown.model_info
    length = info.get(f"{info.get('general.architecture')}.context_length")
    known = isinstance(length, int) and not isinstance(length, bool) and length > 0
    return _Told(shown.capabilities, length if known else None)
