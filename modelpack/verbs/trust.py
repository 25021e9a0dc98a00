"""Is it from whom it should be? Asked of the raw bytes, before any JSON of the bundle is parsed.

The signature over SHA256SUMS, then its line for index.json, whose SHA-256 is the fingerprint. Of a set of
volumes: the signature over STEM.sha256, then its line for STEM.volumes.json, which names the fingerprint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelpack.documents.policy import LIMIT as POLICY_LIMIT
from modelpack.documents.policy import Policy
from modelpack.documents.sshsig import LIMIT, SIGNERS_LIMIT, Signature, empty, names_keys
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unchecked, Unexpected, Untrusted, Usage
from modelpack.hands.apart import keep_apart, read_apart
from modelpack.hands.bytes import FileReader
from modelpack.stores import Source
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.papers import Papers, Signable, papers_of
from modelpack.verbs.signer import Signer, signer
from modelpack.words.blob import MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import read_exactly

GOOD, UNSIGNED, NOT_CHECKED = "good", "unsigned", "not checked"
"""States that are no errors: good; no signature, where none is asked for; a signature, and no signers."""
_LINE = "A line of it: alice@example.com ssh-ed25519 AAAA…"
_REVOKED_LIMIT = 16 * MIB
_SIGNERS, _REVOKED, _POLICY = "the signers file", "the list of revoked keys", "the policy file"


@dataclass(frozen=True)
class Trust:
    """What is asked of a bundle: that one of the file `signers` signed it (which says `required`, too), and
    all that the `policy` asks. `signature` is the file with the signature, where that is not at its place.
    """

    signers: Path | None = None
    signature: Path | None = None
    required: bool = False
    policy: Policy | None = None

    @property
    def all(self) -> Policy:
        """Everything that is asked, by the command line and by the policy: neither takes from the other."""
        signers = () if self.signers is None else (str(self.signers),)
        given = Policy((), self.required or bool(signers), signers)
        return given if self.policy is None else given.and_also(self.policy)


@dataclass(frozen=True)
class Signed:
    """What came of it: a state that is no error; who signed, where that is good; the key, which the signature
    itself names where it was not checked. `fingerprint` is what must be expected of the bundle from here on.
    """

    state: str
    who: tuple[str, ...] = ()
    key: str = ""
    fingerprint: Digest | None = None
    lines: Mapping[str, Digest] | None = field(default=None, repr=False, compare=False)
    set_id: Digest | None = None
    papers: tuple[bytes, bytes] | None = field(default=None, repr=False, compare=False)
    """The very sums that were signed, and the signature over them; None where it was not checked."""

    def shown(self) -> tuple[str, ...]:
        """Lines for people; what stands in them comes from elsewhere."""
        if self.state == GOOD:
            return (f"signature: good, by {' and '.join(self.who)}", f"  {self.key}")
        if self.state == NOT_CHECKED and not self.key:
            return ("signature: none that can be checked: what it was made for is missing",)
        if self.state == NOT_CHECKED:
            return ("signature: not checked, no --signers given; it names the key", f"  {self.key}")
        return ("signature: none",)

    def to_json(self) -> dict[str, Any]:
        """The same, for scripts."""
        return {"state": self.state, "signers": list(self.who), "key": self.key or None}

    def hold(self, store: Source) -> None:
        """Raise Unexpected where what was parsed of *store* is not what was checked: it changed meanwhile."""
        if self.fingerprint is None or not isinstance(store, Signable):
            return
        if isinstance(store, VolumeSet):  # not all of it need be there; its index is held against this later
            papers = papers_of(store)
            found = [papers.fingerprint() == self.fingerprint, self.set_id in (None, papers.set_id())]
        else:
            found = [store.fingerprint == self.fingerprint, self.lines in (None, store.contents.sums)]
        if not all(found):
            raise Unexpected(
                "is no more what its signature was checked for: it changed meanwhile",
                advice="Do not load it. Is somebody writing to it, or does the medium fail?",
            )


def read_policy(path: Path) -> Policy:
    """The policy file at *path*; its paths are relative to its own directory.

    Unchecked where it is missing, cannot be read or is no policy; Untrusted where everybody may write to it.
    None of these is the same as having none.
    """
    raw = read_apart(path, POLICY_LIMIT, _POLICY)
    try:
        found = Policy.parse(raw, path)
    except Corrupt as error:  # that says nothing of any bundle
        raise Unchecked(f"the policy {error.what}", where=path, advice=error.advice) from None
    folder = path.absolute().parent
    return replace(
        found,
        signers=tuple(str(folder / one) for one in found.signers),
        revoked=tuple(str(folder / one) for one in found.revoked),
    )


def check(store: Source, trust: Trust, place: object) -> Signed:
    """Hold the bundle or set *store*, *place* for people, against what *trust* asks.

    Raises Untrusted (unsigned, unknown signer, expired, revoked, signed for another purpose, signers that
    came with the bundle), Corrupt (BAD: the signature or what it covers was changed), Unexpected (not among
    the fingerprints of the policy), Unchecked (no ssh-keygen, no signers that can be read).
    """
    asked = trust.all
    if not isinstance(store, Signable):
        if asked.require_signature or asked.expect is not None or trust.signature is not None:
            raise Untrusted(
                "unsigned: it is neither a bundle nor a set of volumes, and a signature or a fingerprint is "
                "asked for",
                where=place,
                advice="Pack it into a bundle, and have that signed.",
            )
        return Signed(UNSIGNED)
    if not asked.signers and (asked.require_signature or trust.signature is not None):
        raise Usage("a signature is to be checked, and nobody says whose", advice="Name --signers FILE.")
    papers = papers_of(store)
    signers, revoked = _vouching(asked, papers, trust.signature)
    given = None if trust.signature is None else _given(trust.signature)
    try:
        found = papers.signatures(given)
    except NotFound:
        if signers:
            raise Unchecked(
                f"could not check the signature: {papers.sums_name}, which it was made for, is missing",
                where=place,
                advice="It was taken out on the way: copy it from where the signature is from.",
            ) from None
        held = papers.fingerprint() if asked.expect is not None else None
        return _expected(Signed(NOT_CHECKED, fingerprint=held), asked, place)
    if not found and asked.require_signature:
        raise Untrusted(
            f"unsigned: there is no {papers.signature_name}",
            where=place,
            advice="Ask for the signature; --signature FILE names it where it lies elsewhere."
            + (
                ""
                if trust.policy is not None and trust.policy.require_signature
                else " Or compare the fingerprint by another road (`modelpack verify --expect FINGERPRINT`)."
            ),
        )
    if found and signers:
        signed = _checked(papers, found, signers, revoked, place)
        if isinstance(store, VolumeSet):
            store.set_id = signed.set_id  # whatever else lies there under its name
    else:
        signed = Signed(NOT_CHECKED, key=_named(found[0][1])) if found else Signed(UNSIGNED)
        if asked.expect is not None:
            signed = replace(signed, fingerprint=papers.fingerprint())
    return _expected(signed, asked, place)


def _expected(signed: Signed, asked: Policy, place: object) -> Signed:
    if asked.expect is not None and signed.fingerprint not in asked.expect:
        raise Unexpected(
            f"is none of the bundles that the policy expects: its fingerprint is {signed.fingerprint}",
            where=place,
            advice="Do not load it; ask where it came from.",
        )
    return signed


def _vouching(asked: Policy, papers: Papers, signature: Path | None) -> tuple[list[bytes], list[bytes]]:
    """The signers files and the lists of revoked keys; each must have come by another road."""
    signers: list[bytes] = []
    revoked: list[bytes] = []
    beside = papers.beside if signature is None else (*papers.beside, signature)
    for paths, most, what, kept in (
        (asked.files, POLICY_LIMIT, _POLICY, None),
        (asked.signers, SIGNERS_LIMIT, _SIGNERS, signers),
        (asked.revoked, _REVOKED_LIMIT, _REVOKED, revoked),
    ):
        for path in map(Path, dict.fromkeys(paths)):
            if kept is None:
                keep_apart(path, what, papers.inside, beside)
                continue
            raw = read_apart(path, most, what, papers.inside, beside)
            kept.append(raw)
            if kept is signers and (empty(raw) or not names_keys(raw)):
                raise Unchecked(f"{what} names nobody", where=path, advice=_LINE)
    return signers, revoked


def _given(path: Path) -> bytes:
    with FileReader.at(path) as reader:
        if reader.size > LIMIT:
            raise Corrupt("BAD signature: it is larger than any real one", where=path)
        return read_exactly(reader, reader.size, str(path))


def _checked(
    papers: Papers,
    found: Sequence[tuple[bytes, bytes]],
    signers: Sequence[bytes],
    revoked: Sequence[bytes],
    place: object,
) -> Signed:
    """The first signature of *found* that all *signers* accept: copies on several media may be damaged."""
    first: ModelpackError | None = None
    for sums, raw in found:
        try:
            signature = Signature.parse(raw, place)
            who: list[Signer] = [
                signer(sums, signature, papers.namespace, one, revoked, place) for one in signers
            ]
            fingerprint, lines, set_id = papers.covered(sums)
        except ModelpackError as error:
            first = first or error
            continue
        names = tuple(dict.fromkeys(one.who for one in who))
        return Signed(GOOD, names, who[0].key, fingerprint, lines, set_id, (sums, raw))
    raise first or Unchecked("could not check the signature", where=place)


def _named(raw: bytes) -> str:
    with contextlib.suppress(Corrupt):
        return Signature.parse(raw, "").shown
    return "none that can be read"
