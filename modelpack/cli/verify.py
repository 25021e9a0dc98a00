"""`modelpack verify`."""

from __future__ import annotations

from pathlib import Path

import click

from modelpack.cli.options import expect_option, json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.remarks import remark_lines
from modelpack.cli.talk import bundle_lines, counted, error_json, leave_by, result, result_json
from modelpack.cli.trust_options import trust_options
from modelpack.cli.volumes_shown import one_json, show_one, show_set
from modelpack.documents.volumes import DESCRIPTOR
from modelpack.errors import Unchecked, Usage
from modelpack.hands.hashing import blamed
from modelpack.hands.readback import files_at, forget_files
from modelpack.stores import Source
from modelpack.stores.volumes import VolumeSet, distinct
from modelpack.verbs import locate
from modelpack.verbs.attach import uncovered
from modelpack.verbs.trust import GOOD, Trust, check
from modelpack.verbs.verdict import Remark
from modelpack.verbs.verify import verify
from modelpack.verbs.volumes import has_volumes
from modelpack.verbs.volumes_papers import set_of
from modelpack.verbs.volumes_signed import NOBODY, Alone, check_set, check_volume
from modelpack.words.digest import Digest
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack verify qwen3.tar
  modelpack verify /usr/share/ollama/.ollama/models
  modelpack verify qwen3.tar --expect sha256:b30f…"""
)
@click.argument("what", metavar="BUNDLE|DIR|FILE")
@click.option("--sha256", is_flag=True, help="Hold bytes against SHA-256, also where BLAKE3 is recorded.")
@click.option(
    "--also",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another folder with volumes of the set; several times.",
)
@click.option("--read-back", is_flag=True, help="Have the medium read, not what memory keeps of it.")
@trust_options
@expect_option
@json_option
@quiet_option
def command(
    what: str,
    sha256: bool,
    also: tuple[Path, ...],
    read_back: bool,
    trust: Trust,
    expect: Digest | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check that a bundle, a set of volumes, a models directory, what `unpack` wrote or a GGUF is whole.

    Every problem is listed: structure first, then what is missing or has a wrong size, then the bytes of
    every blob. Of a models directory it also tells what is odd and no damage: files that nobody needs, or
    that Ollama stumbles over. It says what it did not check.
    """
    place = locate.Located.parse(what)
    path = Path(place.text)
    volumes = has_volumes(path, also)
    if also and not volumes:
        raise Usage("--also is for sets of volumes", where=what)
    expected = expect is not None or trust.all.expect is not None
    with Progress(quiet=quiet) as progress:
        if volumes:
            if path.is_dir() or path.name.endswith(DESCRIPTOR):
                folder, stem = set_of(path)
                folders = distinct([folder, *also])
                found, signed = check_set(
                    folders, stem, trust, what, expect=expect, sha256=sha256, read_back=read_back,
                    report=progress,
                )  # fmt: skip
                if expected and found.good and signed.state != GOOD:
                    found.remarks += map(_remark, uncovered(VolumeSet(folders, stem=stem)))
                progress.rest()
                show_set(what, found, as_json=as_json, signed=signed)
            else:
                alone = check_volume(
                    path, also, trust, expect=expect, sha256=sha256, read_back=read_back, report=progress
                )
                progress.rest()
                _show_alone(alone, as_json=as_json)
            return
        store = locate.source(place.text, expect=expect)
        signed = check(store, trust, what)
        with blamed(what):
            held = forget_files(_files(store)) if read_back else {}
            verdict = verify(store, [place.pick] if place.pick else [], sha256=sha256, report=progress)
        if verdict.fingerprint is not None:
            signed.hold(store)
        if expected and signed.state != GOOD and verdict.fingerprint is not None:
            verdict.remarks += map(_remark, uncovered(store))
        verdict.unchecked += [f"The medium itself: {file}: {why}." for file, why in held.items()]
    if as_json:
        result_json(
            {
                "good": verdict.good,
                "fingerprint": str(verdict.fingerprint) if verdict.fingerprint else None,
                "models": verdict.models,
                "blobs": verdict.blobs,
                "bytes_read": verdict.bytes_read,
                "by": sorted(verdict.by),
                "problems": [error_json(one) for one in verdict.problems],
                "remarks": [
                    {
                        "kind": one.kind,
                        "what": one.what,
                        "where": one.where,
                        "advice": one.advice,
                        "bytes": one.size,
                    }
                    for one in verdict.remarks
                ],
                "unchecked": verdict.unchecked,
                "signature": signed.to_json(),
            }
        )
    else:
        for line in bundle_lines(what, verdict.fingerprint) if verdict.fingerprint is not None else ():
            result(line)
        if verdict.fingerprint is not None:
            for line in signed.shown():
                result(line)
        word = "good" if verdict.good else counted(len(verdict.problems), "problem")
        line = f"{word}: {counted(verdict.models, 'model')}, {counted(verdict.blobs, 'blob')}"
        if verdict.by:
            line += f", {size(verdict.bytes_read)} read and held against {' and '.join(sorted(verdict.by))}"
        result(line)
        for line in remark_lines(verdict.remarks):
            result(line)
        for sentence in verdict.unchecked:
            result(f"not checked: {sentence}")
    leave_by(verdict.problems)


def _remark(path: str) -> Remark:
    return Remark("not covered", "the fingerprint says nothing of it; a signature does", path)


def _show_alone(alone: Alone, *, as_json: bool) -> None:
    """What a volume alone is, after whose it is."""
    one, signed = alone.descriptor, alone.signed
    if as_json:
        result_json(
            one_json(alone.looked)
            | {
                "set": str(one.id) if one is not None else None,
                "fingerprint": str(one.bundle) if one is not None else None,
                "signature": signed.to_json() if signed is not None else None,
            }
        )
        problem = alone.looked.problem
        if isinstance(problem, Unchecked):
            raise problem
        leave_by([problem] if problem is not None else [])
        return
    if one is not None and signed is not None:
        for line in bundle_lines(one.name, one.bundle):
            result(line)
        for line in signed.shown():
            result(line)
        if signed.state != GOOD:
            result(f"not checked: {NOBODY}")
    show_one(alone.looked, as_json=False)


def _files(store: Source) -> list[Path]:
    """The files that *store* is read from."""
    path = getattr(store, "path", None)
    return files_at(path) if isinstance(path, Path) else []
