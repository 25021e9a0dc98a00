"""The house: imports point down only, documents do no IO, only the command line talks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["errors", "words", "documents", "hands", "stores", "verbs", "depot", "cli"]
HEIGHT = {"errors": 0, "words": 1, "documents": 2, "hands": 2, "stores": 3, "verbs": 4, "depot": 5, "cli": 6}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "modelpack").rglob("*.py"))
    if path.parent.name != "receiver"  # what stands in bundles, and is imported by nobody
}
LATE = ("requests", "tqdm", "blake3", "werkzeug", "cheroot")
IO = {
    "os", "io", "socket", "requests", "pathlib", "shutil", "tempfile", "subprocess", "mmap", "glob",
    "threading", "urllib.request", "http.client", "http.server", "fcntl", "ctypes", "click", "tqdm",
    "logging", "time", "datetime", "random", "secrets", "locale", "platform", "getpass",
    "ssl", "select", "asyncio",
}  # fmt: skip
"""What a document has no business with: files, nets, clocks, chance, this machine."""


def floor(module: str) -> str | None:
    """The floor that *module* stands on; None for what stands at the top and names all."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else None


def imports(module: str) -> Iterator[tuple[str, int]]:
    """What *module* imports, wherever in it, and on which line."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield one.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            name = node.module or ""
            inner = [f"{name}.{one.name}" for one in node.names if f"{name}.{one.name}" in MODULES]
            yield from ((one, node.lineno) for one in inner or [name])


def ours(name: str) -> bool:
    return name == "modelpack" or name.startswith("modelpack.")


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    here = floor(module)
    if here is None:
        return
    for name, line in imports(module):
        there = floor(name)
        if not ours(name) or there == here:
            continue
        assert there is not None or name in ("modelpack.version",), f"{module}:{line} imports {name}"
        assert there is None or HEIGHT[there] < HEIGHT[here], f"{module}:{line} imports {name}, from above"


@pytest.mark.parametrize("module", [name for name in MODULES if floor(name) == "documents"])
def test_documents_are_pure(module: str) -> None:
    for name, line in imports(module):
        top = name.split(".")[0]
        assert name not in IO, f"{module}:{line} imports {name}"
        assert ours(name) or top in sys.stdlib_module_names, f"{module}:{line} imports {name}"
        assert top not in IO, f"{module}:{line} imports {name}"
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("module", [name for name in MODULES if floor(name) == "stores"])
def test_stores_do_not_know_of_each_other(module: str) -> None:
    def store(part: str) -> str:
        """A store too large for one module has its parts in others that are named after it."""
        return next((one for one in MODULES if part.startswith(f"{one}_")), part)

    for name, line in imports(module):
        if floor(name) == "stores" and "modelpack.stores" not in (module, name):
            assert store(name) == store(module), f"{module}:{line} imports {name}"


def test_only_locate_names_all_stores() -> None:
    """Verbs talk to Protocols; the one that makes stores of locators is `locate`."""
    named = {
        module: {name for name, _ in imports(module) if name.startswith("modelpack.stores.")}
        for module in MODULES
        if floor(module) not in ("stores", None)
    }
    every = named["modelpack.verbs.locate"]
    assert len(every) >= 5
    assert [module for module, names in named.items() if names >= every] == ["modelpack.verbs.locate"]


@pytest.mark.parametrize("module", [name for name in MODULES if floor(name) != "cli"])
def test_only_the_command_line_talks(module: str) -> None:
    if module == "modelpack.__main__":
        return
    names = {name.split(".")[0] for name, _ in imports(module)}
    assert not names & {"click", "tqdm"}, module
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id != "print", f"{module}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("stderr", "exit", "argv"), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= 300, module


@pytest.mark.parametrize("module", [name for name in MODULES if MODULES[name].stat().st_size])
def test_every_module_says_what_it_is(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert ast.get_docstring(tree), module


def loaded_by(module: str) -> set[str]:
    code = f"import {module}, sys; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["modelpack", "modelpack.cli", "modelpack.__main__", "modelpack.stores.folder"]
)
def test_a_start_costs_little(module: str) -> None:
    """Slow imports wait until somebody needs them."""
    assert not loaded_by(module) & set(LATE)


def test_every_module_can_be_imported_first() -> None:
    """No circle: each in a fresh interpreter would take long, so each with the others forgotten."""
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(MODULES)!r}:\n"
        "    for one in [one for one in sys.modules if one.split('.')[0] == 'modelpack']:\n"
        "        del sys.modules[one]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_floors_are_all_there_is() -> None:
    folders = {path.name for path in (ROOT / "modelpack").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders - {"receiver"} == set(FLOORS) - {"errors"}  # what stands in bundles is no floor
