"""`modelpack serve`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from modelpack.cli.options import quiet_option
from modelpack.cli.talk import talk
from modelpack.errors import Local, NotFound, Unsupported, Usage, from_os
from modelpack.words.report import Said

TOKEN = "MODELPACK_TOKEN"  # noqa: S105 - the variable's name


@click.command(
    epilog="""\b
Examples:
  modelpack serve ./models --writable
  OLLAMA_HOST=127.0.0.1:11435 ollama list
  modelpack serve ./models --host 0.0.0.0 --token-file /etc/modelpack.token"""
)
@click.argument("models_dir", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=11435, show_default=True, type=click.IntRange(0, 65535))
@click.option("--writable", is_flag=True, help="Also take uploads, create, copy and delete.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help=f"A file with the token that every request must bear (or ${TOKEN}); needed off loopback.",
)
@quiet_option
def command(
    models_dir: Path, host: str, port: int, writable: bool, token_file: Path | None, quiet: bool
) -> None:
    """Serve a models directory as Ollama's management API: a depot.

    A place to stage models where no Ollama runs: list, show, blobs and, with --writable, create, copy and
    delete. It runs no model.
    """
    try:
        from modelpack.depot.serve import serve
    except ImportError as error:
        raise Unsupported(
            f"serving needs {error.name}, which is not installed",
            advice="Install the extra: pip install '.[serve]' in modelpack's checkout.",
        ) from None
    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise from_os(error, token_file) from None
        except UnicodeDecodeError:
            raise Local("is not a text file", where=token_file) from None
        if not token:
            raise Usage("holds no token", where=token_file)
    if not writable and not models_dir.is_dir():
        raise NotFound(
            "no such directory", where=models_dir, advice="With --writable it is made by the first upload."
        )
    serve(
        models_dir,
        host=host,
        port=port,
        writable=writable,
        token=token,
        ready=lambda url: talk(
            f"depot of {models_dir} at {url} ({'writable' if writable else 'read-only'}); Ctrl-C ends it",
            quiet=quiet,
        ),
        report=lambda step: talk(step.text, quiet=quiet) if isinstance(step, Said) else None,
    )
