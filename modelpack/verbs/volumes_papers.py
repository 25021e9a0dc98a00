"""The papers of a volume set, as they lie on every medium of it: descriptor, sums, README.txt, restore.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelpack.documents.sums import parse_sums, sums_say
from modelpack.documents.volumes import DESCRIPTOR, SUMS, Descriptor, sums_of
from modelpack.errors import Corrupt, Local, ModelpackError, NotFound, Refused, Unchecked, Usage
from modelpack.hands.disk import Folder
from modelpack.hands.scratch import SCRATCH
from modelpack.stores.volumes import descriptors as descriptors
from modelpack.stores.volumes import named_by_sums
from modelpack.verbs.trust import Signed
from modelpack.verbs.verdict import Remark
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest

SIGNATURE = SUMS + ".sig"
TEXTS = ("README.txt", "restore.py")
"""Papers without a stem, which a transfer station may have taken out."""

BRING = "It lies on every medium of the set: copy it here (load, plan and verify take --also DIR)."
"""What to do where no descriptor can be read."""


@dataclass
class Papers:
    """What the folders say of one set: its `descriptor`, and what is wrong with the papers themselves."""

    descriptor: Descriptor
    raw: bytes
    problems: list[ModelpackError] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def papers(folders: Sequence[Path], stem: str | None = None, signed: Signed | None = None) -> Papers:
    """What *folders* say of the one set (of this *stem*) whose descriptor lies in them.

    Of several descriptors of one stem it is the one that was *signed*, or that a STEM.sha256 vouches for.
    Where the signature is good, nothing else than what was signed is right. Raises Unchecked where
    there is none, Corrupt or Unsupported where none can be read, Usage where there are several sets.
    """
    found: dict[Digest, tuple[Descriptor, bytes, list[Path]]] = {}
    vouched: set[Digest] = set()
    each, wrong = descriptors(folders, stem)
    for path, one, raw in each:
        found.setdefault(one.id, (one, raw, []))[2].append(path)
        if any(named_by_sums(one, folder) == one.id for folder in folders):
            vouched.add(one.id)
    if not found:
        raise wrong[0] if wrong else no_descriptor(folders)
    if signed is not None and signed.set_id in found:
        chosen = {signed.set_id}
    else:
        chosen = vouched if len({one.stem for one, _, _ in found.values()}) == 1 and vouched else set(found)
    if len(chosen) > 1:
        several = sorted(str(found[one][2][0]) for one in chosen)
        raise Usage(
            f"{len(several)} different sets lie there: {', '.join(several[:5])}",
            where=folders[0],
            advice="Name the one that is meant by its descriptor, or keep each set in a folder of its own.",
        )
    descriptor, raw, _ = found[chosen.pop()]
    result = Papers(descriptor, raw, wrong)
    for other, (_, _, paths) in found.items():
        if other != descriptor.id:
            result.problems += [
                Corrupt("is not what the sums of the set say: damaged, or of another set", where=one)
                for one in paths
            ]
    for folder in folders:
        _check(folder, descriptor, signed.lines if signed is not None else None, result)
    return result


def no_descriptor(folders: Sequence[Path]) -> Unchecked:
    """Nothing says what the bytes in *folders* should be."""
    return Unchecked(
        f"could not be checked: there is no *{DESCRIPTOR} beside it",
        where=folders[0],
        advice=BRING,
    )


def set_of(path: Path) -> tuple[Path, str | None]:
    """The folder of the set that *path* names, and its stem where that is a descriptor; Usage for others."""
    if path.name.endswith(DESCRIPTOR) and not path.is_dir():
        return path.parent, path.name.removesuffix(DESCRIPTOR)
    if not path.is_dir():
        raise Usage("is neither a folder nor a descriptor of volumes", where=path)
    return path, None


def sums_in(folder: Folder, descriptor: Descriptor) -> dict[str, Digest]:
    """What STEM.sha256 in *folder* says; NotFound, Local, and Corrupt where *descriptor* says otherwise."""
    name = descriptor.stem + SUMS
    return read_sums(folder.read(name, SMALL), descriptor, folder.path / name)


def read_sums(raw: bytes, descriptor: Descriptor, where: Path) -> dict[str, Digest]:
    """What *raw*, a STEM.sha256, says; Corrupt where it does not fit *descriptor*, or lists anything else."""
    sums = dict(parse_sums(raw, where))
    due = {one.name: one.sha256 for one in descriptor.volumes} | {descriptor.name: descriptor.id}
    odd = [name for name, digest in due.items() if sums_say(sums, name) != digest]
    odd += [name for name in sums if name not in due and name not in TEXTS]
    if odd:
        raise Corrupt(
            f"does not agree with the descriptor on {', '.join(odd[:5])}{', …' if len(odd) > 5 else ''}",
            where=where,
            advice="One of the two is damaged, or of another set: compare them with another medium's.",
        )
    if raw != sums_of(descriptor, {name: sums[name] for name in TEXTS if name in sums}):
        raise Corrupt("is not spelled as modelpack writes it: somebody changed it", where=where)
    return sums


def vouches(folder: Path, descriptor: Descriptor) -> bool:
    """Whether the STEM.sha256 in *folder* is that of *descriptor*."""
    try:
        with Folder.at(folder) as opened:
            return bool(sums_in(opened, descriptor))
    except ModelpackError:
        return False


def _check(folder: Path, descriptor: Descriptor, lines: Mapping[str, Digest] | None, into: Papers) -> None:
    """Hold the papers in *folder* against each other, and *lines* that were signed; name what is foreign."""
    with Folder.at(folder) as opened:
        names = set(opened.names())
        sums: dict[str, Digest] | None = None
        try:
            sums = sums_in(opened, descriptor)
            if lines is not None and sums != lines:
                raise Corrupt(
                    "is not the one that was signed",
                    where=folder / (descriptor.stem + SUMS),
                    advice="Copy it, README.txt and restore.py from the medium that has the right ones.",
                )
        except NotFound as error:
            into.remarks.append(
                Remark("stripped", "is not there, and vouches for nothing", error.where, _STRIPPED)
            )
        except ModelpackError as error:
            into.problems.append(error)
        sums = dict(lines) if lines is not None else sums
        for name in TEXTS if sums is not None else ():
            due = sums_say(sums or {}, name)
            try:
                if due is not None and Digest.of(opened.read(name, SMALL)) != due:
                    raise Refused(
                        f"was changed: {descriptor.stem}{SUMS} has another hash for it",
                        where=folder / name,
                        advice="Do not run it. `modelpack restore-script` prints the one of modelpack."
                        if name.endswith(".py")
                        else "Do not follow it. Other media of the set may have the right one.",
                    )
            except NotFound as error:
                into.remarks.append(Remark("stripped", "was taken out on the way", error.where, _STRIPPED))
            except ModelpackError as error:
                into.problems.append(error)
        # Without sums nothing covers them: foreign.
        own = {descriptor.name, descriptor.stem + SUMS, descriptor.stem + SIGNATURE, SCRATCH}
        own |= {one.name for one in descriptor.volumes}
        own |= {one for one in TEXTS if sums_say(sums or {}, one) is not None}
        for name in sorted(names - own):
            if not name.startswith(f"{descriptor.stem}.tar") and not name.endswith(DESCRIPTOR):
                what = "is called and sized as no file of this set, and was not used"
                into.remarks.append(Remark("foreign", what, str(folder / name)))


_STRIPPED = "The models are the same without it."


def unreadable(error: ModelpackError) -> ModelpackError:
    """*error* of a folder or file that was there when we began: gone is not damaged, and not missing."""
    if isinstance(error, Local | NotFound):
        return Unchecked(f"could not be read: {error.what}", where=error.where, advice=error.advice)
    return error
