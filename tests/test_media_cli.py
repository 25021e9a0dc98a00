"""Media at the command line: volumes, damage, signatures, what travels along; real processes, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import FIXTURES, TINY, MemoryStore, files_of, noise
from signing import agent, needs_keygen, new_key, public, signers_file
from volume_sets import flip

from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.script import script
from modelpack.verbs.transfer import copy
from modelpack.version import __version__
from modelpack.words.blob import MIB, MODEL

GGUF = FIXTURES / "tiny-llama.gguf"
ALICE = "alice@example.com"
BLOCK = 16 * MIB
STEM = "qwen"
PARTS = [f"{STEM}.tar.{n:03}" for n in (1, 2, 3)]
PAPERS = {f"{STEM}.volumes.json", f"{STEM}.sha256", "README.txt", "restore.py"}

Done = subprocess.CompletedProcess[str]


def modelpack(*args: object, cwd: Path, stdin: bytes | None = b"", **env: str) -> Done:
    """Run the command; a traceback or a bug on stderr fails the test, whatever it is about."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA", "MODELPACK"))}
    done = subprocess.run(
        [sys.executable, "-m", "modelpack", *map(str, args)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=clean | {"OLLAMA_HOST": "127.0.0.1:9", "NO_COLOR": "1"} | env,
        timeout=60,
        check=False,
    )
    found = Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in found.stderr, found.stderr
    assert "a bug in modelpack" not in found.stderr, found.stderr
    return found


def good(*args: object, cwd: Path, **more: str) -> Done:
    """Run it; it leaves by 0."""
    done = modelpack(*args, cwd=cwd, **more)
    assert done.returncode == 0, done.stderr
    return done


def fails(code: int, *args: object, cwd: Path, says: str = "", **more: str) -> Done:
    """Run it; it leaves by *code*, and *says* so on stderr."""
    done = modelpack(*args, cwd=cwd, **more)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert says in done.stderr, done.stderr
    return done


def no_names(models: Path) -> bool:
    """Whether nothing was installed in *models*: no manifest has appeared."""
    return not any(name.startswith("manifests/") for name in files_of(models))


@pytest.fixture(scope="module")
def shop() -> Iterator[Path]:
    """Models in `models`: one of three volumes, and a small one; the set of both in `set`, signed.

    In memory where there is such a place: there, fsync costs nothing. Nobody writes to it.
    """
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="modelpack-media-") as made:
        shop = Path(made)
        store = MemoryStore()
        store.image("qwen:8b", (MODEL, GGUF.read_bytes() + noise(36 * MIB)), *TINY[1:])
        store.image("tiny", *TINY)
        copy(store, store.models(), ModelsDir(shop / "models"))
        (shop / "approval.txt").write_bytes(b"Approved.\n")
        pack(shop, shop / "set")
        yield shop


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of alice and mallory, and a file of signers that has alice alone."""
    keys = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        new_key(keys / name)
    signers_file(keys / "signers", f"{ALICE} {public(keys / 'alice')}")
    return keys


def pack(shop: Path, out: Path, *more: object) -> Done:
    """Pack the shop's models as its set was."""
    size = () if "--volume-size" in more else ("--volume-size", "16MiB", "--stem", STEM)
    return good("pack", "models", "-o", out, *size, "--attach", "approval.txt", *more, cwd=shop)


@pytest.fixture
def here(shop: Path) -> Iterator[Path]:
    """A place for one test, on the shop's file system."""
    with tempfile.TemporaryDirectory(dir=shop.parent, prefix="modelpack-media-") as made:
        yield Path(made)


@pytest.fixture
def media(shop: Path, here: Path) -> Path:
    """A copy of the set that may be harmed, at `here`/set."""
    shutil.copytree(shop / "set", here / "set")
    return here / "set"


@pytest.fixture
def tar(here: Path) -> Path:
    """A small bundle in one file."""
    good("pack", GGUF, "-o", "b.tar", cwd=here)
    return here / "b.tar"


