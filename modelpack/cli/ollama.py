"""`modelpack ollama`: the models of an Ollama server, from the shell."""

from __future__ import annotations

import click

from modelpack.cli.main import Late


@click.group(
    cls=Late,
    homes={
        "list": "ollama_list:list_command",
        "show": "ollama_show:command",
        "create": "ollama_create:command",
        "copy": "ollama_change:copy_command",
        "delete": "ollama_change:delete_command",
        "pull": "ollama_move:pull_command",
        "push": "ollama_move:push_command",
        "ps": "ollama_list:ps_command",
        "version": "ollama_list:version_command",
        "blob": "ollama_blob:command",
    },
    short={"ls": "list", "cp": "copy", "rm": "delete"},
    epilog="""\b
Examples:
  modelpack ollama list --capability vision
  modelpack ollama pull qwen3:8b --host 10.0.0.5
  modelpack ollama create mine -f Modelfile""",
)
def command() -> None:
    """Manage the models of an Ollama server, near or far.

    The server is --host of each command, by default $OLLAMA_HOST; $OLLAMA_API_KEY goes with each request.
    ls, cp and rm are short for list, copy and delete.
    """
