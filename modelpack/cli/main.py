"""The group of commands, and the one place where errors become words and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import click

from modelpack.cli.talk import complain
from modelpack.errors import Local, ModelpackError, from_os
from modelpack.version import __version__

COMMANDS = ("pack", "load", "unpack", "inspect", "verify", "hash", "serve", "completion")
INTERRUPTED = 130


class _Late(click.Group):
    """Commands are imported when they are asked for: a start should cost little."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"modelpack.cli.{name}").command
        return command


@click.group(
    cls=_Late,
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
        complain("interrupted; the next run takes up what is there")
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
