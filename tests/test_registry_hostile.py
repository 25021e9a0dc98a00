"""Registries that lie, stall, and send us elsewhere with our password."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import TINY, everything, noise
from registries import FakeRegistry, cut, ranged, say
from servers import talking

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported
from modelpack.hands import registry_blob, registry_upload, registry_wire, retry
from modelpack.hands.call import Call, under
from modelpack.hands.credentials import Credential, Credentials
from modelpack.hands.crew import Stopped
from modelpack.hands.registry import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, Registry
from modelpack.hands.registry_address import Address
from modelpack.hands.wire import Broke
from modelpack.stores.registry import RegistrySource
from modelpack.words.blob import KIB, MANIFEST, MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader, Reader
from modelpack.words.reference import Reference

DATA = noise(3_000_000)
DIGEST = Digest.of(DATA)
SECRET = "hunter2"
LOGIN = Credential("me", SECRET)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_wire, "PAUSE", 0.001)
    monkeypatch.setattr(retry, "_FIRST", 0.001)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    made = FakeRegistry(blobs={str(DIGEST): DATA})
    with made.running():
        yield made


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """Another host, as far as names tell."""
    made = FakeRegistry(blobs={str(DIGEST): DATA})
    with made.running("localhost"):
        yield made


def client(fake: FakeRegistry, credential: Credential | None = None, **more: Any) -> Registry:
    return Registry(fake.server, plain_http=True, credentials=Credentials(credential, {}), **more)


def read(fake: FakeRegistry, offset: int = 0, credential: Credential | None = None) -> bytes:
    with client(fake, credential).open_blob("ns/m", DIGEST, len(DATA), offset) as reader:
        return everything(reader)


# --- length, digest, range


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1, 0, 1 << 62])
def test_a_blob_of_another_length(fake: FakeRegistry, length: int) -> None:
    fake.fault("GET", "/blobs/", lambda at: say(at, 200, DATA, **{"Content-Length": str(length)}))
    with pytest.raises(Corrupt, match=f"has {length} bytes; its manifest says {len(DATA)}"):
        read(fake)


def test_a_body_without_length_that_goes_on(fake: FakeRegistry) -> None:
    def endless(at: Any) -> bool:
        at.send_response(200)
        at.end_headers()
        at.wfile.write(DATA + b"more")
        at.close_connection = True
        return True

    fake.fault("GET", "/blobs/", endless)
    with pytest.raises(Corrupt, match="sends more"):
        read(fake)


def test_a_blob_that_calls_itself_another(fake: FakeRegistry) -> None:
    told = {"Docker-Content-Digest": str(Digest.of(b"other"))}
    fake.fault("GET", "/blobs/", lambda at: say(at, 200, DATA, **told))
    with pytest.raises(Corrupt):
        read(fake)


@pytest.mark.parametrize(
    "told",
    [
        "bytes 0-2999999/3000000", "bytes 101-2999999/3000000", "bytes 100-2999999/3000001",
        "bytes 100-3000000/3000000", "bytes 100-99/3000000", "bytes */3000000", "", "nonsense",
        "bytes 100-" + "9" * 30 + "/*",
    ],
)  # fmt: skip
def test_another_range_than_was_asked_for(fake: FakeRegistry, told: str) -> None:
    fake.fault("GET", "/blobs/", lambda at: say(at, 206, DATA[100:], **{"Content-Range": told}))
    with pytest.raises(Corrupt, match="range"):
        read(fake, 100)


def test_a_range_of_another_length(fake: FakeRegistry) -> None:
    told = {"Content-Range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}"}
    fake.fault("GET", "/blobs/", lambda at: say(at, 206, DATA, **told))
    with pytest.raises(Corrupt, match="another length"):
        read(fake, 100)


def test_ranges_are_not_known_there(fake: FakeRegistry) -> None:
    fake.fault("GET", "/blobs/", lambda at: say(at, 200, DATA))
    assert read(fake, 1_234_567) == DATA[1_234_567:]


def test_shorter_ranges_than_asked_for(fake: FakeRegistry) -> None:
    def short(at: Any) -> bool:
        first = int(at.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        at.headers.replace_header(
            "Range", f"bytes={first}-{first + 1_100_000}"
        ) if "Range" in at.headers else None
        return ranged(at, DATA)

    fake.fault("GET", "/blobs/", short)
    assert read(fake, 1) == DATA[1:]


# --- broken off


@pytest.mark.parametrize("piece", [1, 999_999, 1_500_000])
def test_a_cut_in_the_middle_never_costs_a_byte(fake: FakeRegistry, piece: int) -> None:
    cuts = 3
    fake.fault(
        "GET", "/blobs/", lambda at: len(fake.heads("GET", "/blobs/")) <= cuts and cut(at, DATA, piece)
    )
    assert read(fake) == DATA
    begins = [
        head.get("Range", "bytes=0-").split("=")[1].split("-")[0] for head in fake.heads("GET", "/blobs/")
    ]
    assert len(begins) > 1
    assert begins == [str(min(piece * n, len(DATA))) for n in range(len(begins))]


def test_cuts_without_progress_end(fake: FakeRegistry) -> None:
    fake.fault("GET", "/blobs/", lambda at: cut(at, DATA, 10))
    with pytest.raises(Unreachable, match="at 60 of 3000000 bytes"):
        read(fake)
    assert len(fake.heads("GET", "/blobs/")) == registry_blob.TRIES


def test_cuts_with_progress_go_on(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_blob, "PROGRESS", 100_000)
    fake.fault("GET", "/blobs/", lambda at: cut(at, DATA, 100_001))
    assert read(fake) == DATA
    assert len(fake.heads("GET", "/blobs/")) == 30


def test_a_registry_that_died(fake: FakeRegistry) -> None:
    with fake.running() as server:
        registry = Registry(server, plain_http=True, credentials=Credentials(environ={}))
        reader = registry.open_blob("ns/m", DIGEST, len(DATA))
    reader._hang_up()
    with pytest.raises(Unreachable), reader:
        reader.readinto(memoryview(bytearray(10)))


def test_nobody_is_there() -> None:
    with pytest.raises(Unreachable) as caught:
        Registry("127.0.0.1:1", plain_http=True).ping()
    assert "registry" in caught.value.advice


def test_tls_meets_plain_http(fake: FakeRegistry) -> None:
    with pytest.raises(Unreachable) as caught:
        Registry(fake.server, credentials=Credentials(environ={})).ping()
    assert "--plain-http" in caught.value.advice


# --- sent elsewhere


def test_a_redirect_to_another_host_hears_no_password(fake: FakeRegistry, other: FakeRegistry) -> None:
    fake.secret = "set"
    place = f"http://{other.server}/v2/x/blobs/{DIGEST}?signature=abc%2Fdef"
    fake.fault("GET", "/blobs/", lambda at: at.headers.get("Authorization") and say(at, 307, Location=place))
    assert read(fake, 5, LOGIN) == DATA[5:]
    assert SECRET not in str(other.asked)
    (head,) = other.heads("GET")
    assert "Authorization" not in head
    assert "Cookie" not in head
    assert head["Range"].startswith("bytes=5-")
    assert other.asked[0][1].endswith("?signature=abc%2Fdef")


def test_a_redirect_within_the_registry(fake: FakeRegistry) -> None:
    fake.secret = "set"
    fake.fault("GET", "ns/m/blobs/", lambda at: say(at, 302, Location=f"../../other/blobs/{DIGEST}"))
    assert read(fake, 0, None) == DATA
    assert fake.asked[-1][2]["Authorization"].startswith("Bearer ")
    assert fake.asked[-1][1] == f"/v2/ns/other/blobs/{DIGEST}"


def test_after_a_cut_the_registry_is_asked_again(fake: FakeRegistry, other: FakeRegistry) -> None:
    """What a redirect names may be good for a minute only."""
    fake.fault(
        "GET",
        "/blobs/",
        lambda at: say(at, 307, Location=f"http://{other.server}/v2/x/blobs/{DIGEST}?{time.time()}"),
    )
    other.fault("GET", "/blobs/", lambda at: len(other.asked) == 1 and cut(at, DATA, 1000))
    assert read(fake) == DATA
    assert len(fake.asked) == len(other.asked) == 2
    assert other.asked[0][1] != other.asked[1][1]


def test_redirects_without_end(fake: FakeRegistry) -> None:
    fake.fault("GET", "/blobs/", lambda at: say(at, 307, Location=at.path))
    with pytest.raises(Refused, match="more than 5 times"):
        read(fake)
    assert len(fake.asked) == 6


@pytest.mark.parametrize(
    "location",
    ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "http://127.0.0.1:99999/",
     "http://[::1/", "gopher://x", "http://x\\@127.0.0.1/", "/" + "x" * 20_000],
)  # fmt: skip
def test_redirects_to_nowhere(fake: FakeRegistry, location: str) -> None:
    fake.fault("GET", "/blobs/", lambda at: say(at, 307, Location=location))
    with pytest.raises(Refused):
        read(fake)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_only_blobs_are_looked_for_elsewhere(fake: FakeRegistry, other: FakeRegistry, status: int) -> None:
    elsewhere = f"http://{other.server}/x"
    for method in ("GET", "POST", "PUT"):
        fake.fault(method, "manifests|uploads", lambda at: say(at, status, Location=elsewhere))
    with pytest.raises(Refused, match="elsewhere"):
        client(fake).manifest("ns/m", "t")
    with pytest.raises(Refused, match="elsewhere"):
        client(fake).put_manifest("ns/m", "t", b"{}", MANIFEST)
    with pytest.raises(Refused, match="elsewhere"):
        client(fake).upload_blob("ns/m", Digest.of(b"x"), 1, BytesReader(b"x"))
    assert other.asked == []


@pytest.mark.parametrize(
    "url",
    ["http://cdn.example/x", "https://localhost/x", "https://127.0.0.1/x", "https://127.1/x", "https://0x7f000001/",
     "https://2130706433/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest",
     "https://[fe80::1]/", "https://0.0.0.0/", "https://a.localhost./"],
)  # fmt: skip
def test_where_a_registry_on_the_net_may_not_send_us(url: str) -> None:
    home = Address.parse("https://registry.example/v2/", "")
    with pytest.raises(Refused):
        home.onward(url, home)


def test_where_it_may() -> None:
    home = Address.parse("https://registry.example/v2/a", "")
    assert home.onward("https://cdn.example:8443/x?y=z", home) == Address(
        "https", "cdn.example", 8443, "/x?y=z"
    )
    assert home.onward("../x", home).base == "https://registry.example"
    plain = Address.parse("http://10.0.0.7:5000/", "")
    assert plain.onward("http://10.0.0.8:9000/minio", plain).base == "http://10.0.0.8:9000"


# --- who we are


def test_a_realm_on_another_host_gets_no_password(fake: FakeRegistry, other: FakeRegistry) -> None:
    fake.secret, fake.realm = "set", f"http://{other.server}/token"
    for credential in (LOGIN, None):
        with pytest.raises(Refused, match="plain http"):
            read(fake, 0, credential)
    assert other.asked == []


def test_a_foreign_realm_over_tls_gets_no_password(fake: FakeRegistry) -> None:
    fake.secret, fake.realm = "set", "https://auth.example/token"
    with pytest.raises(Refused, match=r"another host, auth\.example") as caught:
        read(fake, 0, LOGIN)
    assert "MODELPACK_REGISTRY_REALMS=auth.example" in caught.value.advice
    named = client(fake, LOGIN, realms=["auth.example"])
    with pytest.raises(ModelpackError) as other:
        named.manifest("a", "b")
    assert "another host" not in str(other.value)  # it went there


def test_basic_is_asked_for_without_end(fake: FakeRegistry) -> None:
    fake.fault("GET", "", lambda at: say(at, 401, **{"WWW-Authenticate": 'Basic realm="x"'}))
    with pytest.raises(Refused, match="401") as caught:
        client(fake, LOGIN).manifest("ns/m", "t")
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert len(fake.asked) == 2


def test_tokens_are_asked_for_without_end(fake: FakeRegistry) -> None:
    fake.secret = "never"
    fake.fault("GET", "/token", lambda at: say(at, 200, b'{"token":"no good"}'))
    with pytest.raises(Refused, match="401"):
        client(fake).manifest("ns/m", "t")
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"token":5}', b'{"token":"a\\r\\nX: y"}', b'{"token":""}', b"{" * 100_000, b"x" * 2 * MIB],
)
def test_bad_tokens(fake: FakeRegistry, body: bytes) -> None:
    fake.secret = "never"
    fake.fault("GET", "/token", lambda at: say(at, 200, body))
    with pytest.raises((Refused, Corrupt)):
        client(fake).manifest("ns/m", "t")


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm=""', 'Bearer realm="nowhere"', "Digest x=y", "\x7f"]
)
def test_challenges_that_lead_nowhere(fake: FakeRegistry, challenge: str) -> None:
    fake.fault("GET", "", lambda at: say(at, 401, **{"WWW-Authenticate": challenge}))
    with pytest.raises(Refused):
        client(fake, Credential(identity=SECRET)).ping()
    assert len(fake.asked) == 1


def test_a_password_is_for_the_token_server_and_a_token_for_the_registry(fake: FakeRegistry) -> None:
    fake.secret, fake.basic = "set", LOGIN.basic
    raw = fake.add_image("ns/m/t", *TINY)
    assert client(fake, LOGIN).manifest("ns/m", "t").raw == raw
    sent = [(path.partition("?")[0], head.get("Authorization", "")[:6]) for _, path, head in fake.asked]
    assert sent == [("/v2/ns/m/manifests/t", ""), ("/token", "Basic "), ("/v2/ns/m/manifests/t", "Bearer")]
    assert "scope=repository%3Ans%2Fm%3Apull&" in fake.asked[1][1] + "&"


def test_a_wrong_password(fake: FakeRegistry) -> None:
    fake.secret, fake.basic = "set", LOGIN.basic
    with pytest.raises(Refused, match="401") as caught:
        client(fake, Credential("me", "wrong secret")).manifest("ns/m", "t")
    assert "wrong secret" not in str(caught.value)
    assert base64.b64encode(b"me:wrong secret").decode() not in str(caught.value)


def test_a_token_that_expires_in_the_middle(fake: FakeRegistry) -> None:
    fake.secret = "set"
    registry = client(fake)

    def expire(at: Any) -> bool:
        if len(fake.heads("GET", "/blobs/")) != 2:
            return False
        fake.secret = "new"
        return cut(at, DATA, 1_000_000)

    fake.fault("GET", "/blobs/", expire)
    with registry.open_blob("ns/m", DIGEST, len(DATA)) as reader:
        assert everything(reader) == DATA
    assert fake.sold == 2


def test_threads_that_are_asked_at_once_buy_one_token(fake: FakeRegistry) -> None:
    fake.secret = "set"
    turn = threading.Barrier(4)
    fake.fault("HEAD", "", lambda at: "Authorization" not in at.headers and turn.wait(10) is None)
    registry = client(fake)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.blob_size("ns/m", DIGEST), range(4)))
    assert (found, fake.sold) == ([len(DATA)] * 4, 1)


def test_an_identity_token_buys_tokens(fake: FakeRegistry) -> None:
    fake.secret = "set"
    fake.add_image("ns/m/t", *TINY)
    bodies = []

    def sell(at: Any) -> bool:
        bodies.append(at.rfile.read(int(at.headers["Content-Length"])))
        fake.secret = "bought"
        return say(at, 200, b'{"access_token":"bought"}')

    fake.fault("POST", "/token", sell)
    client(fake, Credential(identity=SECRET)).manifest("ns/m", "t")
    assert bodies == [
        b"service=fake&grant_type=refresh_token&refresh_token=hunter2&client_id=modelpack"
        b"&scope=repository%3Ans%2Fm%3Apull"
    ]


def test_a_token_given_is_sent_as_it_is(fake: FakeRegistry) -> None:
    fake.secret = "given"
    fake.add_image("ns/m/t", *TINY)
    client(fake, Credential.given("given\n")).manifest("ns/m", "t")
    assert fake.sold == 0
    with pytest.raises(Refused, match="401"):
        client(fake, Credential.given("another")).manifest("ns/m", "t")


# --- later


def test_later_is_waited_for(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add_image("ns/m/t", *TINY)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    answers = iter([(429, "7"), (503, "Mon, 01 Jan 2001 00:00:00 GMT"), (502, "soon")])
    fake.fault(
        "GET", "", lambda at: (each := next(answers, None)) and say(at, each[0], **{"Retry-After": each[1]})
    )
    client(fake).manifest("ns/m", "t")
    assert [round(one) for one in slept] in ([7, 0, 0], [8, 0, 0])


@pytest.mark.parametrize(("after", "times"), [("86400", 1), ("0", retry.TRIES), ("9" * 40, 1)])
def test_later_is_not_waited_for_without_end(fake: FakeRegistry, after: str, times: int) -> None:
    fake.fault("GET", "", lambda at: say(at, 429, b"slow down", **{"Retry-After": after}))
    with pytest.raises(Refused, match=r"429.*slow down"):
        client(fake).manifest("ns/m", "t")
    assert len(fake.asked) == times


# --- manifests


def test_a_manifest_of_4_gb(fake: FakeRegistry) -> None:
    sent = threading.Event()

    def flood(at: Any, length: str) -> bool:
        at.send_response(200)
        at.send_header(*(("Content-Length", length) if length else ("Connection", "close")))
        at.end_headers()
        try:
            for _ in range(4 * KIB):
                at.wfile.write(bytes(MIB))
        except OSError:
            sent.set()
        at.close_connection = True
        return True

    for length in (str(4 << 30), ""):
        sent.clear()
        fake.faults = [("GET", "", lambda at, length=length: flood(at, length))]
        began = time.monotonic()
        with pytest.raises(Corrupt, match="4194304"):
            client(fake).manifest("ns/m", "t")
        assert time.monotonic() - began < 5
        assert sent.wait(10)


def test_other_bytes_than_the_digest(fake: FakeRegistry) -> None:
    raw = fake.add_image("ns/m/t", *TINY)
    fake.manifests[f"ns/m/{Digest.of(b'other')}"] = (raw, MANIFEST)
    with pytest.raises(Corrupt):
        client(fake).manifest("ns/m", str(Digest.of(b"other")))
    told = {"Docker-Content-Digest": str(DIGEST)}
    fake.fault("GET", "", lambda at: say(at, 200, raw, **told))
    with pytest.raises(Corrupt):
        client(fake).manifest("ns/m", "t")


def model_at(fake: FakeRegistry) -> Any:
    return RegistrySource(client(fake), Reference(fake.server, "ns/m", "t")).models()


LIST = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
IMAGE = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"mediaType": "x/helm"}, "layers": []}


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (LIST, OCI_INDEX, "list of manifests"),
        (LIST | {"mediaType": DOCKER_LIST}, DOCKER_LIST, "list of manifests"),
        ({"schemaVersion": 2, "manifests": []}, MANIFEST, "list of manifests"),
        (IMAGE, OCI_MANIFEST, "x/helm"),
        (IMAGE | {"artifactType": "a/b"}, OCI_MANIFEST, "a/b"),
        (IMAGE | {"mediaType": "what/ever"}, "what/ever", "what/ever"),
        (
            {"schemaVersion": 1, "name": "x"},
            "application/vnd.docker.distribution.manifest.v1+json",
            "version 2",
        ),
    ],
)
def test_other_things_than_models(fake: FakeRegistry, value: Any, kind: str, says: str) -> None:
    fake.manifests["ns/m/t"] = (json.dumps(value).encode(), kind)
    with pytest.raises(Unsupported, match=says):
        model_at(fake)


def test_a_container_image_is_no_model(fake: FakeRegistry) -> None:
    fake.add_image("ns/m/t", ("application/vnd.docker.image.rootfs.diff.tar.gzip", b"x"))
    with pytest.raises(Unsupported, match=r"rootfs.*container image"):
        model_at(fake)


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"{}", b"[" * 100_000, b'{"schemaVersion":2}', b"\xff"]
)
def test_manifests_of_nonsense(fake: FakeRegistry, raw: bytes) -> None:
    fake.manifests["ns/m/t"] = (raw, MANIFEST)
    with pytest.raises((Corrupt, Unsupported)):
        model_at(fake)


def test_layers_that_lie_elsewhere_are_not_fetched(fake: FakeRegistry, other: FakeRegistry) -> None:
    value = json.loads(fake.add_image("ns/m/t", *TINY))
    value["layers"][0]["urls"] = [f"http://{other.server}/x"]
    fake.manifests["ns/m/t"] = (json.dumps(value).encode(), MANIFEST)
    with pytest.raises(Unsupported, match="urls"):
        model_at(fake)
    assert other.asked == []


def test_a_gzip_bomb(fake: FakeRegistry) -> None:
    bomb = gzip.compress(bytes(10 * MIB))
    for path in ("manifests", "blobs", "tags"):
        fake.fault("GET", path, lambda at: say(at, 200, bomb, **{"Content-Encoding": "gzip"}))
    for ask in (lambda: client(fake).manifest("a", "b"), lambda: read(fake), lambda: client(fake).tags("a")):
        with pytest.raises(Refused, match="gzip"):
            ask()
    assert {head["Accept-Encoding"] for _, _, head in fake.asked} == {"identity"}


@pytest.mark.parametrize(
    "bomb", [b"X: y\r\n" * 5_000, b"X: " + b"y" * 10 * MIB + b"\r\n", b"junk\r\n" * 500_000]
)
def test_headers_without_end(bomb: bytes) -> None:
    def talk(connection: Any) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + bomb + b"Content-Length: 2\r\n\r\n{}")

    with talking(talk, 20) as url, pytest.raises(ModelpackError):
        Registry(url.removeprefix("http://"), plain_http=True).tags("a")


def test_a_web_page(fake: FakeRegistry) -> None:
    fake.fault("GET", "", lambda at: say(at, 403, b"<html>Sign in</html>"))
    with pytest.raises(Refused, match="web page"):
        client(fake).ping()
    fake.faults = [("GET", "", lambda at: say(at, 404, b"<html>"))]
    with pytest.raises(Unsupported, match="no registry"):
        client(fake).ping()


# --- tags


def test_tags_over_several_pages(fake: FakeRegistry, other: FakeRegistry) -> None:
    def page(at: Any) -> bool:
        number = len(fake.asked)
        more = (
            {"Link": f'<http://{other.server}/v2/a/tags/list?last={number}>; rel="next"'}
            if number < 3
            else {}
        )
        return say(at, 200, json.dumps({"tags": [f"t{number}"]}).encode(), **more)

    fake.fault("GET", "tags", page)
    assert client(fake).tags("a") == ("t1", "t2", "t3")
    assert other.asked == []


@pytest.mark.parametrize("count", [0, 1_000])
def test_tags_without_end(fake: FakeRegistry, count: int) -> None:
    def page(at: Any) -> bool:
        tags = [f"t{len(fake.asked)}-{n}" for n in range(count)] or ["same"]
        return say(at, 200, json.dumps({"tags": tags}).encode(), Link='</v2/a/tags/list?x>; rel="next"')

    fake.fault("GET", "tags", page)
    if count:
        with pytest.raises(Corrupt, match="no end"):
            client(fake).tags("a")
    else:
        assert client(fake).tags("a") == ("same",)
    assert len(fake.asked) <= 102


@pytest.mark.parametrize("body", [b"[]", b'{"tags":5}', b'{"tags":[5]}', b"x", b'{"tags":{"a":"b"}}'])
def test_tags_that_are_none(fake: FakeRegistry, body: bytes) -> None:
    fake.fault("GET", "tags", lambda at: say(at, 200, body))
    with pytest.raises(Corrupt):
        client(fake).tags("a")


# --- uploads


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sizes that the others here have."""
    monkeypatch.setattr(registry_upload, "IN_HAND", 400_000)
    monkeypatch.setattr(registry_upload, "PROGRESS", 100_000)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_upload, "PARTS", (500_000,))


