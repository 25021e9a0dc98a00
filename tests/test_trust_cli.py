"""What a stranger's bundle or set may do at the command line, where somebody asks whose it is: nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY, MemoryStore, noise
from signing import folder_of, needs_keygen, new_key, public, set_of, signers_file, tar_of

from modelpack.cli.main import group
from modelpack.documents.volumes import Descriptor, sums_of
from modelpack.errors import ModelpackError
from modelpack.stores.folder import FolderBundle
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.sign import sign
from modelpack.verbs.transfer import copy
from modelpack.words.blob import MODEL
from modelpack.words.digest import Digest

pytestmark = needs_keygen
ALICE = "alice@example.com"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of alice, a file of signers with her alone, and a policy that asks for it."""
    folder = tmp_path_factory.mktemp("keys")
    new_key(folder / "alice")
    signers_file(folder / "signers", f"{ALICE} {public(folder / 'alice')}")
    (folder / "policy.toml").write_text('require_signature = true\nsigners = "signers"\n')
    return folder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for each test: the current directory, in memory where there is such a place."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    monkeypatch.delenv("MODELPACK_POLICY", raising=False)
    with tempfile.TemporaryDirectory(dir=where, prefix="modelpack-trust-") as made:
        monkeypatch.chdir(made)
        yield Path(made)
        monkeypatch.undo()


@pytest.fixture
def evil() -> MemoryStore:
    """Another model of the name that `tiny` has."""
    store = MemoryStore()
    store.image("tiny", (MODEL, TINY[0][1] + noise(1000)), *TINY[1:])
    return store


def run(code: int, *args: object) -> str:
    """Run the command; it leaves by *code*. What it said, an error's words among it."""
    done = CliRunner().invoke(group, [str(one) for one in args])
    error = done.exception
    found = error.exit_code if isinstance(error, ModelpackError) else done.exit_code
    said = f"{done.output}{error if isinstance(error, ModelpackError) else ''}"
    assert found == code, (found, said, error)
    return said


def papers(folder: Path, stem: str) -> Descriptor:
    """The descriptor in *folder*."""
    path = folder / f"{stem}.volumes.json"
    return Descriptor.parse(path.read_bytes(), path)


# --- volumes


def test_a_volume_of_an_unsigned_set_under_the_name_of_a_signed_one(
    here: Path, tiny: MemoryStore, evil: MemoryStore, keys: Path
) -> None:
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    set_of(here / "e", evil, "zz")
    signers = ("--signers", keys / "signers")
    assert "signature: good" in run(0, "verify", "s/st.tar.001", *signers)
    shutil.copy("e/zz.volumes.json", "s")
    shutil.copy("e/zz.tar.001", "s/st.tar.001")
    for trust in (signers, ("--policy", keys / "policy.toml"), ()):
        done = run(4, "verify", "s/st.tar.001", *trust)
        assert "good" not in done.replace("signature: good", ""), done
    run(10, "verify", "s/zz.volumes.json", *signers)
    shutil.copy("e/zz.tar.001", "s")
    run(10, "verify", "s/zz.tar.001", *signers)
    shown = run(0, "verify", "s/zz.tar.001")
    assert str(papers(here / "e", "zz").bundle) in shown
    assert "signature: none" in shown


def test_another_descriptor_of_the_same_name_in_another_folder(
    here: Path, tiny: MemoryStore, evil: MemoryStore, keys: Path
) -> None:
    """The signature is the good set's; whatever is looked at must be, too."""
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    set_of(here / "e", evil, "st")
    for name, files in {"f2": ["st.volumes.json"], "f3": ["st.sha256", "st.sha256.sig"]}.items():
        (here / name).mkdir()
        for one in files:
            shutil.copy(here / "s" / one, here / name)
    also = ("--also", "f2", "--also", "f3", "--signers", keys / "signers")
    assert "need: 1" in run(4, "verify", "e", *also)  # what is signed counts, and nothing of it is there
    done = run(4, "verify", "e/st.tar.001", *also)
    assert "good" not in done.replace("signature: good", "")
    lying = replace(papers(here / "e", "st"), bundle=papers(here / "s", "st").bundle)
    (here / "e" / lying.name).write_bytes(lying.raw())
    (here / "e" / "st.sha256").write_bytes(sums_of(lying, {}))
    assert "need: 1" in run(4, "verify", "e", *also)  # what is signed counts, and nothing of it is there
    done = run(4, "verify", "e/st.tar.001", *also)
    assert "good" not in done.replace("signature: good", "")


def test_a_renamed_volume_is_known_under_a_policy(here: Path, tiny: MemoryStore, keys: Path) -> None:
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    (here / "s" / "st.tar.001").rename(here / "s" / "disc1.bin")
    for trust in (("--signers", keys / "signers"), ("--policy", keys / "policy.toml"), ()):
        run(0, "verify", "s/disc1.bin", *trust)
    said = json.loads(run(0, "verify", "s/disc1.bin", "--signers", keys / "signers", "--json"))
    known = papers(here / "s", "st")
    assert (said["set"], said["fingerprint"], said["signature"]["state"]) == (
        str(known.id), str(known.bundle), "good"
    )  # fmt: skip


@pytest.mark.parametrize("harm", ["none", "damaged"])
def test_without_a_descriptor_that_can_be_read_nothing_is_known(
    here: Path, tiny: MemoryStore, harm: str
) -> None:
    set_of(here / "s", tiny, "st")
    paper = here / "s" / "st.volumes.json"
    raw = paper.read_bytes()
    paper.unlink() if harm == "none" else paper.write_bytes(raw[:-9])
    for what in ("s", "s/st.tar.001"):
        run(11, "verify", what)