def apart(media: Path, *groups: Sequence[int]) -> list[str]:
    """Move the volumes of each of *groups* into a folder of its own with all papers, as discs have them."""
    folders = []
    for number, group in enumerate(groups, start=1):
        folder = media.parent / f"disc{number}"
        folder.mkdir()
        for name in PAPERS:
            shutil.copy(media / name, folder)
        for n in group:
            shutil.copy(media / PARTS[n - 1], folder)
        folders.append(folder.name)
    shutil.rmtree(media)
    return folders


def also(folders: Sequence[str]) -> list[str]:
    """The first of *folders*, then the others by --also."""
    return [folders[0], *(word for one in folders[1:] for word in ("--also", one))]


# --- packing into volumes


def test_a_set_is_the_tar_in_parts(shop: Path, here: Path) -> None:
    """Papers beside the volumes; joined by cat, they are the bundle that pack writes into one file."""
    found = files_of(shop / "set")
    assert set(found) == {*PARTS, *PAPERS}
    assert [len(found[name]) for name in PARTS[:2]] == [BLOCK, BLOCK]
    good("pack", shop / "models", "-o", "b.tar", "--attach", shop / "approval.txt", cwd=here)
    joined = subprocess.run(["cat", *PARTS], cwd=shop / "set", capture_output=True, check=True).stdout
    assert joined == (here / "b.tar").read_bytes()
    checked = subprocess.run(["sha256sum", "-c", f"{STEM}.sha256"], cwd=shop / "set", capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert found["restore.py"] == script()


def test_what_pack_says_of_a_set(shop: Path, here: Path) -> None:
    """The fingerprint of the bundle on stdout, and when the stick may be pulled."""
    done = pack(shop, here / "again")
    fingerprint = json.loads((here / "again" / f"{STEM}.volumes.json").read_bytes())["bundle"]
    assert fingerprint in done.stdout
    assert "safe to remove" in done.stderr
    assert files_of(here / "again") == files_of(shop / "set")
    again = pack(shop, here / "again", "--json")
    assert fingerprint in json.loads(again.stdout)["fingerprint"]


def test_another_size_needs_replace(shop: Path, media: Path) -> None:
    """A set that is there is not written over, but with --replace; the stem is by default the model's."""
    size = ("--volume-size", "32MiB")
    done = fails(6, "pack", shop / "models", "-o", media, *size, cwd=media.parent, says="--replace")
    assert "--only" in done.stderr
    good("pack", shop / "models", "-o", media, *size, "--stem", STEM, "--replace", cwd=media.parent)
    assert {one for one in files_of(media) if ".tar." in one} == set(PARTS[:2])
    good("pack", shop / "models#tiny", "-o", "other", "--volume-size", "fat32", cwd=media.parent)
    assert (media.parent / "other" / "tiny.tar.001").is_file()


def test_without_a_script(here: Path) -> None:
    """--no-script leaves restore.py out of a tar, a folder and a set; the models are the same."""
    for out in (("b.tar",), ("b",), ("set", "--volume-size", "fat32")):
        good("pack", GGUF, "-o", *out, "--no-script", cwd=here)
    good("verify", "set", cwd=here)
    assert "restore.py" not in Archive(here / "b.tar").files()
    assert not (here / "b" / "restore.py").exists()
    assert not (here / "set" / "restore.py").exists()


def test_only_some_volumes_are_made_again(shop: Path, media: Path) -> None:
    """One that is lost and one that is damaged come again, to the byte, from the set's descriptor."""
    (media / PARTS[1]).unlink()
    flip(media / PARTS[2], 1000)
    done = pack(shop, media, "--only", "2,3")
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines()] == PARTS[1:]
    assert files_of(media) == files_of(shop / "set")
    made = json.loads(pack(shop, media, "--only", "3", "--json").stdout)
    assert made["made"] == [PARTS[2]]


