"""Sets that strangers, bad discs and hurried hands put together: what is right is found, or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import FIXTURES, MemoryStore, files_of, noise
from signing import needs_keygen, new_key, public, set_of, signers_file
from volume_sets import BLOCK, PER, Made, flip, make_set

from modelpack.cli.main import group
from modelpack.documents.extras import Extras
from modelpack.documents.volumes import Descriptor, sums_of
from modelpack.errors import ModelpackError
from modelpack.stores.volumes import VolumeSet
from modelpack.stores.volumes_target import VolumesTarget
from modelpack.verbs.sign import sign
from modelpack.verbs.transfer import copy
from modelpack.words.blob import LICENSE, MODEL
from modelpack.words.digest import Digest

ALICE = "alice@example.com"
GGUF = FIXTURES / "tiny-llama.gguf"


def run(code: int, *args: object) -> str:
    """Run the command; it leaves by *code*. What it said, an error's words and advice among it."""
    done = CliRunner().invoke(group, [str(one) for one in args])
    error = done.exception
    told = f"{error.where}: {error.what}\n{error.advice}" if isinstance(error, ModelpackError) else ""
    found = error.exit_code if isinstance(error, ModelpackError) else done.exit_code
    assert found == code, (found, done.output, error)
    return done.output + told


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of alice and mallory, and a file of signers that has alice alone."""
    keys = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        new_key(keys / name)
    signers_file(keys / "signers", f"{ALICE} {public(keys / 'alice')}")
    return keys


@pytest.fixture(autouse=True)
def _here(quick: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MODELPACK_POLICY", raising=False)
    monkeypatch.chdir(quick)
    yield
    monkeypatch.undo()


def copied(made: Made, name: str) -> Path:
    """A second copy of the set."""
    return Path(shutil.copytree(made.folder, made.folder.parent / name))


def evil_copy(made: Made, keys: Path, name: str = "evil") -> Path:
    """A copy with another restore.py, under sums of its own that mallory signed."""
    folder = copied(made, name)
    (folder / "restore.py").write_bytes(b"print('owned')\n")
    lines = {one: Digest.of((folder / one).read_bytes()) for one in ("README.txt", "restore.py")}
    (folder / "qwen.sha256").write_bytes(sums_of(made.descriptor, lines))
    (folder / "qwen.sha256.sig").unlink(missing_ok=True)
    sign(VolumeSet([folder]), keys / "mallory")
    return folder


@pytest.fixture
def made(quick: Path) -> Made:
    """A set of real volumes, small ones, of a real bundle."""
    store, folder = MemoryStore(), quick / "set"
    store.image("one", (MODEL, noise(50_000, "one")), (LICENSE, b"MIT"))
    target = VolumesTarget(
        folder, PER * BLOCK, stem="qwen", block_size=BLOCK, extras=Extras(b"print('restored')\n"),
        readme=lambda _models: b"Read me.\n",
    )  # fmt: skip
    copy(store, store.models(), target)
    assert target.descriptor is not None
    tar = b"".join((folder / one.name).read_bytes() for one in target.descriptor.volumes)
    return Made(folder, target.descriptor, tar)


@pytest.fixture
def signed(made: Made, keys: Path) -> Made:
    """The set, signed by alice."""
    sign(VolumeSet([made.folder]), keys / "alice")
    return made


# --- papers of somebody else


@needs_keygen
@pytest.mark.parametrize("how", ["other sums", "other signature"])
def test_gather_takes_what_was_signed_by_whom_it_should_be(signed: Made, keys: Path, how: str) -> None:
    evil = evil_copy(signed, keys)
    if how == "other signature":
        shutil.copy(signed.folder / "restore.py", evil)
        shutil.copy(signed.folder / "qwen.sha256", evil)
        (evil / "qwen.sha256.sig").unlink()
        sign(VolumeSet([evil]), keys / "mallory")
    run(0, "gather", evil, signed.folder, "--into", "into", "--signers", keys / "signers")
    assert files_of(Path("into")) == files_of(signed.folder)
    assert "good, by" in run(0, "verify", "into", "--signers", keys / "signers")


@needs_keygen
def test_repair_takes_what_was_signed_by_whom_it_should_be(signed: Made, keys: Path) -> None:
    evil, mine = evil_copy(signed, keys), copied(signed, "mine")
    (mine / "restore.py").unlink()
    (mine / "qwen.sha256.sig").write_bytes((mine / "qwen.sha256.sig").read_bytes()[:90])
    run(0, "repair", mine, "--from", evil, "--from", signed.folder, "--signers", keys / "signers")
    kept = {name: raw for name, raw in files_of(mine).items() if not name.startswith(".modelpack/bad/")}
    assert kept == files_of(signed.folder)


@needs_keygen
def test_a_signature_that_lies_elsewhere_is_gathered_too(signed: Made, keys: Path) -> None:
    shutil.move(signed.folder / "qwen.sha256.sig", "apart.sig")
    named = ("--signers", keys / "signers", "--signature", "apart.sig")
    run(0, "gather", signed.folder, "--into", "into", *named)
    assert "good, by" in run(0, "verify", "into", "--signers", keys / "signers")


@needs_keygen
def test_papers_of_another_medium_are_held_against_what_was_signed(signed: Made, keys: Path) -> None:
    evil = evil_copy(signed, keys)
    (evil / "qwen.sha256.sig").unlink()
    said = run(4, "verify", signed.folder, "--also", evil, "--signers", keys / "signers")
    assert "is not the one that was signed" in said
    assert "restore.py: was changed" in said.replace("\n", " ")


def test_a_changed_script_is_not_gathered_in_silence(made: Made) -> None:
    (made.folder / "restore.py").write_bytes(b"print('owned')\n")
    said = run(0, "gather", made.folder, "--into", "into")
    assert "restore.py: was changed, and is not taken" in said.replace("\n  ", " ")
    assert not Path("into/restore.py").exists()


# --- a descriptor with one bit that is wrong, and still a descriptor


def flipped_descriptor(made: Made, folder: Path) -> Descriptor:
    """Have a block's hash wrong in the descriptor there."""
    volume = made.descriptor.volumes[1]
    bad = replace(
        volume, blocks=(bytes([volume.blocks[0][0] ^ 1]) + volume.blocks[0][1:], *volume.blocks[1:])
    )
    wrong = replace(made.descriptor, volumes=(made.descriptor.volumes[0], bad, *made.descriptor.volumes[2:]))
    (folder / wrong.name).write_bytes(wrong.raw())
    return wrong


