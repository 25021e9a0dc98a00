"""Is it still there? The hosts of receipts, asked again later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from modelpack.documents.model import Model
from modelpack.documents.receipt import CREATE
from modelpack.documents.record import Arrived, Record
from modelpack.errors import Corrupt, Different, ModelpackError, NotFound, Unchecked, Unreachable
from modelpack.hands.hashing import blamed
from modelpack.stores import Source
from modelpack.verbs.hosts import There, opened
from modelpack.verbs.prove import Wanted, read_back
from modelpack.verbs.registries import HTTPS, Access
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


class Found(StrEnum):
    """What became of a model."""

    SAME = "same"
    """The same ID; its blobs by names and sizes (not of a model made by create), or read back, every byte."""
    GONE = "gone"
    OTHER = "another model"
    """Another ID under its name."""
    DAMAGED = "damaged"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Now:
    """A model of a receipt and what became of it. `id` is its ID now, where it has one."""

    model: Arrived
    found: Found
    id: Digest | None = None
    problems: tuple[ModelpackError, ...] = ()
    blobs_read: int = 0


@dataclass(frozen=True)
class Checked:
    """What became of the models of *record*; `remarks` are sentences about what is no fault."""

    record: Record
    models: tuple[Now, ...]
    remarks: tuple[str, ...] = ()


def check(
    record: Record,
    *,
    prove: bool = False,
    access: Access = HTTPS,
    calling: Calling | None = None,
    report: Report = silent,
) -> Checked:
    """Ask the host of *record* about each of its models; with *prove*, read every byte back.

    A registry is talked to as *access* says, a server calls back as *calling* says. Nothing is raised:
    problems stand in what is returned, also that the host could not be asked.
    """
    try:
        with blamed(record.host.where), opened(record.host, access=access, calling=calling) as there:
            return _asked(record, there, prove=prove, report=report)
    except ModelpackError as error:
        return Checked(record, tuple(_unchecked(model, error) for model in record.models))


def _asked(record: Record, there: There, *, prove: bool, report: Report) -> Checked:
    version = there.version()
    remarks = []
    if version != record.host.version:
        remarks.append(f"Ollama was {record.host.version or 'unknown'} then, and is {version} now.")
    models = [_look(model, there, record.host.where) for model in record.models]
    if prove:
        models = _proven(models, there, record.host.where, report)
        remarks += [said for now in models if now.found is Found.SAME and (said := _unproven(now))]
    failed = {one.name for one in record.failed if one.step == "load" and one.name is not None}
    remarks += [f"{name} failed to load then: nothing is known of it." for name in sorted(failed, key=str)]
    return Checked(record, tuple(models), tuple(remarks))


def problems_of(checked: Sequence[Checked]) -> list[ModelpackError]:
    """Every problem once, damage first: what several models have in common is one."""
    seen: dict[tuple[object, ...], ModelpackError] = {}
    for one in checked:
        for now in one.models:
            for error in now.problems:
                seen.setdefault((type(error), error.what, error.where), error)
    return sorted(seen.values(), key=lambda error: _RANK.index(worst([error])))


_RANK = (Corrupt.exit_code, Different.exit_code, Unchecked.exit_code, Unreachable.exit_code)


def worst(problems: Sequence[ModelpackError]) -> int:
    """The exit code: damaged before different before not checked before not reached; 0 for none."""
    codes = set()
    for error in problems:
        if isinstance(error, Corrupt):
            codes.add(Corrupt.exit_code)
        elif isinstance(error, Different | Unreachable):
            codes.add(error.exit_code)
        else:
            codes.add(Unchecked.exit_code)
    return next((code for code in _RANK if code in codes), 0)


def _look(model: Arrived, there: There, where: str) -> Now:
    name, blobs = model.name, {blob.digest: blob.size for blob in model.blobs}
    try:
        now = there.id_of(name)
        if now is None:
            return Now(model, Found.GONE, None, (Different(f"{name} is gone", where=where),))
        if model.id is None:
            return _unchecked(model, Unchecked(f"{name} had no ID then: there is nothing to compare"), now)
        if now != model.id:
            what = f"{name} is another model now: {now.short}; it was {model.id.short}"
            return Now(model, Found.OTHER, now, (Different(what, where=where),))
        faults = there.faults(name, blobs) if model.way != CREATE else ()
        if faults and there.id_of(name, anew=True) != now:  # a host drops the blobs of what is removed
            what = f"{name} was removed or changed while it was looked at"
            return _changed(model, Different(what, where=where), there)
    except Corrupt as error:
        return Now(model, Found.DAMAGED, None, (error,))
    except ModelpackError as error:
        return _unchecked(model, error)
    return _judged(model, now, faults)


def _judged(model: Arrived, now: Digest | None, faults: Sequence[ModelpackError], read: int = 0) -> Now:
    """As *faults* say: what is missing or wrong is damage, everything else kept it from being seen."""
    wrong = tuple(
        Corrupt(error.what, where=error.where, advice=error.advice) if isinstance(error, NotFound) else error
        for error in faults
        if isinstance(error, Corrupt | NotFound)
    )
    if wrong:
        return Now(model, Found.DAMAGED, now, wrong, read)
    return _unchecked(model, faults[0], now) if faults else Now(model, Found.SAME, now, (), read)


def _unchecked(model: Arrived, error: ModelpackError, now: Digest | None = None) -> Now:
    if not isinstance(error, Unreachable | Unchecked):
        error = Unchecked(error.what, where=error.where, advice=error.advice)
    return Now(model, Found.UNCHECKED, now, (error,))


def _proven(models: Sequence[Now], there: There, where: str, report: Report) -> list[Now]:
    """*models*, those that seem to be the same with every blob read back."""
    wanted: dict[int, Wanted] = {}
    done = list(models)
    for place, now in enumerate(models):
        if now.found is not Found.SAME:
            continue
        try:
            source, model = _read(now, there, where)
        except Corrupt as error:
            done[place] = replace(now, found=Found.DAMAGED, problems=(error,))
        except Different as error:
            done[place] = _changed(now.model, error, there)
        except ModelpackError as error:
            done[place] = _unchecked(now.model, error, now.id)
        else:
            wanted[place] = (source, model, model.blobs)
    found = read_back(list(wanted.values()), there, where, report)
    for place, (_, _, blobs) in wanted.items():
        errors = [wrong for blob in blobs if (wrong := found[blob.digest]) is not None]
        done[place] = _judged(models[place].model, models[place].id, errors, len(blobs) - len(errors))
        changed = next((error for error in errors if isinstance(error, Different)), None)
        if changed is not None and done[place].found is Found.UNCHECKED:
            done[place] = _changed(models[place].model, changed, there)
    return done


def _changed(model: Arrived, error: Different, there: There) -> Now:
    """What became of *model*, which was changed or removed while it was looked at: *error* says so."""
    try:
        now = there.id_of(model.name, anew=True)
    except ModelpackError as unseen:
        return _unchecked(model, unseen)
    return Now(model, Found.GONE if now is None else Found.OTHER, now, (error,))


def _read(now: Now, there: There, where: str) -> tuple[Source, Model]:
    """The model as it is there; Different where it is not the one of the receipt, blob by blob."""
    found = there.read(now.model.name)
    if found is None or found[1].document.id != now.id:
        raise Different(f"{now.model.name} was changed while it was read back", where=where)
    noted = {blob.digest: blob.size for blob in now.model.blobs}
    if now.model.way != CREATE and noted != {blob.digest: blob.size for blob in found[1].blobs}:
        raise Different(f"{now.model.name} has other blobs than the receipt says", where=where)
    return found


def _unproven(now: Now) -> str:
    if now.model.way != CREATE:
        return ""
    return (
        f"{now.model.name} was made by the server: its {now.blobs_read} blobs are what its manifest says. "
        "Whether they mean what was sent was seen when it was loaded, and cannot be read from them."
    )
