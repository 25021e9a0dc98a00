"""A policy: what a site asks of every bundle, whatever the command line says. TOML, strictly read.

It binds modelpack, not Ollama: whoever may write there can `ollama pull`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from modelpack.errors import Corrupt
from modelpack.words.blob import KIB
from modelpack.words.digest import Digest

VARIABLE = "MODELPACK_POLICY"
LIMIT = 64 * KIB
"""The most bytes of the file."""
_MOST = 1000  # fingerprints
_LONGEST = 4096  # characters of a path
_DEEPEST = 8  # brackets; tomllib recurses
_KEYS = {"require_signature", "signers", "revoked", "expect"}


@dataclass(frozen=True)
class Policy:
    """What all policies that were named ask together.

    Every one of the `signers` files must accept the signature, none of the `revoked` lists name its key, and
    the fingerprint be among `expect` (None: any). `files` are the policies' own paths. Paths of a parsed one
    are as they were written: relative to the file.
    """

    files: tuple[str, ...]
    require_signature: bool = False
    signers: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    expect: frozenset[Digest] | None = None

    @classmethod
    def parse(cls, raw: bytes, where: object) -> Policy:
        """Read a policy file; raises Corrupt where it is none, or has a key that nobody knows."""
        try:
            text = raw.decode("utf-8").removeprefix("\ufeff")
            if len(raw) > LIMIT or max(map(text.count, "[{"), default=0) > _DEEPEST:
                raise Corrupt("is larger than any policy, or deeper", where=where)
            value = tomllib.loads(text)
        except UnicodeDecodeError:
            raise Corrupt("is no policy: it is not UTF-8", where=where) from None
        except tomllib.TOMLDecodeError as error:
            raise Corrupt(f"is no policy: {error}", where=where, advice="A policy is TOML.") from None
        if odd := sorted(value.keys() - _KEYS):
            raise Corrupt(
                f"asks for something that this modelpack does not know: {odd[0][:100]!r}",
                where=where,
                advice=f"A policy has {', '.join(sorted(_KEYS))}.",
            )
        required = value.get("require_signature", False)
        if not isinstance(required, bool):
            raise Corrupt("its 'require_signature' is neither true nor false", where=where)
        signers, revoked = _path(value, "signers", where), _path(value, "revoked", where)
        if (required or revoked) and not signers:
            raise Corrupt("names no 'signers', so that no signature could ever be good", where=where)
        return cls((str(where),), required, signers, revoked, _expect(value, where))

    def and_also(self, other: Policy) -> Policy:
        """What both ask: never less than one of them."""
        both = [one for one in (self.expect, other.expect) if one is not None]
        return Policy(
            self.files + other.files,
            self.require_signature or other.require_signature,
            self.signers + other.signers,
            self.revoked + other.revoked,
            frozenset.intersection(*both) if both else None,
        )


def _path(value: dict[str, Any], key: str, where: object) -> tuple[str, ...]:
    if key not in value:
        return ()
    found = value[key]
    if not isinstance(found, str) or not found or len(found) > _LONGEST or "\0" in found:
        raise Corrupt(f"its {key!r} is not a path", where=where)
    return (found,)


def _expect(value: dict[str, Any], where: object) -> frozenset[Digest] | None:
    if "expect" not in value:
        return None
    found = value["expect"]
    if not isinstance(found, list) or not found or len(found) > _MOST:
        raise Corrupt(f"its 'expect' is not a list of 1 to {_MOST} fingerprints", where=where)
    digests = [Digest.parse(one, where) for one in found]
    if any(one.algorithm != "sha256" for one in digests):
        raise Corrupt("its 'expect' has something else than SHA-256s", where=where)
    return frozenset(digests)
