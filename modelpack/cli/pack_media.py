"""What `pack` does for media: volumes, what travels along, and looking at what was written."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from modelpack.cli.progress import Progress
from modelpack.cli.talk import counted, leave_by, result, result_json, talk
from modelpack.documents.extras import Attachment, Extras
from modelpack.documents.volumes import check_stem, volume_size
from modelpack.errors import ModelpackError, Usage
from modelpack.hands.readback import files_at, forget_files, settle
from modelpack.stores import Source
from modelpack.verbs import locate
from modelpack.verbs.attach import attached, merged
from modelpack.verbs.remake import numbers, remake
from modelpack.verbs.script import script
from modelpack.verbs.since import Left
from modelpack.verbs.targets import Cut
from modelpack.verbs.verify import verify
from modelpack.verbs.volumes import Looked, verify_set
from modelpack.verbs.volumes_look import look
from modelpack.words.report import Report

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Media:
    """What the options say: how the bundle is cut, which volumes are made again, what travels along."""

    cut: Cut | None
    stem: str | None
    only: tuple[int, ...]
    attach: tuple[str, ...]
    script: bool
    read_back: bool

    def extras(self, carried: Sequence[tuple[Attachment, str]], report: Report, *, quiet: bool) -> Extras:
        """The script, the attached files, which are hashed now, and what was *carried* here by bundles."""
        paths = [Path(os.path.expanduser(one)) for one in self.attach]
        given = attached(paths, report)
        every = merged(given, carried)
        if came := [one.name for one in every if one not in given]:
            shown = ", ".join(came[:3]) + (", …" if len(came) > 3 else "")
            talk(f"{counted(len(came), 'attachment')} of the SOURCE travel along: {shown}", quiet=quiet)
        return Extras(script() if self.script else None, every)

    def again(
        self, source: Source, left: Left, extras: Extras, output: str, progress: Progress, as_json: bool,
        *, quiet: bool,
    ) -> None:  # fmt: skip
        """Make the volumes `only` once more, and look at them as `look` does."""
        done = remake(
            source, left.models, Path(output), self.only,
            stem=self.stem, volume_size=self.cut.size if self.cut else None, expects=left.expects,
            extras=extras, report=progress,
        )  # fmt: skip
        progress.rest()
        names = [done.volumes[number - 1].name for number in self.only]
        if as_json:
            result_json({"bundle": output, "fingerprint": str(done.bundle), "made": names})
        else:
            for name in names:
                result(f"made again: {os.path.join(output, name)}")
        files = [Path(output, name) for name in names]
        settle(files)
        if self.read_back:
            found = [look(one, [done], read_back=True, report=progress) for one in files]
            progress.rest()
            _leave_by(found, [])
            talk(f"{', '.join(names)}: read back, and good", quiet=quiet)
        talk(f"{', '.join(names)}: on the medium, safe to remove.", quiet=quiet)

    def look(self, output: str, progress: Progress, *, quiet: bool) -> None:
        """Wait until what was written is on its medium, and read it back where that is asked for."""
        path = Path(output)
        if output == "-" or not (self.cut or self.read_back):
            return
        files = files_at(path)
        settle(files)
        if self.read_back:
            self._read_back(path, files, progress, quiet)
        talk(f"{output} is on the medium: safe to remove.", quiet=quiet)

    def _read_back(self, path: Path, files: list[Path], progress: Progress, quiet: bool) -> None:
        if self.cut is not None:
            found = verify_set([path], self.stem, read_back=True, report=progress)
            progress.rest()
            _leave_by(found.copies, found.problems)
        else:
            memory = forget_files(files)
            problems = verify(locate.source(str(path)), report=progress).problems
            progress.rest()
            leave_by(problems)
            _tell_memory(list(memory.values()))
        talk(f"{path}: read back, and good", quiet=quiet)


def _leave_by(found: Sequence[Looked], problems: Sequence[ModelpackError]) -> None:
    """Leave by what is wrong; else say what may not have come from the medium."""
    leave_by([*problems, *(one.problem for one in found if one.problem is not None)])
    _tell_memory([one.memory for one in found if one.memory])


def _tell_memory(memory: Sequence[str]) -> None:
    for why in dict.fromkeys(memory):
        talk(f"not from the medium, perhaps from memory: {counted(len(memory), 'file')} ({why})")


def media_options(function: _F) -> _F:
    """--volume-size, --stem, --only, --attach, --no-script and --read-back, as one argument `media`."""

    @functools.wraps(function)
    def command(
        *args: Any,
        volume_size_: str | None,
        stem: str | None,
        only: str | None,
        attach: tuple[str, ...],
        no_script: bool,
        read_back: bool,
        **named: Any,
    ) -> Any:
        stem = check_stem(stem) if stem is not None else None
        if stem is not None and volume_size_ is None and only is None:
            raise Usage("--stem is for volumes: name a --volume-size")
        cut = Cut(volume_size(volume_size_), stem) if volume_size_ is not None else None
        wanted = numbers(only) if only is not None else ()
        media = Media(cut, stem, wanted, attach, not no_script, read_back)
        return function(*args, media=media, **named)

    for option in (
        click.option("--read-back", is_flag=True, help="Read what was written from its medium."),
        click.option("--no-script", is_flag=True, help="Leave restore.py out."),
        click.option(
            "--attach", multiple=True, metavar="FILE", help="A file that travels along; may be repeated."
        ),
        click.option("--only", metavar="N,N…", help="Of a set that is there, make these volumes once more."),
        click.option("--stem", metavar="NAME", help="What the volumes are called; by default as the model."),
        click.option(
            "--volume-size",
            "volume_size_",
            metavar="SIZE",
            help="Cut the bundle into volumes: fat32, dvd, dvd-dl, bd25, or bytes (4GiB).",
        ),
    ):
        command = option(command)
    return command  # type: ignore[return-value]