@dataclass
class Opens:
    """Opens *data* at any offset: `at` are those that were asked for."""

    data: bytes = DATA
    at: list[int] = field(default_factory=list)

    def __call__(self, offset: int) -> contextlib.nullcontext[Reader]:
        self.at.append(offset)
        return contextlib.nullcontext(BytesReader(self.data, offset))


def upload(fake: FakeRegistry, opens: Opens | None = None, credential: Credential | None = None) -> list[int]:
    """Upload it, and say at which offsets it was opened for that."""
    opens = opens or Opens()
    moved: list[int] = []
    digest = Digest.of(opens.data)
    fake.blobs.pop(str(digest), None)
    client(fake, credential).upload_blob("ns/m", digest, len(opens.data), opens, moved.append)
    assert fake.blobs[str(digest)] == opens.data
    assert (sum(moved), min(moved, default=1) > 0) == (len(opens.data), True)
    return opens.at


def methods(fake: FakeRegistry) -> list[str]:
    return [method for method, _, _ in fake.asked]


def refusing(status: int, most: int = 0) -> Callable[[Any], bool]:
    """Answer *status* to bodies of more than *most* bytes."""

    def refuse(at: Any) -> bool:
        count = int(at.headers["Content-Length"])
        return count > most and bool(at.rfile.read(count)) and say(at, status)

    return refuse


