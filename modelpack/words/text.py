"""Text from elsewhere made safe to show, and sizes as people write them."""

from __future__ import annotations

import re
import unicodedata

from modelpack.errors import Usage

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?\s*([a-z]*)", re.ASCII)


# Default_Ignorable_Code_Point of Unicode, as far as it is neither control nor format: shown as nothing.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: object, *, lines: bool = False) -> str:
    """*text* with every character that a terminal would obey, hide or reorder written as an escape.

    Control, format (bidi marks, zero-width), surrogate, private, unassigned and separator characters go;
    with *lines*, line feeds and tabs stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    shown = []
    for char in text:
        category = unicodedata.category(char)
        if char == " " or (lines and char in "\n\t"):
            shown.append(char)
        elif category[0] == "C" or category in ("Zl", "Zp", "Zs") or _INVISIBLE.match(char):
            shown.append(char.encode("unicode_escape", "surrogatepass").decode("ascii"))
        else:
            shown.append(char)
    return "".join(shown)


def parse_size(text: str) -> int:
    """Bytes in *text*: `32MiB`, `4GB` (powers of ten), `2g`, `1.5GiB`, `123456`; raises Usage otherwise."""
    found = _SIZE.fullmatch(text.strip().lower())
    unit = _UNITS.get(found[3]) if found else None
    if found is None or unit is None:
        raise Usage(f"{text!r} is not a size", advice="Write 32MiB, 4GB, 1.5GiB or 123456 (bytes).")
    fraction = found[2] or ""
    scale: int = 10 ** len(fraction)
    return int(found[1] + fraction) * unit // scale


def size(count: float) -> str:
    """*count* bytes for people: `80.3 kB`, `4.29 GB`; powers of ten, as disks and Ollama count."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"