def test_what_is_made_again_is_read_back(shop: Path, media: Path) -> None:
    """And only then it is said that the stick may be pulled."""
    done = pack(shop, media, "--only", "2,3", "--read-back")
    assert "read back, and good" in done.stderr
    assert done.stderr.strip().endswith("safe to remove.")


def test_only_refuses_to_write_other_bytes(shop: Path, media: Path) -> None:
    """Without the attachment or the script it would be another set: refused, naming the version."""
    before = files_of(media)
    for more in ((), ("--attach", "approval.txt", "--no-script")):
        args = ("pack", "models", "-o", media, "--volume-size", "16MiB", "--only", "3", *more)
        fails(6, *args, cwd=shop, says=f"modelpack {__version__} would write other bytes")
    fails(2, "pack", "models", "-o", media, "--only", "4", cwd=shop, says="has no volume 4")
    fails(3, "pack", "models", "-o", media.parent, "--only", "1", cwd=shop, says="volumes.json")
    assert files_of(media) == before


def test_read_back(tmp_path: Path) -> None:
    """What was written is read from its medium; where that cannot be, it says so; then it may be pulled."""
    for out in (("b.tar",), ("set", "--volume-size", "fat32")):
        done = good("pack", GGUF, "-o", *out, "--read-back", cwd=tmp_path)
        read, safe = done.stderr.find("read back, and good"), done.stderr.find("safe to remove")
        assert 0 <= read < safe, done.stderr
    good("verify", "b.tar", "--read-back", cwd=tmp_path)


