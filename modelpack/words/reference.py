"""Where a model is in a registry: `oci://host[:port]/namespace/model[:tag]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelpack.errors import Corrupt, Unsupported, Usage
from modelpack.words.digest import Digest
from modelpack.words.name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Name

SCHEME = "oci://"

# Source: distribution-spec v1.1, "Pulling manifests".
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII
)
_LONGEST = 255  # characters of host and repository together: many registries take no more
_FORM = "Write oci://HOST[:PORT]/NAMESPACE/MODEL[:TAG]."

# They speak Ollama's protocol, and tell upper from lower case where OCI knows lower case only.
_AS_SPELLED = {DEFAULT_HOST, "hf.co", "huggingface.co"}
_DOCKER = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.:-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository of a registry, and which model in it. Without tag and digest it is a place to push to.

    `host` has its port where one was given, `repository` is in lower case (but for hosts that tell cases
    apart) and empty where the registry alone was named.
    """

    host: str
    repository: str = ""
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read *text*, with `oci://` or without; Usage where it is no reference. No password is repeated."""
        rest = text[len(SCHEME) :] if text[: len(SCHEME)].lower() == SCHEME else text
        host, _, path = rest.partition("/")
        if "@" in host:
            raise Usage(
                "an address of a registry holds no user and no password",
                advice="Log in with a file: see --credentials, or docker's and skopeo's own login.",
            )
        port = _HOST.fullmatch(host)
        if port is None or int(port[1] or 1) not in range(1, 65536):
            raise Usage("that is not the address of a registry: its host is not one", advice=_FORM)
        path, at, digest_text = path.partition("@")
        above, between, last = path.rpartition("/")
        last, colon, tag = last.partition(":")
        repository = above + between + last
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except Corrupt:
                digest = None
            if digest is None or digest.algorithm != "sha256":
                raise Usage("what follows the @ is not sha256: and 64 hex digits", advice=_FORM)
        elif not colon:
            repository = repository.rstrip("/")
        host = host.lower()
        found = cls(host, _spelled(host, repository), tag if colon else None, digest)
        if repository or colon or at:
            found.check()
        return found.model() if found.named else found

    @classmethod
    def of(cls, name: Name) -> Reference:
        """Where the model *name* is in the registry that it names; Unsupported for what no registry takes."""
        return cls(name.host.lower()).at(name, whole=True)

    def at(self, name: Name, *, whole: bool = False) -> Reference:
        """Where the model *name* goes, pushed to here: a tag that was given is final.

        In a namespace it is `namespace/model:tag`, at a registry alone (or *whole*) the name's own namespace
        comes before. Unsupported where OCI's grammar has no such repository.
        """
        if self.tag is not None or self.digest is not None:
            return self
        above = [] if whole or not self.repository else [self.repository]
        above = above or [name.namespace]
        there = Reference(self.host, _spelled(self.host, "/".join([*above, name.model])), name.tag)
        try:
            there.check()
        except Usage as error:
            raise Unsupported(
                f"no registry takes a repository of the name {there.repository!r}",
                where=name,
                advice="Give it another name (--as NAME): letters, digits, single '.', '_' or '-' between.",
            ) from error
        return there

    def model(self) -> Reference:
        """The one model that is meant where a place cannot be: `latest` where no tag is given."""
        short = self.host in {DEFAULT_HOST, *_DOCKER} and "/" not in self.repository  # both know `library`
        repository = f"{DEFAULT_NAMESPACE}/{self.repository}" if short else self.repository
        tag = self.tag if self.named else DEFAULT_TAG
        return Reference(self.host, repository, tag, self.digest)

    def check(self) -> None:
        """Raise Usage where repository or tag are not in OCI's grammar."""
        if _REPOSITORY.fullmatch(self.repository.lower()) is None:
            raise Usage(
                f"{self.repository[:200]!r} is not a repository of a registry",
                advice=f"{_FORM} Between slashes: letters, digits, and single '.', '_' or '-' between them.",
            )
        if len(self.host) + 1 + len(self.repository) > _LONGEST:
            raise Usage(f"host and repository have more than {_LONGEST} characters together")
        if self.tag is not None and _TAG.fullmatch(self.tag) is None:
            raise Usage(
                f"{self.tag[:200]!r} is not a tag",
                advice="A tag has up to 128 letters, digits, '_', '.', '-', and begins with no '.' or '-'.",
            )

    @property
    def named(self) -> bool:
        """Whether it names one model, not a place to push to."""
        return self.tag is not None or self.digest is not None

    @property
    def which(self) -> str:
        """What to ask for in the repository: a digest, or a tag (`latest` where none was given)."""
        return str(self.digest) if self.digest is not None else self.tag or DEFAULT_TAG

    @property
    def server(self) -> str:
        """The host that is asked: Docker Hub's is not the one it is known by."""
        return "registry-1.docker.io" if self.host in _DOCKER else self.host

    def name(self) -> Name:
        """What Ollama's own pull would call the model; where a repository fits no such name, one like it."""
        *above, model = self.repository.split("/")
        namespace = "-".join(above).replace(".", "-") or DEFAULT_NAMESPACE
        tag = self.tag or (self.digest.short if self.digest is not None else DEFAULT_TAG)
        host = _NOT_IN_NAMES.sub("-", self.host.replace("[", "").replace("]", ""))
        parts = (host, namespace[:80], model[:80], tag[:80])
        host, namespace, model, tag = (part if part[:1].isalnum() else f"_{part[1:]}" for part in parts)
        return Name.of_path((host, namespace, model, tag))

    def __str__(self) -> str:
        text = f"{SCHEME}{self.host}" + (f"/{self.repository}" if self.repository else "")
        text += f":{self.tag}" if self.tag is not None else ""
        return text + (f"@{self.digest}" if self.digest is not None else "")


def _spelled(host: str, repository: str) -> str:
    return repository if host in _AS_SPELLED else repository.lower()
