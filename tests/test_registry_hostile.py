"""Registries that lie, stall, and send us elsewhere with our password."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import TINY, everything, noise
from registries import FakeRegistry, cut, ranged, say
from servers import talking

from modelpack.errors import Corrupt, ModelpackError, NotFound, Refused, Unreachable, Unsupported
from modelpack.hands import registry_blob, registry_upload, registry_wire, retry
from modelpack.hands.credentials import Credential, Credentials
from modelpack.hands.registry import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, Registry
from modelpack.hands.registry_address import Address
from modelpack.stores.registry import RegistrySource
from modelpack.words.blob import KIB, MANIFEST, MIB
from modelpack.words.digest import Digest
from modelpack.words.reader import BytesReader
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
    monkeypatch.setattr(retry.time, "sleep", slept.append)
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


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_upload, "CHUNK", 500_000)


def upload(fake: FakeRegistry, data: bytes = DATA, credential: Credential | None = None) -> int:
    moved: list[int] = []
    fake.blobs.pop(str(Digest.of(data)), None)
    client(fake, credential).upload_blob("ns/m", Digest.of(data), len(data), BytesReader(data), moved.append)
    assert fake.blobs[str(Digest.of(data))] == data
    return sum(moved)


def test_in_one_piece(fake: FakeRegistry) -> None:
    assert upload(fake) == len(DATA)
    assert [method for method, _, _ in fake.asked] == ["POST", "PUT"]
    assert upload(fake, b"") == 0


@pytest.mark.usefixtures("small_chunks")
def test_in_chunks(fake: FakeRegistry) -> None:
    assert upload(fake) == len(DATA)
    assert [method for method, _, _ in fake.asked] == ["POST", *["PATCH"] * 6, "PUT"]
    assert [head["Content-Range"] for head in fake.heads("PATCH")][-1] == "2500000-2999999"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kept", [0, 123_456, 500_000])
def test_a_chunk_that_broke_off_goes_on_where_it_did(fake: FakeRegistry, kept: int) -> None:
    def broken(at: Any) -> bool:
        if len(fake.heads("PATCH")) != 3:
            return False
        body = at.rfile.read(int(at.headers["Content-Length"]))
        fake.uploads["0"] += body[:kept]
        at.close_connection = True
        return True

    fake.fault("PATCH", "", broken)
    assert upload(fake) == len(DATA)
    assert len(fake.heads("GET", "upload")) == 1


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("status", [201, 400, 405, 413, 416])
def test_who_takes_no_chunks_gets_one_piece(fake: FakeRegistry, status: int) -> None:
    def no(at: Any) -> bool:
        at.rfile.read(int(at.headers["Content-Length"]))
        return say(at, status)

    fake.fault("PATCH", "", no)
    assert upload(fake) == len(DATA)
    assert [method for method, _, _ in fake.asked] == ["POST", "PATCH", "DELETE", "POST", "PUT"]


@pytest.mark.usefixtures("small_chunks")
def test_who_wants_larger_chunks_gets_one_piece(fake: FakeRegistry) -> None:
    fake.least_chunk = 5_000_000
    assert upload(fake) == len(DATA)
    assert fake.heads("PATCH") == []


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_that_was_not_kept(fake: FakeRegistry) -> None:
    """ECR says that it took the second chunk, and did not."""

    def lose(at: Any) -> bool:
        if len(fake.heads("PATCH")) < 2:
            return False
        at.rfile.read(int(at.headers["Content-Length"]))
        return say(at, 202, Range="0-499999", Location="/upload/0")

    fake.fault("PATCH", "", lose)
    with pytest.raises(Refused, match="took 500000 bytes where 1000000"):
        upload(fake)
    assert fake.uploads == {}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("said", ["0-3999999", "0-3", "nonsense", "0-" + "9" * 30])
def test_a_registry_that_lies_of_what_it_has(fake: FakeRegistry, said: str) -> None:
    fake.fault("PATCH", "", lambda at: len(fake.heads("PATCH")) == 2 and say(at, 500))
    fake.fault("GET", "", lambda at: say(at, 204, Range=said, Location="/upload/0"))
    with pytest.raises((Refused, Unreachable)):
        upload(fake)
    assert str(DIGEST) not in fake.blobs


@pytest.mark.usefixtures("small_chunks")
def test_a_token_that_expires_during_an_upload(fake: FakeRegistry) -> None:
    fake.secret = "set"

    def expire(_at: Any) -> bool:
        fake.secret = "new" if len(fake.heads("PATCH")) == 3 else fake.secret
        return False

    fake.fault("PATCH", "", expire)
    assert upload(fake) == len(DATA)
    assert fake.sold == 2


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
    assert upload(fake) == len(DATA)


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[/"])
def test_an_upload_that_goes_nowhere(fake: FakeRegistry, location: str) -> None:
    fake.fault("POST", "uploads", lambda at: say(at, 202, Location=location))
    with pytest.raises(Refused):
        upload(fake)


def test_bytes_that_are_not_the_digests(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Corrupt):
        client(fake).upload_blob("ns/m", DIGEST, len(DATA), BytesReader(DATA[:-1] + b"!"))
    assert fake.asked == []
    monkeypatch.setattr(registry_upload, "CHUNK", 500_000)
    with pytest.raises(Refused) as caught:
        client(fake).upload_blob("ns/m", DIGEST, len(DATA), BytesReader(DATA[:-1] + b"!"))
    assert caught.value.status == 400
    with pytest.raises(Corrupt, match="ends after"):
        client(fake).upload_blob("ns/m", DIGEST, len(DATA), BytesReader(DATA[:-1]))
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