@needs_keygen
def test_a_flipped_descriptor_is_no_other_set(signed: Made, keys: Path) -> None:
    bad = copied(signed, "bad")
    flipped_descriptor(signed, bad)
    signers = ("--signers", keys / "signers")
    assert VolumeSet([bad, signed.folder]).descriptor == signed.descriptor
    said = run(11, "verify", bad / "qwen.tar.002")
    assert "is not the one that its sums name" in said
    run(0, "verify", signed.folder / "qwen.tar.002")
    run(0, "gather", signed.folder, "--into", bad, *signers)
    assert files_of(bad).keys() >= files_of(signed.folder).keys()
    assert Path(bad, signed.descriptor.name).read_bytes() == signed.descriptor.raw()


@needs_keygen
@pytest.mark.parametrize("trust", [True, False])
def test_a_set_with_a_flipped_descriptor_is_mended(signed: Made, keys: Path, trust: bool) -> None:
    bad = copied(signed, "bad")
    flipped_descriptor(signed, bad)
    signers = ("--signers", keys / "signers") if trust else ()
    run(0, "repair", bad, "--from", signed.folder, *signers)
    assert Path(bad, signed.descriptor.name).read_bytes() == signed.descriptor.raw()
    run(0, "verify", bad, *signers)


def test_a_disc_with_a_flipped_descriptor_may_come_first(made: Made) -> None:
    bad = copied(made, "bad")
    flipped_descriptor(made, bad)
    run(3, "gather", bad, "--into", "into")
    run(0, "gather", made.folder, "--into", "into")
    into = files_of(Path("into"))
    assert {name: raw for name, raw in into.items() if "/" not in name} == files_of(made.folder)


