"""One blob to a server, told of as it goes."""

from __future__ import annotations

from modelpack.errors import Unsupported
from modelpack.hands.ollama import Ollama
from modelpack.words.blob import Blob
from modelpack.words.reader import Reader
from modelpack.words.report import Moved, Report, Said
from modelpack.words.text import size


def upload(client: Ollama, blob: Blob, data: Reader, report: Report) -> bool:
    """Send *blob*, which the server hashes as it writes; False where it had one of that name by then, and
    nothing that was sent says anything of its bytes. Refused with status 400 where the bytes are others.
    """
    if blob.digest is None:
        raise Unsupported(f"{blob} has to be hashed before it is uploaded", where=client.base)
    return client.upload_blob(
        blob.digest,
        blob.size,
        data,
        moved=lambda count: report(Moved(count)),
        sent=lambda: report(Said(f"the server is hashing {size(blob.size)}")),
    )
