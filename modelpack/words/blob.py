"""A blob: bytes that somebody keeps, known by size, kind and digest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelpack.words.digest import Digest

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

SMALL = 4 * MIB
"""The most that a document, or a text layer (template, system, licence, …), may have."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
FILE = "application/vnd.ollama-modelpack.file.v1"
_LAYER = "application/vnd.ollama.image."
MODEL, PROJECTOR, ADAPTER = _LAYER + "model", _LAYER + "projector", _LAYER + "adapter"
TEMPLATE, PROMPT, SYSTEM = _LAYER + "template", _LAYER + "prompt", _LAYER + "system"
PARAMS, MESSAGES, LICENSE = _LAYER + "params", _LAYER + "messages", _LAYER + "license"
DRAFT, TENSOR, JSON, EMBED = _LAYER + "draft", _LAYER + "tensor", _LAYER + "json", _LAYER + "embed"
_KINDS = {CONFIG: "config", FILE: "file"}
TEXTS = frozenset({TEMPLATE, PROMPT, SYSTEM, PARAMS, MESSAGES, LICENSE})
"""Layers whose bytes are text of at most SMALL, which a create request carries in itself."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Size in bytes, media type, and what is known of the bytes.

    A blob is *unread* while its SHA-256 is not known; `key` then says which bytes are meant, in words that
    only its source understands. Where it was merged from the shards of a split GGUF, `shards` are their own
    SHA-256s, in order; None for those that are not known yet.
    """

    size: int
    media_type: str
    digest: Digest | None = None
    blake3: Digest | None = None
    title: str | None = None
    key: object = None
    shards: tuple[Digest | None, ...] = ()

    @property
    def id(self) -> object:
        """What tells this blob from others: its digest, or its key while it is unread."""
        return self.digest if self.digest is not None else self.key

    @property
    def kind(self) -> str:
        """The last word of the media type: `model`, `template`, `license`, …, `config` or `file`."""
        return _KINDS.get(self.media_type) or self.media_type.rpartition(".")[2]

    def settled(self, known: Blob) -> Blob:
        """This blob with the hashes (and title and shards, where it has none) of *known*."""
        return replace(
            self,
            digest=known.digest or self.digest,
            blake3=known.blake3 or self.blake3,
            title=self.title or known.title,
            shards=self.shards if self.shards and None not in self.shards else known.shards or self.shards,
        )

    def __str__(self) -> str:
        return str(self.digest) if self.digest is not None else self.title or str(self.key)
