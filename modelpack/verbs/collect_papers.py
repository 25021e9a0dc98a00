"""The papers of a set that comes together: those that were signed, or that the folders have between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelpack.documents.sshsig import SET
from modelpack.documents.sums import sums_say
from modelpack.documents.volumes import SUMS, Descriptor
from modelpack.errors import Corrupt, ModelpackError, Unchecked
from modelpack.hands.disk import Folder
from modelpack.hands.sshsig import keygen
from modelpack.verbs.collect_parts import Parts
from modelpack.verbs.trust import Signed
from modelpack.verbs.volumes_papers import SIGNATURE, TEXTS, Papers, read_sums
from modelpack.words.blob import SMALL
from modelpack.words.digest import Digest


def papers_into(
    parts: Parts,
    folders: Sequence[Path],
    said: Papers,
    signed: Signed | None,
    came: list[str],
    problems: list[ModelpackError],
) -> None:
    """Have the descriptor and what the sums vouch for beside the volumes, as far as some folder has it.

    Of a set that was *signed* well they are those very sums and that signature. Names of what was copied join
    *came*; sums that are others join the *problems*. Raises Corrupt where the signed sums do not fit.
    """
    descriptor, into = said.descriptor, parts.root.path
    name = descriptor.stem + SUMS
    right = {descriptor.name: said.raw}
    every = tuple(dict.fromkeys((into, *folders)))
    held = list(_held(every, descriptor))
    sums, signature, place = b"", None, into
    if signed is not None and signed.papers is not None:
        sums, signature = signed.papers
        read_sums(sums, descriptor, into / name)
    elif held:
        # Anybody can write sums that fit; what a signature is over comes first, whoever made it.
        place, sums, signature = next((one for one in held if _holds(one[1], one[2])), held[0])
        if signature is None:
            signature = next((one[2] for one in held if one[2] is not None and one[1] == sums), None)
    if sums:
        right[name] = sums
        lines = read_sums(sums, descriptor, place / name)
        for other in every:
            for text in TEXTS:
                found = _small(other, text)
                due = sums_say(lines, text)
                if found is not None and Digest.of(found) == due:
                    right.setdefault(text, found)
                elif found is not None and due is not None and not os.path.samefile(other, into):
                    problems.append(Corrupt("was changed, and is not taken", where=other / text))
    if signature is not None:
        right[descriptor.stem + SIGNATURE] = signature
    for other, theirs, _ in held:
        if theirs != sums:
            kept = "what was signed" if signed is not None and signed.papers else f"the one of {place}"
            what = f"has another hash for README.txt or restore.py than {kept}, which is taken"
            problems.append(Corrupt(what, where=other / name))
    for paper, raw in right.items():
        if _small(into, paper) != raw:
            parts.document(paper, raw)
            came.append(paper)


def _held(folders: Sequence[Path], descriptor: Descriptor) -> Iterator[tuple[Path, bytes, bytes | None]]:
    """The folders whose sums fit *descriptor*, those sums, and the signature beside them."""
    for folder in folders:
        raw = _small(folder, descriptor.stem + SUMS) or b""
        with contextlib.suppress(Corrupt):
            read_sums(raw, descriptor, folder)
            yield folder, raw, _small(folder, descriptor.stem + SIGNATURE)


def _holds(sums: bytes, signature: bytes | None) -> bool:
    """Whether *signature* is over *sums*, as far as that can be told here."""
    with contextlib.suppress(Unchecked):
        return signature is not None and keygen().holds(sums, signature, SET).key is not None
    return False


def _small(folder: Path, name: str) -> bytes | None:
    """The small file *name* in *folder*; None where it is not there or not to be read."""
    try:
        with Folder.at(folder) as opened:
            return opened.read(name, SMALL)
    except ModelpackError:
        return None
