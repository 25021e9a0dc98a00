"""`POST /api/create`: a manifest from files that were uploaded, or from a model that is here.

Bytes stay as they were uploaded: where Ollama since 0.30 writes a text-only GGUF anew, a depot does not.
Facts: server/create.go of Ollama v0.33.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelpack.depot.asked import Say, Says, no_engine, says, text_field, texts_field
from modelpack.depot.changes import Changes
from modelpack.depot.layers import Layer, Small, config_of, with_texts
from modelpack.depot.models import layers_of
from modelpack.documents.gojson import go_json
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unsupported, Usage
from modelpack.words.blob import ADAPTER, CONFIG, DRAFT, MANIFEST, MODEL, PARAMS, PROJECTOR, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader

_ROLES = {"model": MODEL, "projector": PROJECTOR, "adapter": ADAPTER}
_QUANTIZED = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
_VALID_PATH = re.compile(r"(?!\.{1,2}(/|$))[^/\0]+(/(?!\.{1,2}(/|$))[^/\0]+)*|\.")


def check(asked: dict[str, Any]) -> Name:
    """The name to create; Says 400 for what is refused before any work."""
    for field in ("files", "draft_files"):
        for path, digest in (texts_field(asked, field) or {}).items():
            if _VALID_PATH.fullmatch(path) is None:
                raise Says(400, "file path must be relative")
            if not digest:
                raise Says(400, "invalid digest format")
    if text_field(asked, "draft_quantize") and not asked.get("draft_files"):
        raise Says(400, "--draft-quantize requires a DRAFT model")
    if "" in (texts_field(asked, "adapters") or {}).values():
        raise Says(400, "invalid digest format")
    try:
        return Name.parse(text_field(asked, "model", "name"))
    except Usage:
        raise Says(400, "invalid model name") from None


def create(changes: Changes, name: Name, asked: dict[str, Any], say: Say) -> None:
    """Make the model; *say* hears each line of progress but the last. Says where it cannot be."""
    try:
        with changes.changing:
            _Create(changes, name, asked, say).run()
    except Says as answer:
        answer.plain = False
        raise
    except ModelpackError as error:
        told = says(error)
        told.plain = False
        raise told from error


class _Create:
    def __init__(self, changes: Changes, name: Name, asked: dict[str, Any], say: Say) -> None:
        self.changes, self.models, self.asked, self.say = changes, changes.models, asked, say
        self.shelf = changes.directory
        self.name = self.shelf.existing(name)
        self.base: dict[str, Any] = {}
        self.small = Small()

    def run(self) -> None:
        if text_field(self.asked, "remote_host"):
            raise no_engine("stand for a model on another host")
        layers = [*self._start(), *self._files("adapters"), *self._files("draft_files", DRAFT)]
        for layer in layers:
            self._check_quantize(layer)
        raw, stop = config_of(self.asked, self.base, layers)
        inherited: dict[str, Any] = {}
        for layer in layers:
            inherited |= self._params(layer.blob) if layer.kind == PARAMS else {}
        layers = with_texts(layers, self.asked, self.small, inherited, stop)
        for layer in layers:
            self.say(f"{'creating new' if self._is_new(layer.blob) else 'using existing'} layer {layer.blob}")
        config = self.small.add(raw, CONFIG)
        self.say("writing manifest")
        self._write(config, layers)

    def _start(self) -> list[Layer]:
        base = text_field(self.asked, "from")
        if base:
            return list(self._inherited(base))
        if self.asked.get("files") is None:
            raise Says(400, "neither 'from' or 'files' was specified")
        return self._files("files")

    def _inherited(self, text: str) -> Iterator[Layer]:
        try:
            found = self.models.find(text)
        except Usage:
            raise Says(400, "invalid model name") from None
        if found is None:
            raise Says(404, f"model '{text}' not found: a depot pulls nothing, so load it first")
        name, image = found
        self.base = self.models.config(image)
        if self.base.get("remote_host"):
            raise no_engine("build on a model that is on another host")
        for blob, line in zip(image.layers, layers_of(image), strict=True):
            gguf = None
            if blob.media_type in (MODEL, PROJECTOR, ADAPTER, DRAFT):
                with _told(blob):
                    gguf = self.models.gguf(blob)
            yield Layer(blob, str(name), str(line.get("name") or ""), gguf)

    def _files(self, field: str, kind: str = "") -> list[Layer]:
        files = texts_field(self.asked, field)
        if files is None:
            return []
        if any(path.endswith(".safetensors") for path in files):
            raise no_engine("convert safetensors: give it a GGUF")
        if not any(path.endswith(".gguf") for path in files) and not any(map(self._is_gguf, files.values())):
            raise Says(400, "unknown type")
        if field == "adapters" and len(files) > 1:
            raise Says(400, "only one adapter is currently supported")
        return [self._file(path, files[path], kind) for path in sorted(files)]

    def _file(self, path: str, text: str, kind: str) -> Layer:
        self.say("parsing GGUF")
        blob = self._blob(text)
        if not self._is_gguf(text):
            raise Says(400, "supplied file was not in GGUF format")
        with _told(blob):
            gguf = self.models.gguf(blob)
        if gguf.split is not None:
            shard = f"{path[-100:]} is one of {gguf.split.count}"
            raise no_engine(f"merge shards ({shard}): modelpack does that when it packs them")
        kind = kind or _ROLES[gguf.role]
        # Ollama writes the file's name beside the layers that it keeps as they are. Weights it writes anew.
        return Layer(Blob(blob.size, kind, blob.digest), "" if kind == MODEL else path, gguf=gguf)

    def _blob(self, text: str) -> Blob:
        """The uploaded blob; Says in the words of Ollama where it is not there."""
        try:
            digest = Digest.parse(text)
        except Corrupt:
            raise Says(500, "invalid digest format") from None
        if digest.algorithm != "sha256":
            raise Says(500, "invalid digest format")
        size = self.shelf.size_of(digest)
        if size is None:
            path = self.shelf.blob_path(Blob(0, MODEL, digest))
            raise Says(500, f"open {path}: no such file or directory")
        return Blob(size, MODEL, digest)

    def _is_gguf(self, text: str) -> bool:
        try:
            with self.shelf.open(self._blob(text)) as reader:
                head = bytearray(4)
                return reader.readinto(memoryview(head)) == 4 and head == b"GGUF"
        except (ModelpackError, Says):
            return False

    def _check_quantize(self, layer: Layer) -> None:
        keys = {MODEL: ("quantize", "quantization"), DRAFT: ("draft_quantize",)}.get(layer.kind, ())
        wanted = text_field(self.asked, *keys).upper()
        if not wanted or layer.gguf is None or layer.gguf.file_type == wanted:
            return
        if wanted not in _QUANTIZED:
            known = ", ".join(_QUANTIZED)
            raise Says(500, f"unsupported quantization type {wanted} - supported types are {known}")
        raise no_engine(f"quantize to {wanted}")

    def _params(self, blob: Blob) -> dict[str, Any]:
        value = self.models.value(blob)
        if not isinstance(value, dict):
            raise Says(500, "the parameters of the model it is made from are no object")
        return value

    def _is_new(self, blob: Blob) -> bool:
        digest = blob.digest
        return digest is not None and digest in self.small and self.shelf.size_of(digest) is None

    def _write(self, config: Blob, layers: list[Layer]) -> None:
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Layer(config).line(),
            "layers": [layer.line() for layer in layers],
        }
        model = Model(self.name, Image.parse(go_json(manifest) + b"\n", "manifest"))
        before = self.changes.before(self.name)
        with self.changes.store.session([model]) as session:
            for blob in self.changes.store.missing([model]):
                if blob.digest is not None and blob.digest in self.small:
                    session.put(blob, BytesReader(self.small[blob.digest]))
            session.commit(model)
        if before is not None:
            self.changes.forget(before)


@contextmanager
def _told(blob: Blob) -> Iterator[None]:
    """What is wrong with a file, in a sentence, without a path of ours."""
    try:
        yield
    except NotFound as error:
        raise Says(500, f"{blob}: {error.what}") from None
    except (Corrupt, Unsupported) as error:
        raise Says(500, f"{blob} {error.what}") from None
