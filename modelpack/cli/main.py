"""The group of commands, and the one place where errors become words and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType, MappingProxyType
from typing import Any, NoReturn

import click

from modelpack.cli.talk import complain
from modelpack.errors import Local, ModelpackError, from_os
from modelpack.version import __version__

COMMANDS = (
    "pack", "load", "plan", "unpack", "inspect", "verify", "repair", "gather", "sign", "check", "diff",
    "inventory", "hash", "restore-script", "wheelhouse", "ollama", "serve", "completion",
)  # fmt: skip
INTERRUPTED = 130


class Late(click.Group):
    """Commands are imported when they are asked for: a start should cost little.

    *homes* says of each where it stands: a module of this package, a colon, a name in it. *short* has other
    spellings of commands, which the help does not list.
    """

    def __init__(
        self,
        *args: Any,
        homes: Mapping[str, str],
        short: Mapping[str, str] = MappingProxyType({}),
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._homes, self._short = homes, short

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order of *homes*."""
        return list(self._homes)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Imported now."""
        home = self._homes.get(self._short.get(name, name))
        if home is None:
            return None
        module, _, attribute = home.partition(":")
        command: click.Command = getattr(importlib.import_module(f"modelpack.cli.{module}"), attribute)
        return command


@click.group(
    cls=Late,
    homes={name: f"{name.replace('-', '_')}:command" for name in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="""\b
Exit codes: 0 done, 2 usage, 3 not found, 4 damaged, 5 cannot be done,
6 refused by the other side, 7 no answer, 8 some of several failed,
9 this machine (disk, rights), 10 untrusted, 11 could not be checked,
12 differs, 130 interrupted.""",
)
@click.version_option(__version__, prog_name="modelpack", message="%(prog)s %(version)s")
def group() -> None:
    """Carry models to Ollama hosts that no network reaches.

    \b
    On the connected side:   modelpack pack qwen3.gguf -o qwen3.tar
    On the other side:       modelpack load qwen3.tar
    """


def run(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave."""
    _open_closed_streams()
    for stop in ("SIGTERM", "SIGHUP"):  # both clean up as Ctrl-C does
        if hasattr(signal, stop) and signal.getsignal(getattr(signal, stop)) != signal.SIG_IGN:
            signal.signal(getattr(signal, stop), _interrupt)
    try:
        group.main(args=args, prog_name="modelpack", standalone_mode=False)
        code = 0
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted: run it again, and it takes up what it can")
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except ModelpackError as error:
        complain(error)
        code = error.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Local.exit_code
    except OSError as error:
        complain(from_os(error, error.filename or ""))
        code = from_os(error, "").exit_code
    except MemoryError:
        complain(Local("not enough memory"))
        code = Local.exit_code
    except Exception as error:
        if os.environ.get("MODELPACK_DEBUG"):
            raise
        complain(
            ModelpackError(
                f"{type(error).__name__}: {error}",
                where="a bug in modelpack",
                advice="MODELPACK_DEBUG=1 shows where. Please report it.",
            )
        )
        code = ModelpackError.exit_code
    if code and threading.active_count() > 1:
        # A hand still waits for a server that does not answer; leaving the usual way would wait for it, too.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _open_closed_streams() -> None:
    """Give standard streams that whoever started us has closed (`<&-`, daemons) somewhere to go."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
