"""A client of a registry: OCI distribution, as docker-registry, zot, Harbor and Ollama's own speak it.

Source: distribution-spec v1.1, and docs/spec/api of docker-registry 2.8. Nothing that a registry says is
trusted: every answer is bounded, digests are checked against the bytes, other hosts never see a password.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from modelpack.errors import Corrupt, NotFound, Refused, Unsupported
from modelpack.hands.credentials import Credentials
from modelpack.hands.http import Answer
from modelpack.hands.kept import Opened
from modelpack.hands.registry_address import Address, home_of
from modelpack.hands.registry_auth import Authorizer
from modelpack.hands.registry_blob import BlobReader
from modelpack.hands.registry_upload import Uploading
from modelpack.hands.registry_wire import (
    REDIRECTS,
    Wire,
    header_number,
    parse_json,
    pull,
    push,
    read_object,
    refusal,
)
from modelpack.hands.wire import Upload
from modelpack.words.blob import MANIFEST, MIB, SMALL
from modelpack.words.digest import Digest
from modelpack.words.reader import Reader, read_exactly

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_ACCEPT = ", ".join((MANIFEST, OCI_MANIFEST, OCI_INDEX, DOCKER_LIST))
_MOST_TAGS = 100_000
_MOST_PAGES = 1_000
_MOST_REFERRERS = 10_000


@dataclass(frozen=True)
class Manifest:
    """What a registry gives for a tag or digest: the bytes, their type as it says, their own digest."""

    raw: bytes
    media_type: str
    digest: Digest


class Registry:
    """The registry at *server* (`host[:port]`). Any thread may use it; nothing is asked by making it.

    https, unless *plain_http*. *credentials* are looked up when it first asks who we are; *realms* are other
    hosts that may hear the password. *timeout* is the longest silence in seconds, *ca* a file of authorities.
    """

    def __init__(
        self,
        server: str,
        *,
        plain_http: bool = False,
        credentials: Credentials | None = None,
        realms: Collection[str] = (),
        ca: str | None = None,
        timeout: float = 300.0,
    ) -> None:
        found = credentials or Credentials()
        self.server = server
        self._home = home_of(server, plain_http=plain_http)
        self._wire = Wire(ca=ca, timeout=timeout)
        self._auth = Authorizer(
            self._home, self._wire, lambda: found.for_host(server), {*realms, *found.realms()}
        )

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        return self._home.base

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._wire.close()

    def ping(self) -> None:
        """Raise Unsupported where no registry answers, Refused where it does not let us in."""
        try:
            self.ask("GET", "/v2/").read(MIB)
        except NotFound:
            raise Unsupported("is no registry: it does not know /v2/", where=self.base) from None

    # --- manifests and tags

    def manifest(self, repository: str, which: str) -> Manifest:
        """The manifest that *which*, a tag or a digest, stands for; NotFound, or Corrupt for other bytes."""
        where = f"{self.base}/{repository}"
        try:
            answer = self.ask(
                "GET", f"/v2/{repository}/manifests/{which}", pull(repository), headers={"Accept": _ACCEPT}
            )
        except NotFound:
            raise NotFound(f"has no model {which}", where=where) from None
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        told = answer.headers.get("Docker-Content-Digest")
        if (header_number(answer, "Content-Length") or 0) > SMALL:
            answer.close()
            raise Corrupt(f"says that the manifest {which} has more than {SMALL} bytes", where=where)
        raw = answer.read(SMALL)
        digest = Digest.of(raw)
        wanted = [Digest.parse(which, where)] if ":" in which else []
        if told is not None:
            wanted.append(Digest.parse(told, where))
        if any(one != digest for one in wanted if one.algorithm == "sha256"):
            raise Corrupt(
                f"gives other bytes for the manifest {which} than their digest promises", where=where
            )
        return Manifest(raw, kind, digest)

    def put_manifest(self, repository: str, which: str, raw: bytes, media_type: str) -> bool:
        """Store *raw* under a tag or its digest; whether the registry took notice of its `subject`.

        Raises NotFound where it says that a blob is missing.
        """
        path = f"/v2/{repository}/manifests/{which}"
        try:
            answer = self.ask("PUT", path, push(repository), headers={"Content-Type": media_type}, body=raw)
        except Refused as error:
            if error.words in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"):
                raise NotFound("misses a blob of the manifest", where=f"{self.base}/{repository}") from None
            raise
        with answer:
            answer.read(MIB)
            told = answer.headers.get("Docker-Content-Digest")
            if told is not None and told != str(Digest.of(raw)):
                raise Refused("stored the manifest as something else", where=f"{self.base}/{repository}")
            return "OCI-Subject" in answer.headers

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of *repository*, none where there is no such; Corrupt where they do not end."""
        where = f"{self.base}/{repository}"
        found: dict[str, None] = {}
        here = self._home.at(f"/v2/{repository}/tags/list?n=1000")
        for _ in range(_MOST_PAGES):
            try:
                answer = self.ask("GET", here, pull(repository))
            except NotFound:
                return tuple(found)
            value = read_object(answer, SMALL, where)
            tags = value.get("tags") or []
            if not isinstance(tags, list) or not all(isinstance(t, str) and len(t) <= 128 for t in tags):
                raise Corrupt("lists tags that are no texts", where=where)
            before = len(found)
            found |= dict.fromkeys(tags)
            link = answer.headers.get("Link", "")
            if 'rel="next"' not in link or len(found) == before:
                return tuple(found)
            if len(found) > _MOST_TAGS:
                break
            following = here.onward(link.partition("<")[2].partition(">")[0], self._home)
            here = self._home.at(following.target)  # never another host
        raise Corrupt("lists tags to no end", where=where)

    def referrers(self, repository: str, subject: Digest) -> tuple[Mapping[str, object], ...]:
        """Descriptors of the manifests that refer to *subject*: by the API, else by the tag in its stead."""
        where = f"{self.base}/{repository}"
        try:
            path = f"/v2/{repository}/referrers/{subject}"
            index = read_object(self.ask("GET", path, pull(repository)), SMALL, where)
        except (NotFound, Refused):  # docker-registry 2.8 answers 404, others 400 or 405
            try:
                index = parse_json(self.manifest(repository, subject.file_name).raw, where)
            except NotFound:
                return ()
        found = index.get("manifests") or []
        if not isinstance(found, list):
            raise Corrupt("lists manifests that are none", where=where)
        return tuple(one for one in found[:_MOST_REFERRERS] if isinstance(one, dict))

    # --- blobs

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """How many bytes a blob has there (-1 where that is not told); None where it is not there."""
        path = f"/v2/{repository}/blobs/{digest}"
        try:
            answer = self.ask("HEAD", path, pull(repository), fine=REDIRECTS)
        except NotFound:
            return None
        with answer:
            size = header_number(answer, "Content-Length")
            return size if answer.status == 200 and size is not None else -1

    def open_blob(self, repository: str, digest: Digest, size: int, offset: int = 0) -> BlobReader:
        """The bytes of a blob of *size* bytes from *offset* on, unchecked; NotFound where it is not there."""
        return BlobReader(self, repository, digest, size, offset)

    def read_blob(self, repository: str, digest: Digest, size: int) -> bytes:
        """A small blob, checked; Corrupt where it is larger than any document, or other bytes."""
        where = f"{self.base}/{repository}"
        if size > SMALL:
            raise Corrupt(f"the document {digest} is said to have {size} bytes; no real one has", where=where)
        with self.open_blob(repository, digest, size) as reader:
            raw = read_exactly(reader, size, str(digest))
        if Digest.of(raw) != digest:
            raise Corrupt(f"gives other bytes for {digest}", where=where)
        return raw

    def upload_blob(
        self,
        repository: str,
        digest: Digest,
        size: int,
        data: Opened | Reader,
        moved: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Send a blob of *size* bytes, which the registry hashes; `moved` hears of each byte once, as sent.

        *data* opens it at any offset, to go on where it broke; a Reader has it once. Corrupt for other bytes,
        as far as we see it: Refused with status 400 is the registry's word for that.
        """
        Uploading(self, repository, digest, size, data, moved).run()

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Let *repository* have a blob of the repository *source*, unmoved; False where it cannot."""
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        try:
            answer = self.ask("POST", path, (*push(repository), *pull(source)))
        except (Refused, NotFound):
            return False
        with answer:
            answer.read(MIB)
            if answer.status == 202:  # it began an upload instead
                Uploading.cancel(self, repository, self.location(self._home.at(path), answer))
            return answer.status == 201

    # --- for the parts of this client

    def ask(
        self,
        method: str,
        place: str | Address,
        scopes: Sequence[str] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: Upload | bytes | memoryview | None = None,
        fine: Collection[int] = (),
        patient: bool = False,
    ) -> Answer:
        """Ask the registry, or an Address that it named; who we are is told to the registry alone.

        A 401 is answered once; statuses of 300 and more that are not *fine* raise.
        """
        address = self._home.at(place) if isinstance(place, str) else place
        own = address.base == self._home.base
        for attempt in (0, 1):
            mine = dict(self._auth.header(scopes)) if own else {}
            answer = self._wire.ask(
                method, address, headers={**(headers or {}), **mine}, body=body, patient=patient
            )
            again = answer.status == 401 and own and attempt == 0 and not isinstance(body, Upload)
            if not again:
                break
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.close()
            self._auth.renew(challenge, scopes, mine)
        if answer.status >= 300 and answer.status not in fine:
            raise refusal(answer)
        return answer

    def blob_address(self, repository: str, digest: Digest) -> Address:
        """Where a blob is asked for."""
        return self._home.at(f"/v2/{repository}/blobs/{digest}")

    def onward(self, here: Address, answer: Answer) -> Address:
        """Where a redirect leads; Refused where we do not go there."""
        return here.onward(answer.headers.get("Location", ""), self._home)

    def location(self, here: Address, answer: Answer) -> Address:
        """Where an upload goes on. A proxy may have lost https or the port on the way: ours are kept."""
        location = answer.headers.get("Location", "")
        try:
            there = here.onward(location, self._home)
        except Refused:
            there = Address.parse(location, self.base)
            if there.host != self._home.host:
                raise
        return self._home.at(there.target) if there.host == self._home.host else there
