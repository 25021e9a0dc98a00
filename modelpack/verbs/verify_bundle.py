"""Is a bundle whole? Its documents, the small files beside them, every blob, what was attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from modelpack.documents.contents import Contents
from modelpack.documents.expects import Elsewhere
from modelpack.documents.extras import ATTACHMENT, README, SCRIPT, STRIPPED, is_attached, path_of
from modelpack.documents.oci import blob_path, bundle
from modelpack.documents.sums import MOST_SUMS, parse_sums
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unexpected, Unsupported
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.folder_session import SIGNATURE
from modelpack.verbs.locate import choose
from modelpack.verbs.verdict import Remark, Verdict, check_blobs, in_turn
from modelpack.words.blob import MIB, SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader
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
    attached = store.attachments()
    if attached and names:
        verdict.unchecked.append("What was attached.")
    elif attached:
        _check(store, [replace(one.blob, key=one.path) for one in attached], verdict, report)
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
        lines = parse_sums(store.read("SHA256SUMS", MOST_SUMS), "SHA256SUMS")
    except ModelpackError:
        verdict.unchecked.append("Everything else: without its documents nobody knows what belongs there.")
        return
    verdict.unchecked.append("Which models are whole: files were held against SHA256SUMS alone.")
    there = []
    for path, digest in sorted(lines.items()):
        path = path.removeprefix("./")
        if path not in files:
            _miss(path, verdict)
        elif is_attached(path):
            there.append(Blob(files[path], ATTACHMENT, digest, key=path))
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
    _check(store, there, verdict, report)


def _check(store: Archive | FolderBundle, there: Sequence[Blob], verdict: Verdict, report: Report) -> None:
    """Hold blobs, and attachments (whose key is their path), against their SHA-256."""

    def opened(blob: Blob) -> AbstractContextManager[Reader]:
        if blob.media_type != ATTACHMENT:
            return store.open(blob)
        return store.open_attachment(str(blob.key).removeprefix(path_of("")))

    report(Stage("checking", sum(blob.size for blob in there)))
    for blob, problem in in_turn(opened, there, True, report):
        verdict.blobs += 1
        verdict.bytes_read += blob.size
        verdict.by.add("SHA-256")
        if problem is not None:
            if blob.media_type == ATTACHMENT and isinstance(problem, Corrupt):
                problem = Corrupt(f"{blob.key} is damaged", advice=problem.advice)
            verdict.problems.append(problem)


def _miss(path: str, verdict: Verdict) -> None:
    """Note that the file at *path* is missing: no damage where a station on its way may have taken it."""
    if path not in STRIPPED:
        verdict.problems.append(NotFound(f"{path} is missing"))
        return
    verdict.remarks.append(
        Remark(
            "stripped",
            "is missing; something on its way took it out",
            path,
            "The models are whole without it."
            + (" `modelpack restore-script` prints one that you can trust." if path == SCRIPT else ""),
        )
    )


def _sums(store: Archive | FolderBundle, contents: Contents, verdict: Verdict) -> None:
    """The small files beside the blobs, against SHA256SUMS; and SHA256SUMS against what they are."""
    files = store.files()
    members = {member.path for member in bundle(contents.models, expects=contents.delta).members}
    attached = {path_of(name) for name, _ in contents.attachments}
    members |= attached | {SIGNATURE}
    if contents.sums is None:
        verdict.unchecked.append(
            f"{README} and oci-layout: there is no SHA256SUMS (another tool wrote this)."
        )
    else:
        named = {path.removeprefix("./"): digest for path, digest in contents.sums.items()}
        for path, digest in sorted(named.items()):
            if path.startswith("blobs/sha256/"):
                if path != f"blobs/sha256/{digest.hex}":
                    verdict.problems.append(Corrupt(f"SHA256SUMS is damaged: its line for {path}"))
            elif path in files and path in attached:
                continue  # with the blobs
            elif path != "index.json":
                _small(store, path, digest, files, verdict)
        if SCRIPT in named:
            members.add(SCRIPT)
        if not contents.index.foreign:
            for path in sorted(members - named.keys() - {"SHA256SUMS", SIGNATURE}):
                verdict.problems.append(Corrupt(f"SHA256SUMS has no line for {path}"))
    strangers = [path for path in files if path not in members]
    if strangers and not contents.index.foreign:
        shown = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        verdict.unchecked.append(f"{len(strangers)} files that are not part of the bundle: {shown}")


def _small(
    store: Archive | FolderBundle, path: str, digest: Digest, files: Mapping[str, int], verdict: Verdict
) -> None:
    """Hold a small file against its digest; a pack that was killed may have left it as .new."""
    if path not in files and f"{path}.new" not in files:
        _miss(path, verdict)
        return
    try:
        for name in (path, f"{path}.new"):
            if name in files and Digest.of(store.read(name, 4 * MIB)) == digest:
                return
        verdict.problems.append(Corrupt(f"{path} is damaged"))
    except ModelpackError as error:
        verdict.problems.append(error)
