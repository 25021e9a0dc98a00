"""Real registries as a store: Debian's docker-registry and skopeo; names, credentials, what is kept how."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, MemoryStore, bits, files_of, needs_skopeo, noise
from depots import own_depot
from registries import PASSWORD, USER, DockerRegistry, EveryModel, FakeRegistry, Line, docker_registry, say

from modelpack.errors import (
    Corrupt,
    Local,
    ModelpackError,
    NotFound,
    Partly,
    Refused,
    Taken,
    Unreachable,
    Unsupported,
    Usage,
)
from modelpack.hands import credentials as credentials_module
from modelpack.hands import registry_upload, registry_wire
from modelpack.hands.credentials import Credential, Credentials
from modelpack.hands.registry import OCI_MANIFEST, Registry
from modelpack.stores.folder import FolderBundle
from modelpack.stores.registry import ArtifactTarget, RegistrySource, RegistryTarget
from modelpack.stores.registry_notes import NAME_TYPE
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MANIFEST, MODEL, SYSTEM, Blob
from modelpack.words.digest import Digest
from modelpack.words.name import Name
from modelpack.words.reader import BytesReader
from modelpack.words.reference import Reference
from modelpack.words.report import Moved, Step

LOGIN = f"{USER}:{PASSWORD}"


@pytest.fixture(scope="module")
def _registry() -> Iterator[DockerRegistry]:
    with docker_registry() as one:
        yield one


@pytest.fixture
def registry(_registry: DockerRegistry) -> DockerRegistry:
    _registry.clear()
    return _registry


@pytest.fixture(scope="module")
def locked() -> Iterator[DockerRegistry]:
    with docker_registry(auth=True) as one:
        yield one


def client(registry: DockerRegistry | FakeRegistry, given: str = "") -> Registry:
    credential = Credential.given(given) if given else None
    return Registry(registry.server, plain_http=True, credentials=Credentials(credential, {}))


def at(registry: DockerRegistry | FakeRegistry, rest: str = "") -> Reference:
    return Reference.parse(f"oci://{registry.server}{rest}")


def pulled(registry: DockerRegistry | FakeRegistry, rest: str) -> RegistrySource:
    return RegistrySource(client(registry), at(registry, rest))


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw_manifest(registry: DockerRegistry, path: str) -> bytes:
    request = urllib.request.Request(
        f"http://{registry.server}/v2/{path}", headers={"Accept": f"{MANIFEST}, {OCI_MANIFEST}"}
    )
    with urllib.request.urlopen(request) as answer:
        found: bytes = answer.read()
    return found


# --- there and back


def test_ping(registry: DockerRegistry) -> None:
    client(registry).ping()


def test_the_digest_of_the_tag_is_the_models_id(registry: DockerRegistry, tiny: MemoryStore) -> None:
    (receipt,) = copy(tiny, tiny.models(), RegistryTarget(client(registry), at(registry, "/ns")))
    raw = raw_manifest(registry, "ns/tiny/manifests/latest")
    assert raw == tiny.models()[0].document.raw
    assert (receipt.id, receipt.same_bytes, receipt.way) == (Digest.of(raw), True, "registry")


@pytest.mark.parametrize("kind", [RegistryTarget, ArtifactTarget])
def test_push_then_pull(
    registry: DockerRegistry, shelf: MemoryStore, kind: type[RegistryTarget], tmp_path: Path
) -> None:
    copy(shelf, shelf.models(), kind(client(registry), at(registry)))
    source = EveryModel(client(registry))
    assert bits(source) == bits(shelf)
    copy(source, source.models(), FolderBundle(tmp_path / "b"))
    assert bits(FolderBundle(tmp_path / "b")) == bits(shelf)


def test_a_recipe_is_an_artifact(registry: DockerRegistry) -> None:
    store = MemoryStore()
    store.recipe("made/of:parts", a=b"one" * 50, b=b"two" * 70)
    with pytest.raises(Unsupported) as caught:
        copy(store, store.models(), RegistryTarget(client(registry), at(registry)))
    assert "--as-artifact" in caught.value.advice
    assert not registry.path.exists()
    (receipt,) = copy(store, store.models(), ArtifactTarget(client(registry), at(registry)))
    assert receipt.id == store.models()[0].document.id
    assert bits(pulled(registry, "/made/of:parts")) == bits(store)


def test_an_artifact_is_the_bundles_bit_for_bit(
    registry: DockerRegistry, tiny: MemoryStore, tmp_path: Path
) -> None:
    folder = FolderBundle(tmp_path / "b")
    copy(tiny, tiny.models(), folder)
    copy(folder, folder.models(), ArtifactTarget(client(registry), at(registry, "/ns")))
    index = json.loads((tmp_path / "b" / "index.json").read_bytes())
    digest = index["manifests"][0]["digest"]
    assert Digest.of(raw_manifest(registry, "ns/tiny/manifests/latest")) == Digest.parse(digest)
    (model,) = pulled(registry, "/ns/tiny").models()
    assert [blob.blake3 for blob in model.blobs] == [blob.blake3 for blob in folder.models()[0].blobs]


@needs_skopeo
def test_layout_skopeo_registry_skopeo_layout(
    registry: DockerRegistry, shelf: MemoryStore, tmp_path: Path
) -> None:
    copy(shelf, shelf.models(), FolderBundle(tmp_path / "b"))
    store = MemoryStore()
    store.recipe("made/of:parts", a=b"one" * 50, b=b"two" * 70)
    copy(store, store.models(), FolderBundle(tmp_path / "b"))
    names = [model.name.full for model in (*shelf.models(), *store.models())]
    for number, name in enumerate(names):
        there = f"docker://{registry.server}/carried/m{number}:x"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path / 'b'}:{name}", there)
        skopeo("copy", "--src-tls-verify=false", there, f"oci:{tmp_path / 'back'}:{name}")
    was, came = files_of(tmp_path / "b" / "blobs"), files_of(tmp_path / "back" / "blobs")
    assert came == was
    assert bits(FolderBundle(tmp_path / "back")) == bits(FolderBundle(tmp_path / "b"))
    for number, name in enumerate(names):  # and modelpack reads what skopeo brought
        (model,) = pulled(registry, f"/carried/m{number}:x").models()
        assert model.document.raw == bits(FolderBundle(tmp_path / "b"))[name][0]


@needs_skopeo
def test_skopeo_reads_images_and_copies_artifacts(registry: DockerRegistry, tiny: MemoryStore) -> None:
    """It copies no manifest of Ollama's: "unsupported docker v2s2 media type"."""
    copy(tiny, tiny.models(), RegistryTarget(client(registry), at(registry, "/image")))
    image = f"docker://{registry.server}/image/tiny:latest"
    assert skopeo("inspect", "--raw", "--tls-verify=false", image) == tiny.models()[0].document.raw
    copy(tiny, tiny.models(), ArtifactTarget(client(registry), at(registry, "/ns")))
    here, there = f"docker://{registry.server}/ns/tiny:latest", f"docker://{registry.server}/mirror/tiny:1"
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", here, there)
    (model,) = pulled(registry, "/mirror/tiny:1").models()
    assert model.document.raw == tiny.models()[0].document.raw
    assert str(model.name) == f"{registry.server}/mirror/tiny:1"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let uploads go in parts of so many bytes."""
    monkeypatch.setattr(registry_upload, "IN_HAND", 100_000)
    monkeypatch.setattr(registry_upload, "PROGRESS", 100_000)
    monkeypatch.setattr(registry_wire, "PAUSE", 0.02)
    return lambda *sizes: monkeypatch.setattr(registry_upload, "PARTS", sizes)


def big(size: int = 7_654_321) -> MemoryStore:
    store = MemoryStore()
    store.image("big", (MODEL, noise(size)))
    return store


@pytest.mark.parametrize("size", [1 << 30, 1_000_000])
def test_a_large_blob_is_streamed(registry: DockerRegistry, parts: Callable[..., None], size: int) -> None:
    parts(size)
    store = big()
    copy(store, store.models(), RegistryTarget(client(registry), at(registry, "/ns")))
    assert bits(pulled(registry, "/ns/big")) == bits(store)
    bad = noise(3_000_000)
    with pytest.raises(Refused) as caught:
        client(registry).upload_blob("ns/big", Digest.of(b"other"), len(bad), BytesReader(bad))
    assert caught.value.status == 400
    store.bytes[store.models()[0].blobs[0].digest] = bad[:-1] + b"?" + bytes(4_654_321)
    registry.clear()
    with pytest.raises(Corrupt, match="damaged"):
        copy(store, store.models(), RegistryTarget(client(registry), at(registry, "/ns")))
    assert not list(registry.path.rglob("_uploads/*/data"))


def through(line: Line) -> RegistryTarget:
    reached = Registry(line.place, plain_http=True, credentials=Credentials(None, {}))
    return RegistryTarget(reached, Reference.parse(f"oci://{line.place}/ns"))


@pytest.mark.parametrize("size", [1 << 30, 1_000_000])
def test_a_line_that_breaks_is_mended(
    registry: DockerRegistry, parts: Callable[..., None], size: int
) -> None:
    """docker-registry 2.8 forgets an upload that broke within a PATCH: it begins anew."""
    parts(size)
    store, moved = big(), Moves()
    line = Line(registry.server, [5_123_456, 6_234_567])
    with line.running():
        copy(store, store.models(), through(line), moved)
    assert line.cuts == []
    assert bits(pulled(registry, "/ns/big")) == bits(store)
    assert moved.sum == sum(blob.size for blob in store.models()[0].blobs)
    assert line.sent < 5_123_456 + 6_234_567 + 8_000_000


def test_a_line_that_breaks_too_often(registry: DockerRegistry, parts: Callable[..., None]) -> None:
    parts(1 << 30)
    store = big()
    line = Line(registry.server, [3_000_000] * 20)
    with line.running(), pytest.raises(ModelpackError) as caught:
        copy(store, store.models(), through(line))
    assert "kept" not in caught.value.advice
    assert len(line.cuts) == 20 - registry_upload.TRIES


@pytest.mark.parametrize("sizes", [(1_000_000,), (1 << 30, 1_000_000)])
def test_a_depot_goes_on_where_the_line_broke(
    parts: Callable[..., None], sizes: tuple[int, ...], tmp_path: Path
) -> None:
    parts(*sizes)
    store, moved = big(), Moves()
    with own_depot(tmp_path / "depot") as depot:
        line = Line(depot.url.removeprefix("http://"), [3_500_000, 2_500_000, 2_500_000])
        with line.running():
            copy(store, store.models(), through(line), moved)
            assert line.cuts == []
            again = 3_500_000 if sizes[1:] else 1_000_000
            assert line.sent < 7_654_321 + again + 2 * 1_000_000 + 100_000
            got = RegistrySource(through(line).client, Reference.parse(f"oci://{line.place}/ns/big"))
            assert list(bits(got).values()) == list(bits(store).values())
    assert moved.sum == sum(blob.size for blob in store.models()[0].blobs)


class Moves:
    """The sum of what was reported as moved."""

    sum = 0

    def __call__(self, step: Step) -> None:
        if isinstance(step, Moved):
            assert step.count > 0
            self.sum += step.count


def test_what_comes_once_goes_in_one_request(registry: DockerRegistry, parts: Callable[..., None]) -> None:
    parts(1_000_000)
    data = noise(3_000_000)
    client(registry).upload_blob("a", Digest.of(data), len(data), BytesReader(data))
    assert client(registry).blob_size("a", Digest.of(data)) == len(data)
    other = noise(3_000_000, "other")
    with Line(registry.server, [1_500_000]).running() as place, pytest.raises(Unreachable):
        Registry(place, plain_http=True).upload_blob("a", Digest.of(other), len(other), BytesReader(other))
    assert client(registry).blob_size("a", Digest.of(other)) is None


def test_a_source_that_breaks_is_not_the_registrys_fault(
    registry: DockerRegistry, parts: Callable[..., None]
) -> None:
    parts(1_000_000)

    class Breaks(MemoryStore):
        def afar(self) -> bool:
            return True

        def open(self, blob: Blob, offset: int = 0) -> Any:
            reader = super().open(blob, offset)
            if blob.media_type != MODEL:
                return reader
            return contextlib.nullcontext(Stops(self.bytes[blob.digest], 2_000_000))

    store = Breaks()
    store.image("big", (MODEL, noise(3_000_000)))
    with pytest.raises(Unreachable, match="the line broke") as caught:
        copy(store, store.models(), RegistryTarget(client(registry), at(registry, "/ns")))
    assert "Run it again" not in caught.value.advice  # no disk keeps anything
    assert [blob.media_type for blob in store.opened].count(MODEL) == 1
    assert not list(registry.path.rglob("_uploads/*/data"))


class Stops(BytesReader):
    """Bytes up to a place, and then an error."""

    def __init__(self, data: bytes, place: int, error: Exception | None = None) -> None:
        super().__init__(data[:place])
        self._error = error or Unreachable("the line broke", where="the source")

    def readinto(self, into: memoryview, /) -> int:
        count = super().readinto(into)
        if not count:
            raise self._error
        return count


def test_two_push_one_blob_at_once(registry: DockerRegistry, parts: Callable[..., None]) -> None:
    parts(500_000)
    store = MemoryStore()
    store.image("one", (MODEL, noise(2_000_000)))
    models = store.models()

    def push(number: int) -> object:
        return copy(
            store, models, RegistryTarget(client(registry), at(registry, "/ns/one:" + "ab"[number % 2]))
        )

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(push, range(4)))) == 4
    assert list(bits(pulled(registry, "/ns/one:a")).values()) == list(bits(store).values())


def test_by_digest(registry: DockerRegistry, tiny: MemoryStore) -> None:
    copy(tiny, tiny.models(), RegistryTarget(client(registry), at(registry, "/ns")))
    digest = tiny.models()[0].document.id
    assert bits(pulled(registry, f"/ns/tiny@{digest}")) == bits(tiny)
    with pytest.raises(Unsupported, match="digest"):
        RegistryTarget(client(registry), at(registry, f"/ns/tiny@{digest}")).missing(tiny.models())


@pytest.mark.parametrize("rest", ["/ns/nobody:x", "/nobody", f"/ns/nobody@{Digest.of(b'x')}", ""])
def test_a_model_that_is_not_there(registry: DockerRegistry, rest: str) -> None:
    with pytest.raises(NotFound):
        pulled(registry, rest).models()


# --- names


@pytest.mark.parametrize("kind", [RegistryTarget, ArtifactTarget])
@pytest.mark.parametrize("name", ["Someone/Tiny:V1", "hf.co/Some/Model-GGUF:Q4_K_M", "tiny"])
def test_the_exact_name_is_kept(
    registry: DockerRegistry, tiny: MemoryStore, kind: type[RegistryTarget], name: str
) -> None:
    model = dataclasses.replace(tiny.models()[0], name=Name.parse(name))
    (receipt,) = copy(tiny, [model], kind(client(registry), at(registry, "/ns")))
    place = Reference(registry.server, "ns").at(model.name)
    source = RegistrySource(client(registry), place)
    assert [one.name for one in source.models()] == [receipt.name] == [Name.parse(name)]


def test_a_name_that_tells_itself_leaves_nothing_behind(registry: DockerRegistry, tiny: MemoryStore) -> None:
    model = dataclasses.replace(tiny.models()[0], name=Name.parse(f"{registry.server}/ns/tiny:x"))
    copy(tiny, [model], RegistryTarget(client(registry), at(registry, "/ns")))
    assert client(registry).tags("ns/tiny") == ("x",)


def test_one_manifest_under_two_tags_has_two_names(registry: DockerRegistry, tiny: MemoryStore) -> None:
    names = ["a/tiny:One", "b/tiny:Two", "hf.co/c/tiny:Three"]
    models = [dataclasses.replace(tiny.models()[0], name=Name.parse(name)) for name in names]
    for _ in range(2):
        copy(tiny, models, RegistryTarget(client(registry), at(registry, "/ns")))
    for name, tag in zip(names, ("One", "Two", "Three"), strict=True):
        assert [str(one.name) for one in pulled(registry, f"/ns/tiny:{tag}").models()] == [name]
    index = json.loads(client(registry).manifest("ns/tiny", tiny.models()[0].document.id.file_name).raw)
    assert [one["artifactType"] for one in index["manifests"]] == [NAME_TYPE] * 3


def test_two_names_for_one_place(registry: DockerRegistry, tiny: MemoryStore) -> None:
    one = tiny.models()[0]
    for names, rest in ((["a/tiny", "b/tiny"], "/ns"), (["x", "X"], ""), (["a", "b"], "/ns/one:tag")):
        models = [dataclasses.replace(one, name=Name.parse(name)) for name in names]
        with pytest.raises(Refused, match="both become"):
            copy(tiny, models, RegistryTarget(client(registry), at(registry, rest)))
    assert not registry.path.exists()


def test_a_name_that_no_registry_takes_leaves_the_others_be(
    registry: DockerRegistry, tiny: MemoryStore
) -> None:
    models = [tiny.models()[0], dataclasses.replace(tiny.models()[0], name=Name.parse("a..b"))]
    with pytest.raises(Partly) as caught:
        copy(tiny, models, RegistryTarget(client(registry), at(registry)))
    assert [receipt.name for receipt in caught.value.done] == [models[0].name]  # type: ignore[attr-defined]


def test_a_tag_that_is_taken(registry: DockerRegistry, tiny: MemoryStore) -> None:
    copy(tiny, tiny.models(), RegistryTarget(client(registry), at(registry, "/ns/it:Tag")))
    store = MemoryStore()
    store.image("other", *TINY, (SYSTEM, b"Another."))
    for kind in (RegistryTarget, ArtifactTarget):
        with pytest.raises(Taken, match="another model"):
            copy(store, store.models(), kind(client(registry), at(registry, "/ns/it:tag")))
    copy(store, store.models(), RegistryTarget(client(registry), at(registry, "/ns/it:tag"), replace=True))
    assert list(bits(pulled(registry, "/ns/it:Tag")).values()) == list(bits(store).values())
    assert "tag" not in client(registry).tags("ns/it")


def test_blobs_go_from_repository_to_repository_unmoved(registry: DockerRegistry, tiny: MemoryStore) -> None:
    copy(tiny, tiny.models(), RegistryTarget(client(registry), at(registry, "/a")))
    other = RegistryTarget(client(registry), at(registry))
    twins = [tiny.models()[0], dataclasses.replace(tiny.models()[0], name=Name.parse("b/twin"))]
    receipts = copy(tiny, [dataclasses.replace(twins[0], name=Name.parse("a/tiny")), twins[1]], other)
    assert [one.bytes_sent for one in receipts] == [0, 0]
    assert bits(pulled(registry, "/b/twin"))
    assert client(registry).mount("c/more", tiny.models()[0].blobs[0].digest or Digest.of(b""), "b/twin")
    assert not client(registry).mount("c/more", Digest.of(b"nobody's"), "b/twin")
    assert not list(registry.path.rglob("_uploads/*/data"))


# --- names, where referrers are known, and where nothing but images is taken


def with_referrers(fake: FakeRegistry) -> None:
    known: list[dict[str, Any]] = []

    def put(at: Any) -> bool:
        body = at.rfile.read(int(at.headers["Content-Length"]))
        value = json.loads(body)
        if "subject" not in value:
            fake.manifests[at.path.removeprefix("/v2/").replace("/manifests", "")] = (body, MANIFEST)
            return say(at, 201)
        kept = {key: value[key] for key in ("artifactType", "annotations")}
        known.append({"mediaType": OCI_MANIFEST, "digest": str(Digest.of(body)), "size": len(body), **kept})
        return say(at, 201, **{"OCI-Subject": value["subject"]["digest"]})

    fake.fault("PUT", "/manifests/", put)
    fake.fault("GET", "/referrers/", lambda at: say(at, 200, json.dumps({"manifests": known}).encode()))


def test_a_name_where_referrers_are_known(tiny: MemoryStore) -> None:
    fake = FakeRegistry()
    with fake.running():
        with_referrers(fake)
        copy(tiny, tiny.models(), RegistryTarget(client(fake), at(fake, "/ns")))
        assert [str(one.name) for one in pulled(fake, "/ns/tiny").models()] == ["tiny:latest"]
        assert list(fake.manifests) == ["ns/tiny/latest"]


def test_a_registry_that_keeps_no_names(tiny: MemoryStore) -> None:
    fake = FakeRegistry()

    def only_images(at: Any) -> bool:
        if at.headers["Content-Type"] == MANIFEST:
            return False
        at.rfile.read(int(at.headers["Content-Length"]))
        return say(at, 400)

    with fake.running():
        fake.fault("PUT", "/manifests/", only_images)
        (receipt,) = copy(tiny, tiny.models(), RegistryTarget(client(fake), at(fake, "/ns")))
        assert str(receipt.name) == f"{fake.server}/ns/tiny:latest"
        assert "does not keep the exact name" in receipt.note


@pytest.mark.parametrize(
    "notes", [b"", b"[]", b'{"manifests":5}', b'{"manifests":[{"artifactType":"%s"}]}' % NAME_TYPE.encode(),
              b'{"manifests":[{"artifactType":"%s","annotations":{"dev.ollama-modelpack.tag":"t",'
              b'"org.opencontainers.image.ref.name":"../../x"}}]}' % NAME_TYPE.encode()]
)  # fmt: skip
def test_names_of_nonsense_are_left_alone(notes: bytes) -> None:
    fake = FakeRegistry()
    fake.add_image("ns/m/t", *TINY)
    with fake.running():
        fake.fault("GET", "/referrers/", lambda at: say(at, 200, notes))
        assert [str(one.name) for one in pulled(fake, "/ns/m:t").models()] == [f"{fake.server}/ns/m:t"]


# --- credentials


def test_push_and_pull_with_a_password(locked: DockerRegistry, tiny: MemoryStore) -> None:
    known = client(locked, LOGIN + "\n")
    copy(tiny, tiny.models(), RegistryTarget(known, at(locked, "/ns")))
    assert bits(RegistrySource(known, at(locked, "/ns/tiny"))) == bits(tiny)
    known.ping()
    for given in ("", "somebody:wrong secret", "a-token"):
        with pytest.raises(Refused) as caught:
            client(locked, given).ping()
        assert caught.value.status == 401
        assert "Log in" in caught.value.advice
        assert "secret" not in str(caught.value)


@needs_skopeo
def test_a_login_of_skopeos(locked: DockerRegistry, tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    skopeo("login", "--tls-verify=false", f"--authfile={file}", "-u", USER, "-p", PASSWORD, locked.server)
    found = Credentials(environ={"REGISTRY_AUTH_FILE": str(file)})
    Registry(locked.server, plain_http=True, credentials=found).ping()


def config(tmp_path: Path, value: object, **environ: str) -> Credentials:
    (tmp_path / "config.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return Credentials(environ={"DOCKER_CONFIG": str(tmp_path), **environ})


AUTH = "bWU6cGE6c3M="  # me:pa:ss


@pytest.mark.parametrize(
    "key", ["reg:5000", "https://reg:5000", "http://reg:5000/", "reg:5000/v2/", "REG:5000/v1"]
)
def test_a_host_in_dockers_file(tmp_path: Path, key: str) -> None:
    found = config(tmp_path, {"auths": {"else": {"auth": "x"}, key: {"auth": AUTH}}})
    assert found.for_host("reg:5000") == Credential("me", "pa:ss")
    assert found.for_host("reg") is None


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
)
def test_docker_hub_has_many_names(tmp_path: Path, key: str) -> None:
    found = config(tmp_path, {"auths": {key: {"auth": AUTH}}})
    assert found.for_host("registry-1.docker.io") == Credential("me", "pa:ss")


def test_other_kinds_of_entries(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        {"auths": {"a": {"username": "u", "password": "p"}, "b": {"auth": AUTH, "identitytoken": "i"},
                   "c": {"registrytoken": "r"}, "d": {}, "e": {"auth": ""}}},
    )  # fmt: skip
    assert found.for_host("a") == Credential("u", "p")
    assert found.for_host("b") == Credential("me", identity="i")
    assert found.for_host("c") == Credential(token="r")
    assert found.for_host("d") is found.for_host("e") is None


@pytest.mark.parametrize(
    "value",
    ["", "{", "[]", '{"auths": {"reg": {"auth": "!!secret"}}}', '{"auths":{"reg":{"auth":"c2VjcmV0"}}}'],
)
def test_a_damaged_file_is_said_and_not_shown(tmp_path: Path, value: str) -> None:
    with pytest.raises(Corrupt) as caught:
        config(tmp_path, value).for_host("reg")
    assert "secret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_does_not_matter_is_not_read(tmp_path: Path, registry: DockerRegistry) -> None:
    Registry(registry.server, plain_http=True, credentials=config(tmp_path, "{")).ping()


def test_which_comes_first(tmp_path: Path) -> None:
    value = {"auths": {"reg": {"auth": AUTH}}}
    assert config(tmp_path, value, MODELPACK_REGISTRY_AUTH="you:x").for_host("reg") == Credential("you", "x")
    assert Credentials(Credential("given"), {"MODELPACK_REGISTRY_AUTH": "x:y"}).for_host("reg") == Credential(
        "given"
    )
    assert Credentials(environ={"HOME": str(tmp_path)}).for_host("reg") is None
    assert Credentials(environ={"MODELPACK_REGISTRY_REALMS": "A.example, b"}).realms() == {"a.example", "b"}


@pytest.mark.parametrize("text", ["", "\n", "two words", "a\nb:c", "tok\x00en", "é", "x" * 100_000])
def test_no_credentials(text: str) -> None:
    with pytest.raises(Usage) as caught:
        Credential.given(text)
    assert len(str(caught.value)) < 300


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker-credential-test; write what it does into it."""
    path = tmp_path / "docker-credential-test"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path.touch()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_helper_is_asked(helper: Path, tmp_path: Path) -> None:
    helper.write_text(
        '#!/bin/sh\nread host\n[ "$1" = get ] || exit 9\n'
        '[ "$host" = reg ] && echo \'{"Username":"me","Secret":"s"}\' && exit\n'
        '[ "$host" = tok ] && echo \'{"Username":"<token>","Secret":"s"}\' && exit\n'
        'echo "credentials not found in native keychain"\nexit 1\n'
    )
    found = config(tmp_path, {"credsStore": "test", "auths": {"reg": {}, "file": {"auth": AUTH}}})
    assert found.for_host("reg") == Credential("me", "s")
    assert found.for_host("tok") == Credential(identity="s")
    assert found.for_host("nobody") is None
    assert found.for_host("file") == Credential("me", "pa:ss")
    assert config(tmp_path, {"credHelpers": {"reg": "test"}}).for_host("reg") == Credential("me", "s")


@pytest.mark.parametrize(
    "does", ["exit 3", "echo secret; exit 1", "echo '{}'", "echo '[]'",
             "echo '{\"Username\":1,\"Secret\":2}'", "yes secret", "sleep 30"]
)  # fmt: skip
def test_a_helper_that_fails(
    helper: Path, tmp_path: Path, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "_PATIENCE", 0.3)
    helper.write_text(
        f"#!/bin/sh\nexec 2>/dev/null\n{'exec ' if does.startswith(('yes', 'sleep')) else ''}{does}\n"
    )
    began = time.monotonic()
    with pytest.raises(Local) as caught:
        config(tmp_path, {"credsStore": "test"}).for_host("reg")
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["../../bin/sh", "nowhere-to-be-found", "a b", "x\x00y"])
def test_a_helper_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelpackError):
        config(tmp_path, {"credsStore": name}).for_host("reg")
