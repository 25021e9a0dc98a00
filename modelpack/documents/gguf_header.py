"""What the header of a GGUF says: values only, however they were read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from modelpack.documents.gguf_types import FILE_TYPES, TENSOR_TYPES


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for an array that was not asked for: `count` elements of `type`."""

    type: str
    count: int


Value: TypeAlias = bool | int | float | str | Skipped | tuple[bool | int | float | str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The type of a metadata value, and the byte of the file at which it begins (after that type)."""

    type: str
    offset: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A line of the table of tensors.

    `shape` counts elements, the innermost dimension first, as the file has it; `offset` is in bytes from the
    file's `data_offset`; `size`, in bytes, is None where modelpack does not know the type.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size: int | None

    @property
    def type_name(self) -> str:
        """`F16`, `Q4_K`, …, or `unknown`."""
        return TENSOR_TYPES[self.type].name if self.type in TENSOR_TYPES else "unknown"

    @property
    def elements(self) -> int:
        """How many numbers it holds: the product of its shape."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Split:
    """This file is shard `no` (from 0) of `count`; all of them have `tensors` (None where it is not said)."""

    no: int
    count: int
    tensors: int | None


@dataclass(frozen=True, slots=True)
class Gguf:
    """A header. All offsets are bytes from the start of the file.

    `end` is where the last tensor ends; where the type of one is unknown (`end_checked` is false) it is the
    least it can be. `tensors_offset` is where the metadata ends and the table of tensors begins.
    """

    version: int
    size: int
    metadata: Mapping[str, Value]
    places: Mapping[str, Place]
    tensors: tuple[Tensor, ...]
    alignment: int
    tensors_offset: int
    data_offset: int
    end: int
    end_checked: bool
    split: Split | None

    def text(self, key: str) -> str | None:
        """The string at *key*; None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """The integer at *key*, of whatever width; None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def own(self, key: str) -> str:
        """*key* as this architecture spells it: `llama.context_length`."""
        return f"{self.architecture}.{key}"

    @property
    def architecture(self) -> str:
        """`llama`, `qwen3`, …; `unknown` where it is not said, as Ollama puts it."""
        found = self.text("general.architecture")
        return "unknown" if found is None else found

    @property
    def name(self) -> str:
        """What its maker calls it (`general.name`), or nothing. Text from elsewhere."""
        return self.text("general.name") or ""

    @property
    def file_type(self) -> str:
        """How most of it is stored, as Ollama words it: `F16`, `Q4_K_M`, …; `unknown` for F32 (its 0 is taken
        for "not set"), for numbers that Ollama 0.33 does not know, and where it is no uint32."""
        place = self.places.get("general.file_type")
        value = self.integer("general.file_type")
        if place is None or place.type != "uint32" or value is None:
            return "unknown"
        return FILE_TYPES.get(value, "unknown")

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors in this file (a shard has its own only)."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was made for."""
        return self.integer(self.own("context_length"))

    @property
    def embedding_length(self) -> int | None:
        """Width of the model."""
        return self.integer(self.own("embedding_length"))

    @property
    def has_chat_template(self) -> bool:
        """Whether it says how a chat is put into words (`tokenizer.chat_template`)."""
        return bool(self.text("tokenizer.chat_template"))

    @property
    def role(self) -> str:
        """`model`, `projector` or `adapter`: the kind of layer that Ollama makes of it.

        Source: ggufLayersWithMediaType and isProjectorGGUF in server/create.go of v0.33.
        """
        kind = self.text("general.type")
        if kind == "adapter":
            return "adapter"
        if kind in ("projector", "mmproj"):
            return "projector"
        if self.integer(self.own("block_count")):
            return "model"
        sees = (self.integer(self.own("vision.block_count")) or 0) > 0
        flags = (self.metadata.get(self.own(f"has_{sense}_encoder")) for sense in ("vision", "audio"))
        clip = self.architecture == "clip" and any(flag is True for flag in flags)
        return "projector" if sees or clip else "model"
