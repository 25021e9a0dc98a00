"""Who we are to a registry: nobody, a name and a password, or a token that another host sells.

Whoever asks for a password is looked at first. Source: the registry's own "Token Authentication" and "OAuth2"
pages (distribution 2.8, docs/spec/auth).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from urllib.parse import urlencode

from modelpack.errors import Corrupt, NotFound, Refused
from modelpack.hands.credentials import REALMS, Credential
from modelpack.hands.registry_address import Address, is_inward
from modelpack.hands.registry_wire import Wire, read_object, refusal
from modelpack.words.blob import MIB
from modelpack.words.challenge import Challenge, parse_challenges

_CLIENT = "modelpack"
_KIN = ({"hf.co", "huggingface.co"}, {"registry.ollama.ai", "ollama.com", "ollama.ai"})
_PUBLIC = {"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"}  # below a country's own letters
_LOG_IN = (
    "Log in: user:password or a token in a file or in MODELPACK_REGISTRY_AUTH, or `skopeo login` or "
    "`docker login`."
)


class Authorizer:
    """What to send along, for each scope. Any thread may use it."""

    def __init__(
        self,
        home: Address,
        wire: Wire,
        credential: Callable[[], Credential | None],
        realms: Collection[str] = (),
    ) -> None:
        self._home, self._wire = home, wire
        self._look, self._realms = credential, frozenset(realms)
        self._looked = False
        self._credential: Credential | None = None
        self._for_all = ""
        self._tokens: dict[tuple[str, ...], str] = {}
        self._turn = threading.Lock()

    def header(self, scopes: Sequence[str]) -> Mapping[str, str]:
        """The Authorization for a request of *scopes*; none before the registry asked for one."""
        value = self._tokens.get(tuple(scopes)) or self._for_all
        return {"Authorization": value} if value else {}

    def renew(self, challenge: str, scopes: Sequence[str], used: Mapping[str, str]) -> None:
        """Find a better answer to *challenge* than *used*; Refused where there is none."""
        with self._turn:
            if self.header(scopes) != used:  # another thread has found one
                return
            credential = self._known()
            ways = {way.scheme: way for way in reversed(parse_challenges(challenge))}
            bearer = ways.get("bearer")
            if credential is not None and credential.token:
                self._keep(f"Bearer {credential.token}", used)
            elif bearer is not None and bearer.parameters.get("realm"):
                if len(self._tokens) > 10_000:
                    self._tokens.clear()
                self._tokens[tuple(scopes)] = f"Bearer {self._bought(bearer, scopes, credential)}"
            elif credential is None:
                raise Refused(
                    "wants to know who asks, and nobody here keeps credentials for it",
                    where=self._home.base,
                    advice=_LOG_IN,
                    status=401,
                )
            elif credential.user and ("basic" in ways or not ways):
                self._keep(credential.basic, used)
            else:
                raise Refused(
                    f"lets nobody in by a way known here (it offers {', '.join(ways)[:100] or 'none'})",
                    where=self._home.base,
                    status=401,
                )

    def _keep(self, value: str, used: Mapping[str, str]) -> None:
        if used == {"Authorization": value}:
            raise Refused(
                "does not accept the credentials", where=self._home.base, advice=_LOG_IN, status=401
            )
        self._for_all = value

    def _known(self) -> Credential | None:
        if not self._looked:
            self._credential = self._look()
            self._looked = True
        return self._credential

    def _bought(self, way: Challenge, scopes: Sequence[str], credential: Credential | None) -> str:
        """A token from the realm that *way* names."""
        realm = Address.parse(way.parameters["realm"], self._home.base)
        self._check(realm, credential)
        form = [(key, way.parameters[key]) for key in ("service",) if key in way.parameters]
        if credential is not None and credential.identity:
            form += [("grant_type", "refresh_token"), ("refresh_token", credential.identity)]
            form += [("client_id", _CLIENT), ("scope", " ".join(scopes))]
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._wire.ask("POST", realm, headers=kind, body=urlencode(form).encode())
        else:
            form += [("scope", scope) for scope in scopes]
            target = realm.target + ("&" if "?" in realm.target else "?") + urlencode(form)
            headers = {"Authorization": credential.basic} if credential is not None else {}
            answer = self._wire.ask("GET", realm.at(target), headers=headers)
        if answer.status >= 300:
            error = refusal(answer)
            if isinstance(error, NotFound):
                raise Refused(error.what, where=error.where, status=404)
            raise error
        try:
            said = read_object(answer, MIB, realm.base)
        except Corrupt:
            said = {}
        token = said.get("token") or said.get("access_token")
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise Refused("was asked for a token, and gave none", where=realm.base)
        return token

    def _check(self, realm: Address, credential: Credential | None) -> None:
        """Raise Refused where *realm* is none that may be asked, or be told the password."""
        home = self._home
        own = realm.host == home.host
        named = realm.host in self._realms or realm.base.partition("://")[2] in self._realms
        if realm.scheme == "http" and (home.scheme == "https" or not own):
            raise Refused(f"wants a token fetched by plain http from {realm.host}", where=home.base)
        if is_inward(realm.host) and not is_inward(home.host):
            raise Refused(f"wants a token fetched from this machine's own {realm.host}", where=home.base)
        if credential is not None and not (own or named or _kin(home.host, realm.host)):
            raise Refused(
                f"wants the password sent to another host, {realm.host}",
                where=home.base,
                advice=f"If that is where its users log in, name it: {REALMS}={realm.host}",
            )


def _kin(registry: str, realm: str) -> bool:
    """Whether both hosts are one owner's, as far as names tell: auth.docker.io, registry-1.docker.io."""
    if any({registry, realm} <= family for family in _KIN):
        return True
    if is_inward(registry) or registry.replace(".", "").isdigit() or ":" in registry:
        return False  # an address has no owner above it
    for owner in (registry, registry.partition(".")[2]):
        labels = owner.split(".")
        public = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _PUBLIC
        if len(labels) >= 2 and not public and (realm == owner or realm.endswith(f".{owner}")):
            return True
    return False
