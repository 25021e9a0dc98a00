"""`POST /api/show`: what a model is made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from modelpack.depot.asked import Says, flag_field, text_field
from modelpack.depot.capabilities import Facts, shown
from modelpack.depot.golang import Float32, encode
from modelpack.depot.models import Models, details_of, moment, parent_of
from modelpack.documents.gguf import Gguf, Place
from modelpack.documents.gguf_types import SCALARS, STRING, VALUE_TYPES
from modelpack.documents.image import Image
from modelpack.documents.show import DEFAULT_TEMPLATE, modelfile_text, parameters_text
from modelpack.errors import Corrupt, Usage
from modelpack.words.blob import (
    ADAPTER,
    DRAFT,
    KIB,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    Blob,
)
from modelpack.words.name import Name
from modelpack.words.reader import Reader, read_exactly

_TYPES = {name: number for number, name in VALUE_TYPES.items()}
_HIDDEN = ("general.name", "tokenizer.chat_template")
_PIECE = 64 * KIB


def show(models: Models, asked: dict[str, Any]) -> Iterator[bytes]:
    """The answer in pieces: a vocabulary, which `verbose` asks for, is never held as a whole.

    Says 400, 404; errors after the first piece break the answer off.
    """
    text = text_field(asked, "model", "name")
    if not text:
        raise Says(400, "model is required")
    try:
        name = Name.parse(text)
    except Usage:
        raise Says(400, "invalid model name") from None
    found = models.shelf.read(name)
    if found is None:
        raise Says(404, f"model '{name}' not found")
    return _Shown(models, *found).answer(text_field(asked, "system"), flag_field(asked, "verbose", False))


class _Shown:
    def __init__(self, models: Models, name: Name, image: Image) -> None:
        self.models, self.name, self.image = models, name, image
        self.config = models.config(image)
        self.modified = models.shelf.modified(name)

    def answer(self, system: str, verbose: bool) -> Iterator[bytes]:
        """All that may fail for a reason worth telling is done before the first piece is asked for."""
        weights = self._last(MODEL)
        local = weights is not None and not self.config.get("remote_host")
        ggufs = [
            (key, blob, self.models.gguf(blob))
            for key, blob in (("model_info", weights), ("projector_info", self._first(PROJECTOR)))
            if blob is not None and local
        ]
        head, tail = self._documents(system, weights, ggufs[0][2] if ggufs else None)
        return self._pieces(head, tail, ggufs, verbose)

    def _documents(
        self, system: str, weights: Blob | None, gguf: Gguf | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        models, image, config = self.models, self.image, self.config
        template = self._text(TEMPLATE, PROMPT)
        system = system or self._text(SYSTEM) or ""
        licenses = [models.text(blob) for blob in image.of_kind(LICENSE)]
        params = self._value(PARAMS, dict) or {}
        messages = [each for each in self._value(MESSAGES, list) or [] if isinstance(each, dict)]
        facts = Facts.of(gguf) if gguf is not None else None
        projectors = [models.facts(blob) for blob in image.of_kind(PROJECTOR)]
        details = details_of(config, parent_of(image))
        if facts is not None and details["quantization_level"].lower() in ("", "unknown"):
            details["quantization_level"] = facts.file_type
        draft = self._last(DRAFT)
        head = {
            "license": "\n".join(licenses),
            "modelfile": modelfile_text(
                str(self.name),
                model=models.shelf.blob_path(weights) if weights is not None else "",
                adapters=[models.shelf.blob_path(blob) for blob in image.of_kind(ADAPTER)],
                draft=models.shelf.blob_path(draft) if draft is not None else "",
                projectors=[models.shelf.blob_path(blob) for blob in image.of_kind(PROJECTOR)],
                template=DEFAULT_TEMPLATE if template is None else template,
                system=system,
                renderer=str(config.get("renderer") or ""),
                parser=str(config.get("parser") or ""),
                params=params,
                licenses=licenses,
                messages=messages,
            ),
            "parameters": parameters_text(params),
            "template": self._template(template, facts),
            "system": system,
            "details": details,
            "messages": [{"role": each.get("role"), "content": each.get("content")} for each in messages],
            "remote_model": config.get("remote_model"),
            "remote_host": config.get("remote_host"),
        }
        tail = {
            "tensors": [
                {"name": each.name, "type": each.type_name, "shape": list(each.shape)}
                for each in (gguf.tensors if gguf is not None else ())
            ],
            "capabilities": list(shown(config, facts, template, [each for each in projectors if each])),
            "modified_at": moment(self.modified),
            "requires": config.get("requires"),
        }
        return {key: value for key, value in head.items() if value}, {
            key: value for key, value in tail.items() if value
        }

    def _template(self, template: str | None, facts: Facts | None) -> str:
        # Ollama also prefers the GGUF's own where it can more than the layer's; here the layer always wins.
        rendered = template is not None or self.config.get("renderer") or self.config.get("parser")
        if facts is not None and facts.chat_template and not rendered:
            return facts.chat_template
        return DEFAULT_TEMPLATE if template is None else template

    def _pieces(
        self,
        head: dict[str, Any],
        tail: dict[str, Any],
        ggufs: list[tuple[str, Blob, Gguf]],
        verbose: bool,
    ) -> Iterator[bytes]:
        yield encode(head)[:-1] + (b"" if ggufs else b',"model_info":{}')
        for key, blob, gguf in ggufs:
            yield b"," + encode(key) + b":"
            yield from self._information(blob, gguf, verbose, _HIDDEN if key == "model_info" else ())
        yield b"," + encode(tail)[1:]

    def _information(self, blob: Blob, gguf: Gguf, verbose: bool, hidden: tuple[str, ...]) -> Iterator[bytes]:
        """The metadata of *gguf*, keys sorted; arrays are null unless *verbose*, as Ollama has them."""
        places: dict[str, Place | None] = {**gguf.places, "general.parameter_count": None}
        start = b"{"
        for key in sorted(places):
            if key in hidden:
                continue
            yield start + encode(key) + b":"
            start = b","
            place = places[key]
            if place is None:
                yield encode(gguf.parameter_count)
            elif place.type != "array":
                value = gguf.metadata[key]
                if place.type == "float32" and isinstance(value, float):
                    value = Float32(value)
                yield encode(value)
            elif verbose:
                with self.models.shelf.open(blob, place.offset) as reader:
                    yield from _array(reader)
            else:
                yield b"null"
        yield b"}" if start == b"," else b"{}"

    def _first(self, kind: str) -> Blob | None:
        return next(iter(self.image.of_kind(kind)), None)

    def _last(self, kind: str) -> Blob | None:
        return next(reversed(self.image.of_kind(kind)), None)

    def _text(self, *kinds: str) -> str | None:
        found = self.image.of_kind(*kinds)
        return self.models.text(found[-1]) if found else None

    def _value(self, kind: str, wanted: type) -> Any:
        blob = self._last(kind)
        value = self.models.value(blob) if blob is not None else None
        if value is not None and not isinstance(value, wanted):
            raise Corrupt(f"{kind.rpartition('.')[2]} layer is of another form", where=self.name)
        return value


def _array(reader: Reader) -> Iterator[bytes]:
    """A GGUF's array as JSON. Its lengths were checked when the header was read."""
    kind, count = struct.unpack("<IQ", read_exactly(reader, 12, "array"))
    pieces = _strings(reader, count) if kind == STRING else _numbers(reader, kind, count)
    gathered = bytearray(b"[")
    for index, piece in enumerate(pieces):
        gathered += (b"," if index else b"") + piece
        if len(gathered) > _PIECE:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered + b"]")


def _strings(reader: Reader, count: int) -> Iterator[bytes]:
    buffered = _Buffered(reader)
    for _ in range(count):
        yield encode(buffered.take(int.from_bytes(buffered.take(8), "little")).decode("utf-8", "replace"))


def _numbers(reader: Reader, kind: int, count: int) -> Iterator[bytes]:
    form, buffered = SCALARS[kind], _Buffered(reader)
    single = kind == _TYPES["float32"]
    for _ in range(count):
        (value,) = form.unpack(buffered.take(form.size))
        yield encode(Float32(value) if single else value)


class _Buffered:
    """Few calls of the system for many small values."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._have = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        while len(self._have) - self._at < count:
            piece = bytearray(max(_PIECE, count))
            got = self._reader.readinto(memoryview(piece))
            if got == 0:
                raise Corrupt("ends within an array")
            self._have, self._at = self._have[self._at :] + bytes(piece[:got]), 0
        self._at += count
        return self._have[self._at - count : self._at]
