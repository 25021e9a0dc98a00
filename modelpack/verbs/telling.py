"""Files that tell what a host has, and hold no bytes of it: inventories and receipts."""

from __future__ import annotations

from pathlib import Path

from modelpack.documents import inventory, record
from modelpack.documents.gojson import parse_object
from modelpack.documents.inventory import Inventory
from modelpack.documents.record import Record
from modelpack.hands.bytes import FileReader
from modelpack.hands.hashing import blamed
from modelpack.words.reader import fill, read_at_most

_SPACE = b" \t\r\n\xef\xbb\xbf"


def telling(path: Path) -> Inventory | Record | None:
    """The inventory or the receipt in the file at *path*; None where it is something else.

    Its content decides, by the field `schema`. Raises Corrupt for JSON that was cut, and what the two say of
    files that are damaged or of another version.
    """
    if not path.is_file():
        return None
    with FileReader.at(path) as reader:
        head = bytearray(512)
        count = fill(reader, memoryview(head))
    if not bytes(head[:count]).lstrip(_SPACE).startswith(b"{"):
        return None
    limit, most = (max(inventory.LIMIT, record.LIMIT), max(inventory.MOST_CONTAINERS, record.MOST_CONTAINERS))
    with FileReader.at(path) as reader, blamed(path):
        raw = read_at_most(reader, limit, "an inventory or a receipt")
    schema = parse_object(raw, path, limit, containers=most).get("schema")
    if schema == inventory.SCHEMA:
        return Inventory.parse(raw, path)
    return Record.parse(raw, path) if schema == record.SCHEMA else None
