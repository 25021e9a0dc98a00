"""`modelpack serve`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from modelpack.cli.options import quiet_option
from modelpack.cli.talk import talk
from modelpack.documents.recipe import Recipe
from modelpack.errors import Local, NotFound, Unsupported, Usage, from_os
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.locate import source
from modelpack.words.report import Said

TOKEN = "MODELPACK_TOKEN"  # noqa: S105 - the variable's name


@click.command(
    epilog="""\b
Examples:
  modelpack serve ./models --writable
  OLLAMA_HOST=127.0.0.1:11435 ollama list
  modelpack serve models.tar --host 0.0.0.0 --open-pulls --name depot
  ollama pull --insecure depot:11435/library/qwen3:8b
  modelpack serve ./models --host 0.0.0.0 --token-file /etc/modelpack.token"""
)
@click.argument("place", metavar="PLACE")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=11435, show_default=True, type=click.IntRange(0, 65535))
@click.option("--name", "names", multiple=True, metavar="HOST", help="A name that clients know it by, too.")
@click.option("--writable", is_flag=True, help="Also take uploads, pushes, create, copy and delete.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help=f"A file with the token that every request must bear (or ${TOKEN}); needed off loopback.",
)
@click.option("--open-pulls", is_flag=True, help="Anybody may pull, as Ollama does, without the token.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Serve https, with this PEM certificate.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The key of --tls-cert.")
@quiet_option
def command(
    place: str,
    host: str,
    port: int,
    names: tuple[str, ...],
    writable: bool,
    token_file: Path | None,
    open_pulls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    quiet: bool,
) -> None:
    """Serve a models directory or a bundle as Ollama's management API and as a registry: a depot.

    A place to stage models where no Ollama runs: list, show, blobs, pulls and, with --writable (a directory
    only), pushes, create, copy and delete. It runs no model.
    """
    try:
        from modelpack.depot.serve import serve, tls_context
    except ImportError as error:
        raise Unsupported(
            f"serving needs {error.name}, which is not installed",
            advice="Install the extra: pip install '.[serve]' in modelpack's checkout.",
        ) from None
    if (tls_cert is None) != (tls_key is None):
        raise Usage("--tls-cert and --tls-key go together")
    store = _store(place, writable)
    ways = ("writable" if writable else "read-only") + (", open pulls" if open_pulls else "")
    serve(
        store,
        host=host,
        port=port,
        writable=writable,
        token=_token(token_file),
        hosts=names,
        open_pulls=open_pulls,
        tls=tls_context(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None,
        ready=lambda url: talk(
            f"depot of {place}{_counted(store)} at {url} ({ways}); Ctrl-C ends it", quiet=quiet
        ),
        report=lambda step: talk(step.text, quiet=quiet) if isinstance(step, Said) else None,
    )


def _store(place: str, writable: bool) -> Path | Archive | FolderBundle:
    path = Path(place).expanduser()
    if path.is_dir() and not any(path.iterdir()):
        return path
    if writable and not os.path.lexists(path):
        return path
    try:
        found = source(place)
    except NotFound as error:
        if writable or os.path.lexists(path):
            raise
        raise NotFound(
            error.what, where=place, advice="With --writable a directory is made by the first upload."
        ) from None
    if isinstance(found, ModelsDir):
        return found.path
    if isinstance(found, Archive | FolderBundle):
        return found
    raise Usage(
        "is neither a models directory nor a bundle", where=place, advice="Pack it first: modelpack pack."
    )


def _counted(store: Path | Archive | FolderBundle) -> str:
    """How much a bundle holds of what only a server could make; nothing for other places."""
    if isinstance(store, Path):
        return ""
    models = store.models()
    recipes = sum(isinstance(model.document, Recipe) for model in models)
    hidden = f", {recipes} of them recipes, which are not served" if recipes else ""
    return f" ({len(models)} model{'s' * (len(models) != 1)}{hidden})"


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise from_os(error, file) from None
    except UnicodeDecodeError:
        raise Local("is not a text file", where=file) from None
    if not token:
        raise Usage("holds no token", where=file)
    return token