def test_a_signature_whose_sums_were_taken_out(here: Path, tiny: MemoryStore, keys: Path) -> None:
    """It vouches for nothing, and stops nobody who does not ask for it."""
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    (here / "s" / "st.sha256").unlink()
    assert "none that can be checked" in run(0, "verify", "s")
    run(0, "load", "s", "--to", "m")
    for command in (("verify", "s"), ("load", "s", "--to", "m")):
        run(11, *command, "--signers", keys / "signers")


def test_a_stray_volume_in_a_bundle_hides_nothing(here: Path, tiny: MemoryStore) -> None:
    store = folder_of(here / "b", tiny)
    (here / "b" / "foo.tar.002").write_bytes(b"x")
    assert "1 model" in run(0, "verify", "b")
    blob = max((store.path / "blobs" / "sha256").iterdir(), key=lambda one: one.stat().st_size)
    blob.chmod(0o644)
    blob.write_bytes(bytes(blob.stat().st_size))
    run(4, "verify", "b")


@pytest.mark.parametrize("name", ["README.txt", "restore.py"])
def test_a_changed_paper_of_a_set_is_refused(here: Path, tiny: MemoryStore, keys: Path, name: str) -> None:
    made = set_of(here / "s", tiny, "st")
    texts = {"README.txt": b"read\n", "restore.py": b"print()\n"}
    known = papers(made.path, "st")
    for one, raw in texts.items():
        (made.path / one).write_bytes(raw)
    sums = sums_of(known, {one: Digest.of(raw) for one, raw in texts.items()})
    (made.path / "st.sha256").write_bytes(sums)
    sign(made, keys / "alice")
    trusts = [(), ("--signers", keys / "signers")]
    for number, trust in enumerate(trusts):
        run(0, "load", "s", "--to", f"good{number}", *trust)
    with (made.path / name).open("ab") as file:
        file.write(b"#\n")
    for trust in trusts:
        run(4, "load", "s", "--to", "m", *trust)
        run(4, "unpack", "s", "out", *trust)
    (made.path / name).unlink()
    for number, trust in enumerate(trusts):
        assert f"{name} is missing" in run(0, "load", "s", "--to", f"m{number}", *trust)


# --- repair, policies, what a fingerprint covers


def test_repair_takes_nothing_that_a_policy_refuses(
    here: Path, tiny: MemoryStore, evil: MemoryStore, keys: Path
) -> None:
    copy(tiny, tiny.models(), ModelsDir(here / "models"))
    (manifest,) = (one for one in (here / "models" / "manifests").rglob("*") if one.is_file())
    raw = manifest.read_bytes()
    manifest.write_bytes(raw[:-20])
    tar_of(here / "evil.tar", evil)
    sign(tar_of(here / "good.tar", tiny), keys / "alice")
    policy = ("--policy", keys / "policy.toml")
    run(10, "repair", "models", "--from", "evil.tar", *policy)
    run(11, "repair", "models", "--from", "good.tar", "--policy", here / "nobody.toml")
    assert manifest.read_bytes() == raw[:-20]
    run(0, "repair", "models", "--from", "good.tar", *policy)
    assert manifest.read_bytes() == raw


def test_gather_takes_nothing_that_a_policy_refuses(
    here: Path, tiny: MemoryStore, evil: MemoryStore, keys: Path
) -> None:
    set_of(here / "e", evil, "st")
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    policy = ("--policy", keys / "policy.toml")
    run(10, "gather", "e", "--into", "set", *policy)
    run(11, "gather", "s", "--into", "set", "--policy", here / "nobody.toml")
    assert not (here / "set").exists()
    run(0, "gather", "s", "--into", "set", *policy)
    run(0, "verify", "set", *policy)


def test_repair_of_a_set_under_a_policy(here: Path, tiny: MemoryStore, keys: Path) -> None:
    sign(set_of(here / "s", tiny, "st"), keys / "alice")
    set_of(here / "unsigned", tiny, "st")
    shutil.copytree("s", "t")
    for one in ("s", "unsigned"):
        path = here / one / "st.tar.001"
        path.write_bytes(bytes(path.stat().st_size))
    policy = ("--policy", keys / "policy.toml")
    run(0, "repair", "s", "--from", "t", *policy)
    run(0, "verify", "s", *policy)
    shutil.copytree("unsigned", "again")
    run(10, "repair", "unsigned", "--from", "again", *policy)


def test_an_empty_policy_is_not_none(here: Path, tiny: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tar_of(here / "b.tar", tiny)
    monkeypatch.setenv("MODELPACK_POLICY", "")
    assert "is empty" in run(2, "verify", "b.tar")


@pytest.mark.parametrize("out", ["b", "s"])
def test_a_fingerprint_says_nothing_of_attachments(
    here: Path, tiny: MemoryStore, keys: Path, out: str
) -> None:
    """Who holds it against a paper is told so; a good signature covers them."""
    (here / "inst.sh").write_text("echo\n")
    tar_of(here / "a.tar", tiny)
    size = ("--volume-size", "fat32", "--stem", "st") if out == "s" else ()
    run(0, "pack", "a.tar", "-o", out, "--attach", "inst.sh", *size)
    known = papers(here / "s", "st").bundle if out == "s" else FolderBundle(here / out).fingerprint
    assert "not covered: attachments/inst.sh" in run(0, "verify", out, "--expect", known)
    assert "inst.sh is not covered" in run(0, "unpack", out, "out", "--expect", known)
    run(0, "sign", out, "--key", keys / "alice")
    trust = ("--expect", known, "--signers", keys / "signers")
    assert "not covered" not in run(0, "verify", out, *trust)
    assert "not covered" not in run(0, "unpack", out, "out2", *trust)