def test_memory_is_no_medium(tmp_path: Path, quick: Path) -> None:
    """On a file system in memory nothing can be read back from a medium, and both commands say so."""
    if quick == tmp_path:
        pytest.skip("there is no file system in memory here")
    done = good("pack", GGUF, "-o", "set", "--volume-size", "fat32", "--read-back", cwd=quick)
    assert "not from the medium, perhaps from memory: 1 file" in done.stderr
    assert "not checked: " in good("verify", "set", "--read-back", cwd=quick).stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("-o", "set", "--stem", "x"), "--volume-size"),
        (("-o", "set", "--volume-size", "16MiB", "--stem", "Bad Stem"), "Bad Stem"),
        (("-o", "set", "--volume-size", "floppy"), "floppy"),
        (("-o", "set", "--volume-size", "0"), ""),
        (("-o", "b.tar", "--volume-size", "dvd"), "folder"),
        (("-o", "-", "--volume-size", "dvd"), "folder"),
        (("-o", "-", "--read-back"), "pipe"),
        (("-o", "-", "--only", "1"), "pipe"),
        (("-o", "set", "--volume-size", "dvd", "--only", "three"), "three"),
        (("-o", "b.tar", "--attach", "."), "directory"),
    ],
)
def test_options_that_do_not_fit(args: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """Usage errors, before anything is written."""
    fails(2, "pack", GGUF, *args, cwd=tmp_path, says=says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["load", "plan", "verify"])
def test_also_is_for_sets(command: str, tar: Path) -> None:
    """A bundle in one file has nothing to look for elsewhere."""
    to = () if command == "verify" else ("--to", "m")
    fails(2, command, tar.name, *to, "--also", ".", cwd=tar.parent, says="--also is for sets of volumes")


# --- checking


def test_a_whole_set_is_good(media: Path) -> None:
    """A line for each volume, and no line of what is needed."""
    done = good("verify", "set", cwd=media.parent)
    assert "3 of 3 volumes can be had whole" in done.stdout
    assert "need:" not in done.stdout
    assert all(name in done.stdout for name in PARTS)
    assert json.loads(good("verify", "set", "--json", cwd=media.parent).stdout)["need"] == []
    good("verify", f"set/{STEM}.volumes.json", "--sha256", cwd=media.parent)


def test_what_is_needed_is_one_line(media: Path) -> None:
    """`need: 1, 3`, to be read out on the telephone, and 4."""
    (media / PARTS[0]).unlink()
    flip(media / PARTS[2], 5)
    done = fails(4, "verify", "set", cwd=media.parent)
    assert done.stdout.splitlines()[-1] == "need: 1, 3"
    assert json.loads(fails(4, "verify", "set", "--json", cwd=media.parent).stdout)["need"] == [1, 3]


def test_discs_are_one_set(media: Path) -> None:
    """Each disc lacks something; by --also they are whole, twice damaged volumes and all."""
    folders = apart(media, [1, 2], [2, 3])
    for folder, need in zip(folders, ("need: 3", "need: 1"), strict=True):
        done = fails(4, "verify", folder, cwd=media.parent)
        assert done.stdout.splitlines()[-1] == need
    good("verify", *also(folders), cwd=media.parent)


def test_one_volume_alone(media: Path) -> None:
    """In any order, whatever it is called: good, damaged (block, model), short, foreign."""
    where = media.parent
    (media / PARTS[1]).rename(media / "copy of two")
    assert "volume 2" in good("verify", "set/copy of two", cwd=where).stdout
    flip(media / "copy of two", 7)
    (media / "copy of two").rename(media / PARTS[1])
    done = fails(4, "verify", f"set/{PARTS[1]}", cwd=where)
    assert "damaged" in done.stdout
    assert "blocks 0 (from 0) of 1" in done.stdout
    assert "qwen:8b" in done.stdout
    os.truncate(media / PARTS[0], BLOCK - 1)
    assert "short" in fails(4, "verify", f"set/{PARTS[0]}", cwd=where).stdout
    (media / PARTS[2]).write_bytes(noise(2 * BLOCK))
    assert "not of this set" in fails(4, "verify", f"set/{PARTS[2]}", cwd=where).stdout


def test_without_a_descriptor_nothing_is_known(media: Path) -> None:
    """11: that says nothing of the bytes; the descriptor of another disc helps."""
    where = media.parent
    (where / "papers").mkdir()
    shutil.move(media / f"{STEM}.volumes.json", where / "papers")
    fails(11, "verify", f"set/{PARTS[1]}", cwd=where, says="volumes.json")
    good("verify", f"set/{PARTS[1]}", "--also", "papers", cwd=where)
    fails(11, "verify", "set", cwd=where, says="volumes.json")
    good("verify", "set", "--also", "papers", cwd=where)


def test_a_descriptor_of_a_newer_format(media: Path) -> None:
    """5, by verify and by load: a newer modelpack is needed, and nothing is called damaged."""
    paper = media / f"{STEM}.volumes.json"
    paper.write_bytes(paper.read_bytes().replace(b"modelpack-volumes/1", b"modelpack-volumes/2"))
    fails(5, "verify", "set", cwd=media.parent)
    fails(5, "load", "set", "--to", "m", cwd=media.parent)


def test_two_sets_in_one_folder(media: Path, shop: Path) -> None:
    """Which is meant has to be said, by its descriptor."""
    good("pack", shop / "models#tiny", "-o", "other", "--volume-size", "fat32", cwd=media.parent)
    for one in (media.parent / "other").glob("tiny.*"):
        shutil.copy(one, media)
    fails(2, "verify", "set", cwd=media.parent, says=".volumes.json")
    fails(2, "load", "set", "--to", "m", cwd=media.parent, says=".volumes.json")
    good("verify", f"set/{PARTS[0]}", cwd=media.parent)
    good("load", f"set/{STEM}.volumes.json", "--to", "m", cwd=media.parent)


# --- loading


def test_load_over_several_mount_points(media: Path, shop: Path) -> None:
    """plan says what would move, load moves it, never joined; what a pipe would say is the same model."""
    where, folders = media.parent, apart(media, [3], [1], [2])
    planned = good("plan", *also(folders), "--to", "m", cwd=where)
    assert "qwen:8b" in planned.stdout
    assert no_names(where / "m")
    good("load", *also(folders), "--to", "m", cwd=where)
    assert files_of(where / "m") == files_of(shop / "models")
    assert not list(where.rglob("*.tar"))


def test_a_missing_volume_is_named_and_nothing_loads(media: Path) -> None:
    """3, and the line of what is needed."""
    (media / PARTS[1]).unlink()
    for command in ("load", "plan"):
        fails(3, command, "set", "--to", "m", cwd=media.parent, says="need: 2")
    assert no_names(media.parent / "m")


def test_two_damaged_copies_load(media: Path, shop: Path) -> None:
    """Block by block, each is taken from the copy that has it right; one bad copy alone is refused."""
    where = media.parent
    good("pack", shop / "models", "-o", "one", "--volume-size", "64MiB", "--stem", STEM, cwd=where)
    shutil.copytree(where / "one", where / "two")
    flip(where / "one" / PARTS[0], BLOCK + 5)
    flip(where / "two" / PARTS[0], 2 * BLOCK + 5)
    fails(4, "load", "one", "--to", "m", "qwen:8b", cwd=where, says=PARTS[0])
    assert no_names(where / "m")
    good("load", "one", "--also", "two", "--to", "m", cwd=where)
    assert files_of(where / "m") == files_of(shop / "models")


def test_expect_holds_for_sets(media: Path) -> None:
    """The form on paper has the fingerprint: any other bundle is refused before it is looked at."""
    where = media.parent
    right = json.loads((media / f"{STEM}.volumes.json").read_bytes())["bundle"]
    wrong = "sha256:" + "0" * 64
    for command in (("load", "set", "--to", "m"), ("verify", "set"), ("verify", f"set/{PARTS[1]}")):
        fails(6, *command, "--expect", wrong, cwd=where)
    assert no_names(where / "m")
    good("load", "set", "--to", "m", "tiny", "--expect", right, cwd=where)


# --- gathering and repairing


def test_gather_disc_by_disc(media: Path, shop: Path) -> None:
    """One drive: 3 and what is needed until the last disc; again, it changes nothing."""
    where, folders = media.parent, apart(media, [3], [1], [2])
    for folder, need in zip(folders[:2], ("need: 1, 2", "need: 2"), strict=True):
        done = fails(3, "gather", folder, "--into", "got", cwd=where)
        assert done.stdout.splitlines()[-1] == need
    good("gather", folders[2], "--into", "got", cwd=where)
    assert files_of(where / "got") == files_of(shop / "set")
    made = json.loads(good("gather", *folders, "--into", "got", "--json", cwd=where).stdout)
    assert (made["made"], made["good"]) == ([], True)
    good("verify", "got", cwd=where)


def test_gather_and_repair_make_one_of_two_bad_copies(media: Path, shop: Path) -> None:
    """What is good in each copy makes a good set; repair keeps what stood there aside."""
    where = media.parent
    shutil.copytree(media, where / "copy")
    flip(media / PARTS[1], 9)
    flip(where / "copy" / PARTS[0], 9)
    fails(4, "verify", "set", cwd=where)
    good("gather", "set", "copy", "--into", "got", cwd=where)
    assert files_of(where / "got") == files_of(shop / "set")
    good("repair", "set", "--from", "copy", cwd=where)
    good("verify", "set", cwd=where)
    assert (media / PARTS[1]).read_bytes() == (shop / "set" / PARTS[1]).read_bytes()


def test_repair_needs_a_copy_that_has_it(media: Path) -> None:
    """The same block is bad in both: 4, it stays as it was, and it is said."""
    where = media.parent
    flip(media / PARTS[1], 9)
    shutil.copytree(media, where / "copy")
    before = files_of(media)
    fails(4, "repair", "set", "--from", "copy", cwd=where, says=PARTS[1])
    assert {name: raw for name, raw in files_of(media).items() if name in before} == before


# --- signatures


def signed(what: str, keys: Path, cwd: Path) -> Done:
    return good("sign", what, "--key", keys / "alice", cwd=cwd)


@needs_keygen
@pytest.mark.parametrize("form", ["b.tar", "b", "set"])
def test_signed_and_checked(form: str, here: Path, keys: Path) -> None:
    """Each form: refused where it is unsigned or a stranger's, good for whoever knows the signer."""
    size = ("--volume-size", "fat32") if form == "set" else ()
    good("pack", GGUF, "-o", form, *size, cwd=here)
    load = ("load", form, "--to", "m", "--require-signature", "--signers", keys / "signers")
    fails(10, *load, cwd=here, says="unsigned")
    assert "signed by\n  ED25519 SHA256:" in signed(form, keys, here).stdout
    strangers = signers_file(keys / "strangers", f"{ALICE} {public(keys / 'mallory')}")
    fails(10, *load[:-1], strangers, cwd=here, says="unknown signer")
    assert no_names(here / "m")
    said = json.loads(good("verify", form, "--signers", keys / "signers", "--json", cwd=here).stdout)
    assert (said["signature"]["state"], said["signature"]["signers"]) == ("good", [ALICE])
    assert f"signature: good, by {ALICE}" in good(*load, cwd=here).stderr
    assert not no_names(here / "m")


@needs_keygen
def test_what_is_said_of_signatures(tar: Path, keys: Path) -> None:
    """Every state has its words; who may sign has to be named; nothing is signed twice."""
    where = tar.parent
    assert "signature: none" in good("verify", tar.name, cwd=where).stdout
    fails(10, "verify", tar.name, "--signers", keys / "signers", cwd=where, says="unsigned")
    fails(2, "load", tar.name, "--to", "m", "--require-signature", cwd=where, says="--signers")
    signed(tar.name, keys, where)
    fails(6, "sign", tar.name, "--key", keys / "alice", cwd=where, says="already")
    assert "signature: not checked" in good("verify", tar.name, cwd=where).stdout
    checked = good("verify", tar.name, "--signers", keys / "signers", cwd=where)
    assert f"signature: good, by {ALICE}" in checked.stdout
    assert no_names(where / "m")


@needs_keygen
def test_bad_is_damaged_and_unchecked_is_not(tar: Path, keys: Path, tmp_path: Path) -> None:
    """4 where the signature was changed; 11 where the signers cannot be read; nothing is loaded by either."""
    where = tar.parent
    signed(tar.name, keys, where)
    load = ("load", tar.name, "--to", "m", "--signers")
    fails(11, *load, tmp_path / "nobody", cwd=where)
    (tmp_path / "empty").write_bytes(b"")
    fails(11, *load, tmp_path / "empty", cwd=where)
    sig = where / "b.tar.sig"
    lines = sig.read_text().splitlines()
    lines[3] = lines[3][:20] + ("A" if lines[3][20] != "A" else "B") + lines[3][21:]
    sig.write_text("\n".join(lines) + "\n")
    fails(4, *load, keys / "signers", cwd=where, says="BAD")
    assert no_names(where / "m")


@needs_keygen
def test_signers_that_came_along_vouch_for_nothing(media: Path, keys: Path) -> None:
    """A file of signers inside the set is refused, whatever it says: 10."""
    signed("set", keys, media.parent)
    shutil.copy(keys / "signers", media)
    fails(10, "load", "set", "--to", "m", "--signers", "set/signers", cwd=media.parent, says="inside")
    assert no_names(media.parent / "m")


@needs_keygen
def test_a_pipe_brings_its_signature_apart(tar: Path, keys: Path) -> None:
    """--signature names it; a byte of a document that was changed is refused before the blobs come."""
    where, raw = tar.parent, tar.read_bytes()
    signed(tar.name, keys, where)
    load = ("load", "-", "--to", "m", "--signers", keys / "signers", "--signature", "b.tar.sig")
    bad = raw.replace(b"modelpack", b"modelqack", 1)
    assert bad != raw
    done = modelpack(*load, cwd=where, stdin=bad)
    assert done.returncode == 4, done.stderr
    assert no_names(where / "m")
    done = modelpack(*load, cwd=where, stdin=raw)
    assert done.returncode == 0, done.stderr


@needs_keygen
def test_an_agent_signs(tar: Path, tmp_path: Path) -> None:
    """The public half is named; an agent holds the other one."""
    key = new_key(tmp_path / "key")
    with agent(key) as socket:
        key.unlink()
        args = ("sign", tar.name, "--key", f"{key}.pub")
        good(*args, cwd=tar.parent, SSH_AUTH_SOCK=str(socket))
    signers = signers_file(tmp_path / "signers", f"{ALICE} {public(key)}")
    good("verify", tar.name, "--signers", signers, cwd=tar.parent)


@needs_keygen
def test_a_signed_folder_takes_no_more(here: Path, keys: Path) -> None:
    """What is added would not be covered: refused, and the folder is as it was."""
    good("pack", GGUF, "-o", "b", cwd=here)
    signed("b", keys, here)
    before = files_of(here / "b")
    fails(6, "pack", FIXTURES / "tiny-chat.gguf", "-o", "b", cwd=here)
    assert files_of(here / "b") == before


@needs_keygen
def test_a_policy_binds(tar: Path, keys: Path, tmp_path: Path) -> None:
    """By --policy or $MODELPACK_POLICY: named and missing is refused; no option loosens it."""
    where = tar.parent
    load = ("load", tar.name, "--to", "m")
    shutil.copy(keys / "signers", tmp_path)
    policy = tmp_path / "policy.toml"
    fails(11, *load, "--policy", policy, cwd=where)
    fails(11, *load, cwd=where, MODELPACK_POLICY=str(policy))
    policy.write_text("require_signatures = true\n")
    fails(11, *load, "--policy", policy, cwd=where, says="require_signatures")
    policy.write_text('require_signature = true\nsigners = "signers"\n')
    fails(10, *load, "--policy", policy, cwd=where, says="unsigned")
    for command in (load, ("verify", tar.name), ("unpack", tar.name, "out")):
        fails(10, *command, cwd=where, says="unsigned", MODELPACK_POLICY=str(policy))
    assert no_names(where / "m")
    signed(tar.name, keys, where)
    good(*load, cwd=where, MODELPACK_POLICY=str(policy))
    strangers = signers_file(tmp_path / "strangers", f"{ALICE} {public(keys / 'mallory')}")
    fails(10, *load, "--signers", strangers, cwd=where, MODELPACK_POLICY=str(policy))
    policy.write_text(f'require_signature = true\nsigners = "signers"\nexpect = ["sha256:{"0" * 64}"]\n')
    fails(6, *load, cwd=where, MODELPACK_POLICY=str(policy))
    fails(2, *load, cwd=where, MODELPACK_POLICY="", says="is empty")


# --- what travels along


@pytest.mark.parametrize("form", ["b.tar", "b", "set", "-"])
def test_attached_files_come_back(form: str, here: Path) -> None:
    """Every form carries them; unpack returns them, and verify reads them."""
    (here / "approval.txt").write_bytes(b"Approved.\n")
    (here / "scan.bin").write_bytes(noise(100_000))
    size = ("--volume-size", "fat32") if form == "set" else ()
    attach = ("--attach", "approval.txt", "--attach", "scan.bin")
    if form == "-":
        raw = subprocess.run(
            [sys.executable, "-m", "modelpack", "pack", GGUF, "-o", "-", "-q", *attach],
            cwd=here, capture_output=True, check=True,
        ).stdout  # fmt: skip
        done = modelpack("unpack", "-", "out", cwd=here, stdin=raw)
        assert done.returncode == 0, done.stderr
    else:
        good("pack", GGUF, "-o", form, *size, *attach, cwd=here)
        good("verify", form, cwd=here)
        done = good("unpack", form, "out", cwd=here)
    assert "attached: out/attachments/approval.txt" in done.stdout
    back = files_of(here / "out" / "attachments")
    assert back == {name: (here / name).read_bytes() for name in ("approval.txt", "scan.bin")}


def test_a_damaged_attachment_is_damage(here: Path) -> None:
    """4, by verify and by unpack; load does not need it."""
    (here / "approval.txt").write_bytes(b"Approved.\n")
    good("pack", GGUF, "-o", "b", "--attach", "approval.txt", cwd=here)
    (here / "b" / "attachments" / "approval.txt").write_bytes(b"Rejected.\n")
    fails(4, "verify", "b", cwd=here, says="attachments/approval.txt")
    fails(4, "unpack", "b", "out", cwd=here, says="attachments/approval.txt")
    assert not (here / "out" / "attachments" / "approval.txt").exists()


def test_papers_that_a_station_took_out(here: Path) -> None:
    """README.txt and restore.py missing: a warning; changed: damaged, and nothing is loaded."""
    good("pack", GGUF, "-o", "b", cwd=here)
    text = (here / "b" / "restore.py").read_bytes()
    (here / "b" / "restore.py").write_bytes(text + b"import planted\n")
    fails(4, "load", "b", "--to", "m", cwd=here, says="restore.py")
    fails(4, "verify", "b", cwd=here, says="restore.py")
    assert no_names(here / "m")
    for name in ("restore.py", "README.txt"):
        (here / "b" / name).unlink()
    assert "restore.py" in good("verify", "b", cwd=here).stdout
    done = good("load", "b", "--to", "m", cwd=here)
    assert "warning: restore.py is missing" in done.stderr


def test_papers_that_a_station_took_out_of_a_set(media: Path) -> None:
    """As of a bundle: missing is a warning, changed is refused, beside the volumes as in them."""
    where, script = media.parent, media / "restore.py"
    raw = script.read_bytes()
    script.write_bytes(raw + b"import planted\n")
    fails(4, "verify", "set", cwd=where, says="restore.py")
    fails(4, "load", "set", "--to", "m", cwd=where, says="restore.py")
    assert no_names(where / "m")
    script.unlink()
    assert "restore.py" in good("verify", "set", cwd=where).stdout
    done = good("load", "set", "--to", "m", "tiny", cwd=where)
    assert "restore.py is missing" in done.stderr


def test_the_script_that_a_host_keeps(here: Path, media: Path, shop: Path) -> None:
    """restore-script prints what travels in bundles, and its SHA-256; it restores the set."""
    done = good("restore-script", cwd=here)
    assert done.stdout.encode() == script() == (media / "restore.py").read_bytes()
    assert hashlib.sha256(script()).hexdigest() in done.stderr
    (here / "kept.py").write_text(done.stdout)
    args = [sys.executable, "-I", "kept.py", "--from", "set", "--to", "m"]
    restored = subprocess.run(args, cwd=here, capture_output=True, text=True, check=False)
    assert restored.returncode == 0, restored.stderr
    assert files_of(here / "m") == files_of(shop / "models")


def test_unpack_and_inspect_read_a_set(media: Path) -> None:
    """A set is a bundle to every command that reads one."""
    where = media.parent
    shown = json.loads(good("inspect", "set", "--json", cwd=where).stdout)
    assert {one["name"].rpartition("/")[2] for one in shown["models"]} == {"qwen:8b", "tiny:latest"}
    good("unpack", "set#tiny", "out", cwd=where)
    good("pack", "set#tiny", "-o", "one.tar", cwd=where)
    assert [str(one.name) for one in Archive(where / "one.tar").models()] == ["tiny:latest"]
