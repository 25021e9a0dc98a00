"""What speaks against a plan, before the first byte: versions, room, names, what stands there already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from modelpack.documents.image import Image
from modelpack.errors import ModelpackError
from modelpack.hands.kept import keyed
from modelpack.hands.room import Room, room_at
from modelpack.stores import Source, Target
from modelpack.stores.inventory import InventoryTarget
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.findings import LEVELS, client_of, coming, described, is_made, unchecked
from modelpack.verbs.findings import Finding as Finding
from modelpack.verbs.findings import stop as stop
from modelpack.verbs.needs import on_versions
from modelpack.verbs.plans import Plan
from modelpack.words.blob import KIB, MIB
from modelpack.words.digest import Digest
from modelpack.words.filename import LONGEST, is_portable
from modelpack.words.name import Name
from modelpack.words.text import size

RESERVE = MIB
"""Bytes that a models directory needs beside the blobs: manifests, directories."""
_BLOCK = 4 * KIB  # a file's last block is not full
_MUCH = 1024 * MIB  # bytes, from which on the room on a server is worth a word

_ONLY_REPLACED = (
    "A load would refuse that without --replace, unless a server there made its model of this one by create."
)


def preflight(todo: Plan, source: Source, target: Target) -> tuple[Finding, ...]:
    """What *todo* should be looked at for, errors first; both ends are read, none is changed.

    Models that are there already count only by their names. Raises nothing of ModelpackError: what cannot be
    found out is a note.
    """
    looks = (
        (on_versions, "what the models need of the Ollama there"),
        (_room, "the room there"),
        (_names, "the names"),
        (_standing, "what stands under the names there"),
    )
    found: list[Finding] = []
    for look, subject in looks:
        try:
            found += look(todo, source, target)
        except ModelpackError as error:
            found.append(unchecked(None, subject, error))
    return tuple(sorted(dict.fromkeys(found), key=lambda one: LEVELS.index(one.level)))


# --- room


def _room(todo: Plan, _source: Source, target: Target) -> Iterator[Finding]:
    if not todo.missing:
        return
    if not isinstance(target, ModelsDir):
        if described(target).get("kind") == "server" and todo.bytes > _MUCH:
            yield Finding(
                "note", None,
                f"its free space cannot be known from here; {size(todo.bytes)} would be sent",
            )  # fmt: skip
        return
    room = room_at(target.path, keyed(todo.missing))
    needed = max(0, todo.bytes - room.kept) + RESERVE + _BLOCK * len(todo.missing)
    if room.free is not None and needed > room.free:
        yield Finding(
            "error", None,
            f"{size(needed)} are needed in {target.path} and {size(room.free)} are free",
            "Free some room there, or choose another place.",
            local=True,
        )  # fmt: skip
    for blob in todo.missing:
        if room.largest is not None and blob.size > room.largest:
            yield Finding(
                "error", None,
                f"{target.path} takes no file of more than {size(room.largest)}; {blob.kind} {blob} has "
                f"{size(blob.size)}",
                "FAT32 ends at 4 GiB: use another file system, or raise the limit on this process.",
                local=True,
            )  # fmt: skip


# --- names


def _names(todo: Plan, _source: Source, target: Target) -> Iterator[Finding]:
    folded: dict[str, Name] = {}
    for model in todo.models:
        other = folded.setdefault(model.name.folded, model.name)
        if other != model.name:
            yield Finding(
                "error", model.name,
                f"differs from {other} in case only: Ollama takes the two for one model",
                "Load one of them with --as under another name.",
            )  # fmt: skip
    windows = described(target).get("system") == "windows"
    room: Room | None = None
    if isinstance(target, ModelsDir):
        with contextlib.suppress(ModelpackError):  # the look at the room says what it is
            room = room_at(target.path, {})
    for model, _ in coming(todo):
        for part in model.name.parts:
            if is_portable(part):
                continue
            finding = _part(model.name, part, windows or (room is not None and room.narrow))
            if finding.level == "error" or room is not None:
                yield finding


def _part(name: Name, part: str, narrow: bool) -> Finding:
    """What to say of *part*, which some file system refuses as the name of a directory or file."""
    advice = "Load it with --as under another name."
    if len(part.encode()) > LONGEST:
        return Finding(
            "error", name, f"{part[:40]!r}… has {len(part)} characters; no disk takes a name so long", advice
        )
    why = (
        "holds a colon"
        if ":" in part
        else "ends in a dot"
        if part.endswith(".")
        else "is a device of Windows"
    )
    what = f"{part!r} in its name {why}, and a part of a name is the name of a directory"
    if narrow:
        return Finding("error", name, f"{what}: the file system there takes none such", advice)
    return Finding("note", name, f"{what}: the models directory cannot move to Windows, FAT or exFAT")


# --- what stands there


def _standing(todo: Plan, _source: Source, target: Target) -> Iterator[Finding]:
    models = coming(todo)
    client = client_of(target) if models else None
    listed = client.installed() if client is not None else {}
    for model, way in models:
        there: tuple[str, Digest, int | None] | None = None
        if found := listed.get(model.name.folded):
            there = found.name, found.digest, found.size
        elif isinstance(target, ModelsDir):
            there = _in_directory(target, model.name)
        elif isinstance(target, InventoryTarget) and (held := target.find(model.name)) is not None:
            there = str(held.name), held.id, held.size
        if there is None:
            continue
        called, old, old_size = there
        made = is_made(target, way)
        if old == model.document.id and not made:
            what = f"{called} is there with the same ID, but not whole: what is missing would be sent"
        else:
            new = "an ID of the server's own" if made else model.document.id.short
            sizes = f"{size(old_size) if old_size is not None else 'size not known'} to {size(model.size)}"
            what = f"{called} stands for another model there: {old.short} would become {new} ({sizes})"
            if isinstance(target, InventoryTarget) and not target.replace:
                yield Finding("warning", model.name, what, _ONLY_REPLACED)
                continue
        yield Finding("note", model.name, what)


def _in_directory(target: ModelsDir, name: Name) -> tuple[str, Digest, int | None] | None:
    found = target.find(name)
    if found is None:
        return None
    called, raw = found
    whole: int | None = None
    with contextlib.suppress(ModelpackError):  # a crash may have left none
        whole = sum(blob.size for blob in Image.parse(raw, called).blobs)
    return str(called), Digest.of(raw), whole
