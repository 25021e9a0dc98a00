"""A session of `server_exact`: uploads, then for each model a pull, a look, a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from modelpack.documents.model import Model
from modelpack.errors import ModelpackError, NotFound, Refused, Taken, Unreachable
from modelpack.hands.answers import Listed
from modelpack.hands.call import patience, rest
from modelpack.hands.callback import Callback
from modelpack.hands.ollama import Ollama
from modelpack.hands.ollama_upload import upload
from modelpack.hands.temporary import copy_name, drop, was_raced
from modelpack.stores import Placed
from modelpack.words.blob import Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import Reader
from modelpack.words.report import Report, Said

WAY = "exact"
_PATIENCE = 60.0  # seconds; a pull of one manifest takes none
_AGAIN = (
    "What was uploaded stays there, as a rule, until the server restarts: run again before that, and it is "
    "not sent again."
)


class Exact(Protocol):
    """What a session needs of its target."""

    client: Ollama
    callback: Callback

    def expected_id(self, model: Model) -> Digest:
        """The ID that *model* gets there."""
        ...

    def judge(self, model: Model, listed: Mapping[str, Listed]) -> Placed | None:
        """The model where it is there already."""
        ...

    def refuse_taken(self, model: Model, listed: Mapping[str, Listed]) -> None:
        """Raise Taken where its name stands for another."""
        ...

    def placed_as(self, model: Model, found: Listed, note: str = "") -> Placed:
        """*model* as the server lists it."""
        ...


class ExactSession:
    """Left early, no name was given. What was uploaded serves the next run."""

    def __init__(self, target: Exact, report: Report) -> None:
        self._target, self._client, self._report = target, target.client, report
        self._found: set[Digest | None] = set()

    def __enter__(self) -> ExactSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def put(self, blob: Blob, data: Reader) -> Blob:
        """As Session says; Refused with status 400 is the server's word that the bytes hash otherwise."""
        if not upload(self._client, blob, data, self._report):
            self._found.add(blob.digest)
        return blob

    def found(self, blob: Blob) -> bool:
        """As Finds says."""
        return blob.digest in self._found

    def commit(self, model: Model) -> Placed:
        """As Session says: the manifest under a name for the moment, its ID looked at, then its own name."""
        target = self._target
        listed = self._client.installed()
        # Somebody may have taken the name since the plan was made.
        if there := target.judge(model, listed):
            return there
        target.refuse_taken(model, listed)
        moment = self._pull(model)
        listed = self._client.installed()
        self._check_arrived(model, moment, listed)
        try:
            target.refuse_taken(model, listed)
        except Taken as error:
            error.advice += f" Meanwhile it stands under {moment} there; `ollama rm` removes that."
            raise
        old = listed.get(model.name.folded)
        called = Name.parse(old.name) if old is not None else model.name
        copy_name(self._client, moment, called)
        listed = self._client.installed()
        note = self._dropped(moment, listed)
        found = listed.get(model.name.folded)
        if found is None or found.digest != target.expected_id(model):
            raise Refused(
                f"lists {called} with another ID than it was given: somebody else may have changed it at the "
                "same moment",
                where=self._client.base,
                advice="Run again.",
            )
        return target.placed_as(model, found, note)

    def _check_arrived(self, model: Model, moment: Name, listed: Mapping[str, Listed]) -> None:
        """Raise Refused unless *moment* stands for *model* there, with the ID that it should have."""
        wanted = self._target.expected_id(model)
        found = listed.get(moment.folded)
        if found is None:
            self._check_vanished(model)
            raise Refused(f"said success, but does not list {moment}", where=self._client.base, advice=_AGAIN)
        if found.digest == wanted:
            return
        what = f"has the manifest with ID {found.digest.short}, not {wanted.short}: "
        advice = f"{model.name} does not stand for it. On the host, `ollama rm {moment}` removes what came."
        if wanted == model.document.id:
            what += "it was changed on the way"
            advice += " See who stands between: a proxy?"
        else:
            what += "an Ollama so old writes it anew, in a form that modelpack does not know"
            advice += " Load it by --create, or update Ollama there."
        raise Refused(what, where=self._client.base, advice=advice)

    def _pull(self, model: Model) -> Name:
        """Have the server pull the manifest alone."""
        self._report(Said("the server takes up the manifest"))
        with self._target.callback as callback:
            moment = callback.name(model.document.id)
            with callback.offer(moment, model.document.raw) as offered:
                try:
                    with patience(_PATIENCE) as call:
                        self._ask(moment)
                except (Refused, NotFound) as error:
                    self._check_vanished(model, offered.wanted)
                    raise Refused(
                        f"would not take up the manifest: {error.what}",
                        where=self._client.base,
                        advice=_AGAIN,
                    ) from None
                except Unreachable as error:
                    self._check_vanished(model, offered.wanted)
                    came = "" if offered.served else f", and nobody came to {callback.told} for it"
                    what = f"no end of it within {_PATIENCE:.0f} seconds" if call.closed else error.what
                    error.what = f"did not take up the manifest{came}: {what}"
                    error.advice = f"{_AGAIN} {error.advice}".strip()
                    raise
        return moment

    def _ask(self, moment: Name) -> None:
        for left in (2, 1, 0):
            try:
                with self._client.pull(moment.full, insecure=True) as events:
                    for event in events:
                        self._report(Said(event.status))
            except Refused as error:
                if not left or not was_raced(error) or not rest(0.3):
                    raise
            else:
                return

    def _dropped(self, moment: Name, listed: Mapping[str, Listed]) -> str:
        """Delete the name for the moment; what to say where it stays."""
        with contextlib.suppress(ModelpackError):
            if drop(self._client, moment, list(listed.values())):
                return ""
        return f"{moment} was left on the server; a load after an hour, or `ollama rm`, removes that name."

    def _check_vanished(self, model: Model, asked: set[str] | None = None) -> None:
        """Raise NotFound where a blob that was there is no more: the server asked our registry for it."""
        digests = [blob.digest for blob in model.blobs if blob.digest is not None]
        try:
            there = self._client.which(digests)
        except ModelpackError:
            return  # the error itself says more
        for digest in digests:
            if digest not in there or str(digest) in (asked or ()):
                raise NotFound(
                    f"the blob {digest} was there, but was gone when the model was to get its name",
                    where=self._client.base,
                    advice="Ollama removes blobs that no model names, at a restart or when a model is "
                    "deleted. Run again: what is missing is sent again.",
                ) from None
