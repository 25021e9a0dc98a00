"""Repair of a bundle in a folder: blobs by rename, documents as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from modelpack.documents.extras import FOLDER
from modelpack.errors import Corrupt, ModelpackError, NotFound
from modelpack.hands.disk import Folder
from modelpack.stores.folder import FolderBundle
from modelpack.verbs.locate import choose
from modelpack.verbs.repair_along import Along
from modelpack.verbs.repair_bench import bench
from modelpack.verbs.repair_rescue import is_there, rescued
from modelpack.verbs.repair_spares import Mended, Repaired, Spare, Spares
from modelpack.verbs.verdict import Verdict, check_blobs
from modelpack.words.report import Report

_LAST = ("SHA256SUMS", "index.json")  # index.json is the one that counts


def repair_folder(
    store: FolderBundle, spares: Sequence[Spare], names: Sequence[str], report: Report
) -> Repaired:
    """As `repair` says, of a folder. Its fingerprint stays what it is."""
    with Folder.at(store.path) as root, contextlib.ExitStack() as stack:
        above = stack.enter_context(root.folder("blobs", create=True))
        blobs = stack.enter_context(above.folder("sha256", create=True))
        blobs.lock()  # of two repairs, the second looks when the first has done
        contents, summed = rescued(store.read, store.path, spares)
        models = choose(contents.models, names, store.path) if names else contents.models
        along = Along(store, contents, spares)
        if not names:
            along.seek(report)
        verdict = Verdict()
        check_blobs(store, models, verdict, False, report, contents.expects)
        documents = along.documents()
        order = [*sorted(documents.keys() - set(_LAST)), *(path for path in _LAST if path in documents)]
        wrong = [
            path
            for path in order
            if (summed or "/" in path or path == "index.json")
            and not is_there(store.read, path, documents[path])
        ]
        done = Repaired(contents.fingerprint, left=along.left)
        if contents.sums is None and summed and not along.ours:
            done.left.append(Corrupt("SHA256SUMS is damaged, and another tool wrote it", where=store.path))
        if verdict.good and not wrong and not along.bad:
            return done
        wanted = {
            blob.digest.hex: blob
            for blob, error in verdict.bad
            if blob.digest is not None and isinstance(error, Corrupt | NotFound)
        }
        lost = [one for one in along.attached if one.path in along.bad]
        room = [*wanted.values(), *(one.blob for one in lost)]
        tools = stack.enter_context(bench(root, room, report))
        mended: set[int] = set()
        why: dict[int, ModelpackError] = {}
        errors = {blob.digest: error for blob, error in verdict.bad}
        for blob, outcome in tools.blobs(blobs, wanted, Spares(spares), models):
            if isinstance(outcome, ModelpackError):
                why[id(errors[blob.digest])] = outcome
            else:
                mended.add(id(errors[blob.digest]))
                done.mended.append(outcome)
        done.leave(verdict.problems, mended, why)
        for one in lost:
            place = along.came[one.path]
            try:
                attachments = stack.enter_context(root.folder(FOLDER, create=True))
                aside = tools.attachment(attachments, one)
            except ModelpackError as error:
                problem = along.bad[one.path]
                problem.advice = f"Not repaired: {place}: {error.what}."
                done.left.append(problem)
            else:
                done.mended.append(Mended("attachment", one.path, one.blob.size, place, aside))
        for path in wrong:
            folder = blobs if "/" in path else root
            try:
                aside = tools.document(folder, path.rpartition("/")[2], documents[path])
            except ModelpackError as error:
                done.left.append(error)
                break  # index.json last, or not at all
            place = along.came.get(path, "its own digests")
            done.mended.append(Mended("document", path, len(documents[path]), place, aside))
        store.__dict__.pop("contents", None)
    return done
