"""Every state of a signature, and what each of them looks like to whoever loads."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import TINY, MemoryStore, bits
from hypothesis import given
from hypothesis import strategies as st
from signing import (
    folder_of,
    keygen,
    needs_keygen,
    new_key,
    public,
    set_of,
    signers_file,
    tar_of,
)

from modelpack.cli.trust_options import trust_options
from modelpack.documents import contents as documents_contents
from modelpack.documents.policy import Policy
from modelpack.documents.sshsig import Signature
from modelpack.errors import Corrupt, ModelpackError, NotFound, Unchecked, Unexpected, Untrusted, Usage
from modelpack.hands import apart, sshsig
from modelpack.hands.bytes import FileReader, read_at
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.pipe import PipeSource
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.sign import sign
from modelpack.verbs.trust import GOOD, NOT_CHECKED, UNSIGNED, Signed, Trust, check, read_policy
from modelpack.words.digest import Digest

pytestmark = needs_keygen
ALICE = "alice@example.com"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of alice, bob and an authority."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob", "ca"):
        new_key(folder / name)
    return folder


@pytest.fixture
def tar(tmp_path: Path, tiny: MemoryStore, keys: Path) -> Archive:
    """A bundle that alice signed, in a folder of its own."""
    (tmp_path / "in").mkdir()
    store = tar_of(tmp_path / "in" / "b.tar", tiny)
    sign(store, keys / "alice")
    return store


def who(tmp_path: Path, keys: Path, *lines: str) -> Trust:
    """Trust in the signers of *lines*, where `{alice}` stands for her key."""
    known = {name: public(keys / name) for name in ("alice", "bob", "ca")}
    return Trust(signers_file(tmp_path / "signers", *(line.format(**known) for line in lines)))


def asked(store: Archive | FolderBundle | VolumeSet | PipeSource | ModelsDir, trust: Trust) -> Signed:
    return check(store, trust, "a test")


# --- good


def test_good(tar: Archive, tmp_path: Path, keys: Path) -> None:
    found = asked(tar, who(tmp_path, keys, f"{ALICE} {{alice}}"))
    assert (found.state, found.who, found.fingerprint) == (GOOD, (ALICE,), tar.fingerprint)
    assert found.key.startswith("ED25519 SHA256:")
    assert found.shown() == (f"signature: good, by {ALICE}", f"  {found.key}")
    assert Signature.parse(Path(f"{tar.path}.sig").read_bytes(), "").shown.endswith(found.key.split()[1])
    found.hold(tar)


@pytest.mark.parametrize(
    "lines",
    [
        ["*@example.com {alice}"],
        ["bob {bob}", "somebody,alice {alice}"],
        ['alice namespaces="modelpack-*" {alice}'],
        ["alice {alice} a comment"],
        ['"alice in the lab" {alice}'],
        ["not a line at all", "alice {alice}"],
        ['old valid-before="20200101" {alice}', "alice {alice}"],  # find-principals stops at the first
        ['other namespaces="git" {alice}', "alice {alice}"],
        ["élise {alice}"],
        ["alice@example.com,!bob {alice}"],
    ],
)
def test_lines_that_let_her_sign(tar: Archive, tmp_path: Path, keys: Path, lines: list[str]) -> None:
    assert asked(tar, who(tmp_path, keys, *lines)).state == GOOD


def test_nothing_is_parsed_before(
    tar: Archive, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even to ask what kind of store it is."""

    def never(*_: object) -> None:
        raise AssertionError("JSON was parsed")

    monkeypatch.setattr(documents_contents, "parse_object", never)
    assert asked(Archive(tar.path), who(tmp_path, keys, "alice {alice}")).state == GOOD
    with FileReader.at(tar.path) as reader:
        trust = who(tmp_path, keys, "alice {alice}")
        asked(PipeSource(reader), Trust(trust.signers, Path(f"{tar.path}.sig")))


