"""A recipe: what only a server can turn into a model. The body of a create request, digests for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelpack.documents.gojson import canonical_json, parse_object
from modelpack.errors import Corrupt, Unsupported, Usage
from modelpack.words.blob import FILE, Blob
from modelpack.words.digest import ZERO, Digest
from modelpack.words.name import Name

FILE_FIELDS = ("files", "adapters", "draft_files")
"""Fields of a create request that map file names to digests (api/types.go, CreateRequest)."""

_FIELDS = (*FILE_FIELDS, "from", "remote_host", "quantize", "quantization", "draft_quantize", "template")
_TEXTS = ("license", "system", "parameters", "messages", "renderer", "parser", "requires", "info")
FIELDS = frozenset((*_FIELDS, *_TEXTS))
"""What a recipe may say (api/types.go, CreateRequest). Go takes a key in upper case for the same field."""


@dataclass(frozen=True)
class Recipe:
    """A create request without `model` and `stream`, its exact bytes, and the files it names.

    Where modelpack composes it itself and a file is still unread, zeros stand in place of that digest: as
    many characters as the final one has. `groups` then tells which blob stands where: field, name, blob.
    """

    raw: bytes
    body: dict[str, Any]
    files: tuple[Blob, ...]
    groups: Mapping[str, Mapping[str, Blob]] = field(default_factory=dict, compare=False)

    @classmethod
    def compose(cls, body: Mapping[str, Any], groups: Mapping[str, Mapping[str, Blob]]) -> Recipe:
        """The recipe that says *body* of the files in *groups*: field (see FILE_FIELDS), name, blob."""
        whole = dict(body)
        files: dict[object, Blob] = {}
        for key, group in groups.items():
            if group:
                whole[key] = {title: str(blob.digest or ZERO) for title, blob in group.items()}
            for blob in group.values():
                files.setdefault(blob.id, blob)
        return cls(canonical_json(whole).rstrip(b"\n"), whole, tuple(files.values()), groups)

    @classmethod
    def parse(cls, raw: bytes, files: Sequence[Blob], where: object) -> Recipe:
        """Read a recipe whose files' sizes stand in *files*; raises Corrupt, Unsupported (a new field)."""
        body = parse_object(raw, where)
        for key in (one for one in body if one not in FIELDS):
            if key.casefold() in FIELDS | {"model", "name", "stream"}:
                raise Corrupt(f"holds {key!r}, which is not its to say", where=where)
            raise Unsupported(f"asks a server for {key[:80]!r}, which is not known here", where=where)
        sizes = {blob.digest: blob for blob in files}
        named: dict[Digest, Blob] = {}
        for key in FILE_FIELDS:
            group = body.get(key, {})
            if not isinstance(group, dict):
                raise Corrupt(f"its {key!r} is not an object", where=where)
            for title, text in group.items():
                digest = Digest.parse(text, where)
                known = sizes.get(digest)
                if known is None:
                    raise Corrupt(f"names {digest} ({title[:80]!r}), whose size nobody tells", where=where)
                named[digest] = Blob(known.size, FILE, digest, known.blake3, known.title or title)
        return cls(raw, body, tuple(named.values()))

    @property
    def id(self) -> Digest:
        """SHA-256 of the recipe. The model made from it gets an ID of the server's own."""
        return Digest.of(self.raw)

    @property
    def base(self) -> Name | None:
        """The installed model that it is made from; None where from files alone. Unsupported for no name."""
        text = self.body.get("from")
        if not text:
            return None
        try:
            return Name.parse(str(text))
        except Usage as error:
            raise Unsupported(f"is made from something else: {error.what}") from None

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The files, each once, in order of use."""
        return self.files

    def settled(self, known: Mapping[object, Blob]) -> Recipe:
        """This recipe with what became known of its files; only one composed here changes by it."""
        if self.groups:
            return Recipe.compose(
                self.body,
                {
                    key: {title: blob.settled(known.get(blob.id, blob)) for title, blob in group.items()}
                    for key, group in self.groups.items()
                },
            )
        return Recipe(
            self.raw, self.body, tuple(file.settled(known.get(file.id, file)) for file in self.files)
        )
