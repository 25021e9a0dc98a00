"""`modelpack restore-script`."""

from __future__ import annotations

import click

from modelpack.cli.talk import talk
from modelpack.verbs.script import script, script_digest


@click.command(
    epilog="""\b
Examples:
  modelpack restore-script > restore.py
  python3 -I restore.py --from b.tar --to /usr/share/ollama/.ollama/models"""
)
def command() -> None:
    """Print the restore.py that travels in bundles; its SHA-256 on stderr.

    It restores a bundle where there is no modelpack, with Python 3.6 or newer. The copy in a bundle cannot
    vouch for that bundle: keep one that came by another road.
    """
    click.echo(script(), nl=False)
    talk(f"SHA-256 {script_digest().hex}")