def test_a_folder(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    store = folder_of(tmp_path / "b", tiny)
    sign(store, keys / "alice")
    found = asked(FolderBundle(store.path), who(tmp_path, keys, "alice {alice}"))
    assert (found.state, found.fingerprint) == (GOOD, store.fingerprint)


def test_a_pipe_goes_on_where_it_was_checked(tar: Archive, tmp_path: Path, keys: Path) -> None:
    trust = who(tmp_path, keys, "alice {alice}")
    with FileReader.at(tar.path) as reader:
        store = PipeSource(reader)
        found = asked(store, Trust(trust.signers, Path(f"{tar.path}.sig")))
        found.hold(store)
        assert bits(store) == bits(tar)
    with FileReader.at(tar.path) as reader, pytest.raises(Untrusted, match="unsigned"):
        asked(PipeSource(reader), trust)


def test_a_set(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    store = set_of(tmp_path / "b", tiny)
    sign(store, keys / "alice")
    found = asked(VolumeSet([store.path]), who(tmp_path, keys, "alice {alice}"))
    assert (found.state, found.fingerprint) == (GOOD, store.fingerprint)
    assert found.set_id == store.descriptor.id
    (store.path / "tiny.tar.001").unlink()
    found.hold(VolumeSet([store.path]))
    other = MemoryStore()
    other.image("other", *TINY)
    with pytest.raises(Unexpected, match="changed meanwhile"):
        found.hold(set_of(tmp_path / "c", other))


def test_a_set_whose_papers_are_damaged_on_one_medium(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    first, second = set_of(tmp_path / "b", tiny), set_of(tmp_path / "c", tiny)
    for store in (first, second):
        sign(store, keys / "alice")
    flip(first.path / "tiny.sha256.sig", 100)
    flip(first.path / "tiny.volumes.json", 100)
    both = VolumeSet([first.path, second.path])
    assert asked(both, who(tmp_path, keys, "alice {alice}")).state == GOOD
    flip(second.path / "tiny.sha256", 3)
    flip(first.path / "tiny.sha256", 5)
    with pytest.raises(Corrupt, match="BAD"):
        asked(both, who(tmp_path, keys, "alice {alice}"))


# --- the other states


def test_unsigned(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    for store in (
        tar_of(tmp_path / "b.tar", tiny),
        folder_of(tmp_path / "b", tiny),
        set_of(tmp_path / "s", tiny),
    ):
        assert asked(store, Trust()).state == UNSIGNED
        with pytest.raises(Untrusted, match=r"unsigned: there is no \S+\.sig"):
            asked(store, who(keys, keys, "alice {alice}"))
        with pytest.raises(Usage, match="nobody says whose"):
            asked(store, Trust(required=True))
    with pytest.raises(Untrusted, match="neither a bundle nor a set"):
        asked(ModelsDir(tmp_path / "models"), who(tmp_path, keys, "alice {alice}"))


def test_a_key_inside_is_shown_and_never_trusted(tar: Archive, tmp_path: Path, keys: Path) -> None:
    found = asked(tar, Trust())
    assert (found.state, found.fingerprint) == (NOT_CHECKED, None)
    assert "not checked" in found.shown()[0]
    assert "ssh-ed25519 SHA256:" in found.shown()[1]
    Path(f"{tar.path}.sig").write_bytes(b"no signature")
    assert "none that can be read" in asked(tar, Trust()).shown()[1]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("unknown signer: the signers have no line", ["bob {bob}"]),
        ("unknown signer: the signers have no line", ["alice cert-authority {ca}"]),
        ("unknown signer: the signers' line", ['alice namespaces="git" {alice}']),
        ("unknown signer: the signers' line", ['alice namespaces="modelpack-set" {alice}']),
        ("unknown signer: the signers' line", ["alice cert-authority {alice}"]),
        ("unknown signer: the signers' line", ["!alice {alice}"]),
        ("expired: .* this machine's clock", ['alice valid-before="20200101" {alice}']),
        ("not yet valid: .* this machine's clock", ['alice valid-after="20990101" {alice}']),
    ],
)
def test_untrusted(tar: Archive, tmp_path: Path, keys: Path, words: str, lines: list[str]) -> None:
    with pytest.raises(Untrusted, match=words):
        asked(tar, who(tmp_path, keys, *lines))


def test_a_line_that_nobody_understands_could_not_be_checked(
    tar: Archive, tmp_path: Path, keys: Path
) -> None:
    with pytest.raises(Unchecked, match="does not understand the signers' line"):
        asked(tar, who(tmp_path, keys, "alice option-of-the-future {alice}"))


def test_signed_for_another_purpose(tar: Archive, tmp_path: Path, keys: Path) -> None:
    sums = tar.read("SHA256SUMS", 1 << 20)
    for namespace in ("file", "modelpack-set"):
        raw = sshsig.keygen().sign(sums, keys / "alice", namespace)
        Path(f"{tar.path}.sig").write_bytes(raw)
        with pytest.raises(Untrusted, match="signed for another purpose"):
            asked(tar, who(tmp_path, keys, "alice {alice}"))


def certified(keys: Path, tmp_path: Path, *args: object) -> Path:
    """A certificate by the authority for alice's key; *args* are of `ssh-keygen -s`."""
    key = tmp_path / "certified"
    for end in ("", ".pub"):
        Path(f"{key}{end}").write_bytes(Path(f"{keys / 'alice'}{end}").read_bytes())
    key.chmod(0o600)
    keygen("-s", keys / "ca", "-I", "alice-1", "-z", 7, *args, f"{key}.pub")
    return Path(f"{key}-cert.pub")


def test_certificates(tar: Archive, tmp_path: Path, keys: Path) -> None:
    place = Path(f"{tar.path}.sig")
    place.unlink()
    sign(tar, certified(keys, tmp_path, "-n", ALICE))
    assert asked(tar, who(tmp_path, keys, "*@example.com cert-authority {ca}")).who == (ALICE,)
    for line in ("*@example.org cert-authority {ca}", "* cert-authority {bob}", "* {alice}", "* {ca}"):
        with pytest.raises(Untrusted, match="unknown signer"):
            asked(tar, who(tmp_path, keys, line))
    place.unlink()
    sign(tar, certified(keys, tmp_path, "-n", ALICE, "-V", "20200101:20200201"))
    with pytest.raises(Untrusted, match="expired"):
        asked(tar, who(tmp_path, keys, "*@example.com cert-authority {ca}"))


def revoking(path: Path, keys: Path, *names: str) -> Path:
    """A list of revoked keys, as `ssh-keygen -k` makes it."""
    keygen("-k", "-f", path, *(f"{keys / name}.pub" for name in names))
    return path


def under(tmp_path: Path, keys: Path, revoked: Path, *lines: str) -> Trust:
    trust = who(tmp_path, keys, *(lines or ("alice {alice}",)))
    return Trust(policy=Policy(("policy",), True, (str(trust.signers),), (str(revoked),)))


def test_revoked(tar: Archive, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy").touch()
    monkeypatch.chdir(tmp_path)
    assert asked(tar, under(tmp_path, keys, revoking(tmp_path / "r1", keys, "bob"))).state == GOOD
    plain = tmp_path / "r2"
    plain.write_text(f"# revoked\n{public(keys / 'alice')}\n")
    for one in (revoking(tmp_path / "r3", keys, "bob", "alice"), plain):
        with pytest.raises(Untrusted, match="revoked: the key"):
            asked(tar, under(tmp_path, keys, one))


def test_revoked_certificates(
    tar: Archive, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy").touch()
    monkeypatch.chdir(tmp_path)
    Path(f"{tar.path}.sig").unlink()
    sign(tar, certified(keys, tmp_path, "-n", ALICE))
    line = "*@example.com cert-authority {ca}"
    for number, good in ((6, True), (7, False)):
        (tmp_path / "spec").write_text(f"serial: {number}\n")
        keygen("-k", "-f", tmp_path / f"r{number}", "-s", keys / "ca.pub", tmp_path / "spec")
        if good:
            assert asked(tar, under(tmp_path, keys, tmp_path / f"r{number}", line)).state == GOOD
            continue
        with pytest.raises(Untrusted, match="revoked: the key"):
            asked(tar, under(tmp_path, keys, tmp_path / f"r{number}", line))
    with pytest.raises(Untrusted, match="revoked: the key"):
        asked(tar, under(tmp_path, keys, revoking(tmp_path / "rca", keys, "ca"), line))


def test_a_list_of_revoked_keys_that_cannot_be_read(
    tar: Archive, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither good, nor revoked."""
    (tmp_path / "policy").touch()
    monkeypatch.chdir(tmp_path)
    cut = revoking(tmp_path / "cut", keys, "bob")
    cut.write_bytes(cut.read_bytes()[:-5])
    (tmp_path / "empty").touch()
    (tmp_path / "words").write_text("nothing of the kind\n")
    for name in ("cut", "empty", "words", "missing"):
        with pytest.raises(Unchecked):
            asked(tar, under(tmp_path, keys, tmp_path / name))


# --- BAD


def flip(path: Path, at: int, bit: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= bit
    path.write_bytes(raw)


def test_over_other_bytes(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    other = MemoryStore()
    other.image("other", *TINY)
    one, two = tar_of(tmp_path / "one.tar", tiny), tar_of(tmp_path / "two.tar", other)
    sign(one, keys / "alice")
    Path(f"{one.path}.sig").rename(f"{two.path}.sig")
    with pytest.raises(Corrupt, match="BAD signature: it is over other bytes"):
        asked(two, who(keys, keys, "alice {alice}"))


def test_every_byte_of_a_signature_flipped(tar: Archive, tmp_path: Path, keys: Path) -> None:
    """It is refused; or it is good, for the very same model."""
    place, trust = Path(f"{tar.path}.sig"), who(tmp_path, keys, "alice {alice}")
    raw, good = place.read_bytes(), []
    for at in range(len(raw)):
        place.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            found = asked(tar, trust)
        except (Corrupt, Untrusted, Unchecked):  # the latter where the kind of key might be a newer one
            continue
        assert (found.state, found.fingerprint) == (GOOD, tar.fingerprint)
        good.append(raw[at : at + 1])
    assert set(good) <= {b"\n"}
    for cut in (0, 1, 40, len(raw) // 2, len(raw) - 20):
        place.write_bytes(raw[:cut])
        with pytest.raises(Corrupt, match="BAD"):
            asked(tar, trust)
    place.write_bytes(raw.replace(b"\n", b"\r\n"))  # a copy as text
    assert asked(tar, trust).state == GOOD
    place.write_bytes(b" " * 70_000)
    with pytest.raises(Corrupt):
        asked(tar, trust)


def test_every_byte_of_what_is_signed_flipped(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    store = folder_of(tmp_path / "b", tiny)
    sign(store, keys / "alice")
    trust = who(tmp_path, keys, "alice {alice}")
    for name in ("SHA256SUMS", "index.json"):
        raw = (store.path / name).read_bytes()
        for at in range(0, len(raw), 17):
            flip(store.path / name, at)
            with pytest.raises(Corrupt):
                asked(FolderBundle(store.path), trust)
            (store.path / name).write_bytes(raw)
    assert asked(store, trust).state == GOOD


def test_sums_that_went_missing(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    store = folder_of(tmp_path / "b", tiny)
    sign(store, keys / "alice")
    (store.path / "SHA256SUMS").unlink()
    of_volumes = set_of(tmp_path / "s", tiny)
    sign(of_volumes, keys / "alice")
    (of_volumes.path / "tiny.sha256").unlink()
    for again in (FolderBundle(store.path), VolumeSet([of_volumes.path])):
        with pytest.raises(Unchecked, match="is missing"):
            asked(again, who(tmp_path, keys, "alice {alice}"))
        found = asked(again, Trust())
        assert (found.state, found.shown()) == (
            NOT_CHECKED, ("signature: none that can be checked: what it was made for is missing",)
        )  # fmt: skip


def test_signers_where_links_lead_and_beside(
    medium: Path, tar: Archive, tmp_path: Path, tiny: MemoryStore, keys: Path
) -> None:
    """A link to the tar, its own directory, and that of a signature that is named: all are the medium's."""
    (medium / "in").mkdir()
    far = tar_of(medium / "in" / "b.tar", tiny)
    sign(far, keys / "alice")
    near = tmp_path / "link.tar"
    near.symlink_to(far.path)
    (tmp_path / "link.tar.sig").write_bytes(far.signature.read_bytes())
    lying = who(medium, keys, "alice {alice}").signers
    with pytest.raises(Untrusted, match="same medium"):
        asked(Archive(near), Trust(lying))
    beside = who(tar.path.parent, keys, "alice {alice}").signers
    with pytest.raises(Untrusted, match="same directory"):
        asked(tar, Trust(beside))
    with FileReader.at(tar.path) as reader, pytest.raises(Untrusted, match="same directory"):
        asked(PipeSource(reader), Trust(beside, tar.signature))
    with FileReader.at(tar.path) as reader, pytest.raises(Untrusted, match="same medium"):
        asked(PipeSource(reader), Trust(lying, far.signature))


def test_the_directory_behind_a_link_is_looked_at(tar: Archive, tmp_path: Path, keys: Path) -> None:
    (tmp_path / "open").mkdir()
    lying = who(tmp_path / "open", keys, "alice {alice}").signers
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "signers").symlink_to(lying or "")
    with pytest.raises(Untrusted, match="everybody may change"):
        asked(tar, Trust(tmp_path / "signers"))


def test_the_current_directory_is_not_this_machines_own(
    medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what $TMPDIR names, or Python falls back to where it can write nowhere else."""
    monkeypatch.setattr(tempfile, "tempdir", str(medium))
    assert os.stat(medium).st_dev not in apart.own_devices()


def test_signers_that_change_while_they_are_read(tar: Archive, tmp_path: Path, keys: Path) -> None:
    trust = who(tmp_path, keys, "alice {alice}")
    read = read_at

    def swapped(fd: int, count: int, offset: int, where: Path) -> bytes:
        raw = read(fd, count, offset, where)
        (tmp_path / "other").write_bytes(raw)
        (tmp_path / "other").rename(where)
        return raw

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "read_at", swapped)
        with pytest.raises(Unchecked, match="changes while it is read"):
            asked(tar, trust)
    assert asked(tar, trust).state == GOOD


def test_what_changes_after_the_check(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    store = folder_of(tmp_path / "b", tiny)
    sign(store, keys / "alice")
    found = asked(store, who(tmp_path, keys, "alice {alice}"))
    (store.path / "SHA256SUMS.sig").unlink()
    more = MemoryStore()
    more.image("more", *TINY)
    folder_of(store.path, more)
    with pytest.raises(Unexpected, match="changed meanwhile"):
        found.hold(FolderBundle(store.path))


# --- could not check


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Put a script of the name ssh-keygen where the system's would be; nothing where it is empty."""
    places = (tmp_path / "bin",)
    places[0].mkdir()
    monkeypatch.setattr(sshsig, "_PLACES", places)
    sshsig.keygen.cache_clear()

    def put(script: str) -> None:
        (places[0] / "ssh-keygen").write_text(f"#!/bin/sh\n{script}\n")
        (places[0] / "ssh-keygen").chmod(0o755)

    yield put
    sshsig.keygen.cache_clear()


REAL = "/usr/bin/ssh-keygen"


@pytest.mark.parametrize(
    "script",
    [
        "",
        "exit 0",
        'echo "unknown option -- Y" >&2; exit 1',
        'case "$*" in *find-principals*) echo "Unsupported operation for -Y" >&2; exit 255;; esac; '
        f'exec {REAL} "$@"',
        "echo 'Good \"modelpack-bundle\" signature for alice with ED25519 key SHA256:AAAA'",
        "echo 'Good \"modelpack-probe\" signature for probe with ED25519 key SHA256:AAAA'; echo probe",
        "exit 255",
        "kill -9 $$",
        "yes | head -c 200000",
    ],
)
def test_a_tool_that_is_missing_old_or_lies(
    tar: Archive, tmp_path: Path, keys: Path, tools: Callable[[str], None], script: str
) -> None:
    if script:
        tools(script)
    with pytest.raises(Unchecked, match="could not check") as caught:
        asked(tar, who(tmp_path, keys, "alice {alice}"))
    assert "--expect" in caught.value.advice
    with pytest.raises(Unchecked):
        sign(Archive(tar.path), keys / "alice")


def test_a_tool_that_hangs(
    tar: Archive, tmp_path: Path, keys: Path, tools: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools("exec sleep 60")
    monkeypatch.setattr(sshsig, "_PATIENCE", 0.2)
    with pytest.raises(Unchecked):
        asked(tar, who(tmp_path, keys, "alice {alice}"))


def test_a_tool_that_breaks_after_the_probe(
    tar: Archive, tmp_path: Path, keys: Path, tools: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools(f'exec {REAL} "$@"')
    trust = who(tmp_path, keys, "alice {alice}")
    assert asked(tar, trust).state == GOOD
    for script in ("exit 0", "exit 255", "exec sleep 60"):
        tools(script)
        monkeypatch.setattr(sshsig, "_PATIENCE", 0.2)
        with pytest.raises((Unchecked, Corrupt)):
            asked(tar, trust)
    (tmp_path / "bin" / "ssh-keygen").unlink()
    with pytest.raises(Unchecked):
        asked(tar, trust)


def test_no_tool_of_the_path_or_the_directory_is_run(
    tar: Archive, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tar.path.parent / "ssh-keygen"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tar.path.parent)
    monkeypatch.setenv("PATH", f".{os.pathsep}{tar.path.parent}{os.pathsep}{os.environ['PATH']}")
    assert asked(tar, who(tmp_path, keys, "alice {alice}")).state == GOOD
    assert not (tmp_path / "ran").exists()


# --- who says whom to trust


def test_signers_that_cannot_be_read(tar: Archive, tmp_path: Path, keys: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "comments").write_text("# nobody yet\n\n")
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    (tmp_path / "fifo").mkdir()
    for name in ("missing", "empty", "comments", "large", "fifo"):
        with pytest.raises(Unchecked, match="the signers file"):
            asked(tar, Trust(tmp_path / name))


def test_signers_that_everybody_may_change(tar: Archive, tmp_path: Path, keys: Path) -> None:
    trust = who(tmp_path, keys, "alice {alice}")
    assert trust.signers is not None
    trust.signers.chmod(0o646)
    with pytest.raises(Untrusted, match="everybody may change"):
        asked(tar, trust)
    trust.signers.chmod(0o664)
    assert asked(tar, trust).state == GOOD
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    lying = trust.signers.rename(tmp_path / "open" / "signers")
    with pytest.raises(Untrusted, match="everybody may change"):
        asked(tar, Trust(lying))
    lying.parent.chmod(0o755 | stat.S_ISVTX)
    assert asked(tar, Trust(lying)).state == GOOD


def test_signers_inside_the_bundle(tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    for store in (folder_of(tmp_path / "b", tiny), set_of(tmp_path / "s", tiny)):
        sign(store, keys / "alice")
        inside = who(store.path, keys, "alice {alice}").signers
        assert inside is not None
        link = tmp_path / f"link-{store.path.name}"
        link.symlink_to(inside)
        for one in (inside, link):
            with pytest.raises(Untrusted, match="inside what it should vouch for"):
                asked(store, Trust(one))
        (tmp_path / "around").mkdir(exist_ok=True)
        bundle = tmp_path / "around" / store.path.name
        bundle.symlink_to(store.path)
        again = FolderBundle(bundle) if isinstance(store, FolderBundle) else VolumeSet([bundle])
        with pytest.raises(Untrusted, match="inside what it should vouch for"):
            asked(again, Trust(inside))


@pytest.fixture
def medium() -> Iterator[Path]:
    """A directory on another file system than the machine's own."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev in apart.own_devices():
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="modelpack-tests-") as made:
        yield Path(made)


def test_signers_on_the_medium(medium: Path, tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    for name in ("in", "elsewhere"):
        (medium / name).mkdir()
    stores = [
        tar_of(medium / "in" / "b.tar", tiny), folder_of(medium / "b", tiny), set_of(medium / "s", tiny)
    ]  # fmt: skip
    lying = who(medium / "elsewhere", keys, "alice {alice}")
    own = who(tmp_path, keys, "alice {alice}")
    (tmp_path / "link").symlink_to(lying.signers or "")
    for store in stores:
        sign(store, keys / "alice")
        assert asked(store, own).state == GOOD
        for trust in (lying, Trust(tmp_path / "link")):
            with pytest.raises(Untrusted, match="same medium"):
                asked(store, trust)


# --- policies


def policy(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy(tar: Archive, tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    (tmp_path / "etc").mkdir()
    who(tmp_path / "etc", keys, "alice {alice}")
    found = read_policy(
        policy(tmp_path / "etc" / "p.toml", 'require_signature = true\nsigners = "signers"\n')
    )
    assert asked(tar, Trust(policy=found)).state == GOOD
    with pytest.raises(Untrusted, match="unsigned"):
        asked(tar_of(tmp_path / "u.tar", tiny), Trust(policy=found))
    with pytest.raises(Untrusted, match="unsigned"):
        asked(ModelsDir(tmp_path / "models"), Trust(policy=found))


def test_flags_only_tighten(tar: Archive, tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    (tmp_path / "etc").mkdir()
    who(tmp_path / "etc", keys, "bob {bob}")
    mine = who(tmp_path, keys, "alice {alice}").signers
    strict = read_policy(
        policy(tmp_path / "etc" / "p.toml", 'require_signature = true\nsigners = "signers"\n')
    )
    lax = read_policy(policy(tmp_path / "etc" / "q.toml", 'signers = "signers"\n'))
    with pytest.raises(Untrusted, match="unknown signer"):  # alice is not the policy's
        asked(tar, Trust(signers=mine, policy=strict))
    with pytest.raises(Untrusted, match="unknown signer"):
        asked(tar, Trust(policy=lax))
    with pytest.raises(Untrusted, match="unsigned"):
        asked(tar_of(tmp_path / "u.tar", tiny), Trust(policy=lax.and_also(strict)))
    assert asked(Archive(tmp_path / "u.tar"), Trust(policy=lax)).state == UNSIGNED
    with pytest.raises(Untrusted, match="unsigned"):
        asked(Archive(tmp_path / "u.tar"), Trust(required=True, policy=lax))


def test_fingerprints_of_a_policy(tar: Archive, tmp_path: Path, tiny: MemoryStore, keys: Path) -> None:
    for store in (
        tar_of(tmp_path / "u.tar", tiny),
        folder_of(tmp_path / "u", tiny),
        set_of(tmp_path / "s", tiny),
    ):
        good = Policy(expect=frozenset({store.fingerprint}), files=())
        assert asked(store, Trust(policy=good)).fingerprint == store.fingerprint
        bad = Policy(expect=frozenset({Digest.of(b"")}), files=())
        for one in (bad, good.and_also(bad)):
            with pytest.raises(Unexpected):
                asked(store, Trust(policy=one))
    with pytest.raises(Unexpected):  # signed, and not expected
        asked(tar, Trust(who(tmp_path, keys, "alice {alice}").signers, policy=bad))
    with pytest.raises(Untrusted):
        asked(ModelsDir(tmp_path / "models"), Trust(policy=good))


def test_a_policy_on_the_medium(medium: Path, tiny: MemoryStore) -> None:
    store = tar_of(medium / "b.tar", tiny)
    (medium / "x").mkdir()
    text = f'expect = ["{store.fingerprint}"]\n'
    found = read_policy(policy(medium / "x" / "p.toml", text))
    with pytest.raises(Untrusted, match="the policy file lies on the same medium"):
        asked(store, Trust(policy=found))


@pytest.mark.parametrize(
    "text",
    [
        "signers = ",
        'allow_unsigned = true\nsigners = "s"',
        "require_signature = 1",
        "require_signature = true",
        "require_signature = true\nsigners = []",
        'signers = ""',
        'signers = "a\\u0000b"',
        "expect = []",
        'expect = ["sha256:12"]',
        f'expect = ["blake3:{"0" * 64}"]',
        'expect = "all"',
        'revoked = "r"',
        "[require_signature]",
        "x = " + "[" * 5000,
        "#" * 70_000,
        "signers = 'a'\nsigners = 'b'",
    ],
)
def test_policies_that_are_none(text: str) -> None:
    with pytest.raises(Corrupt):
        Policy.parse(text.encode(), "p.toml")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_a_policy_or_signature(raw: bytes) -> None:
    for parse in (Policy.parse, Signature.parse):
        try:
            parse(raw, "here")
        except Corrupt:
            pass


def test_a_policy_that_is_missing_where_one_is_named(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Trust] = []

    @click.command()
    @trust_options
    def probe(trust: Trust) -> None:
        seen.append(trust)

    def run(*args: object) -> BaseException | None:
        return CliRunner().invoke(probe, [str(one) for one in args]).exception

    assert run() is None
    assert seen.pop() == Trust()
    assert isinstance(run("--policy", tmp_path / "none"), Unchecked)
    monkeypatch.setenv("MODELPACK_POLICY", str(tmp_path / "none"))
    assert isinstance(run(), Unchecked)
    who(tmp_path, keys, "alice {alice}")
    monkeypatch.setenv(
        "MODELPACK_POLICY", str(policy(tmp_path / "p", 'require_signature=true\nsigners="signers"'))
    )
    assert run("--policy", policy(tmp_path / "q", 'signers="signers"')) is None
    both = seen.pop().policy
    assert both is not None
    assert both.require_signature  # the one from the environment is not replaced
    assert both.signers == (str(tmp_path / "signers"),) * 2
    assert run("--require-signature", "--signers", tmp_path / "signers", "--signature", "x.sig") is None
    assert seen.pop() == Trust(tmp_path / "signers", Path("x.sig"), True, read_policy(tmp_path / "p"))
    (tmp_path / "p").chmod(0o666)
    assert isinstance(run(), Untrusted)


def test_a_signature_that_is_named_and_missing(tar: Archive, tmp_path: Path, keys: Path) -> None:
    trust = who(tmp_path, keys, "alice {alice}")
    with pytest.raises(NotFound):
        asked(tar, Trust(trust.signers, tmp_path / "none"))
    with pytest.raises(Usage):
        asked(tar, Trust(signature=Path(f"{tar.path}.sig")))


def test_a_signature_that_is_a_link(tar: Archive, tmp_path: Path, keys: Path) -> None:
    place = Path(f"{tar.path}.sig")
    place.rename(tmp_path / "real.sig")
    place.symlink_to(tmp_path / "real.sig")
    with pytest.raises(ModelpackError):
        asked(tar, who(tmp_path, keys, "alice {alice}"))


def test_ssh_keygen_sees_nothing_of_the_environment(
    tar: Archive, tmp_path: Path, keys: Path, tools: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPACK_REGISTRY_AUTH", "secret")
    tools(f'env >> {tmp_path}/seen; pwd >> {tmp_path}/seen; exec {REAL} "$@"')
    asked(tar, who(tmp_path, keys, "alice {alice}"))
    seen = (tmp_path / "seen").read_text()
    assert "secret" not in seen
    assert str(tmp_path) not in seen.replace(str(tmp_path / "seen"), "")
    left = [line for line in seen.splitlines() if Path(line).name.startswith("modelpack-")]
    assert left
    assert not any(Path(line).exists() for line in left)