# --- the fingerprint that is asked for


def forged(folder: Path) -> None:
    """Another blob in the volume, and a descriptor and sums that fit it; documents as they were."""
    path = next(folder.glob("*.volumes.json"))
    descriptor = Descriptor.parse(path.read_bytes(), path)
    (volume,) = descriptor.volumes
    flip(folder / volume.name, volume.size - 20_000)
    raw = (folder / volume.name).read_bytes()
    from blake3 import blake3

    one = replace(volume, sha256=Digest.of(raw), blocks=(blake3(raw).digest(),))
    lying = replace(descriptor, volumes=(one,))
    path.write_bytes(lying.raw())
    (folder / f"{descriptor.stem}.sha256").write_bytes(sums_of(lying, {}))


def test_blobs_are_held_against_the_fingerprint_that_is_asked_for(tiny: MemoryStore) -> None:
    """A descriptor that nobody signed may describe other blobs than the documents that it names."""
    right = set_of(Path("set"), tiny).descriptor.bundle
    run(0, "verify", "set", "--expect", right)
    assert "not checked: Whose descriptor it is" in run(0, "verify", "set")
    forged(Path("set"))
    assert "is damaged" in run(4, "verify", "set", "--expect", right)
    assert "not checked: Whose descriptor it is" in run(0, "verify", "set")
    Path("policy.toml").write_text(f'expect = ["{right}"]\n')
    os.chmod("policy.toml", 0o644)
    run(4, "load", "set", "--to", "models", "--expect", right)


# --- options, files and folders that people mistake


@needs_keygen
def test_two_policies_are_asked_together(signed: Made, keys: Path) -> None:
    """In any order: the laxer one takes nothing from the other."""
    (keys / "strict.toml").write_text('require_signature = true\nsigners = "signers"\n')
    (keys / "lax.toml").write_text("require_signature = false\n")
    both = [("--policy", keys / name) for name in ("strict.toml", "lax.toml")]
    (signed.folder / "qwen.sha256.sig").unlink()
    run(10, "verify", signed.folder, *both[0], *both[1])
    run(10, "verify", signed.folder, *both[1], *both[0])
    assert "twice" in run(2, "verify", signed.folder, "--signers", "a", "--signers", "b")
    assert "twice" in run(2, "verify", signed.folder, "--expect", "0" * 64, "--expect", "1" * 64)


@needs_keygen
def test_a_link_on_the_medium_chooses_no_signers(signed: Made, keys: Path) -> None:
    (signed.folder / "lnk").symlink_to(keys / "signers")
    assert "lies inside" in run(10, "verify", signed.folder, "--signers", signed.folder / "lnk")
    Path("out").symlink_to(signed.folder / "lnk")
    assert "lies inside" in run(10, "verify", signed.folder, "--signers", "out")


@needs_keygen
@pytest.mark.parametrize(
    "text",
    [
        "garbage\n",
        "ssh-ed25519 {key}\n",
        "ssh-ed25519 {key} alice@lab\n",
        "\0\1\2 binary",
        "alice ssh-ed25519\n",
    ],
)
def test_a_file_that_is_none_of_signers_says_nothing_of_the_bundle(
    signed: Made, keys: Path, text: str
) -> None:
    key = public(keys / "alice").split()[1]
    (keys / "odd").write_text(text.format(key=key))
    assert "alice@example.com" in run(11, "verify", signed.folder, "--signers", keys / "odd")


@needs_keygen
def test_a_signature_of_a_set_beside_a_bundle_is_told_from_damage(
    signed: Made, tiny: MemoryStore, keys: Path
) -> None:
    run(0, "pack", GGUF, "-o", "b.tar")
    named = ("--signers", keys / "signers", "--signature", signed.folder / "qwen.sha256.sig")
    said = run(10, "verify", "b.tar", *named)
    assert "signed for another purpose" in said


