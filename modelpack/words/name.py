"""A model's name, as Ollama reads and shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelpack.errors import Usage

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

# Source: types/model/name.go (isValidPart) of Ollama v0.33.
_PART = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", re.ASCII),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", re.ASCII),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII),
}
_NO_LETTER = re.compile(r"[^A-Za-z0-9_.-]+", re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Name:
    """`[host/][namespace/]model[:tag]`, every part filled in.

    Ollama keeps a name's case but compares without it: use `folded` as the key.
    """

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Name:
        """Read *text* with Ollama's defaults for what it leaves out; raises Usage where it is no name."""
        rest = text
        for scheme in ("http://", "https://"):  # Ollama drops a scheme before the host
            rest = rest.removeprefix(scheme)
        head, mark, last = rest.rpartition("/")
        model, colon, tag = last.partition(":")
        host, slash, namespace = head.rpartition("/")
        if not slash:
            host = DEFAULT_HOST
        name = cls(host, namespace if mark else DEFAULT_NAMESPACE, model, tag if colon else DEFAULT_TAG)
        for part, form in _PART.items():
            value = getattr(name, part)
            if form.fullmatch(value) is None:
                raise Usage(
                    f"{text[:200]!r} is not a model name: its {part} {value[:80]!r} is not allowed",
                    advice="A name is [host/][namespace/]model[:tag] of letters, digits, '_', '-' and '.', "
                    "each part beginning with a letter, a digit or '_' and at most 80 characters long.",
                )
        return name

    @classmethod
    def of_file(cls, file_name: str) -> Name:
        """The name for a loose file: no suffix, no shard number, and "-" for what a name cannot hold."""
        stem = re.sub(r"\.(gguf|GGUF)$", "", file_name)
        stem = _NO_LETTER.sub("-", _SHARD.sub("", stem)).strip("-.")[:80].rstrip("-.")
        return cls(DEFAULT_HOST, DEFAULT_NAMESPACE, stem or "model", DEFAULT_TAG)

    @classmethod
    def of_path(cls, parts: tuple[str, ...]) -> Name:
        """The name of a manifest file at *parts* below `manifests/`; raises Usage where it is none."""
        if len(parts) != 4:
            raise Usage(f"{'/'.join(parts)!r} is not host/namespace/model/tag")
        name = cls(*parts)
        if any(form.fullmatch(getattr(name, part)) is None for part, form in _PART.items()):
            raise Usage(f"{'/'.join(parts)!r} is not host/namespace/model/tag")
        return name

    @property
    def full(self) -> str:
        """Every part written out."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def folded(self) -> str:
        """What two names that Ollama takes for the same have in common."""
        return self.full.lower()

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Where the manifest lies below `manifests/` in a models directory."""
        return (self.host, self.namespace, self.model, self.tag)

    def __str__(self) -> str:
        """As Ollama displays it: without `registry.ollama.ai/library/`."""
        text = f"{self.model}:{self.tag}"
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{text}"
        return text if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{text}"
