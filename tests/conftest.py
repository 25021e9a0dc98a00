"""What several suites share: a store in memory that owes what every store owes, and small models."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from blake3 import blake3

from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model, blobs_of
from modelpack.documents.oci import bundle
from modelpack.documents.recipe import Recipe
from modelpack.errors import Corrupt, ModelpackError, NotFound, Taken
from modelpack.hands.hashing import check, pour
from modelpack.stores import OneWay, Placed, Session, Source
from modelpack.words.blob import (
    ADAPTER,
    CONFIG,
    FILE,
    LICENSE,
    MIB,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    Blob,
)
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader, Reader
from modelpack.words.report import Moved, Report, silent

_UMASK = 0o022
"""Signers that everybody may write to are refused, and with a umask of 0 every file of a test would be so."""
os.umask(_UMASK)

ROOT = Path(__file__).resolve().parents[1]
SHARED = next((path for path in (ROOT.parent / "shared",) if path.is_dir()), None)
needs_shared = pytest.mark.skipif(SHARED is None, reason="../shared is not here")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_tar = pytest.mark.skipif(
    shutil.which("tar") is None
    or b"GNU" not in subprocess.run(["tar", "--version"], capture_output=True).stdout,
    reason="GNU tar is not installed",
)
needs_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root may give files away, or mount"
)

Bits = dict[str, tuple[bytes, dict[str, bytes]]]


def noise(size: int, seed: object = 0) -> bytes:
    """*size* bytes that look like nothing, the same ones every time."""
    return random.Random(f"{size} {seed}").randbytes(size)


_STEPS = ("fsync", "replace", "link", "unlink", "rmdir", "mkdir", "pwrite", "fchmod", "fchown", "utime")
DIED = 77


def dying(work: Callable[[], object], after: int) -> int:
    """Do *work* in a child that dies, as by kill -9, instead of its step number *after* on the disk.

    DIED, or the status of a child that had fewer steps.
    """
    turn = threading.Lock()
    done = 0

    def counted(step: Callable[..., object]) -> Callable[..., object]:
        def instead(*args: object, **options: object) -> object:
            nonlocal done
            with turn:
                if done == after:
                    os._exit(DIED)
                done += 1
            return step(*args, **options)

        return instead

    def child() -> None:
        plain = os.open

        def opened(path: object, flags: int, *args: object, **options: object) -> object:
            return (counted(plain) if flags & os.O_CREAT else plain)(path, flags, *args, **options)

        for name in _STEPS:
            setattr(os, name, counted(getattr(os, name)))
        os.open = opened
        work()

    return waited(forked(child))


class MemoryStore:
    """Models in memory: a source and a target, and what was asked of it (`opened`, `asked`)."""

    def __init__(self, *, replace: bool = False) -> None:
        self.bytes: dict[object, bytes] = {}
        self.kept: dict[str, Model] = {}
        self.opened: list[Blob] = []
        self.replace = replace
        self._lock = threading.Lock()

    # --- making models

    def blob(self, data: bytes, media_type: str, *, title: str | None = None, unread: bool = False) -> Blob:
        """A blob of *data*, kept here; *unread* where only its key is known."""
        digest = Digest.of(data)
        if unread:
            self.bytes[f"key of {digest}"] = data
            return Blob(len(data), media_type, title=title, key=f"key of {digest}")
        self.bytes[digest] = data
        return Blob(len(data), media_type, digest, title=title)

    def image(self, name: str, *layers: tuple[str, bytes], unread: int = 0, config: bytes = b"") -> Model:
        """An image of *layers*, the first *unread* of which nobody has hashed yet."""
        blobs = [
            self.blob(data, kind, unread=place < unread, title=f"{place}.gguf" if kind == MODEL else None)
            for place, (kind, data) in enumerate(layers)
        ]
        config = config or go_json({"model_format": "gguf", "name": name}) + b"\n"
        image = Image.compose(self.blob(config, CONFIG), blobs)
        if not unread:
            image = Image(image.raw, image.config, image.layers)
        return self.add(Model(Name.parse(name), image))

    def recipe(self, name: str, **files: bytes) -> Model:
        """A recipe that names *files*."""
        blobs = [self.blob(data, FILE, title=title) for title, data in files.items()]
        body = {"files": {blob.title: str(blob.digest) for blob in blobs}, "quantize": "q4_K_M"}
        raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        return self.add(Model(Name.parse(name), Recipe.parse(raw, blobs, "a test")))

    def add(self, model: Model) -> Model:
        self.kept[model.name.folded] = model
        return model

    # --- source

    def models(self) -> Sequence[Model]:
        return tuple(self.kept.values())

    def open(self, blob: Blob, offset: int = 0) -> AbstractContextManager[Reader]:
        with self._lock:
            self.opened.append(blob)
        for which in (blob.digest, blob.key):
            if which in self.bytes:
                return contextlib.nullcontext(BytesReader(self.bytes[which], offset))
        raise NotFound(f"{blob} is not here", where="memory")

    # --- target

    def missing(self, models: Sequence[Model]) -> Sequence[Blob]:
        for model in models:
            there = self.kept.get(model.name.folded)
            if there is not None and there.document.raw != model.document.raw and not self.replace:
                raise Taken(f"{there.name} stands there for another model", where="memory")
        return [blob for blob in blobs_of(models) if blob.digest not in self.bytes]

    def takes_unread(self, models: Sequence[Model]) -> bool:
        return not any(model.name.folded in self.kept for model in models)

    def placed(self, models: Sequence[Model]) -> Sequence[Placed | None]:
        return [self._placed(model) for model in models]

    def _placed(self, model: Model) -> Placed | None:
        there = self.kept.get(model.name.folded)
        if there is None or there.document.raw != model.document.raw:
            return None
        return Placed(there.name, there.document.id, True, "memory")

    @contextlib.contextmanager
    def session(self, models: Sequence[Model], report: Report = silent) -> Iterator[Session]:
        yield _MemorySession(self, report)


class _MemorySession:
    def __init__(self, store: MemoryStore, report: Report) -> None:
        self._store, self._report = store, report
        self._known: dict[object, Blob] = {}

    def put(self, blob: Blob, data: Reader) -> Blob:
        kept = bytearray()
        known = check(blob, pour(data, blob.size, kept.extend, blake3=True))
        self._store.bytes[known.digest] = bytes(kept)
        self._known[blob.id] = known
        self._report(Moved(blob.size))
        return known

    def commit(self, model: Model) -> Placed:
        model = model.settled(self._known)
        for blob in model.blobs:
            if blob.digest not in self._store.bytes:
                raise NotFound(f"{blob} was not put", where="memory")
        self._store.missing([model])
        there = self._store.kept.get(model.name.folded)
        name = there.name if there is not None else model.name
        self._store.add(dataclasses.replace(model, name=name))
        return Placed(name, model.document.id, True, "memory")


def bits(source: Source) -> Bits:
    """Everything that *source* holds, every byte of it hashed: name → document, digest → bytes."""
    models = source.models()
    data: dict[str, bytes] = {}
    if isinstance(source, OneWay):
        for blob, reader in source.passing(blobs_of(models)):
            data[str(blob.digest)] = everything(reader, blob.size)
    for blob in blobs_of(models):
        if str(blob.digest) not in data:
            with source.open(blob) as reader:
                data[str(blob.digest)] = everything(reader, blob.size)
    for digest, raw in data.items():
        if digest != f"sha256:{hashlib.sha256(raw).hexdigest()}":
            raise Corrupt(f"{digest} is damaged")
    for blob in blobs_of(models):
        if blob.blake3 is not None and blob.blake3.hex != blake3(data[str(blob.digest)]).hexdigest():
            raise Corrupt(f"{blob} has a wrong BLAKE3")
    return {
        model.name.full: (model.document.raw, {str(one.digest): data[str(one.digest)] for one in model.blobs})
        for model in models
    }


def everything(reader: Reader, most: int = 64 * MIB) -> bytes:
    """What *reader* brings, a little more than *most* bytes of it at most."""
    got, piece = bytearray(), memoryview(bytearray(64 * 1024))
    while count := reader.readinto(piece):
        got += piece[:count]
        if len(got) > most + 100:
            break
    return bytes(got)


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, directory and link below *path*: its kind and mode, and what is in it.

    What a server removes at that very moment is not there.
    """
    if not os.path.lexists(path):
        return {}
    if not path.is_dir():
        return {"": (path.stat().st_mode, path.read_bytes())}
    found: dict[str, tuple[int, bytes]] = {}
    for folder, folders, files in os.walk(path):
        for one in (*folders, *files):
            here = Path(folder, one)
            key = here.relative_to(path).as_posix()
            with contextlib.suppress(FileNotFoundError):
                mode = here.lstat().st_mode
                if here.is_symlink():
                    found[key] = (mode, os.fsencode(os.readlink(here)))
                else:
                    found[key] = (mode, here.read_bytes() if here.is_file() else b"")
    return found


