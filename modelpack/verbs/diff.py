"""In what two places differ: by IDs first, and in models that are not the same by what both let be seen."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modelpack.documents.difference import (
    Blobs,
    Change,
    Changed,
    Difference,
    Entry,
    Lone,
    compare_blobs,
    matched,
)
from modelpack.documents.difference_facts import part_of
from modelpack.documents.difference_parts import compare_facts
from modelpack.documents.image import Image
from modelpack.errors import Usage
from modelpack.verbs.diff_bytes import facts_of
from modelpack.verbs.diff_sides import Asking, Known, Side, side
from modelpack.verbs.registries import HTTPS, Access, one_secret
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling

_Found = tuple[tuple[Change, ...], tuple[str, ...]]


def diff(
    a: str,
    b: str,
    *,
    access: Access = HTTPS,
    calling: Calling | None = None,
    report: Report = silent,
) -> Difference:
    """What it takes to get from *a* to *b*: locators of bundles, models directories, servers, registries'
    models, loose files, inventories or receipts, `LOCATOR#NAME` for one model.

    Where a single model is named on one side, it is compared with the model of its name on the other, or with
    the only one there. Servers are asked to call back, as *calling* says, for details of what differs.
    Raises what keeps a side from being read at all.
    """
    if a == b == "-":
        raise Usage("both sides would be read from standard input")
    one_secret([a, b], access)
    with contextlib.ExitStack() as closing:
        asking = Asking(closing, access, calling, report)
        return _between(side(a, asking), side(b, asking))


def _between(left: Side, right: Side) -> Difference:
    if left.single != right.single:
        left, right = _narrowed(left, right.entries), _narrowed(right, left.entries)
    if len(left.entries) == len(right.entries) == 1 and not left.unread and not right.unread:
        return _two(left, right)
    found = matched(left.entries, right.entries)
    result = _compared(left, right, found.pairs)
    unread = [
        (name, f"{one.text}: {error.where or name or 'a model'} cannot be read: {error.what}")
        for one in (left, right)
        for name, error in one.unread
    ]
    hidden = {name.folded for name, _ in unread if name is not None}
    return replace(
        result,
        removed=_seen(found.removed, hidden),
        added=_seen(found.added, hidden),
        renamed=found.renamed,
        unsure=(*(sentence for _, sentence in unread), *result.unsure),
    )


def _narrowed(one: Side, others: Sequence[Entry]) -> Side:
    """*one*, or of its models the one that the only one of *others* stands for: by name, else by ID."""
    if one.single or len(one.entries) < 2:
        return one
    (other,) = others
    named = [entry for entry in one.entries if entry.name.folded == other.name.folded]
    found = named or [entry for entry in one.entries if entry.ids & other.ids]
    unread = [each for each in one.unread if each[0] is None or each[0].folded == other.name.folded]
    return replace(one, entries=tuple(found[:1]), unread=() if found else tuple(unread))


def _seen(lone: Sequence[Lone], hidden: set[str]) -> tuple[Lone, ...]:
    """Those of *lone* whose name does not stand for something unreadable on the other side."""
    return tuple(one for one in lone if one.entry.name.folded not in hidden)


def _two(left: Side, right: Side) -> Difference:
    """A model on each side, whatever its name. Of one that was asked for the name is no difference."""
    ((one,), (two,)) = left.entries, right.entries
    if one.ids & two.ids and one.name.folded != two.name.folded and not (left.single or right.single):
        return Difference(left.text, right.text, renamed=((one, two),))
    return _compared(left, right, [(one, two)])


def _compared(left: Side, right: Side, pairs: Sequence[tuple[Entry, Entry]]) -> Difference:
    same: list[tuple[Entry, Entry]] = []
    changed: list[Changed] = []
    unsure: list[str] = []
    for one, two in pairs:
        if one.ids & two.ids:
            same.append((one, two))
            continue
        changes, left_out = _details(left.know(one), right.know(two))
        if changes or (one.id is not None and two.id is not None):
            changed.append(Changed(one, two, changes, left_out))
        elif left_out:
            unsure.append(f"{two.name}: {'; '.join(left_out)}")
        else:
            same.append((one, two))
    return Difference(left.text, right.text, changed=tuple(changed), same=tuple(same), unsure=tuple(unsure))


def _details(a: Known, b: Known) -> _Found:
    """What differs between two models that have different IDs, or none; and what could not be compared."""
    whys = tuple(dict.fromkeys(one.why for one in (a, b) if one.why))
    if _is_seen(a) and _is_seen(b):
        (ours, closed), (theirs, locked) = facts_of(a, b), facts_of(b, a)
        changes, unsure = compare_facts(ours, theirs)
        unsure = (*(f"what /api/show does not tell: {why}" for why in whys), *unsure, *closed, *locked)
        if not changes and not unsure and _is_image(a) and _is_image(b):
            changes = (Change("manifest", note="the same blobs, written down otherwise"),)
        return changes, tuple(dict.fromkeys(unsure))
    blobs, others = _blobs(a), _blobs(b)
    if blobs is None or others is None:
        return (), whys or ("what differs: one side knows the ID alone",)
    changes = compare_blobs(blobs, others, {**_kinds(a), **_kinds(b)})
    return changes, (*whys, "anything but digests: one side has no bytes")


def _is_seen(one: Known) -> bool:
    return one.model is not None or one.shown is not None


def _is_image(one: Known) -> bool:
    return one.model is not None and isinstance(one.model.document, Image)


def _blobs(one: Known) -> Blobs | None:
    if one.model is not None:
        return {blob.digest: blob.size for blob in one.model.blobs if blob.digest is not None}
    return one.blobs


def _kinds(one: Known) -> Mapping[Digest, str]:
    if one.model is None:
        return one.kinds
    return {blob.digest: part_of(blob) for blob in one.model.blobs if blob.digest is not None}
