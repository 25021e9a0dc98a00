"""Model folders as Hugging Face has them: which of their files make a model, and whether all are whole.

What Ollama takes is in parser/parser.go (filesForModel) of v0.33, and what its server does with it in
server/create.go (convertFromSafetensors).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from modelpack.documents.gguf_magic import FIRST, not_gguf
from modelpack.documents.safetensors import HEADER_MOST, read_safetensors, shards_of, unlike
from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unsupported, Usage, from_os
from modelpack.hands.bytes import FileReader
from modelpack.hands.disk import Folder
from modelpack.hands.hashing import blamed
from modelpack.hands.links import within
from modelpack.words.blob import KIB, MIB
from modelpack.words.reader import fill, read_at_most

FILES_MOST, ENTRIES_MOST, TENSORS_MOST = 10_000, 100_000, 1_000_000
"""The most that is taken for one model: files, names looked through for them, tensors. Real ones have at most
some 200 files and 150,000 tensors."""
TEXT_MOST = 256 * MIB
"""Bytes of a file that is no weights; the largest tokenizers have some 40 MB, and servers read them whole."""

_INDEX = "model.safetensors.index.json"
_MODEL = ("model*.safetensors", "consolidated*.safetensors")
# Ollama's own command finds an adapter only under a model's name (seen); PEFT and MLX save under these, and
# the server takes any name.
_ADAPTER = ("adapter_model*.safetensors", "adapters*.safetensors", "model*.safetensors")
_TORCH = ("pytorch_model*.bin", "consolidated*.pth", "adapter_model*.bin")
_POINTER = b"version https://git-lfs"
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors", re.ASCII | re.DOTALL)
# Go's fs.ValidPath lets these pass; a server on Windows would take them for places of its own.
_ILLEGAL = re.compile(r"[\x00-\x1f\x7f\\:]")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*[\[{]")
_LICENCE = re.compile(r"(licen[cs]e|copying)[^.]*(\.txt|\.md)?", re.ASCII | re.IGNORECASE)
_REPOSITORY = "models--"


def snapshot_files(folder: Path, *, adapter: bool = False) -> dict[str, Path]:
    """The files of the model (or *adapter*) in *folder* that a create request names: name → real path.

    A name is relative, with "/" (at most one), and a link's own. GGUFs are left to the caller. Names that
    begin with a dot are left out, since a Mac and git leave such files behind and no converter reads one.
    Every header, and the first bytes of every other file, are read; what is wrong is said of all at once.

    Raises NotFound (no weights, no configuration, a shard missing), Corrupt (damaged, cut, a Git LFS
    pointer), Unsupported (PyTorch, a tensor in two files), Refused (a link out of *folder*, a name that no
    request can hold, too many files), Local. Whoever opens the files later sees to it that they are the same.
    """
    names = _names(folder)
    top = [name for name in names if "/" not in name]
    weights = _weights(folder, top, adapter)
    chosen = {*weights, *(name for name in names if name.endswith(".json"))}
    if weights[0].startswith("model"):
        chosen |= set(_like(names, "*/model*.safetensors"))
    chosen |= set(_like(top, "chat_template.jinja"))
    chosen |= set(_like(top, "tokenizer.model") or _like(names, "*/tokenizer.model"))
    if len(chosen) > FILES_MOST:
        what = f"holds {len(chosen)} files of a model; no real one has more than {FILES_MOST}"
        raise Refused(what, where=folder, advice="Move what is no part of it elsewhere.")
    needed = "adapter_config.json" if adapter else "config.json"
    if needed not in chosen:
        advice = "Without it no server can convert the weights. It lies beside them where they come from."
        raise NotFound(f"has no {needed}", where=folder, advice=advice)
    files = {name: within(folder / _legal(name, folder), folder) for name in sorted(chosen)}
    _check_numbers(folder, weights)
    _check_all(folder, files, frozenset(weights))
    return files


def snapshot_of(path: Path) -> Path:
    """The snapshot in *path*, where that is a repository in Hugging Face's cache; any other *path* itself.

    Of several snapshots it is the one that `refs/main` names. Usage lists them where that names none,
    NotFound where there are none.
    """
    folder = path / "snapshots"
    if not Path(os.path.abspath(path)).name.startswith(_REPOSITORY) or not folder.is_dir():
        return path
    found = sorted(entry.name for entry in _entries(folder, ENTRIES_MOST) if _is_folder(entry))
    if not found:
        raise NotFound("holds no snapshot", where=path, advice="Was the download finished?")
    main = _main_of(path) if len(found) > 1 else found[0]
    if main not in found:
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise Usage(
            f"holds {len(found)} snapshots: {shown}", where=path, advice=f"Name one: {folder}/REVISION"
        )
    within(folder / main, path)
    return folder / main


def snapshot_name(path: Path) -> str:
    """What the model in *path* should be called: its repository's name in Hugging Face's cache, without the
    organisation, else the directory's own. It need not be a name that Ollama takes (`Name.of_file`).
    """
    here = Path(os.path.abspath(path))
    for name in (here.name, here.parent.parent.name if here.parent.name == "snapshots" else ""):
        if name.startswith(_REPOSITORY):
            return name.rpartition("--")[2]
    return here.name


def licences(folder: Path) -> dict[str, Path]:
    """The licence texts in *folder*, of any size: name → real path. Ollama sends none by itself."""
    names = _names(folder, below=False)
    return {name: within(folder / name, folder) for name in names if _LICENCE.fullmatch(name)}


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    """What lies in *folder*, in no order, without names that begin with a dot."""
    found: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= most:
                    what = f"holds more than {ENTRIES_MOST} names, and is no model's folder"
                    raise Refused(what, where=folder)
                if not entry.name.startswith("."):
                    found.append(entry)
    except OSError as error:
        raise from_os(error, folder) from error
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: said where it matters
        return False


def _names(folder: Path, *, below: bool = True) -> list[str]:
    """Files in *folder* and in the folders in it, sorted; that deep Ollama's patterns reach."""
    names: list[str] = []
    entries = _entries(folder, ENTRIES_MOST)
    left = ENTRIES_MOST - len(entries)
    for entry in entries:
        if not _is_folder(entry):
            names.append(entry.name)
        # Ollama passes over what it may not list, too: lost+found lies on many a drive.
        elif below and os.access(entry.path, os.R_OK | os.X_OK):
            inner = _entries(Path(entry.path), left)
            left -= len(inner)
            names += [f"{entry.name}/{one.name}" for one in inner if not _is_folder(one)]
    return sorted(names)