def files_of(path: Path) -> dict[str, bytes]:
    """Every plain file below *path*, without its mode."""
    return {
        one.relative_to(path).as_posix(): one.read_bytes()
        for one in sorted(path.rglob("*"))
        if one.is_file() and not one.is_symlink()
    }


def bundle_bytes(store: MemoryStore, models: Sequence[Model] | None = None) -> Mapping[str, bytes]:
    """The files of a bundle of *models*, put together without any store."""
    known = {
        blob.id: blob.settled(
            Blob(
                blob.size,
                blob.media_type,
                Digest.of(store.bytes[blob.id]),
                Digest("blake3", blake3(store.bytes[blob.id]).hexdigest()),
            )
        )
        for blob in blobs_of(models or store.models())
    }
    made = bundle([model.settled(known) for model in models or store.models()])
    return {
        one.path: one.content if isinstance(one.content, bytes) else store.bytes[one.content.id]
        for one in made.members
    }


def sha256sum(folder: Path) -> subprocess.CompletedProcess[bytes]:
    """`sha256sum -c SHA256SUMS`, as the README of a bundle says."""
    return subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, capture_output=True
    )


def forked(work: Callable[[], object]) -> int:
    """Start *work* in a child process of our own; its id. Status 0 where it returned, 1 where it raised."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except KeyboardInterrupt:
        status = 130
    except ModelpackError as error:
        status = error.exit_code
    except BaseException as error:  # noqa: BLE001 - whatever it was, the child must not go on with the tests
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def waited(child: int) -> int:
    """The exit status of *child*; negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def age(*folders: Path) -> None:
    """Make every file there older than a minute, as if the run that left it were long over."""
    for folder in folders:
        for one in folder.rglob("*") if folder.is_dir() else ():
            if one.is_file() and not one.is_symlink():
                old = one.stat().st_mtime - 60
                os.utime(one, (old, old))


