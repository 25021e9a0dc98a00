"""Whose signature it is, and whether it holds: one signature, one file of signers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelpack.documents.sshsig import BUNDLE, SET, Signature, lines_of
from modelpack.errors import Corrupt, ModelpackError, Unchecked, Untrusted
from modelpack.hands.sshsig import Keygen, keygen

_BAD = "Use another copy; where that is no better, ask whoever signed it. Do not load it."
_ASK = "Ask whoever signed it, by another road than the bundle's. Do not load it meanwhile."


@dataclass(frozen=True)
class Signer:
    """Who made a signature that holds, as the signers file says, and the `key` (`ED25519 SHA256:…`)."""

    who: str
    key: str


def signer(
    data: bytes,
    signature: Signature,
    namespace: str,
    signers: bytes,
    revoked: Sequence[bytes],
    where: object,
) -> Signer:
    """Who signed *data* for *namespace*, by the allowed_signers file *signers*; see docs/signatures.md.

    Raises Corrupt where the signature is over other bytes, or damaged (BAD); Untrusted where the signer is
    unknown, may not sign this, or may not now, or where one of the lists *revoked* names the key; Unchecked
    where ssh-keygen cannot tell.
    """
    tool = keygen()
    over = tool.holds(data, signature.raw, signature.namespace)
    if over.key is None:
        if signature.namespace != namespace and signature.namespace in (BUNDLE, SET):
            raise _another_purpose(signature, namespace, where)
        if "unsupported" in over.words:
            raise Unchecked(
                f"could not check the signature: this ssh-keygen does not know its kind of key "
                f"({signature.kind[:60]})",
                where=where,
                advice=f"ssh-keygen says: {over.words[:500]}",
            )
        raise Corrupt(
            "BAD signature: it is over other bytes, or one of the two was changed", where=where, advice=_BAD
        )
    if signature.namespace != namespace:
        raise _another_purpose(signature, namespace, where)
    lines = lines_of(signers, signature.key)
    if not lines:
        raise Untrusted(
            f"unknown signer: the signers have no line for the key {over.key}", where=where, advice=_ASK
        )
    found, line, reasons = _permitted(tool, data, signature, lines, over.key)
    if found is None:
        raise _not_permitted(over.key, reasons, where)
    for one in revoked:
        if tool.verified(data, signature.raw, namespace, found.who, line, one).key != found.key:
            if not tool.knows_itself(one):
                raise Unchecked(
                    "could not check the signature: the list of revoked keys is damaged", where=where
                )
            raise Untrusted(f"revoked: the key {found.key} of {found.who}", where=where, advice=_ASK)
    return found


def _another_purpose(signature: Signature, namespace: str, where: object) -> Untrusted:
    return Untrusted(
        f"signed for another purpose: {signature.namespace[:100]!r}, not {namespace!r}",
        where=where,
        advice="`modelpack sign` signs bundles and sets; the signature of one is none of the other.",
    )


def _permitted(
    tool: Keygen, data: bytes, signature: Signature, lines: Sequence[bytes], key: str
) -> tuple[Signer | None, bytes, list[str]]:
    """The first of *lines* that lets somebody sign this now; or what ssh-keygen says against each of them."""
    reasons: list[str] = []
    for line in lines:
        names, words = tool.principals(signature.raw, line)
        if not names:  # of a certificate that has expired, only verify says so
            pattern = line.split()[0].decode("utf-8", "replace").strip('"').partition(",")[0]
            other = tool.verified(data, signature.raw, signature.namespace, pattern, line)
            reasons += [other.words, words]
        for who in names:
            answer = tool.verified(data, signature.raw, signature.namespace, who, line)
            if answer.key == key:
                return Signer(who, key), line, reasons
            reasons.append(answer.words)
    return None, b"", reasons


def _not_permitted(key: str, reasons: Sequence[str], where: object) -> ModelpackError:
    said = next((one for one in reasons if one), "nothing").replace("signers:1: ", "").splitlines()[0]
    advice = f"ssh-keygen says: {said[:500]}"
    if any("expired" in one for one in reasons):
        now = datetime.now().astimezone()
        return Untrusted(
            f"expired: the key {key}, by this machine's clock ({now:%Y-%m-%d %H:%M %z})",
            where=where,
            advice=f"{advice}. Is the clock right?",
        )
    if any("not yet valid" in one for one in reasons):
        now = datetime.now().astimezone()
        return Untrusted(
            f"not yet valid: the key {key}, by this machine's clock ({now:%Y-%m-%d %H:%M %z})",
            where=where,
            advice=f"{advice}. Is the clock right?",
        )
    odd = ("bad options", "invalid key", "missing key")  # of a newer OpenSSH, or mistyped
    if any(word in one for word in odd for one in reasons):
        return Unchecked(
            f"could not check the signature: ssh-keygen does not understand the signers' line for {key}",
            where=where,
            advice=f"{advice}. A line begins with a name: alice@example.com ssh-ed25519 AAAA…",
        )
    return Untrusted(
        f"unknown signer: the signers' line for the key {key} does not let it sign this",
        where=where,
        advice=advice,
    )
