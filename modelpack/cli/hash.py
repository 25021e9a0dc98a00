"""`modelpack hash`."""

from __future__ import annotations

from pathlib import Path

import click

from modelpack.cli.options import json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import complain, result, result_json
from modelpack.errors import Partly
from modelpack.verbs.hashes import hash_files
from modelpack.words.text import size


@click.command(
    epilog="""\b
Examples:
  modelpack hash *.gguf
  modelpack hash --json model.gguf"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@json_option
@quiet_option
def command(files: tuple[Path, ...], as_json: bool, quiet: bool) -> None:
    """SHA-256 and BLAKE3 of files, each read once, several at a time."""
    with Progress(quiet=quiet) as progress:
        found = list(hash_files(files, progress))
    good = [one for one in found if one.error is None]
    if as_json:
        result_json(
            [
                {"file": str(one.path), "size": one.size, "sha256": one.sha256.hex, "blake3": one.blake3.hex}
                for one in good
                if one.sha256 is not None and one.blake3 is not None
            ]
        )
    else:
        for one in good:
            result(f"{one.path}  {size(one.size)}")
            result(f"  {one.sha256}")
            result(f"  {one.blake3}")
    failed = {str(one.path): one.error for one in found if one.error is not None}
    if len(failed) == 1 and len(found) == 1:
        raise next(iter(failed.values()))
    for error in failed.values():
        complain(error)
    if failed:
        raise Partly(f"{len(failed)} of {len(found)} files could not be hashed", failed=failed)
