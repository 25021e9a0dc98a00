"""What travels along in a bundle beside its models: restore.py, and files that were attached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from modelpack.documents.sums import sums_say
from modelpack.errors import Usage
from modelpack.words.blob import SMALL, Blob
from modelpack.words.digest import Digest
from modelpack.words.filename import folded, is_portable, portable
from modelpack.words.reader import Reader

FOLDER = "attachments"
SCRIPT = "restore.py"
README = "README.txt"
ATTACHMENT = "application/vnd.ollama-modelpack.attachment"
"""The media type of an attached file's blob, which no manifest names."""
STRIPPED = (README, SCRIPT)
"""What stations between two networks take out of what passes: no model is the worse for it."""

_LONGEST = 100 - len(f"{FOLDER}/")  # a ustar header has 100 bytes for a path


@dataclass(frozen=True)
class Attachment:
    """A file called `name`; its blob's digest is known, and `open` gives its bytes, which nobody checked yet.

    Raises Usage where the name is not plain ASCII that every file system takes, or has more than 88 bytes.
    """

    name: str
    blob: Blob
    open: Callable[[], AbstractContextManager[Reader]] = field(compare=False)

    def __post_init__(self) -> None:
        if not fits(self.name):
            ascii_alone = "".join(char if char.isascii() else "-" for char in self.name)
            raise Usage(
                f"{self.name[:200]!r} is no name for an attachment: not every tar and every disk takes it",
                advice=f"Give the file a plain name of at most {_LONGEST} characters, such as "
                f"{portable(ascii_alone, 'file', _LONGEST)!r}, and attach it by that.",
            )

    @property
    def path(self) -> str:
        """Where it lies in a bundle."""
        return path_of(self.name)


@dataclass(frozen=True)
class Extras:
    """The bytes of `restore.py`, None for none, and the attachments, sorted by name.

    `readme` is the README.txt that is there already, as another modelpack may have written it; None: that
    of this one. Raises Usage where two attachments have one name (without case).
    """

    script: bytes | None = None
    attachments: tuple[Attachment, ...] = ()
    readme: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "attachments", tuple(sorted(self.attachments, key=lambda one: one.name)))
        seen: dict[str, str] = {}
        for one in self.attachments:
            if (other := seen.get(folded(one.name))) is not None:
                raise Usage(
                    f"two attachments are called {one.name!r}"
                    + (f" and {other!r}, which some disks take for the same" if other != one.name else ""),
                    advice="Give one of the files another name.",
                )
            seen[folded(one.name)] = one.name
        if self.script is not None and len(self.script) > SMALL:
            raise Usage(f"{SCRIPT} is larger than 4 MiB")


NONE = Extras()


def path_of(name: str) -> str:
    """Where the attachment *name* lies in a bundle."""
    return f"{FOLDER}/{name}"


def is_attached(path: str) -> bool:
    """Whether *path* is that of an attachment in a bundle."""
    return path.startswith(f"{FOLDER}/")


def fits(name: str) -> bool:
    """Whether *name* may be an attachment's."""
    return name.isascii() and len(name) <= _LONGEST and is_portable(name)


def attachments_of(sums: Mapping[str, Digest] | None) -> tuple[tuple[str, Digest], ...]:
    """Names and digests of the attachments that SHA256SUMS lists, sorted; none by a name that is not fit.

    Of two that some disk takes for the same, the first counts.
    """
    found: dict[str, tuple[str, Digest]] = {}
    for path in sorted(sums or ()):
        folder, _, name = path.removeprefix("./").partition("/")
        digest = sums_say(sums or {}, path)
        if folder == FOLDER and fits(name) and digest is not None:
            found.setdefault(folded(name), (name, digest))
    return tuple(found.values())
