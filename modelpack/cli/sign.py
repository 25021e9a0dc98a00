"""`modelpack sign`."""

from __future__ import annotations

from pathlib import Path

import click

from modelpack.cli.options import json_option, quiet_option
from modelpack.cli.talk import bundle_lines, result, result_json, talk
from modelpack.errors import Usage
from modelpack.hands.hashing import blamed
from modelpack.verbs import locate
from modelpack.verbs.sign import sign


@click.command(
    epilog="""\b
Examples:
  modelpack sign qwen3.tar --key ~/.ssh/id_ed25519
  modelpack sign set/ --key ~/.ssh/id_ed25519.pub     (an agent has the key)"""
)
@click.argument("what", metavar="BUNDLE|SET")
@click.option(
    "--key",
    required=True,
    metavar="KEY",
    type=click.Path(path_type=Path),
    help="A private SSH key; or a public one, where an agent or a security key holds the other half.",
)
@json_option
@quiet_option
def command(what: str, key: Path, as_json: bool, quiet: bool) -> None:
    """Sign a bundle or a set of volumes with an SSH key.

    Signed is what its sums say, by `ssh-keygen -Y sign`, which may ask for a passphrase. The signature of
    b.tar is b.tar.sig beside it, that of a folder SHA256SUMS.sig in it, that of a set STEM.sha256.sig in it;
    whoever takes the bundle along takes that along, too. The bundle itself is not changed.
    """
    place = locate.Located.parse(what)
    if place.pick or what == "-":
        raise Usage("a whole bundle is signed: name its file or folder")
    with blamed(what):
        made = sign(locate.source(place.text), key)
    if as_json:
        result_json({"signature": str(made.path), "key": made.key, "fingerprint": str(made.fingerprint)})
        return
    for line in bundle_lines(what, made.fingerprint):
        talk(line, quiet=quiet)
    result(f"{made.path}: signed by")
    result(f"  {made.key}")
