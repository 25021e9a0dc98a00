"""modelpack's own wheel, written from the files that are running: nothing builds it, nothing is fetched.

The format: "Binary distribution format" and "Core metadata specifications" of packaging.python.org.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from modelpack.errors import from_os
from modelpack.version import __version__

NAME = "ollama-modelpack"
NEEDS = ("click>=8.1.7", "requests>=2.32", "tqdm>=4.66", "blake3>=1.0")
"""As pyproject.toml has them."""
PYTHON = ">=3.11"

_ROOT = Path(__file__).resolve().parents[1]


def own_wheel() -> tuple[str, bytes]:
    """The wheel of what is running, and its file name; the same files give the same bytes, on any host."""
    stem = f"{NAME.replace('-', '_')}-{__version__}"
    about = f"{stem}.dist-info"
    metadata = [
        "Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {__version__}",
        "Summary: Carry models to Ollama hosts that no network reaches", "License: MIT",
        f"Requires-Python: {PYTHON}", *(f"Requires-Dist: {need}" for need in NEEDS),
    ]  # fmt: skip
    tag = "py3-none-any"
    wheel = ["Wheel-Version: 1.0", f"Generator: modelpack ({__version__})", "Root-Is-Purelib: true"]
    files = {
        **dict(_running()),
        f"{about}/METADATA": "\n".join([*metadata, ""]).encode(),
        f"{about}/WHEEL": "\n".join([*wheel, f"Tag: {tag}", ""]).encode(),
        f"{about}/entry_points.txt": b"[console_scripts]\nmodelpack = modelpack.__main__:main\n",
        **{f"{about}/licenses/LICENSE": raw for raw in _license()},
    }
    rows = [f"{path},{_record_hash(raw)},{len(raw)}" for path, raw in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,", ""]).encode()
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:  # compressed it depends on zlib's version
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, content)
    return f"{stem}-{tag}.whl", raw.getvalue()


def _license() -> Iterator[bytes]:
    """The licence, from the source tree or from what is installed; nothing where it was left out."""
    with contextlib.suppress(OSError):
        yield (_ROOT.parent / "LICENSE").read_bytes()
        return
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        for one in importlib.metadata.distribution(NAME).files or ():
            if one.name == "LICENSE":
                yield Path(str(one.locate())).read_bytes()
                return


def _running() -> Iterator[tuple[str, bytes]]:
    """The files of the package that runs, by their paths in a wheel, sorted."""
    for path in sorted(_ROOT.rglob("*"), key=lambda one: one.relative_to(_ROOT).as_posix()):
        inside = path.relative_to(_ROOT)
        hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        if hidden or path.suffix == ".pyc" or not path.is_file():
            continue
        try:
            yield f"modelpack/{inside.as_posix()}", path.read_bytes()
        except OSError as error:
            raise from_os(error, path) from error


def _record_hash(raw: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