def _like(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _weights(folder: Path, top: Sequence[str], adapter: bool) -> list[str]:
    """The weights among the names *top*: of the first pattern that fits any."""
    patterns = _ADAPTER if adapter else _MODEL
    found = next((some for pattern in patterns if (some := _like(top, pattern))), [])
    # An index beside a whole file is of no account to transformers and Ollama: some were left from a split.
    if not adapter and _INDEX in top and "model.safetensors" not in top and not _like(found, "cons*"):
        _none_missing(folder, _indexed(folder) - set(top), "its index names")
    if not found:
        raise _no_weights(folder, top, adapter)
    return found


def _indexed(folder: Path) -> frozenset[str]:
    """The shards that the index in *folder* names."""
    where = folder / _INDEX
    path = within(where, folder)
    _checked(path, where)
    with FileReader.at(path) as reader, blamed(where):
        return shards_of(read_at_most(reader, HEADER_MOST, "it"), where)


def _no_weights(folder: Path, top: Sequence[str], adapter: bool) -> ModelpackError:
    """The error for a folder without weights that a server takes."""
    if torch := [name for pattern in _TORCH for name in _like(top, pattern)]:
        return Unsupported(
            f"holds PyTorch checkpoints only ({_few(torch)})",
            where=folder,
            advice='Ollama\'s servers take none ("unknown type"): get the model as safetensors or GGUF.',
        )
    other = _like(top, "*.safetensors")
    if not adapter and any(_like(other, pattern) for pattern in _ADAPTER):
        advice = "Name it after ADAPTER, in a Modelfile whose FROM is the model that it was made for."
        return NotFound(f"holds an adapter ({_few(other)}), no model", where=folder, advice=advice)
    wanted = " or ".join(_ADAPTER if adapter else _MODEL)
    what = f"has no {wanted}" + (f", but {_few(other)}" if other else "")
    return NotFound(what, where=folder, advice="Ollama knows weights by these names.")


def _check_numbers(folder: Path, weights: Sequence[str]) -> None:
    """Raise NotFound where `…-00002-of-00004…` says that there are more."""
    there: dict[tuple[str, str], set[int]] = {}
    for found in filter(None, map(_NUMBERED.fullmatch, weights)):
        there.setdefault((found[1], found[3]), set()).add(int(found[2]))
    for (stem, count), numbers in there.items():
        if len(numbers) < int(count):  # some count from 0
            gone = set(range(1, int(count) + 1)) - numbers
            names = {f"{stem}-{number:05}-of-{count}.safetensors" for number in gone}
            _none_missing(folder, names, "the others' names count")


def _none_missing(folder: Path, gone: Iterable[str], why: str) -> None:
    """Raise NotFound for the files *gone*, where there are any."""
    names = sorted(gone)
    if names:
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        advice = "Was the download finished? Get what is missing and try again."
        raise NotFound(f"{_few(names)} {are} missing: {why} {them}", where=folder, advice=advice)


def _few(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _legal(name: str, folder: Path) -> str:
    """*name*, where a create request and every server can hold it; Refused otherwise."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Refused(f"the name {name!r} is not UTF-8", where=folder, advice="Rename the file.") from None
    if _ILLEGAL.search(name):
        what = f"the name {name!r} holds a backslash, a colon or a control character"
        raise Refused(what, where=folder, advice="Rename the file.")
    return name


def _check_all(folder: Path, files: dict[str, Path], weights: frozenset[str]) -> None:
    """Raise what is wrong with *files*: of one its own error, of several one that names each."""
    wrong: dict[str, ModelpackError] = {}
    home: dict[str, str] = {}  # tensor → file
    for name, path in files.items():
        try:
            tensors = _checked(path, folder / name)
        except (Corrupt, Unsupported) as error:
            wrong[name] = error
            continue
        # 0.24 makes a model of twice the size without a word, 0.33 refuses it after the upload (seen).
        for tensor in tensors if name in weights else ():
            other = home.setdefault(tensor, name)
            if other != name:
                raise Unsupported(
                    f"tensor {tensor[:100]!r} is in {other} and in {name}",
                    where=folder,
                    advice="Ollama would put both into one model: move one set of files elsewhere.",
                )
        if len(home) > TENSORS_MOST:
            raise Unsupported(f"has more than {TENSORS_MOST} tensors", where=folder)
    first = next(iter(wrong.values()), None)
    if first is not None and len(wrong) == 1:
        raise first
    if first is not None:
        each = _few([f"{name} {error.what}" for name, error in wrong.items()])
        what = f"{len(wrong)} files are not what they should be: {each}"
        raise type(first)(what, where=folder, advice=first.advice)


def _checked(path: Path, where: Path) -> list[str]:
    """The tensors in *path*; Corrupt or Unsupported where it is not what its name, in *where*, says."""
    with FileReader.at(path) as reader:
        if where.suffix == ".safetensors":
            return [tensor.name for tensor in read_safetensors(reader, reader.size, where).tensors]
        piece = memoryview(bytearray(FIRST))
        head = bytes(piece[: fill(reader, piece)])
        if head.startswith(_POINTER):
            raise not_gguf(head, reader.size, where)
        if where.suffix == ".json" and not _JSON.match(head):
            raise unlike("a JSON document", head, reader.size, where)
        if reader.size > TEXT_MOST:
            what = f"is larger than {TEXT_MOST // MIB} MiB; no tokenizer or configuration is"
            raise Corrupt(what, where=where, advice="Move it elsewhere if it is no part of the model.")
    return []


def _main_of(path: Path) -> str:
    """The revision that `refs/main` of the repository at *path* names; "" where it names none."""
    try:
        with Folder.at(path / "refs") as refs:
            return refs.read("main", KIB).decode("utf-8", "replace").strip()
    except NotFound:
        return ""
