"""Is a bundle whole? Its documents, the small files beside them, every blob."""

from __future__ import annotations

from collections.abc import Sequence

from modelpack.documents.contents import Contents
from modelpack.documents.expects import Elsewhere
from modelpack.documents.oci import ALL_DOCUMENTS, blob_path, bundle
from modelpack.documents.sums import parse_sums
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unexpected, Unsupported
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.verbs.locate import choose
from modelpack.verbs.verdict import Verdict, check_blobs, in_turn
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.report import Report, Stage
from modelpack.words.text import size as shown_size


def verify_bundle(
    store: Archive | FolderBundle, names: Sequence[str], verdict: Verdict, sha256: bool, report: Report
) -> None:
    """Check the bundle *store*; problems go into *verdict*.

    Raised is what keeps it from looking: Unsupported for a newer format, Unexpected for another bundle.
    """
    try:
        contents = store.contents
    except (Unexpected, Unsupported):  # nothing was found wrong: it is not for us to look into
        raise
    except ModelpackError as error:
        verdict.problems.append(error)
        _by_sums(store, verdict, report)
        return
    verdict.fingerprint = contents.fingerprint
    _sums(store, contents, verdict)
    if isinstance(store, Archive):
        verdict.problems += store.slack()
    models = choose(contents.models, names, store.path) if names else contents.models
    check_blobs(store, models, verdict, sha256, report)
    away = [one.blob for one in verdict.problems if isinstance(one, Elsewhere)]
    if away:
        verdict.problems = [one for one in verdict.problems if not isinstance(one, Elsewhere)]
        verdict.bad = [(blob, why) for blob, why in verdict.bad if not isinstance(why, Elsewhere)]
        total = shown_size(sum(blob.size for blob in away))
        count = "1 blob" if len(away) == 1 else f"{len(away)} blobs"
        verdict.unchecked.append(f"{count} ({total}) that the bundle, a delta, expects at the target.")
    foreign = len(contents.index.foreign)
    if foreign:
        verdict.unchecked.append(f"{foreign} entries of index.json that are no models of modelpack's.")


def _by_sums(store: Archive | FolderBundle, verdict: Verdict, report: Report) -> None:
    """Where the documents cannot be believed, SHA256SUMS still says what each file should be."""
    try:
        files = store.files()
        lines = parse_sums(store.read("SHA256SUMS", ALL_DOCUMENTS), "SHA256SUMS")
    except ModelpackError:
        verdict.unchecked.append("Everything else: without its documents nobody knows what belongs there.")
        return
    verdict.unchecked.append("Which models are whole: files were held against SHA256SUMS alone.")
    there = []
    for path, digest in sorted(lines.items()):
        path = path.removeprefix("./")
        if path not in files:
            verdict.problems.append(NotFound(f"{path} is missing"))
        elif path.startswith("blobs/"):
            if path == blob_path(digest):
                there.append(Blob(files[path], "application/octet-stream", digest))
            else:
                verdict.problems.append(Corrupt(f"SHA256SUMS is damaged: its line for {path}"))
        else:
            try:
                if Digest.of(store.read(path, SMALL)) != digest:
                    verdict.problems.append(Corrupt(f"{path} is damaged"))
            except ModelpackError as error:
                verdict.problems.append(error)
    report(Stage("checking", sum(blob.size for blob in there)))
    for blob, problem in in_turn(store.open, there, True, report):
        verdict.blobs += 1
        verdict.bytes_read += blob.size
        verdict.by.add("SHA-256")
        if problem is not None:
            verdict.problems.append(problem)


def _sums(store: Archive | FolderBundle, contents: Contents, verdict: Verdict) -> None:
    """The small files beside the blobs, against SHA256SUMS; and SHA256SUMS against what they are."""
    files = store.files()
    members = {member.path for member in bundle(contents.models, expects=contents.delta).members}
    if contents.sums is None:
        verdict.unchecked.append(
            "README.txt and oci-layout: there is no SHA256SUMS (another tool wrote this)."
        )
    else:
        named = {path.removeprefix("./"): digest for path, digest in contents.sums.items()}
        for path, digest in sorted(named.items()):
            if path.startswith("blobs/sha256/"):
                if path != f"blobs/sha256/{digest.hex}":
                    verdict.problems.append(Corrupt(f"SHA256SUMS is damaged: its line for {path}"))
            elif path not in files:
                verdict.problems.append(NotFound(f"{path} is missing"))
            elif path != "index.json":
                try:
                    if Digest.of(store.read(path, 4 * MIB)) != digest:
                        verdict.problems.append(Corrupt(f"{path} is damaged"))
                except ModelpackError as error:
                    verdict.problems.append(error)
        if not contents.index.foreign:
            for path in sorted(members - named.keys() - {"SHA256SUMS"}):
                verdict.problems.append(Corrupt(f"SHA256SUMS has no line for {path}"))
    strangers = [path for path in files if path not in members]
    if strangers and not contents.index.foreign:
        shown = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        verdict.unchecked.append(f"{len(strangers)} files that are not part of the bundle: {shown}")