FIXTURES = ROOT / "fixtures"
WEIGHTS = (FIXTURES / "tiny-llama.gguf").read_bytes()
"""Real ones: a server looks into them."""
TINY = ((MODEL, WEIGHTS), (TEMPLATE, b"{{ .Prompt }}"), (PARAMS, b'{"stop":["<|e|>"]}\n'))
FULL = (
    (MODEL, (FIXTURES / "tiny-chat.gguf").read_bytes() + noise(2_500_000, "full")),
    (ADAPTER, (FIXTURES / "tiny-lora.gguf").read_bytes()),
    (TEMPLATE, b"{{ .System }} {{ .Prompt }}"),
    (SYSTEM, b""),
    (PARAMS, b'{"temperature":0.5}\n'),
    (LICENSE, b"MIT"),
    (LICENSE, b"Apache-2.0" * 100),
)


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """No test leaves another umask to those after it."""
    yield
    assert os.umask(_UMASK) == _UMASK


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is such a place: fsync costs nothing there."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="modelpack-tests-") as made:
        yield Path(made)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users may come to, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="modelpack-tests-") as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; skipped where it cannot be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def shelf() -> MemoryStore:
    """Models of every kind but recipes; three share blobs, one has an empty layer."""
    store = MemoryStore()
    store.image("full", *FULL)
    store.image("Someone/Tiny:v1.5-q4_K", *TINY)
    store.image("twin", *TINY, (LICENSE, b"MIT"))
    store.image("example.com:5000/ns/far:x", FULL[0], (SYSTEM, b"You are far."))
    store.kept["registry.ollama.ai/library/copy:latest"] = dataclasses.replace(
        store.kept["registry.ollama.ai/library/full:latest"], name=Name.parse("copy")
    )
    return store


@pytest.fixture
def tiny() -> MemoryStore:
    """One small model, all of whose hashes are known."""
    store = MemoryStore()
    store.image("tiny", *TINY)
    return store
