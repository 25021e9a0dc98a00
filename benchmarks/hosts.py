"""What a host has: a delta of one template, a check of every blob, a list of a thousand models, a repair."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from inspect_dir import make_models

from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.verbs.hashes import hash_files
from modelpack.words.blob import CONFIG, KIB, LICENSE, MODEL, TEMPLATE, Blob
from modelpack.words.digest import Digest

MODELS, LISTED = 20, 1000
BEFORE, AFTER = "{}: {{{{ .Prompt }}}}", "changed: {{ .Prompt }}"
HASH = """
import concurrent.futures, hashlib, sys
def work(path):
    digest, piece = hashlib.sha256(), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
with concurrent.futures.ThreadPoolExecutor(int(sys.argv[1])) as pool:
    list(pool.map(work, sys.argv[2:]))
"""
"""SHA-256 of files, as many side by side as there are cores; hashing lets go of the interpreter's lock."""


class Table(Protocol):
    """What of `run.Bench` is used here."""

    folder: Path

    def row(self, what: str, ours: float, yard: float, target: str, unit: str = "s") -> None: ...

    def pairs(self, *works: Callable[[], None]) -> list[float]: ...


Command = Callable[..., Callable[[], None]]
Depot = Callable[[Path], AbstractContextManager[tuple[str, "subprocess.Popen[str]"]]]


def hosts(
    bench: Table,
    size: int,
    run: Command,
    modelpack: list[str],
    depot: Depot,
    peak: Callable[..., float],
    make_gguf: Callable[[Path, int], None],
) -> None:
    """All rows; the models of the host have *size* bytes together."""
    models = bench.folder / "h-models"
    made = make_host(models, size, make_gguf)
    _delta(bench, run, modelpack, models, made)
    _verifying(bench, run, modelpack, models, peak)
    _repairing(bench, run, modelpack, models, peak)
    shutil.rmtree(models)
    _listing(bench, run, modelpack, depot)


def _keep(models: Path, kind: str, raw: bytes) -> Blob:
    made = Blob(len(raw), kind, Digest.of(raw))
    (models / "blobs" / Digest.of(raw).file_name).write_bytes(raw)
    return made


def _name(models: Path, number: int, weights: Blob, template: str) -> None:
    """Give the model *number* its manifest: weights and template of its own, a licence that all share."""
    layers = [
        weights,
        _keep(models, TEMPLATE, template.encode()),
        _keep(models, LICENSE, b"as you like\n" * 900),
    ]
    config = go_json(
        {
            "model_format": "gguf",
            "model_family": "llama",
            "rootfs": {"type": "layers", "diff_ids": [str(one.digest) for one in layers]},
        }
    )
    folder = models / "manifests" / "registry.ollama.ai" / "library" / f"m{number:02}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest").write_bytes(Image.compose(_keep(models, CONFIG, config), layers).raw)


def make_host(models: Path, size: int, make_gguf: Callable[[Path, int], None]) -> list[Blob]:
    """A models directory of MODELS models, *size* bytes together, every digest true; their weights."""
    (models / "blobs").mkdir(parents=True)
    made = []
    for number in range(MODELS):
        path = models / "blobs" / "new"
        make_gguf(path, size // MODELS)
        weights = Blob(path.stat().st_size, MODEL, next(iter(hash_files([path]))).sha256)
        assert weights.digest is not None
        path.rename(path.with_name(weights.digest.file_name))
        _name(models, number, weights, BEFORE.format(number))
        made.append(weights)
    return made


def _delta(bench: Table, run: Command, modelpack: list[str], models: Path, made: list[Blob]) -> None:
    there, out = bench.folder / "there.json", bench.folder / "delta.tar"
    run(*modelpack, "inventory", "--from", models, "-o", there, "-q")()
    before = set((models / "blobs").iterdir())
    _name(models, 7, made[7], AFTER)

    def pack() -> None:
        out.unlink(missing_ok=True)
        run(*modelpack, "pack", models, "--since", there, "-o", out, "-q")()

    took, _ = bench.pairs(pack, lambda: None)
    bench.row(f"delta: one template of {MODELS} models (s)", took, 1.0, "<= 2")
    bench.row("  its size (KiB)", out.stat().st_size / KIB, 256, "<= 1", "K")
    run(*modelpack, "verify", out, "-q")()
    for blob in set((models / "blobs").iterdir()) - before:
        blob.unlink()
    _name(models, 7, made[7], BEFORE.format(7))
    run(*modelpack, "load", out, "--to", models, "--replace", "-q")()  # the host as it was takes it
    for path in (there, out):
        path.unlink()


def _verifying(
    bench: Table, run: Command, modelpack: list[str], models: Path, peak: Callable[..., float]
) -> None:
    blobs = sorted((models / "blobs").iterdir(), key=lambda one: one.name)
    ours, yard = bench.pairs(
        run(*modelpack, "verify", models, "-q"),
        run(sys.executable, "-c", HASH, str(os.cpu_count() or 1), *blobs),
    )
    bench.row("verify MODELS_DIR / SHA-256 on all cores", ours, yard, "<= 1.15")
    bench.row("peak memory of verify MODELS_DIR (MiB)", peak(*modelpack, "verify", models), 120, "<= 1", "M")


def _repairing(
    bench: Table, run: Command, modelpack: list[str], models: Path, peak: Callable[..., float]
) -> None:
    bundle = bench.folder / "h-bundle"
    run(*modelpack, "pack", models, "-o", bundle, "-q")()
    blobs = sorted((bundle / "blobs" / "sha256").iterdir(), key=lambda one: one.stat().st_size)
    lost, bad = blobs[-1], blobs[-2]
    lost.unlink()
    with bad.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    taken = peak(*modelpack, "repair", bundle, "--from", models)
    bench.row("peak memory of repair of a folder (MiB)", taken, 120, "<= 1", "M")
    run(*modelpack, "verify", bundle, "-q")()
    shutil.rmtree(bundle)


def _listing(bench: Table, run: Command, modelpack: list[str], depot: Depot) -> None:
    models, out = bench.folder / "h-listed", bench.folder / "inventory.json"
    make_models(models, LISTED)

    def taking(place: Any) -> float:
        took, _ = bench.pairs(run(*modelpack, "inventory", "--from", place, "-o", out, "-q"), lambda: None)
        return took

    bench.row(f"inventory of {LISTED} models, directory (s)", taking(models), 1.0, "<= 2")
    with depot(models) as (url, _):
        bench.row(f"inventory of {LISTED} models, depot (s)", taking(url), 1.0, "<= 2")
    out.unlink()
    shutil.rmtree(models)