def test_two_files_of_one_base_name(tmp_path: Path) -> None:
    """`pathlib` gives both the very same string."""
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "approval.pdf").write_text(folder)
    given = ("--attach", "one/approval.pdf", "--attach", "two/approval.pdf")
    for out in ("out.tar", "folder", "-"):
        assert "two attachments are called" in run(2, "pack", GGUF, "-o", out, *given)
    assert not Path("out.tar").exists()


def test_a_bundle_is_no_set_whatever_also_names(made: Made) -> None:
    run(0, "pack", GGUF, "-o", "bundle")
    assert "--also is for sets" in run(2, "verify", "bundle", "--also", made.folder)


def test_only_takes_the_size_that_the_set_has() -> None:
    pack = ("pack", GGUF, "-o", "set", "--stem", "x")
    run(0, *pack, "--volume-size", "16MiB")
    assert "not 33554432" in run(2, *pack, "--only", "1", "--volume-size", "32MiB")
    run(0, *pack, "--only", "1", "--volume-size", "16MiB")


def test_a_set_whose_papers_were_changed_is_not_just_this(made: Made) -> None:
    pack = ("pack", GGUF, "-o", "new", "--stem", "x", "--volume-size", "16MiB")
    run(0, *pack)
    assert "has just this already" in run(0, *pack)
    right = files_of(Path("new"))
    for name in ("restore.py", "README.txt", "x.sha256"):
        Path("new", name).unlink()
        run(6, *pack)
        run(0, *pack, "--replace")
        assert files_of(Path("new")) == right


def test_one_set_is_replaced_and_not_two(made: Made) -> None:
    other = make_set(made.folder, 1, stem="second", papers=False)
    (other.folder / other.descriptor.name).write_bytes(other.descriptor.raw())
    before = files_of(made.folder)
    pack = ("pack", GGUF, "-o", made.folder, "--volume-size", "16MiB", "--replace")
    assert "several other sets" in run(6, *pack)
    assert files_of(made.folder) == before


def test_gather_says_what_it_cannot_use(made: Made) -> None:
    assert "nowhere" in run(3, "gather", "nowhere", "--into", "into")
    assert not Path("into").exists()
    run(3, "gather", made.folder / "qwen.tar.001", "--into", "into")
    Path("empty").mkdir()
    assert "empty: has nothing that could be a volume" in run(3, "gather", "empty", "--into", "into")


def test_a_folder_is_looked_at_once(made: Made) -> None:
    said = run(0, "verify", made.folder, "--also", made.folder, "--also", f"{made.folder}/../set")
    assert said.count("qwen.tar.001") == 1


def test_a_renamed_volume_is_called_foreign_by_nobody(made: Made) -> None:
    made.path(2).rename(made.folder / "DISC2.BIN")
    said = run(0, "verify", made.folder)
    assert "foreign" not in said
    assert "misnamed" in said


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs a user who may not read")
def test_what_this_user_may_not_read_is_not_damaged(made: Made) -> None:
    os.chmod(made.folder.parent, 0o755)
    os.chmod(made.path(2), 0)
    os.seteuid(65534)
    try:
        run(11, "verify", made.path(2))
    finally:
        os.seteuid(0)


# --- mends that went too far


def other_words(made: Made, words: bytes) -> Path:
    """A set that differs in one text of the same length, alone in its folder."""
    store, folder = MemoryStore(), made.folder.parent / words.decode()
    store.image("one", (MODEL, noise(50_000, "one")), (LICENSE, words))
    target = VolumesTarget(folder, PER * BLOCK, stem="qwen", block_size=BLOCK)
    copy(store, store.models(), target)
    return folder


