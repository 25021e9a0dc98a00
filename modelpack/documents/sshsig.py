"""What an SSH signature says of itself, as OpenSSH's PROTOCOL.sshsig lays it out. None of it is believed.

Which bytes are signed: SHA256SUMS of a bundle, STEM.sha256 of a set of volumes. All that is decided here is
what to ask `ssh-keygen`; it alone decides what holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from modelpack.errors import Corrupt
from modelpack.words.blob import KIB, MIB

BUNDLE, SET = "modelpack-bundle", "modelpack-set"
"""Namespaces: what a signature was made for. One of a bundle is none of a set."""
SUMS = "SHA256SUMS"
FILE_NAME = "SHA256SUMS.sig"
"""The signature inside a folder bundle; that of `b.tar` is `b.tar.sig`, that of a set STEM.sha256.sig."""
LIMIT = 64 * KIB
"""The most bytes of a signature; one by a certificate with many principals has a few KiB."""
SIGNERS_LIMIT = MIB
"""The most bytes of an allowed_signers file."""
_MOST_LINES = 256  # of one key in an allowed_signers file
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"


@dataclass(frozen=True)
class Signature:
    """`raw` is the file with plain line feeds; `kind` and `key` are the public key's, `namespace` is what it
    was made for. A certificate stands in place of the key where one signed.
    """

    raw: bytes
    kind: str
    key: bytes
    namespace: str

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Signature:
        """Read a .sig; raises Corrupt where it is none, or damaged."""
        raw = raw.replace(b"\r\n", b"\n")  # a mail or a copy as text changed them, and ssh-keygen minds
        head, tail = raw.find(_BEGIN), raw.find(_END)
        if len(raw) > LIMIT or head < 0 or tail < head:
            raise Corrupt("BAD signature: it is no SSH signature, or damaged", where=where)
        try:
            blob = base64.b64decode(b"".join(raw[head + len(_BEGIN) : tail].split()), validate=True)
            if blob[:10] != b"SSHSIG\0\0\0\1":
                raise ValueError
            key, rest = _string(blob[10:])
            namespace, _ = _string(rest)
            if b"\0" in namespace:  # no argument of a program can hold it
                raise ValueError
            return cls(raw, _string(key)[0].decode("ascii"), key, namespace.decode("utf-8"))
        except (ValueError, binascii.Error):
            raise Corrupt("BAD signature: it is damaged, or of a newer kind", where=where) from None

    @property
    def shown(self) -> str:
        """Its key for people, as `ssh-keygen -l` shows a key; of a certificate the kind alone."""
        if "-cert-" in self.kind:
            return f"a certificate ({self.kind})"
        found = base64.b64encode(hashlib.sha256(self.key).digest()).rstrip(b"=").decode()
        return f"{self.kind} SHA256:{found}"


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A length of four bytes, and as many bytes; then the rest. ValueError where there are fewer."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < end:
        raise ValueError
    return data[4:end], data[end:]


def lines_of(signers: bytes, key: bytes) -> list[bytes]:
    """The lines of an allowed_signers file that are about *key*, or about the CA of that certificate.

    They are given to ssh-keygen one by one: `find-principals` tells of the first line of a key alone, be it
    one that has expired.
    """
    found: list[bytes] = []
    for line in signers.removeprefix(b"\xef\xbb\xbf").splitlines():
        for word in line.split() if not line.lstrip().startswith(b"#") else ():
            try:
                listed = base64.b64decode(word, validate=True) if word.startswith(b"AAAA") else b""
            except binascii.Error:
                continue
            if len(listed) > 32 and listed in key:  # a certificate holds its CA's key
                found.append(line)
                break
    return found[:_MOST_LINES]


def names_keys(text: bytes) -> bool:
    """Whether some line of *text*, an allowed_signers file, has a key after something else."""
    lines = (line.split() for line in text.splitlines() if not line.lstrip().startswith(b"#"))
    return any(word.startswith(b"AAAA") for line in lines for word in line[1:])


def empty(text: bytes) -> bool:
    """Whether *text* has no line but comments."""
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in text.splitlines())
