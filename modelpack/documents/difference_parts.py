"""Two models compared part by part, as far as both are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from modelpack.documents.difference import Change, blob_json
from modelpack.documents.difference_facts import TEXTS, Facts, File
from modelpack.documents.difference_gguf import compare_headers
from modelpack.documents.difference_text import text_diff
from modelpack.documents.gojson import parse_value
from modelpack.documents.show import DEFAULT_TEMPLATE
from modelpack.errors import Corrupt
from modelpack.words.digest import Digest


def compare_facts(a: Facts, b: Facts) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """What differs between two models, in the order of parts, and sentences on what could not be compared."""
    changes: list[Change] = []
    unsure: list[str] = []
    if {a.kind, b.kind} == {"image", "recipe"}:
        changes.append(Change("document", "", a.kind, b.kind))
    for part in dict.fromkeys(file.part for file in (*a.files, *b.files)):
        found, left = _files(part, a, b)
        changes += found
        unsure += left
    for part in TEXTS:
        if part in a.digests and a.digests[part] == b.digests.get(part):
            continue
        reasons = [side.unread[part] for side in (a, b) if part in side.unread]
        if reasons:
            unsure += [f"its {part}: {reason}" for reason in dict.fromkeys(reasons)]
            before, after = (_digests(side, part) for side in (a, b))
            if not (a.told or b.told):
                changes.append(Change(part, "", before, after))
            continue
        found = list(_PARTS[part](a, b))
        if not found and part in a.digests and part in b.digests:
            found = [
                Change(part, "", _digests(a, part), _digests(b, part), note="the same, written otherwise")
            ]
        changes += found
    return tuple(changes), tuple(dict.fromkeys(unsure))


def _digests(side: Facts, part: str) -> Any:
    found = [str(digest) for digest in side.digests.get(part, ()) if digest is not None]
    return {"digests": found} if found else None


def _files(part: str, a: Facts, b: Facts) -> tuple[list[Change], list[str]]:
    """Files of one part: what both have goes out, the rest is compared in its order."""
    ours, theirs = ([file for file in side.files if file.part == part] for side in (a, b))
    both = Counter(file.digest for file in ours) & Counter(file.digest for file in theirs)
    both.pop(None, None)
    pairs = list(zip_longest(_without(ours, both), _without(theirs, both)))
    changes: list[Change] = []
    unsure: list[str] = []
    for before, after in pairs:
        changes.append(Change(part, "", _file(before), _file(after)))
        if before is not None and after is not None and before.header and after.header:
            found, left = compare_headers(part, before.header, after.header)
            changes += found
            unsure += left
            if not found and not left:
                changes.append(Change(f"{part} tensors", note="their numbers; the headers say the same"))
    return changes, unsure


def _without(files: list[File], both: Mapping[Digest | None, int]) -> Iterator[File]:
    left = dict(both)
    for file in files:
        if left.get(file.digest, 0):
            left[file.digest] -= 1
        else:
            yield file


def _file(file: File | None) -> Any:
    if file is None:
        return None
    kind = file.header.file_type if file.header is not None else ""
    return blob_json(file.digest, file.size, type=kind, file=file.title)


def _text(text: str | None) -> Any:
    if text is None:
        return None
    try:
        raw = text.encode("utf-8", "surrogateescape")  # bytes that were not UTF-8
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogatepass")  # half a character, by an escape of JSON
    return blob_json(Digest.of(raw), len(raw))


def _of_text(part: str, before: str | None, after: str | None) -> Iterator[Change]:
    if before != after:
        yield Change(part, "", _text(before), _text(after), text_diff(before or "", after or ""))


def _template(a: Facts, b: Facts) -> Iterator[Change]:
    pair = [a.template, b.template]
    if a.told or b.told:  # a server says so where there is none
        pair = [text or DEFAULT_TEMPLATE for text in pair]
    return _of_text("template", *pair)


def _system(a: Facts, b: Facts) -> Iterator[Change]:
    pair = [a.system, b.system]
    if a.told or b.told:
        pair = [text or None for text in pair]
    return _of_text("system", *pair)


def _parameters(a: Facts, b: Facts) -> Iterator[Change]:
    for name in sorted(a.parameters.keys() | b.parameters.keys()):
        before, after = a.parameters.get(name), b.parameters.get(name)
        if before != after and not (a.told + b.told and not before and not after):
            yield Change("parameters", name, _values(before), _values(after))


def _values(values: tuple[str, ...] | None) -> Any:
    """A parameter's value as JSON has it, where Go's text for it is JSON."""
    if values is None:
        return None
    found: list[Any] = []
    for text in values:
        try:
            found.append(parse_value(text.encode("utf-8", "replace"), ""))
        except Corrupt:
            found.append(text)
    return found[0] if len(found) == 1 else found


def _licences(a: Facts, b: Facts) -> Iterator[Change]:
    ours, theirs = a.licences, b.licences
    if a.told or b.told:  # a server joins them
        ours, theirs = (("\n".join(each),) if any(each) else () for each in (ours, theirs))
    gone, come = (
        [*(Counter(one) - Counter(two)).elements()] for one, two in ((ours, theirs), (theirs, ours))
    )
    if not gone and not come and ours != theirs:
        yield Change("licence", note="their order")
    for before, after in zip_longest(gone, come):
        yield from _of_text("licence", before, after)


def _messages(a: Facts, b: Facts) -> Iterator[Change]:
    if a.messages != b.messages:
        lines = text_diff("\n".join(a.messages), "\n".join(b.messages))
        yield Change("messages", "", len(a.messages) or None, len(b.messages) or None, lines)


def _config(a: Facts, b: Facts) -> Iterator[Change]:
    """One may tell what the model is, the other how it is made, or not all: then of keys that both have."""
    partly = a.told or b.told or a.kind != b.kind
    always = () if any(side.told and "template" in side.unread for side in (a, b)) else _ENGINE
    for key in sorted(a.config.keys() | b.config.keys()):
        before, after = a.config.get(key), b.config.get(key)
        known = key in always or (key in a.config and key in b.config)
        if before != after and (known or not partly):
            yield Change("config", key, before, after)


_ENGINE = ("renderer", "parser", "requires")
_PARTS = {
    "template": _template,
    "system": _system,
    "parameters": _parameters,
    "licence": _licences,
    "messages": _messages,
    "config": _config,
}
