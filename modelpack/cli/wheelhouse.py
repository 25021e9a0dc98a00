"""`modelpack wheelhouse`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from modelpack.cli.options import json_option, quiet_option
from modelpack.cli.progress import Progress
from modelpack.cli.talk import counted, result, result_json, talk
from modelpack.verbs import wheelhouse
from modelpack.words.text import size


@click.command(
    epilog=f"""\b
Platforms: {", ".join(list(wheelhouse.PLATFORMS)[:3])},
  {", ".join(list(wheelhouse.PLATFORMS)[3:])}; or a tag as wheels have it.

\b
Examples:
  modelpack wheelhouse usb/modelpack
  modelpack wheelhouse usb/modelpack --platform linux-aarch64 --python 3.12"""
)
@click.argument("directory")
@click.option(
    "--platform", "platforms", multiple=True, metavar="NAME", help="For which hosts. May be repeated."
)
@click.option("--python", "pythons", multiple=True, metavar="3.N", help="For which Pythons. May be repeated.")
@json_option
@quiet_option
def command(
    directory: str, platforms: tuple[str, ...], pythons: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Collect modelpack and all it needs in DIRECTORY, for a host without an index.

    modelpack's own wheel is made of what is running here; what it needs is fetched by pip, and taken only
    where its SHA-256 is one that this modelpack knows. By default for a host such as this one. On the other
    side, `sh DIRECTORY/install.sh` installs it.
    """
    path = Path(os.path.expanduser(directory))
    with Progress(quiet=quiet) as progress:
        found = wheelhouse.collect(path, platforms, pythons, progress)
    if as_json:
        result_json(
            {
                "directory": directory,
                "platforms": list(found.platforms),
                "pythons": list(found.pythons),
                "files": {
                    name: {"digest": str(digest), "size": count}
                    for name, (digest, count) in found.files.items()
                },
            }
        )
        return
    wheels = counted(sum(name.endswith(".whl") for name in found.files), "wheel")
    total = size(sum(count for _, count in found.files.values()))
    result(f"{directory}: {wheels}, {total}; {', '.join(found.platforms)}; Python {', '.join(found.pythons)}")
    for name, (digest, _) in found.files.items():
        result(f"  {digest.hex}  {name}")
    scripts = [name for name in (wheelhouse.SHELL, wheelhouse.BATCH) if name in found.files]
    how = {wheelhouse.SHELL: "sh install.sh", wheelhouse.BATCH: "install.bat"}
    talk(f"on the other side: {' or '.join(how[name] for name in scripts)}", quiet=quiet)
