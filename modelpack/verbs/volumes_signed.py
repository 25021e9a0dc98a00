"""Volumes under a signature: of which set a volume is counts only as far as that set is trusted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.documents.volumes import DESCRIPTOR, Descriptor, set_of, stem_of
from modelpack.errors import Local, ModelpackError, Unchecked, Unexpected, Unsupported
from modelpack.hands.disk import Folder, open_path
from modelpack.stores.volumes import VolumeSet, named_by_sums
from modelpack.verbs.trust import GOOD, Signed, Trust, check
from modelpack.verbs.volumes import Looked, Set, State, check_documents, verify_set
from modelpack.verbs.volumes_look import look
from modelpack.verbs.volumes_papers import BRING, descriptors, no_descriptor
from modelpack.words.digest import Digest
from modelpack.words.report import Report, Stage, silent

NOBODY = "Whose descriptor it is: no signature was checked."


@dataclass(frozen=True)
class Alone:
    """What one volume is; the set that it is of, and what is known of that one's signature."""

    looked: Looked
    descriptor: Descriptor | None = None
    signed: Signed | None = None


def verify_volume(
    path: Path,
    also: Sequence[Path] = (),
    *,
    expect: Digest | None = None,
    sha256: bool = False,
    read_back: bool = False,
    report: Report = silent,
) -> Looked:
    """Check the one volume at *path* as `check_volume` does, whoever signed its set, or nobody.

    Where no descriptor can be read, beside it or in one of the folders *also*, it is UNCHECKED.
    """
    return check_volume(
        path, also, Trust(), expect=expect, sha256=sha256, read_back=read_back, report=report
    ).looked


def check_volume(
    path: Path,
    also: Sequence[Path],
    trust: Trust,
    *,
    expect: Digest | None = None,
    sha256: bool = False,
    read_back: bool = False,
    report: Report = silent,
) -> Alone:
    """Check the volume at *path* against the sets beside it, or in *also*, that *trust* lets count.

    Where there is a set of its name, only that one counts, and a volume of another one is FOREIGN. Without a
    descriptor that can be read it is UNCHECKED. Raises as `trust.check`, what keeps the file from being
    opened, Unsupported where only a newer modelpack could tell, Unexpected.
    """
    try:
        os.close(open_path(path))
    except Local as error:  # a bad sector, or not for this user
        return Alone(Looked(path, State.UNCHECKED, why=error.what, advice=error.advice))
    folders = [path.absolute().parent, *also]
    stems = stems_in(folders)
    own = set_of(path.name)
    stems = [one for one in stems if one == own] or stems
    due: list[tuple[Descriptor, Signed]] = []
    failed: list[ModelpackError] = []
    for stem in stems:
        try:
            signed = check(VolumeSet(folders, stem=stem, expect=expect), trust, path)
            found, wrong = descriptors(folders, stem)
        except ModelpackError as error:
            failed.append(error)
            continue
        failed += wrong
        due += [
            (one, signed)
            for _, one, _ in found
            if signed.set_id in (None, one.id) and signed.fingerprint in (None, one.bundle)
        ]
    fits = [one for one in due if expect in (None, one[0].bundle)]
    if due and not fits:
        raise Unexpected(
            f"is not the bundle that was expected: its fingerprint is {due[0][0].bundle}, not {expect}",
            where=path,
            advice="Do not load it; ask where it came from.",
        )
    if not fits:
        if failed and (trust != Trust() or isinstance(failed[0], Unsupported | Unexpected)):
            raise failed[0]
        why = f"{failed[0].where}: {failed[0].what}" if failed else f"there is no *{DESCRIPTOR} beside it"
        return Alone(Looked(path, State.UNCHECKED, why=why, advice=BRING))
    report(Stage("checking", path.stat().st_size))
    sets = list({one.id: one for one, _ in fits}.values())
    looked = look(path, sets, sha256=sha256, read_back=read_back, report=report)
    if looked.state is not State.GOOD and all(_doubtful(one, signed, folders) for one, signed in fits):
        name = fits[0][0].name
        why = f"{name} is not the one that its sums name: one of the two is damaged"
        return Alone(Looked(path, State.UNCHECKED, why=why, advice=BRING))
    for descriptor, signed in fits:
        if looked.volume in descriptor.volumes:
            return Alone(looked, descriptor, signed)
    return Alone(looked)


def _doubtful(descriptor: Descriptor, signed: Signed, folders: Sequence[Path]) -> bool:
    """Whether sums name another descriptor in place of this one, none name it, and nobody signed it."""
    named = {named_by_sums(descriptor, folder) for folder in folders} - {None}
    return signed.set_id is None and bool(named) and descriptor.id not in named


def check_set(
    folders: Sequence[Path],
    stem: str | None,
    trust: Trust,
    place: object,
    *,
    expect: Digest | None = None,
    sha256: bool = False,
    read_back: bool = False,
    report: Report = silent,
) -> tuple[Set, Signed]:
    """Check the set (of this *stem*) in *folders*, and that it is the one whose signature was checked.

    Raises as `trust.check` and `verify_set`; Unchecked where no descriptor can be read, Unexpected where the
    descriptor that counts is not the one that was signed.
    """
    if not stems_in(folders):
        raise no_descriptor(folders)
    signed = check(VolumeSet(folders, stem=stem, expect=expect), trust, place)
    found, wrong = descriptors(folders, stem)
    if not found and wrong and not isinstance(wrong[0], Unsupported):
        raise Unchecked(
            f"could not be checked: its descriptor is of no use ({wrong[0].what})",
            where=wrong[0].where,
            advice=wrong[0].advice or BRING,
        )
    if signed.set_id is not None and found and signed.set_id not in {one.id for _, one, _ in found}:
        raise another_set(place)
    done = verify_set(
        folders, stem, expect=expect, signed=signed, sha256=sha256, read_back=read_back, report=report
    )
    if signed.set_id not in (None, done.descriptor.id) or (
        signed.fingerprint not in (None, done.descriptor.bundle)
    ):
        raise another_set(place)
    known = signed.state == GOOD
    asked = expect is not None or trust.all.expect is not None
    check_documents(done, folders, blobs=asked and not known, report=report)
    if not known and not asked:
        done.unchecked.append(f"{NOBODY} --expect FINGERPRINT, as `load`, holds blobs against the documents.")
    return done, signed


def another_set(place: object) -> Unexpected:
    """The error where the set that was looked at in *place* is not the one whose signature was checked."""
    return Unexpected(
        "its volumes are described by another descriptor than the one that was signed",
        where=place,
        advice="Two sets of one name lie there, or it changed meanwhile. Do not load it.",
    )


def stems_in(folders: Sequence[Path]) -> list[str]:
    """The stems of the descriptors in *folders*, sorted, by their names alone."""
    found: set[str] = set()
    for path in folders:
        with Folder.at(path) as folder:
            found |= {stem for name in folder.names() if (stem := stem_of(name)) is not None}
    return sorted(found)
