"""A models directory of many models: what it costs to inspect it, beside reading its manifests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.inspect import inspect
from modelpack.words.blob import CONFIG, LICENSE, MODEL, PARAMS, TEMPLATE, Blob
from modelpack.words.digest import Digest


class Table(Protocol):
    """What of `run.Bench` is used here."""

    folder: Path

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None: ...

    def pairs(self, *works: Callable[[], None]) -> list[float]: ...


def make_models(path: Path, count: int) -> None:
    """*count* models: four tags a name; three share their weights, twenty a template, all a licence.

    The blobs, save configs, are sparse: only their names and sizes matter.
    """
    (path / "blobs").mkdir(parents=True)

    def blob(kind: str, size: int, which: int = 0) -> Blob:
        if kind == CONFIG:
            raw = go_json({"model_format": "gguf", "model_family": "llama", "model_type": f"{which}M"})
            made = Blob(len(raw), kind, Digest.of(raw))
            place = path / "blobs" / Digest.of(raw).file_name
            place.write_bytes(raw)
            return made
        made = Blob(size + which, kind, Digest.of(f"{kind} {which}".encode()))
        assert made.digest is not None
        place = path / "blobs" / made.digest.file_name
        if not place.exists():
            place.touch()
            os.truncate(place, made.size)
        return made

    for number in range(count):
        layers = [
            blob(MODEL, 1 << 20, number // 3),
            blob(TEMPLATE, 1200, number % (count // 20 or 1)),
            blob(LICENSE, 11_000),
            blob(PARAMS, 60, number),
        ]
        name = path / "manifests" / "registry.ollama.ai" / "library" / f"model-{number // 4:03}"
        name.mkdir(parents=True, exist_ok=True)
        (name / f"{number % 4}b-q4_K_M").write_bytes(Image.compose(blob(CONFIG, 480, number), layers).raw)


def read_all(path: str, use: Callable[[bytes], object]) -> None:
    """Read every file below *path*, as directly as Python can."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                read_all(entry.path, use)
            else:
                with open(entry.path, "rb", buffering=0) as file:
                    use(file.read())


def inspecting(bench: Table, count: int = 1000) -> None:
    """Rows: in this process against reading and parsing the manifests; the command against find and cat."""
    path = bench.folder / f"{count}-models"
    make_models(path, count)
    manifests = str(path / "manifests")
    scan, whole, read, parsed = bench.pairs(
        lambda: len(ModelsDir(path).models()) and None,
        lambda: inspect(ModelsDir(path)) and None,
        lambda: read_all(manifests, len),
        lambda: read_all(manifests, json.loads),
    )
    bench.row(f"{count} manifests read / open, read, json.loads", scan, parsed, "<= 2")
    bench.row(f"{count} manifests read / open, read", scan, read, "<= 2")
    bench.row(f"inspect of {count} models / open, read, json.loads", whole, parsed, "<= 2")
    command, start, cat = bench.pairs(
        _run(sys.executable, "-m", "modelpack", "inspect", path),
        _run(sys.executable, "-m", "modelpack", "inspect", "--help"),
        _run("find", manifests, "-type", "f", "-exec", "cat", "{}", "+"),
    )
    bench.row(f"the command for {count} models / find, cat", command, cat, "<= 2")
    bench.row("… without its start", command - start, cat, "<= 2")
    shutil.rmtree(path)


def _run(*command: str | Path) -> Callable[[], None]:
    def work() -> None:
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)

    return work
