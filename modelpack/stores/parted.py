"""A target with several ways there: for each model one is chosen before the first byte, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from modelpack.documents.model import Model
from modelpack.errors import Unsupported
from modelpack.hands.hashing import read_small
from modelpack.stores import Described, Finds, Foretells, Placed, Reader, Session, Settled, Target, Tidies
from modelpack.words.blob import SMALL, Blob
from modelpack.words.reader import BytesReader
from modelpack.words.report import Report, silent

Choose = Callable[[Model], tuple[str, str]]
"""The way of a model, and why it is that: a sentence."""


class Parted:
    """The targets of *ways*, which lead to one place, as one target; *choose* says which way a model goes.

    A blob that models of several ways miss is read once.
    """

    def __init__(self, ways: Mapping[str, Target], choose: Choose) -> None:
        self._ways, self._choose = ways, choose
        self._chosen: dict[tuple[str, bytes], tuple[str, str]] = {}
        self._wanted: dict[str, set[object]] = {}

    @property
    def targets(self) -> Sequence[Target]:
        """Those of all ways."""
        return tuple(self._ways.values())

    def way(self, model: Model) -> tuple[str, str]:
        """As Goes says."""
        key = (model.name.folded, model.document.raw)
        if key not in self._chosen:
            self._chosen[key] = self._choose(model)
        return self._chosen[key]

    def described(self) -> Mapping[str, str]:
        """As Described says: all ways lead to one place."""
        found = (target.described() for target in self._ways.values() if isinstance(target, Described))
        return next(found, {})

    def apart(self) -> bool:
        """Each model stands by itself."""
        return True

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        """As Target says: what each way misses."""
        wanted: dict[object, Blob] = {}
        for way, part in self._parts(models).items():
            found = self._ways[way].missing(part)
            self._wanted[way] = {blob.id for blob in found}
            wanted |= {blob.id: blob for blob in found}
        order = {blob.id: None for model in models for blob in model.blobs}
        return tuple(wanted[key] for key in order if key in wanted)

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        """As Settled says."""
        found: dict[int, Placed | None] = {}
        for way, part in self._parts(models).items():
            target = self._ways[way]
            if isinstance(target, Settled):
                found |= zip(map(id, part), target.placed(part), strict=True)
        return [found.get(id(model)) for model in models]

    def foretell(self, models: Sequence[Model]) -> Sequence[str]:
        """As Foretells says: what each way has to say."""
        said: list[str] = []
        for way, part in self._parts(models).items():
            target = self._ways[way]
            said += target.foretell(part) if isinstance(target, Foretells) else ()
        return said

    def tidy(self) -> None:
        """As Tidies says: all ways lead to one place, so that one of them does it."""
        tidy = next((target for target in self._ways.values() if isinstance(target, Tidies)), None)
        if tidy is not None:
            tidy.tidy()

    @contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        """As Target says: a session of each way that a model goes."""
        with ExitStack() as stack:
            sessions = {
                way: stack.enter_context(self._ways[way].session(part, report))
                for way, part in self._parts(models).items()
            }
            yield _Parted(self, sessions, self._wanted)

    def _of(self, model: Model) -> Target:
        return self._ways[self.way(model)[0]]

    def _parts(self, models: Sequence[Model]) -> dict[str, list[Model]]:
        parts: dict[str, list[Model]] = {}
        for model in models:
            parts.setdefault(self.way(model)[0], []).append(model)
        return parts


class _Parted:
    def __init__(
        self, target: Parted, sessions: Mapping[str, Session], wanted: Mapping[str, set[object]]
    ) -> None:
        self._target, self._sessions, self._wanted = target, sessions, wanted

    def put(self, blob: Blob, data: Reader) -> Blob:
        takers = [session for way, session in self._sessions.items() if blob.id in self._wanted.get(way, ())]
        if not takers:
            raise Unsupported(f"{blob} was not asked for")
        if len(takers) == 1 or blob.size > SMALL:  # a large one is uploaded, to one server: once will do
            return takers[0].put(blob, data)
        raw = read_small(data, blob)
        first, *_ = [session.put(blob, BytesReader(raw)) for session in takers]
        return first

    def found(self, blob: Blob) -> bool:
        return any(isinstance(one, Finds) and one.found(blob) for one in self._sessions.values())

    def commit(self, model: Model) -> Placed:
        return self._sessions[self._target.way(model)[0]].commit(model)