def hanging_up(fake: FakeRegistry, kept: int, *which: int) -> Callable[[Any], bool]:
    """Keep *kept* bytes of the PATCHes *which*, counted from 1 (all, where none is named), and hang up."""

    def hang_up(at: Any) -> bool:
        if which and len(fake.heads("PATCH")) not in which:
            return False
        body = at.rfile.read(min(kept, int(at.headers["Content-Length"])))
        list(fake.uploads.values())[-1].extend(body)
        at.close_connection = True
        return True

    return hang_up


def test_a_small_one_goes_in_one_piece(fake: FakeRegistry) -> None:
    assert upload(fake, Opens(DATA[:400_000])) == [0]
    assert methods(fake) == ["POST", "PUT"]
    assert upload(fake, Opens(b"")) == [0]


def test_a_large_one_is_streamed_as_docker_does(fake: FakeRegistry) -> None:
    assert upload(fake) == [0]
    assert methods(fake) == ["POST", "PATCH", "PUT"]
    assert "Content-Range" not in fake.heads("PATCH")[0]


@pytest.mark.usefixtures("parts")
def test_in_parts(fake: FakeRegistry) -> None:
    assert upload(fake) == [0]
    assert methods(fake) == ["POST", *["PATCH"] * 6, "PUT"]
    assert [head["Content-Range"] for head in fake.heads("PATCH")][::5] == ["0-499999", "2500000-2999999"]


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("kept", [0, 123_456, 500_000])
def test_a_part_that_broke_off_goes_on_where_it_did(fake: FakeRegistry, kept: int) -> None:
    fake.fault("PATCH", "", hanging_up(fake, kept, 3))
    assert upload(fake) == [0, 1_000_000 + kept]
    assert len(fake.heads("GET", "upload")) == 1


