"""Commands that a server calls back for: their options, and what a plan shows of what stands there."""

from __future__ import annotations

from pathlib import Path

from depots import FIXTURES, make, own_depot
from test_cli import modelpack

from modelpack.hands.ollama import Ollama
from modelpack.hands.temporary import temporary


def test_unpacking_models_of_a_server(tmp_path: Path) -> None:
    """They are pushed to us, as --callback and --listen say; there are none of these for a bundle."""
    here = ("--callback", "127.0.0.1", "--listen", "127.0.0.1")
    with own_depot(tmp_path / "served") as depot:
        make(depot.url, "tiny", system="hello")
        done = modelpack("unpack", f"{depot.url}#tiny", "out", *here, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert b"tiny:latest" in done.stdout
        done = modelpack("unpack", f"{depot.url}#tiny", "other", "--no-listen", cwd=tmp_path)
        assert done.returncode == 5
        assert done.stderr.endswith(b"Leave --no-listen away.\n")
    for empty in ("--callback", "--listen"):
        assert modelpack("unpack", depot.url, "other", empty, "", cwd=tmp_path).returncode == 2
    done = modelpack("unpack", "out", "other", "--callback", "10.0.0.7", cwd=tmp_path)
    assert done.returncode == 2
    assert b"are for servers" in done.stderr


def test_a_plan_where_a_name_is_taken(tmp_path: Path) -> None:
    """It is shown with the others; alone it leaves by the code of the load."""
    with own_depot(tmp_path / "served") as depot:
        for name in ("tiny", "b"):
            make(depot.url, name, system="hello")
        assert modelpack("pack", "served", "-o", "b.tar", cwd=tmp_path).returncode == 0
        make(depot.url, "tiny", system="another")
        for names, code in (((), 8), (("tiny",), 6)):
            done = modelpack("plan", "b.tar", *names, "--to", depot.url, cwd=tmp_path)
            assert done.returncode == code, done.stderr
            assert b"cannot: tiny:latest is another model there" in done.stdout
            assert (b"b:latest" in done.stdout) is not bool(names)


def test_names_for_the_moment_are_not_carried_on(tmp_path: Path) -> None:
    """They hold the address of another machine."""
    with own_depot(tmp_path / "served") as depot:
        make(depot.url, "tiny")
        client = Ollama(depot.url)
        client.copy("tiny", str(temporary("10.0.0.7:41234", client.list()[0].digest)))
        done = modelpack("pack", "served", "-o", "b.tar", "--json", cwd=tmp_path)
        assert done.returncode == 0
        assert b"/modelpack/" not in done.stdout
        done = modelpack("load", "served", "--to", "other", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert b"/modelpack/" not in done.stdout


def test_no_models_directory_is_called_like_a_bundle(tmp_path: Path) -> None:
    """`load X --to b.tar` was meant otherwise."""
    done = modelpack("load", FIXTURES / "tiny-llama.gguf", "--to", "b.tar", cwd=tmp_path)
    assert done.returncode == 2
    assert b"is the name of a bundle" in done.stderr
    assert not (tmp_path / "b.tar").exists()