@pytest.mark.parametrize("how", ["gather", "repair"])
@pytest.mark.parametrize("harm", ["sums gone", "a digit"])
def test_a_set_of_other_words_is_no_damaged_copy(made: Made, how: str, harm: str) -> None:
    """Two right sets may have most of their volumes and all their sizes in common."""
    mine, other = other_words(made, b"aaa"), other_words(made, b"bbb")
    sums = mine / "qwen.sha256"
    raw = sums.read_text()
    before = files_of(mine)
    if harm == "sums gone":
        sums.unlink()
    else:
        sums.write_text(raw[:3] + ("0" if raw[3] != "0" else "1") + raw[4:])
    if how == "gather":
        run(6, "gather", other, "--into", mine)
    else:
        run(6, "repair", mine, "--from", other)
    after = files_of(mine)
    assert {name: after[name] for name in before if name != "qwen.sha256"} == {
        name: raw for name, raw in before.items() if name != "qwen.sha256"
    }


def test_sums_of_any_medium_tell_which_descriptor_is_right(made: Made) -> None:
    """One has the right sums and a flipped descriptor, the other the right descriptor and no sums."""
    bad, bare = copied(made, "bad"), copied(made, "bare")
    flipped_descriptor(made, bad)
    (bare / "qwen.sha256").unlink()
    run(0, "gather", bad, bare, "--into", "into")
    assert Path("into/qwen.volumes.json").read_bytes() == made.descriptor.raw()
    said = run(4, "verify", bad, "--also", bare)  # the flipped copy is a problem, and nothing is needed
    assert "need" not in said
    run(0, "load", bad, "--also", bare, "--to", "models")


@needs_keygen
def test_what_was_signed_is_what_is_loaded(signed: Made, keys: Path) -> None:
    """Another right set of the name lies in the folder where the last volume is."""
    other = other_words(signed, b"bbb")
    last = signed.descriptor.volumes[-1].name
    shutil.move(signed.folder / last, other / last)
    both = (signed.folder, "--also", other)
    run(2, "load", *both, "--to", "models")
    run(0, "load", *both, "--to", "models", "--signers", keys / "signers")
    names = [path for path in files_of(Path("models")) if path.startswith("manifests/")]
    assert names == ["manifests/registry.ollama.ai/library/one/latest"]


def test_a_policy_expects_what_is_gathered_too(made: Made, tmp_path: Path) -> None:
    """What the media say together is expected; what would come together is not."""
    other = other_words(made, b"bbb")
    (other / "qwen.sha256").unlink()
    sums = made.folder / "qwen.sha256"
    sums.write_text(sums.read_text() + f"{'0' * 64}  more.txt\n")  # names the descriptor, and fits no set
    policy = tmp_path / "policy.toml"
    policy.write_text(f'expect = ["{made.descriptor.bundle}"]\n')
    for command in (("gather", made.folder, "--into", other), ("repair", other, "--from", made.folder)):
        run(6, *command, "--policy", policy)


@needs_keygen
def test_a_directory_link_on_the_medium_chooses_no_signers(signed: Made, keys: Path) -> None:
    (signed.folder / "trust").symlink_to(keys)
    assert "lies inside" in run(10, "verify", signed.folder, "--signers", signed.folder / "trust" / "signers")
    mine = keys.parent / "mine"
    mine.symlink_to(keys)
    assert "good, by" in run(0, "verify", signed.folder, "--signers", mine / "signers")


def test_sums_that_name_nothing_accuse_nobody(made: Made) -> None:
    """A damaged volume is that, whatever became of the sums."""
    flip(made.path(2), 5000)
    for raw in (b"", b"\xff\xfe", None):
        (made.folder / "qwen.sha256").unlink(missing_ok=True)
        if raw is not None:
            (made.folder / "qwen.sha256").write_bytes(raw)
        assert "damaged" in run(4, "verify", made.path(2))


def test_the_target_is_no_foreign_medium(made: Made) -> None:
    run(0, "gather", made.folder, "--into", "into")
    Path("into/README.txt").write_bytes(b"changed")
    said = run(0, "gather", "../" + Path.cwd().name + "/into", made.folder, "--into", "into")
    assert "is not taken" not in said
