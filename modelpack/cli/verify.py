"""`modelpack verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from modelpack.cli.options import expect_option, json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import bundle_lines, counted, leave_by, result, result_json
from modelpack.hands.hashing import blamed
from modelpack.verbs import locate
from modelpack.verbs.verdict import Remark
from modelpack.verbs.verify import verify
from modelpack.words.digest import Digest
from modelpack.words.text import size

_SHOWN = 5  # remarks of a kind


@click.command(
    epilog="""\b
Examples:
  modelpack verify qwen3.tar
  modelpack verify /usr/share/ollama/.ollama/models
  modelpack verify qwen3.tar --expect sha256:b30f…"""
)
@click.argument("what", metavar="BUNDLE|DIR|FILE")
@click.option("--sha256", is_flag=True, help="Hold bytes against SHA-256, also where BLAKE3 is recorded.")
@expect_option
@json_option
@quiet_option
def command(what: str, sha256: bool, expect: Digest | None, as_json: bool, quiet: bool) -> None:
    """Check that a bundle, a models directory, what `unpack` wrote or a GGUF is whole.

    Every problem is listed: structure first, then what is missing or has a wrong size, then the bytes of
    every blob. Of a models directory it also tells what is odd and no damage: files that nobody needs, or
    that Ollama stumbles over. It says what it did not check.
    """
    place = locate.Located.parse(what)
    with Progress(quiet=quiet) as progress:
        store = locate.source(place.text, expect=expect)
        with blamed(what):
            verdict = verify(store, [place.pick] if place.pick else [], sha256=sha256, report=progress)
    if as_json:
        result_json(
            {
                "good": verdict.good,
                "fingerprint": str(verdict.fingerprint) if verdict.fingerprint else None,
                "models": verdict.models,
                "blobs": verdict.blobs,
                "bytes_read": verdict.bytes_read,
                "by": sorted(verdict.by),
                "problems": [
                    {"kind": type(one).__name__, "what": one.what, "where": one.where, "advice": one.advice}
                    for one in verdict.problems
                ],
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
            }
        )
    else:
        for line in bundle_lines(what, verdict.fingerprint) if verdict.fingerprint is not None else ():
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


def remark_lines(remarks: Sequence[Remark]) -> Iterator[str]:
    """*remarks* by their kind: a few of each, how many more there are, and what to do about them."""
    kinds: dict[tuple[str, str], list[Remark]] = {}
    for one in remarks:
        kinds.setdefault((one.kind, one.advice), []).append(one)
    for (kind, advice), some in kinds.items():
        for one in some[:_SHOWN]:
            yield f"{kind}: {one.where}: {one.what}"
        if len(some) > _SHOWN:
            total = sum(one.size for one in some)
            together = f", {size(total)} together" if total else ""
            yield f"{kind}: … {counted(len(some), 'file')} in all{together} (--json lists them)"
        if advice:
            yield f"  {advice}"