def test_a_line_that_always_breaks_goes_on_while_something_is_gained(fake: FakeRegistry) -> None:
    fake.fault("PATCH", "", hanging_up(fake, 200_000))
    assert upload(fake) == list(range(0, 3_000_000, 200_000))
    assert methods(fake)[-2:] == ["GET", "PUT"]


@pytest.mark.parametrize("kept", [0, 1_000])
def test_a_line_that_breaks_and_gains_nothing_ends(fake: FakeRegistry, kept: int) -> None:
    fake.fault("PATCH", "", hanging_up(fake, kept))
    with pytest.raises(Unreachable):
        upload(fake)
    assert len(fake.heads("PATCH")) == registry_upload.TRIES
    assert fake.uploads == {}


def test_where_a_part_is_kept_whole_or_not_smaller_ones_get_there(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PARTS", (1 << 30, 1_000_000, 300_000))
    at_most = 700_000
    fake.fault(
        "PATCH", "", lambda at: int(at.headers["Content-Length"]) > at_most and hanging_up(fake, 0)(at)
    )
    assert upload(fake) == [0, 0, 0]
    assert len(fake.heads("PATCH")) == 12


def test_they_do_not_get_smaller_than_the_registry_wants(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PARTS", (1 << 30, 1_000_000, 300_000))
    fake.least_chunk = 500_000
    fake.fault("PATCH", "", hanging_up(fake, 0))
    with pytest.raises(Unreachable):
        upload(fake)
    assert {head["Content-Length"] for head in fake.heads("PATCH")} == {"3000000", "1000000"}


def test_a_registry_that_lets_us_in_no_more(fake: FakeRegistry) -> None:
    fake.fault("PATCH", "", refusing(500))
    fake.fault("GET", "upload", lambda at: say(at, 401))
    with pytest.raises(Refused, match="wants to know who asks"):
        upload(fake)
    assert len(fake.heads("GET", "upload")) <= 2


def test_taken_before_it_was_all_sent(fake: FakeRegistry) -> None:
    def hasty(at: Any) -> bool:
        at.close_connection = len(fake.heads("PATCH")) == 1
        return at.close_connection and say(at, 202, Location="/upload/0")

    fake.fault("PATCH", "", hasty)
    assert upload(fake, Opens(DATA * 10)) == [0, 0]


@pytest.mark.parametrize("status", [500, 502, 408, 416, 429])
@pytest.mark.usefixtures("parts")
def test_a_part_that_is_refused_for_now(fake: FakeRegistry, status: int) -> None:
    fake.fault("PATCH", "", lambda at: len(fake.heads("PATCH")) in (2, 4) and refusing(status)(at))
    assert upload(fake) == [0, 500_000, 1_000_000]


def test_a_registry_that_wants_to_be_left_alone(fake: FakeRegistry) -> None:
    fake.fault("PATCH", "", lambda at: say(at, 429, **{"Retry-After": "3600"}))
    with pytest.raises(Refused, match="429"):
        upload(fake)
    assert len(fake.heads("PATCH")) == 1


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("status", [201, 400, 404, 405, 411, 501])
def test_who_takes_no_parts_gets_one_piece(fake: FakeRegistry, status: int, read: bool) -> None:
    def no(at: Any) -> bool:
        at.close_connection = not read
        return refusing(status)(at) if read else say(at, status)

    fake.fault("PATCH", "", no)
    upload(fake)
    if read:
        assert methods(fake) == ["POST", "PATCH", "DELETE", "POST", "PUT"]
    else:  # an answer may be lost, as the connection is reset
        assert methods(fake)[-2:] == ["POST", "PUT"], methods(fake)


@pytest.mark.parametrize("status", [413, 416])
@pytest.mark.parametrize(
    ("limit", "posts", "patches"), [(1_000_000, 2, 1 + 3), (600_000, 3, 2 + 6), (100_000, 4, 3)]
)
def test_who_takes_smaller_parts_gets_them(
    fake: FakeRegistry, status: int, limit: int, posts: int, patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is tried, a million, half a million, and then all in one PUT."""
    monkeypatch.setattr(registry_upload, "PARTS", (1 << 30, 5_000_000, 1_000_000, 500_000))
    fake.fault("PATCH", "", refusing(status, limit))
    upload(fake)
    assert (len(fake.heads("POST")), len(fake.heads("PATCH"))) == (posts, patches)
    assert fake.uploads == {}


def test_a_proxy_that_takes_nothing_large(fake: FakeRegistry) -> None:
    fake.faults += [(method, "", refusing(413, 100_000)) for method in ("PATCH", "PUT")]
    with pytest.raises(Refused) as caught:
        upload(fake)
    assert caught.value.status == 413
    assert "client_max_body_size" in caught.value.advice
    assert fake.uploads == {}


@pytest.mark.parametrize(("least", "patches"), [(5_000_000, 0), (700_000, 3), (1_000_000, 3)])
def test_parts_are_not_smaller_than_the_registry_wants(
    fake: FakeRegistry, least: int, patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PARTS", (1_000_000, 500_000))
    fake.least_chunk = least
    upload(fake)
    assert len(fake.heads("PATCH")) == patches
    fake.asked.clear()
    fake.fault("PATCH", "", refusing(413, 600_000))
    upload(fake)
    assert methods(fake)[-2:] == ["POST", "PUT"]  # half a million would be too little


@pytest.mark.usefixtures("parts")
def test_a_part_that_was_not_kept(fake: FakeRegistry) -> None:
    """ECR says that it took the second one, and did not."""

    def lose(at: Any) -> bool:
        if len(fake.heads("PATCH")) < 2:
            return False
        at.rfile.read(int(at.headers["Content-Length"]))
        return say(at, 202, Range="0-499999", Location="/upload/0")

    fake.fault("PATCH", "", lose)
    with pytest.raises(Refused, match="took 500000 bytes where 1000000"):
        upload(fake)
    assert fake.uploads == {}


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("said", ["0-3999999", "nonsense", "", "0-" + "9" * 30, "5-9", "0--1"])
def test_a_registry_that_lies_of_what_it_has_gets_it_anew(fake: FakeRegistry, said: str) -> None:
    fake.fault("PATCH", "", lambda at: len(fake.heads("PATCH")) == 2 and refusing(500)(at))
    fake.fault("GET", "", lambda at: say(at, 204, Range=said, Location="/upload/0"))
    assert upload(fake) == [0, 0]
    assert len(fake.heads("POST")) == 2


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("said", ["0-3999999", "0-3", "nonsense", "0-0"])
def test_a_registry_that_lies_without_end(fake: FakeRegistry, said: str) -> None:
    fake.fault("PATCH", "", lambda at: len(fake.heads("PATCH")) > 1 and refusing(500)(at))
    fake.fault("GET", "", lambda at: say(at, 204, Range=said, Location="/upload/0"))
    with pytest.raises((Refused, Unreachable)):
        upload(fake)
    assert str(DIGEST) not in fake.blobs
    assert len(fake.asked) < 40


@pytest.mark.usefixtures("parts")
def test_a_registry_that_has_less_than_before_gets_that_again(fake: FakeRegistry) -> None:
    def lose(at: Any) -> bool:
        if len(fake.heads("PATCH")) != 4:
            return False
        del fake.uploads["0"][700_000:]
        return refusing(500)(at)

    fake.fault("PATCH", "", lose)
    assert upload(fake) == [0, 700_000]


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("times", [1, 3, 50])
def test_an_upload_that_is_forgotten_begins_anew(fake: FakeRegistry, times: int) -> None:
    """As docker-registry 2.8 does with one that broke."""

    def forget(at: Any) -> bool:
        if len(fake.heads("PATCH")) % 3 or len(fake.heads("PATCH")) > times * 3:
            return False
        fake.uploads.clear()
        return refusing(404)(at)

    fake.fault("PATCH", "", forget)
    if times < registry_upload.TRIES:
        assert upload(fake) == [0] * (times + 1)
    else:
        with pytest.raises(NotFound):
            upload(fake)
        assert len(fake.heads("POST")) == registry_upload.TRIES
    assert fake.uploads == {}


@pytest.mark.parametrize("status", [400, 404, 405, 416])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_registry_that_does_not_tell_how_far_it_is(fake: FakeRegistry, status: int, method: str) -> None:
    def lose(at: Any) -> bool:
        at.close_connection = len(fake.heads(method)) == 1
        return at.close_connection  # type: ignore[no-any-return]

    if method == "PUT":
        fake.fault("PATCH", "", refusing(405))
    fake.fault(method, "", lose)
    fake.fault("GET", "upload", lambda at: say(at, status))
    assert upload(fake) == [0] * (2 if method == "PATCH" else 3)


@pytest.mark.usefixtures("parts")
def test_the_answer_to_the_last_request_was_lost(fake: FakeRegistry) -> None:
    def lose(at: Any) -> bool:
        fake.blobs[str(DIGEST)] = bytes(fake.uploads.popitem()[1])
        at.close_connection = True
        return True

    fake.fault("PUT", "", lose)
    assert upload(fake) == [0]
    assert methods(fake)[-3:] == ["PUT", "GET", "HEAD"]


@pytest.mark.usefixtures("parts")
def test_the_last_request_was_lost(fake: FakeRegistry) -> None:
    def lose(at: Any) -> bool:
        at.close_connection = len(fake.heads("PUT")) == 1
        return at.close_connection  # type: ignore[no-any-return]

    fake.fault("PUT", "", lose)
    assert upload(fake) == [0]
    assert methods(fake)[-3:] == ["PUT", "GET", "PUT"]


def test_one_piece_that_breaks_off_begins_anew(fake: FakeRegistry) -> None:
    def lose(at: Any) -> bool:
        at.close_connection = len(fake.heads("PUT")) < 3
        if at.close_connection:
            next(iter(fake.uploads.values())).extend(at.rfile.read(1000))
        return at.close_connection  # type: ignore[no-any-return]

    fake.fault("PATCH", "", refusing(405))
    fake.fault("PUT", "", lose)
    assert upload(fake) == [0, 0, 0, 0]


@pytest.mark.usefixtures("parts")
def test_a_token_that_expires_during_an_upload(fake: FakeRegistry) -> None:
    fake.secret = "set"

    def expire(_at: Any) -> bool:
        fake.secret = "new" if len(fake.heads("PATCH")) == 3 else fake.secret
        return False

    fake.fault("PATCH", "", expire)
    assert upload(fake) == [0, 1_000_000]
    assert fake.sold == 2


# --- uploads: our own side


@pytest.mark.parametrize(
    "error",
    [Unreachable("ours"), Broke("ours"), Refused("ours", status=503), NotFound("ours"), Corrupt("ours"),
     Stopped("ours"), OSError("ours")],
)  # fmt: skip
@pytest.mark.parametrize("once", [True, False])
def test_what_our_own_side_raises_comes_through(fake: FakeRegistry, error: Exception, once: bool) -> None:
    class Fails(BytesReader):
        def readinto(self, into: memoryview, /) -> int:
            count = super().readinto(into)
            if not count:
                raise error
            return count

    class OpensOnce(Opens):
        def __call__(self, offset: int) -> contextlib.nullcontext[Reader]:
            self.at.append(offset)
            return contextlib.nullcontext(Fails(self.data[:2_000_000], offset))

    opens = OpensOnce()
    data = Fails(DATA[:2_000_000]) if once else opens
    with pytest.raises(Unreachable if isinstance(error, Broke) else type(error), match="ours"):
        client(fake).upload_blob("ns/m", DIGEST, len(DATA), data)
    assert opens.at == [0] * (not once)
    assert len(fake.heads("POST")) == 1
    assert fake.uploads == {}


def test_nobody_waits_any_more(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_wire, "PAUSE", 30.0)
    call = Call()
    fake.fault("PATCH", "", refusing(500))
    with ThreadPoolExecutor(1) as pool:

        def work() -> None:
            with under(call):
                client(fake).upload_blob("ns/m", DIGEST, len(DATA), Opens())

        done = pool.submit(work)
        while not fake.heads("PATCH"):
            time.sleep(0.01)
        time.sleep(0.2)
        call.close()
        with pytest.raises((Refused, Unreachable)):
            done.result(5)


def test_what_comes_once_goes_in_one_piece_and_breaks(fake: FakeRegistry) -> None:
    fake.blobs.clear()
    client(fake).upload_blob("ns/m", DIGEST, len(DATA), BytesReader(DATA))
    assert (methods(fake), fake.blobs[str(DIGEST)]) == (["POST", "PUT"], DATA)

    def hang_up(at: Any) -> bool:
        at.rfile.read(1_000_000)
        at.close_connection = True
        return True

    fake.fault("PUT", "", hang_up)
    with pytest.raises(Unreachable):
        client(fake).upload_blob("ns/m", DIGEST, len(DATA), BytesReader(DATA))
    assert len(fake.heads("PUT")) == 2
    assert fake.uploads == {}


@pytest.mark.parametrize("size", [0, 1, 400_000, 400_001, 1_000_000])
@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.usefixtures("parts")
def test_bytes_that_end_early_or_go_on(fake: FakeRegistry, size: int, more: int) -> None:
    """Of small ones just as many are read as there should be."""
    if size + more < 0 or (more > 0 and size <= 400_000):
        return
    digest, wrong = Digest.of(DATA[:size]), DATA[: size + more]
    for data in (BytesReader(wrong), Opens(wrong)):
        with pytest.raises(
            Corrupt, match=f"goes on after its {size}" if more > 0 else f"ends after {size - 1} of {size}"
        ):
            client(fake).upload_blob("ns/m", digest, size, data)
    assert str(digest) not in fake.blobs
    assert fake.uploads == {}


def test_an_upload_elsewhere_hears_no_password(fake: FakeRegistry, other: FakeRegistry) -> None:
    other.uploads["0"] = bytearray()
    fake.secret = "set"
    place = f"http://{other.server}/upload/0?signed=yes"
    fake.fault("POST", "uploads", lambda at: at.headers.get("Authorization") and say(at, 202, Location=place))
    client(fake, LOGIN).upload_blob("ns/m", Digest.of(b"x"), 1, BytesReader(b"x"))
    assert [method for method, _, _ in other.asked] == ["PUT"]
    assert "signed=yes&digest=" in other.asked[0][1]
    assert "Authorization" not in other.asked[0][2]


@pytest.mark.parametrize("wrong", ["http://127.0.0.1/upload/0?x=1", "https://127.0.0.1:443/upload/0?x=1"])
def test_a_proxy_that_lost_the_port(fake: FakeRegistry, wrong: str) -> None:
    fake.uploads["0"] = bytearray()
    fake.fault("POST", "uploads", lambda at: say(at, 202, Location=wrong))
    assert upload(fake) == [0]


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[/"])
def test_an_upload_that_goes_nowhere(fake: FakeRegistry, location: str) -> None:
    fake.fault("POST", "uploads", lambda at: say(at, 202, Location=location))
    with pytest.raises(Refused):
        upload(fake)


@pytest.mark.parametrize("once", [True, False])
def test_bytes_that_are_not_the_digests(fake: FakeRegistry, once: bool) -> None:
    def send(data: bytes) -> None:
        client(fake).upload_blob("ns/m", DIGEST, len(data), BytesReader(data) if once else Opens(data))

    with pytest.raises(Corrupt):
        send(DATA[:1000])
    assert fake.asked == []
    with pytest.raises(Refused) as caught:
        send(DATA[:-1] + b"!")
    assert caught.value.status == 400
    assert fake.uploads == {}


def test_what_is_stored_as_something_else(fake: FakeRegistry) -> None:
    told = {"Docker-Content-Digest": str(Digest.of(b"other"))}

    def lie(at: Any) -> bool:
        at.rfile.read(int(at.headers["Content-Length"]))
        return say(at, 201, **told)

    fake.fault("PUT", "", lie)
    with pytest.raises(Refused):
        client(fake).put_manifest("ns/m", "t", b"{}", MANIFEST)
    with pytest.raises(Refused):
        client(fake).upload_blob("ns/m", Digest.of(b"x"), 1, BytesReader(b"x"))


def test_two_upload_one_blob_at_once(fake: FakeRegistry) -> None:
    turn = threading.Barrier(2)
    fake.fault("PUT", "upload", lambda _at: bool(turn.wait(10)) and False)
    fake.blobs.clear()
    with ThreadPoolExecutor(2) as pool:
        work: Callable[[], None] = lambda: client(fake).upload_blob("a", DIGEST, len(DATA), BytesReader(DATA))  # noqa: E731
        for done in [pool.submit(work), pool.submit(work)]:
            done.result(20)
    assert fake.blobs[str(DIGEST)] == DATA


def test_secrets_are_not_shown() -> None:
    for credential in (
        LOGIN,
        Credential(token=SECRET),
        Credential(identity=SECRET),
        Credential.given(SECRET),
    ):
        assert SECRET not in repr(credential) + str(credential)
        assert SECRET not in repr(Credentials(credential)) + repr(
            Registry("reg", credentials=Credentials(credential))
        )


def test_a_blob_that_is_not_there(fake: FakeRegistry) -> None:
    with pytest.raises(NotFound):
        client(fake).open_blob("ns/m", Digest.of(b"nobody's"), 5)
    assert client(fake).blob_size("ns/m", Digest.of(b"nobody's")) is None
    assert client(fake).blob_size("ns/m", DIGEST) == len(DATA)


def test_a_download_that_nobody_waits_for_ends(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is broken off while it pauses before the next try asks nothing more."""
    monkeypatch.setattr(registry_wire, "PAUSE", 10)
    call = Call()
    fake.fault("GET", "/blobs/", lambda at: cut(at, DATA, 1000))
    threading.Timer(0.3, call.close).start()
    began = time.monotonic()
    with under(call), pytest.raises(Unreachable):
        read(fake)
    assert time.monotonic() - began < 2
    assert len(fake.asked) == 1
