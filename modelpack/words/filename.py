"""File names that every file system takes: FAT, exFAT, NTFS, APFS, ext4."""

from __future__ import annotations

import re
import unicodedata

from modelpack.words.name import DEFAULT_TAG, Name
from modelpack.words.text import visible

LONGEST = 255
"""Bytes of a name on ext4. NTFS and exFAT count 255 units of UTF-16, which are never more."""

_ROOM = 55  # bytes left for a number
_SUFFIX = 20
_ILLEGAL = frozenset('<>:"/\\|?*')
# Names of devices, whatever follows their first dot. Source: "Naming Files, Paths, and Namespaces" of Win32.
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(COM|LPT)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
# What systems put on a fresh volume.
_VOLUME = {
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".DS_Store",
    ".fseventsd",
    ".Spotlight-V100",
}
_OWN = {"desktop.ini", "Thumbs.db"}


def portable(text: str, otherwise: str = "file", longest: int = LONGEST - _ROOM) -> str:
    """*text* as the name of a file anywhere, *otherwise* where nothing is left of it; one part, never a path.

    "-" stands for what some system refuses, and for what no terminal shows. It has no dot or dash in front
    and no dot or space at the end, is no device of Windows, and has at most *longest* bytes, its suffix
    among them. Made portable once more, it stays as it is.
    """
    text = "".join("-" if char in _ILLEGAL or visible(char) != char else char for char in text)
    text = text.lstrip(" .-").rstrip(" .") or otherwise
    text = f"_{text}" if _DEVICE.match(text) else text
    if len(text.encode()) <= longest:
        return text
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode()) > _SUFFIX:
        stem, dot, suffix = text, "", ""
    end = dot + suffix
    return stem.encode()[: longest - len(end.encode())].decode(errors="ignore").rstrip(" .") + end


def is_portable(part: str) -> bool:
    """Whether *part* is a name that `portable` may give, with or without a number."""
    return portable(part, "", LONGEST) == part != ""


def folded(path: str) -> str:
    """What two paths have in common that some file system takes for the same."""
    return unicodedata.normalize("NFC", path.casefold())


def labelled(name: Name) -> str:
    """The name of a file or folder for the model *name*: as it is displayed, without the tag `latest`."""
    return portable(str(name).removesuffix(f":{DEFAULT_TAG}"), "model")


def on_every_volume(name: str) -> bool:
    """Whether *name* is nobody's file, but one that systems put on every volume."""
    return name in _VOLUME or name.startswith((".Trash", "._"))


def systems_own(name: str) -> bool:
    """Whether *name* is nobody's file, but one that systems put on every volume or into every folder."""
    return name in _OWN or on_every_volume(name)


class Paths:
    """Relative paths, given out once each: no two are the same on a disk that folds case.

    *reserved* are names at the top that are never given out.
    """

    def __init__(self, *reserved: str) -> None:
        self._given: dict[str, str | None] = {folded(name): None for name in reserved}  # None: no folder
        self._next: dict[str, int] = {}

    def take(self, *parts: str) -> str:
        """A path for the file at *parts*, all but the last of them folders; numbered where it is taken.

        The *parts* must be portable.
        """
        above = ""
        for part in parts[:-1]:
            above = self._free(above, part, folder=True) + "/"
        return self._free(above, parts[-1], folder=False)

    def _free(self, above: str, name: str, *, folder: bool) -> str:
        stem, dot, suffix = name.rpartition(".")
        if not stem or folder:
            stem, dot, suffix = name, "", ""
        key = folded(above + name)
        path, number = above + name, self._next.get(key, 2)
        while (there := folded(path)) in self._given:
            spelled = self._given[there]
            if folder and spelled is not None:
                return spelled
            path, number = f"{above}{stem}-{number}{dot}{suffix}", number + 1
        self._next[key] = number
        self._given[there] = path if folder else None
        return path
