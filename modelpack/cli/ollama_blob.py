"""`modelpack ollama blob check` and `upload`."""

from __future__ import annotations

from pathlib import Path

import click

from modelpack.cli.main import Late
from modelpack.cli.ollama_layers import Layers
from modelpack.cli.ollama_shared import connected, host_option, leave_failed, one_by_one
from modelpack.cli.options import DigestType, json_option, quiet_option
from modelpack.cli.talk import counted, failed_json, result, result_json, talk
from modelpack.errors import NotFound
from modelpack.words.digest import Digest
from modelpack.words.text import size


@click.group(
    cls=Late,
    homes={"check": "ollama_blob:check_command", "upload": "ollama_blob:upload_command"},
    epilog="""\b
Examples:
  modelpack ollama blob upload model.gguf
  modelpack ollama blob check sha256:f917e860...""",
)
def command() -> None:
    """Check which blobs are on the server, or upload some."""


@click.command(
    "check",
    epilog="""\b
Examples:
  modelpack ollama blob check sha256:f917e860...
  modelpack hash --json *.gguf | jq -r '.[].sha256' \\
    | xargs modelpack ollama blob check""",
)
@click.argument("digest", nargs=-1, required=True, type=DigestType())
@host_option
@json_option
@quiet_option
def check_command(digest: tuple[Digest, ...], host: str | None, as_json: bool, quiet: bool) -> None:
    """Say which blobs are there; exit code 3 where one is not.

    A blob that is there says nothing of its bytes: the server only looks for a file of that name.
    """
    asked = list(dict.fromkeys(digest))
    with connected(host) as client:
        there = client.which(asked)
    if as_json:
        result_json([{"digest": str(one), "there": one in there} for one in asked])
    else:
        for one in asked:
            result(f"{'there  ' if one in there else 'missing'}  {one}")
    if there:
        talk("A blob that is there was found by its name; its bytes were not looked at.", quiet=quiet)
    if len(there) < len(asked):
        raise NotFound(f"lacks {len(asked) - len(there)} of {counted(len(asked), 'blob')}", where=client.base)


@click.command(
    "upload",
    epilog="""\b
Examples:
  modelpack ollama blob upload model.gguf
  modelpack ollama blob upload *.safetensors --host 10.0.0.5 --json""",
)
@click.argument("file", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@host_option
@json_option
@quiet_option
def upload_command(file: tuple[Path, ...], host: str | None, as_json: bool, quiet: bool) -> None:
    """Send files that are missing there; print digests.

    Ollama removes blobs that no model names at its next start, once they are an hour old.
    """
    digests: dict[str, Digest] = {}
    sent: dict[str, int] = {}
    names = [str(one) for one in file]
    with connected(host) as client, Layers("uploading", quiet=quiet) as layers:

        def upload(name: str) -> None:
            path = Path(name)
            total = path.stat().st_size if path.is_file() else 0

            def moved(count: int) -> None:
                sent[name] = sent.get(name, 0) + count
                layers.add(path.name, total, count)

            layers.say(f"hashing and sending {name}")
            digests[name] = client.upload_file(path, moved=moved)

        failed = one_by_one(names, upload)
    if as_json:
        uploaded = [
            {"file": name, "digest": str(one), "sent": sent.get(name, 0)} for name, one in digests.items()
        ]
        result_json({"blobs": uploaded, "failed": failed_json(failed)})
    else:
        for name, one in digests.items():
            result(f"{name}  {f'{size(sent[name])} sent' if name in sent else 'was there'}")
            result(f"  {one}")
    leave_failed(failed, names, "file", "could not be uploaded")
