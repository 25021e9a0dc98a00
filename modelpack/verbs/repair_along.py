"""What lies beside the models of a bundle that is repaired: README.txt, restore.py, attachments, their sums.

SHA256SUMS is believed as it stands: what another modelpack wrote stays what it is. Each file is held against
its line, and sought elsewhere where it is another one. The sums are put together anew only where they are
wrong about what is known otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import Protocol

from modelpack.documents.contents import Contents
from modelpack.documents.extras import (
    ATTACHMENT,
    README,
    SCRIPT,
    STRIPPED,
    Attachment,
    Extras,
    attachments_of,
    fits,
    is_attached,
    path_of,
)
from modelpack.documents.oci import Bundle, Member, bundle
from modelpack.documents.readme import readme
from modelpack.documents.sums import MOST_SUMS, format_sums, parse_sums, readable_sums
from modelpack.errors import Corrupt, ModelpackError, NotFound
from modelpack.hands.hashing import Counted, pour
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.repair_spares import Spare
from modelpack.verbs.script import script
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Stage, silent

SUMS = "SHA256SUMS"
NOBODY = "Not repaired: none of the sources has it."


class Own(Protocol):
    """The bundle that is repaired."""

    def read(self, path: str, most: int) -> bytes:
        """The small file at *path*; NotFound, or Corrupt where it has more than *most* bytes."""
        ...

    def files(self) -> Mapping[str, int]:
        """What is there, with its bytes."""
        ...

    def open_attachment(self, name: str) -> AbstractContextManager[Reader]:
        """The bytes of the attachment *name*; nobody has checked them. NotFound."""
        ...


class Along:
    """What travels along in the bundle *own*, whose documents say *contents*.

    `texts` are README.txt and restore.py, as far as they are known; `gone` are those of them that were taken
    out on the way, and that nobody has: no damage. `came` says from where, of what is not the bundle's own;
    `left` is what is wrong and stays so. What is `attached` is known after `seek`, and what of it is `bad`.
    """

    def __init__(self, own: Own, contents: Contents, spares: Sequence[Spare]) -> None:
        self._own, self._contents, self._spares = own, contents, spares
        self.gone: set[str] = set()
        self.came: dict[str, str] = {}
        self.left: list[ModelpackError] = []
        self.attached: list[Attachment] = []
        self.bad: dict[str, ModelpackError] = {}
        self._raw = self._own_sums()
        self._said = readable_sums(self._raw)
        self._lines = dict(self._said)
        self._parsed = False
        with contextlib.suppress(Corrupt):
            self._parsed = bool(parse_sums(self._raw, SUMS))
        made = bundle(contents.models, contents.index.foreign, contents.delta)
        self.ours = made.index == contents.index.raw
        """Whether modelpack wrote the index: then every document follows from it."""
        self._base = {
            path: digest
            for path, digest in readable_sums(made.document(SUMS)).items()
            if path != README and (self.ours or path != "oci-layout")
        }
        if not self._sure:
            self._adopt()
        self.texts: dict[str, bytes] = {}
        for path in (SCRIPT, README):  # README.txt names the script
            if (raw := self._text(path)) is not None:
                self.texts[path] = raw

    # --- the sums

    def _own_sums(self) -> bytes:
        """SHA256SUMS, or what a killed pack left beside it where that is of this index; or what is there."""
        there = [raw for path in (SUMS, f"{SUMS}.new") if (raw := self._small(path)) is not None]
        fit = (raw for raw in there if readable_sums(raw).get("index.json") == self._contents.fingerprint)
        return next(fit, there[0] if there else b"")

    @cached_property
    def _sure(self) -> bool:
        """Whether the sums are right as far as anybody can tell: of the models, and of names."""
        files = self._own.files()
        return (
            self._parsed
            and README in self._said
            and all(self._said.get(path) == digest for path, digest in self._base.items())
            and all(path in files or path in self._base or path in STRIPPED for path in self._said)
        )

    def _adopt(self) -> None:
        """Take in what no line names any more, where the sums have its digest or its name, or no line."""
        files = self._own.files()
        for path in files:
            is_ours = path in STRIPPED or (is_attached(path) and fits(path.removeprefix(path_of(""))))
            if not is_ours or path in self._lines:
                continue
            if path in STRIPPED:
                raw = self._small(path)
                digest = Digest.of(raw) if raw is not None else None
            else:
                digest = _digest(self._named(path.removeprefix(path_of("")), ZERO, files[path]))
            marks = (f"  {path}\n".encode(), digest.hex.encode()) if digest is not None else ()
            if digest is not None and (not self._said or any(mark in self._raw for mark in marks)):
                self._lines = {  # its own line may have the digest still, and another name
                    name: known
                    for name, known in self._lines.items()
                    if known != digest or name in files or name in self._base
                }
                self._lines[path] = digest

    def sums(self) -> bytes:
        """SHA256SUMS as it should be: as it stands, where its lines are right."""
        known = {*STRIPPED, *(path_of(name) for name, _ in attachments_of(self._lines))}
        right = {**self._base, **{path: self._lines[path] for path in known & self._lines.keys()}}
        if self._parsed and all(self._said.get(path) == digest for path, digest in right.items()):
            return self._raw
        right |= {path: self._lines[path] for path in self.unknown()}
        return format_sums([(digest, path) for path, digest in right.items()])

    def unknown(self) -> list[str]:
        """Files that are there and listed, and of which nothing is known: a newer modelpack may."""
        known = {*self._base, *STRIPPED, *(path_of(name) for name, _ in attachments_of(self._lines))}
        files = self._own.files().keys() - known
        return sorted(path for path in files & self._lines.keys() if not path.startswith("blobs/"))

    # --- README.txt and restore.py

    def _text(self, path: str) -> bytes | None:
        """The file at *path* as its line says; where that is not to be had, it is noted why."""
        want = self._lines.get(path)
        here = [raw for name in (path, f"{path}.new") if (raw := self._small(name)) is not None]
        if want is None and path == SCRIPT:  # if one is there it is a stranger
            return None
        if want is None:
            raw = here[0] if here else self._ours(path)
            self._lines[path] = Digest.of(raw)
            return raw
        for raw in here:
            if Digest.of(raw) == want:
                return raw
        others: list[bytes] = []
        for raw, place in self._elsewhere(path):
            if Digest.of(raw) == want:
                self.came |= {path: place} if place else {}
                return raw
            others.append(raw)
        for raw in here:
            if raw in others:  # so its line is what is damaged
                self._lines[path] = Digest.of(raw)
                return raw
        if {path, f"{path}.new"} & self._own.files().keys():
            self.left.append(Corrupt(f"{path} is damaged", advice=NOBODY))
        else:
            self.gone.add(path)
        return None

    def _elsewhere(self, path: str) -> Iterator[tuple[bytes, str]]:
        yield self._ours(path), "modelpack" if path == SCRIPT else ""
        for source, place in self._bundles():
            with contextlib.suppress(ModelpackError):
                yield source.read(path, SMALL), place

    def _bundles(self) -> Iterator[tuple[Archive | FolderBundle | VolumeSet, str]]:
        for spare in self._spares:
            if isinstance(spare.source, Archive | FolderBundle | VolumeSet):
                yield spare.source, spare.place

    def _ours(self, path: str) -> bytes:
        """What this modelpack would write there."""
        if path == SCRIPT:
            return script()
        return readme(
            self._contents.models,
            script=self._lines.get(SCRIPT),
            attachments=[name for name, _ in attachments_of(self._lines)],
            expects=self._contents.delta,
        )

    def _small(self, path: str) -> bytes | None:
        try:
            return self._own.read(path, MOST_SUMS if path.startswith(SUMS) else SMALL)
        except (Corrupt, NotFound):
            return None

    # --- attachments

    def seek(self, report: Report) -> None:
        """Read every attachment; where one is wrong, find a source that has it."""
        named = attachments_of(self._lines)
        files = self._own.files()
        report(Stage("checking", sum(files.get(path_of(name), 0) for name, _ in named)))
        for name, digest in named:
            path = path_of(name)
            here = self._named(name, digest, files.get(path, 0))
            try:
                found = _digest(here, report)
            except ModelpackError as error:  # nobody could look: no reason to put another in its place
                self.left.append(error)
                continue
            if found == digest:
                self.attached.append(here)
                continue
            wrong = Corrupt(f"{path} is damaged") if path in files else NotFound(f"{path} is missing")
            others = list(self._attached_elsewhere())
            fit = ((one, place) for one, place in others if one.blob.digest == digest and _is_right(one))
            if (right := next(fit, None)) is not None:
                self.attached.append(replace(right[0], name=name))
                self.came[path] = right[1]
                self.bad[path] = wrong
            elif found is not None and any((one.name, one.blob.digest) == (name, found) for one, _ in others):
                self._lines[path] = found  # so its line is what is damaged
                self.attached.append(replace(here, blob=replace(here.blob, digest=found)))
            else:
                wrong.advice = NOBODY
                self.left.append(wrong)

    def _named(self, name: str, digest: Digest, size: int = 0) -> Attachment:
        return Attachment(name, Blob(size, ATTACHMENT, digest), partial(self._own.open_attachment, name))

    def _attached_elsewhere(self) -> Iterator[tuple[Attachment, str]]:
        for source, place in self._bundles():
            with contextlib.suppress(ModelpackError):
                for one in source.attachments():
                    yield one, place

    # --- all of it

    def documents(self) -> dict[str, bytes]:
        """Every document as it should be, by its path; no SHA256SUMS where another tool wrote the index."""
        contents = self._contents
        if not self.ours:
            return {**contents.documents, "index.json": contents.index.raw, **self.texts}
        made = bundle(contents.models, contents.index.foreign, contents.delta)
        found = {one.path: one.content for one in made.members if isinstance(one.content, bytes)}
        del found[README]
        return {**found, **self.texts, SUMS: self.sums()}

    def bundle(self) -> Bundle:
        """All files of the bundle; before `seek` attachments are empty: where the first begins is known."""
        named = attachments_of(self._lines)
        attached = self.attached or [self._named(name, digest) for name, digest in named]
        extras = Extras(self.texts.get(SCRIPT), tuple(attached), self.texts.get(README, b""))
        contents = self._contents
        made = bundle(contents.models, contents.index.foreign, contents.delta, extras)
        documents = self.documents()
        return Bundle(
            made.index,
            tuple(
                Member(one.path, documents.get(one.path, one.content))
                for one in made.members
                if one.path not in self.gone
            ),
        )


def _digest(one: Attachment, report: Report = silent) -> Digest | None:
    """SHA-256 of all its bytes; None where they are not all there."""
    try:
        with one.open() as reader:
            return pour(Counted(reader, lambda count: report(Moved(count))), one.blob.size).sha256
    except (Corrupt, NotFound):
        return None


def _is_right(one: Attachment) -> bool:
    with contextlib.suppress(ModelpackError):
        return _digest(one) == one.blob.digest
    return False
