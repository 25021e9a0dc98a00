"""What a look at a plan found, and the few questions to a plan and its target that all looks have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelpack.documents.model import Model
from modelpack.errors import Local, ModelpackError, Unsupported
from modelpack.stores import Described, MakesRequests, Target
from modelpack.verbs.plans import Plan
from modelpack.words.name import Name

if TYPE_CHECKING:
    from modelpack.hands.ollama import Ollama

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something that the user should know of *model* (None: of all of the plan) before anything moves.

    An error: it cannot be done so. A warning: it can, and the model will not be what it should be there. May
    hold text from elsewhere.
    """

    level: Level
    model: Name | None
    what: str
    advice: str = ""
    local: bool = False
    """Whether it is about this machine's disk, as an error while writing would be."""

    def to_json(self) -> dict[str, str | None]:
        """For scripts: `level`, `model` (its full name, or null), `what`, `advice`."""
        name = self.model.full if self.model is not None else None
        return {"level": self.level, "model": name, "what": self.what, "advice": self.advice}


def stop(findings: Sequence[Finding], *, force: bool = False) -> None:
    """Raise Unsupported (of a disk Local) where one of *findings* is an error; without *force*, a warning."""
    for level, advice in (("error", ""), ("warning", "--force loads all the same.")):
        stopping = [one for one in findings if one.level == level]
        if stopping and not (level == "warning" and force):
            more = f" (and {len(stopping) - 1} more: see above)" if len(stopping) > 1 else ""
            first = stopping[0]
            kind = Local if first.local else Unsupported
            raise kind(
                f"{first.what}{more}", where=first.model or "", advice=f"{first.advice} {advice}".strip()
            )


def unchecked(name: Name | None, what: str, error: ModelpackError) -> Finding:
    """*what* could not be looked at, and that is all that *error* says."""
    place = f"{error.where}: " if error.where else ""
    return Finding("note", name, f"could not be checked: {what} ({place}{error.what})", error.advice)


def described(target: Target) -> Mapping[str, str]:
    """What *target* tells of itself; empty where it tells nothing."""
    return target.described() if isinstance(target, Described) else {}


def client_of(target: Target) -> Ollama | None:
    """The client of the server that *target* is, or that its several ways lead to."""
    if described(target).get("kind") != "server":
        return None
    from modelpack.hands.ollama import Ollama  # here: requests costs a third of a start

    for one in (target, *getattr(target, "targets", ())):
        client = getattr(one, "client", None)
        if isinstance(client, Ollama):
            return client
    return None


def coming(todo: Plan) -> list[tuple[Model, str]]:
    """The models of *todo* that would be brought, each with its way ("" where there is but one)."""
    ways = [way for way, _ in todo.ways] or [""] * len(todo.models)
    there = zip(todo.models, todo.placed, ways, strict=True)
    return [(model, way) for model, placed, way in there if placed is None]


def is_made(target: Target, way: str) -> bool:
    """Whether a model that goes *way* to *target* is made there by create."""
    return way == "create" or (not way and isinstance(target, MakesRequests))
