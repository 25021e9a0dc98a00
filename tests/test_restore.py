"""restore.py: a bundle restores itself, with an old Python and nothing else."""

from __future__ import annotations

import ast
import base64
import contextlib
import http.server
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import FIXTURES, TINY, MemoryStore, files_of, needs_root, tree
from depots import ask, make, own_depot

from modelpack import Archive, Digest, FolderBundle, Model, ModelsDir, Name, Recipe, copy
from modelpack.cli.restore_script import command
from modelpack.documents.expects import Expected, Expects
from modelpack.documents.oci import bundle
from modelpack.verbs.requests import create_request_of
from modelpack.verbs.script import script, script_digest
from modelpack.words.blob import MODEL, SYSTEM, TENSOR

SCRIPT = Path(__file__).parents[1] / "modelpack" / "receiver" / "restore.py"
BUNDLE = FIXTURES / "bundle-v1.tar"
IMAGES = ("tiny", "team/full:1.0")
CUT = 100_000
REF = "org.opencontainers.image.ref.name"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pythons() -> Iterator[Path]:
    """Every other Python of this machine that is new enough, the oldest first, and this one."""
    places = [
        *(Path.home() / ".pyenv" / "versions").glob("3.*/bin"),
        Path("/usr/bin"),
        Path("/usr/local/bin"),
    ]
    found: dict[tuple[int, ...], Path] = {sys.version_info[:2]: Path(sys.executable)}
    ask_version = "import sys, ssl; print(*sys.version_info[:2])"
    for program in (place / "python3" for place in places):
        done = (
            subprocess.run([program, "-Ic", ask_version], capture_output=True) if program.exists() else None
        )
        if done is not None and done.returncode == 0:
            found.setdefault(tuple(map(int, done.stdout.split())), program)
    return (found[version] for version in sorted(found) if version >= (3, 6))


PYTHONS = list(pythons())
OLDEST = PYTHONS[0]


def restore(
    *args: object, python: Path = OLDEST, program: Path = SCRIPT, **more: Any
) -> tuple[int, str, str]:
    """Exit code, output and talk of the script; warnings are errors."""
    command = [python, "-I", "-W", "error", program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def module() -> ModuleType:
    """The script as a module, for what would take too many processes."""
    spec = importlib.util.spec_from_file_location("restore_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def cut(tar: Path, *folders: Path, stem: str = "set", size: int = CUT) -> int:
    """Cut *tar* by split; its volumes go into *folders* in turn, the descriptor into each; the number."""
    raw = tar.read_bytes()
    work = folders[0] / "work"
    work.mkdir(parents=True)
    command = ["split", "-b", str(size), "-d", "-a", "3", "--numeric-suffixes=1", str(tar), f"{stem}.tar."]
    subprocess.run(command, cwd=work, check=True)
    volumes = sorted(work.iterdir())
    lines = [
        {
            "n": number, "name": path.name, "offset": (number - 1) * size,
            "size": path.stat().st_size, "sha256": str(Digest.of(path.read_bytes())),
            "blocks": base64.b64encode(bytes(32)).decode(),
        }
        for number, path in enumerate(volumes, start=1)
    ]  # fmt: skip
    value = {
        "format": "modelpack-volumes/1", "name": stem, "bundle": str(Archive(tar).fingerprint),
        "size": len(raw), "volume_size": size, "block_size": 1 << 24, "block_hash": "blake3",
        "contents": [], "volumes": lines,
    }  # fmt: skip
    descriptor = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    sums = "".join(f"{line['sha256'][7:]}  {line['name']}\n" for line in lines)
    sums += f"{Digest.of(descriptor).hex}  {stem}.volumes.json\n"
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / f"{stem}.volumes.json").write_bytes(descriptor)
        (folder / f"{stem}.sha256").write_text(sums)
    for number, path in enumerate(volumes):
        path.rename(folders[number % len(folders)] / path.name)
    work.rmdir()
    return len(volumes)


def shaped(shape: str, place: Path, tar: Path = BUNDLE) -> list[Path]:
    """The bundle *tar* as a folder, a tar, or a set in one folder or in two: what --from is to name."""
    place.mkdir()
    if shape == "tar":
        return [Path(shutil.copy(tar, place / "b.tar"))]
    if shape == "folder":
        subprocess.run(["tar", "xf", tar, "-C", place], check=True)
        return [place]
    folders = [place / "a", *([place / "b"] if shape == "two folders" else [])]
    assert cut(tar, *folders) > 1
    return folders


def places(paths: Sequence[Path]) -> list[object]:
    return [word for path in paths for word in ("--from", path)]


needs_keygen = pytest.mark.skipif(not Path("/usr/bin/ssh-keygen").exists(), reason="no ssh-keygen")


def key(path: Path) -> Path:
    """A new key; its public half in an allowed_signers file in a folder of its own."""
    path.mkdir()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path / "key"]
    subprocess.run(command, check=True)
    (path / "signers").write_text(f"{path.name}@example.com {(path / 'key.pub').read_text()}")
    return path / "signers"


def sign(signers: Path, text: bytes, namespace: str) -> bytes:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", signers.parent / "key"]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


def signed(shape: str, place: Path, signers: Path) -> list[Path]:
    """The fixture, signed as media of this shape are."""
    paths = shaped(shape, place)
    sums = subprocess.run(["tar", "xOf", BUNDLE, "SHA256SUMS"], capture_output=True, check=True).stdout
    if shape == "folder":
        (place / "SHA256SUMS.sig").write_bytes(sign(signers, sums, "modelpack-bundle"))
    elif shape == "tar":
        (place / "b.tar.sig").write_bytes(sign(signers, sums, "modelpack-bundle"))
    else:
        for path in paths:
            text = (path / "set.sha256").read_bytes()
            (path / "set.sha256.sig").write_bytes(sign(signers, text, "modelpack-set"))
    return paths


def models_dir(path: Path, count: int = 2) -> dict[str, bytes]:
    """What modelpack itself makes of the fixture's first models."""
    source = Archive(BUNDLE)
    copy(source, source.models()[:count], ModelsDir(path))
    return files_of(path)


SHAPES = ["folder", "tar", "set", "two folders"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_models_directory_gets_the_same_bytes(tmp_path: Path, shape: str) -> None:
    """As from modelpack's own load; nothing else is left there, and a second run changes nothing."""
    source = places(shaped(shape, tmp_path / "in"))
    for _ in range(2):
        code, said, wrong = restore(*source, "--to", tmp_path / "models", *IMAGES)
        assert (code, wrong) == (0, "")
        assert said.count(" is installed, ID ") == 2
        assert files_of(tmp_path / "models") == models_dir(tmp_path / "other")
    assert not list((tmp_path / "models").glob(".restore*"))


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parent.parent.name)
def test_every_python_from_3_6_on_does(tmp_path: Path, python: Path) -> None:
    """All that can be had here: list, check and restore."""
    for words in (["--check", "--list"], ["--to", tmp_path / "models", "tiny"]):
        assert restore("--from", BUNDLE, *words, python=python)[0] == 0
    assert files_of(tmp_path / "models") == models_dir(tmp_path / "other", 1)


def test_its_syntax_is_that_of_3_6() -> None:
    """Whatever the Pythons here are."""
    ast.parse(SCRIPT.read_bytes(), feature_version=(3, 6))
    vermin = Path(sys.executable).with_name("vermin")
    command = [vermin, "-t=3.6-", "--violations", "--no-tips", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("3.6")) == (0, 1), done.stdout + done.stderr


def test_it_needs_nothing_but_the_standard_library() -> None:
    """And it is for people to read: short, and ASCII."""
    text = SCRIPT.read_text("ascii")
    names = [
        one.name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for one in node.names
    ]
    assert set(names) <= sys.stdlib_module_names
    assert "import from" not in text
    assert len(text.splitlines()) <= 785


@pytest.mark.parametrize("shape", ["folder", "tar", "set"])
def test_beside_the_script_lies_the_bundle(tmp_path: Path, shape: str) -> None:
    """Without --from it is the one that the script lies in, or beside, wherever one stands."""
    (place,) = shaped(shape, tmp_path / "in")
    program = Path(shutil.copy(SCRIPT, place if place.is_dir() else place.parent))
    code, said, _ = restore("--list", program=program, cwd="/")
    assert (code, len(said.splitlines())) == (0, 4)
    assert "registry.ollama.ai/library/tiny:latest  20d8f5d94485  80403 bytes" in said


@pytest.mark.parametrize("flag", ["", "-I", "-E", "-S"])
def test_nothing_planted_beside_it_is_imported(tmp_path: Path, flag: str) -> None:
    """Neither with -I nor without."""
    program = planted(tmp_path)
    for name in ("os", "re", "argparse", "hashlib", "http", "stat", "contextlib"):
        shutil.copy(program.parent / "json.py", program.parent / f"{name}.py")
    for python in {OLDEST, PYTHONS[-1]}:
        command = [python, *([flag] if flag else []), "restore.py", "--list"]
        done = subprocess.run(command, cwd=program.parent, env={}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert not (tmp_path / "planted").exists(), python


@pytest.mark.parametrize("path", [":", ".", "in", "/tmp:"])
def test_nor_where_pythonpath_says_so(tmp_path: Path, path: str) -> None:
    """As far as that does not happen before its first statement."""
    program = planted(tmp_path)
    environment = {"PYTHONPATH": str(tmp_path / "in") if path == "in" else path}
    command = [OLDEST, "restore.py", "--list"]
    done = subprocess.run(command, cwd=program.parent, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "planted").exists()


def planted(place: Path) -> Path:
    """The script in a bundle in which somebody left a json.py that would make a file if it were run."""
    (folder,) = shaped("folder", place / "in")
    (folder / "json.py").write_text(f"open({str(place / 'planted')!r}, 'w').close()\n")
    return Path(shutil.copy(SCRIPT, folder))


def test_check_hashes_everything(tmp_path: Path) -> None:
    """A changed README.txt or script is damage, one that was taken out a warning, another one is missing."""
    (place,) = shaped("folder", tmp_path / "in")
    assert restore("--from", place, "--check")[0] == 0
    readme = (place / "README.txt").read_bytes()
    (place / "README.txt").write_bytes(readme + b"!")
    code, _, wrong = restore("--from", place, "--check")
    assert (code, "README.txt is damaged" in wrong) == (4, True)
    (place / "README.txt").unlink()
    code, said, wrong = restore("--from", place, "--check")
    assert (code, "warning: README.txt" in wrong, "every file" in said) == (0, True, True)
    (place / "oci-layout").unlink()
    code, _, wrong = restore("--from", place, "--check")
    assert (code, "oci-layout is missing" in wrong) == (3, True)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_expected_bundle_is_used(tmp_path: Path, shape: str) -> None:
    """The fingerprint, with or without `sha256:`; a wrong one stops before anything is made."""
    source = places(shaped(shape, tmp_path / "in"))
    right = Archive(BUNDLE).fingerprint
    assert restore(*source, "--list", "--expect", right)[0] == 0
    assert restore(*source, "--list", "--expect", right.hex.upper())[0] == 0
    code, _, wrong = restore(*source, "--expect", "sha256:" + "0" * 64, "--to", tmp_path / "models", "tiny")
    assert (code, "do not use it" in wrong) == (6, True)
    assert not (tmp_path / "models").exists()


def weights() -> tuple[str, int]:
    """The digest of the fixture's weights, and where they lie in the tar."""
    blob = Archive(BUNDLE).models()[0].blobs[0]
    assert blob.digest is not None
    return blob.digest.hex, BUNDLE.read_bytes().index(TINY[0][1])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_damaged_blob_never_appears(tmp_path: Path, shape: str) -> None:
    """Neither it, nor the manifest that names it, nor a temporary file."""
    digest, offset = weights()
    raw = bytearray(BUNDLE.read_bytes())
    raw[offset + 50_000] ^= 1
    (tmp_path / "bad.tar").write_bytes(raw)
    source = places(shaped(shape, tmp_path / "in", tmp_path / "bad.tar"))
    code, _, wrong = restore(*source, "--to", tmp_path / "models", *IMAGES)
    assert (code, f"{digest} is damaged" in wrong) == (4, True)
    assert files_of(tmp_path / "models") == {}


def test_a_damaged_blob_at_the_target_is_mended(tmp_path: Path) -> None:
    """What is there is hashed as well."""
    models = tmp_path / "models"
    whole = models_dir(models)
    path = models / "blobs" / f"sha256-{weights()[0]}"
    path.write_bytes(bytes(path.stat().st_size))
    assert restore("--from", BUNDLE, "--to", models, *IMAGES)[0] == 0
    assert files_of(models) == whole


def test_whatever_byte_is_flipped(
    quick: Path, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused, or exactly the same models are there."""
    good = models_dir(quick / "good")
    raw = BUNDLE.read_bytes()
    documents = raw.index(TINY[0][1])
    outcomes = set()
    for place in (*range(0, documents, 61), *range(documents, len(raw), 8009)):
        (quick / "b.tar").write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        models = quick / "models"
        try:
            found = module.open_bundle([str(quick / "b.tar")], None)
            read = module.read_models(found, module.read_index(found, None, None))
            target = module.Directory(str(models))
            for model in read[:2]:
                target.restore(found, model)
        except module.Failure:
            outcomes.add("refused")
            there = files_of(models)
            assert {name: good.get(name) for name in there} == there
        else:
            outcomes.add("same")
            assert files_of(models) == good, place
        shutil.rmtree(models, ignore_errors=True)
    assert outcomes == {"refused", "same"}


def test_missing_volumes_are_named(tmp_path: Path) -> None:
    """In one line, to be read out on the telephone; a volume that is cut is missing, too."""
    (folder,) = shaped("set", tmp_path / "in")
    (folder / "set.tar.002").unlink()
    code, _, wrong = restore("--from", folder, "--to", tmp_path / "models")
    assert (code, wrong.strip()[-7:]) == (3, "need: 2")
    os.truncate(folder / "set.tar.001", 1000)
    assert restore("--from", folder, "--list")[2].strip().endswith("need: 1, 2")
    (tmp_path / "elsewhere").mkdir()
    (folder / "set.tar.001").rename(tmp_path / "elsewhere" / "set.tar.001")
    assert restore("--from", folder, "--from", tmp_path / "elsewhere", "--list")[0] == 3
    assert not (tmp_path / "models").exists()


def test_volumes_of_other_sets_are_refused(tmp_path: Path) -> None:
    """By their descriptors; and where only the volumes are foreign, by their bytes."""
    store = MemoryStore()
    other = store.image("other", (MODEL, TINY[0][1][::-1]))
    copy(store, [other], Archive(tmp_path / "other.tar"))
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    cut(BUNDLE, mine)
    cut(tmp_path / "other.tar", theirs)
    code, _, wrong = restore("--from", mine, "--from", theirs, "--list")
    assert (code, "different sets" in wrong) == (6, True)
    (theirs / "set.volumes.json").unlink()
    first = (theirs / "set.tar.001").read_bytes()
    (mine / "set.tar.001").write_bytes(first.ljust(CUT, b"\0")[:CUT])
    code, _, wrong = restore("--from", mine, "--to", tmp_path / "models")
    assert code == 4
    assert not files_of(tmp_path / "models")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "modelpack-volumes/2"},
        {"volumes": []},
        {"volumes": None},
        {"volumes": [{"n": "../../x", "size": 1}]},
        {"volumes": [{"n": 1, "size": -1}]},
        {"volumes": [{"n": 1, "size": "9"}]},
        {"bundle": 5},
        {"bundle": "sha256:" + "0" * 64},
    ],
    ids=str,
)
def test_a_wrong_descriptor_is_no_crash(tmp_path: Path, change: dict[str, Any]) -> None:
    """It is refused in words."""
    (folder,) = shaped("set", tmp_path / "in")
    path = folder / "set.volumes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, wrong = restore("--from", folder, "--list")
    assert code in (3, 4, 5)
    assert wrong.startswith("restore.py: ")


def test_a_volume_that_was_renamed_is_told_its_name(tmp_path: Path) -> None:
    """It is looked for by that alone."""
    (folder,) = shaped("set", tmp_path / "in")
    (folder / "set.tar.002").rename(folder / "copy.bin")
    assert "call it set.tar.002 again" in restore("--from", folder, "--list")[2]


def test_damage_names_the_volumes_where_it_is(tmp_path: Path) -> None:
    """Another copy of one of them may be good: then that folder is named first."""
    paths = shaped("two folders", tmp_path / "in")
    digest, offset = weights()
    bad = paths[offset // CUT % 2] / f"set.tar.{offset // CUT + 1:03d}"
    spare = Path(shutil.copytree(bad.parent, tmp_path / "spare"))
    raw = bytearray(bad.read_bytes())
    raw[offset % CUT + 10] ^= 1
    bad.write_bytes(raw)
    code, _, wrong = restore(*places(paths), "--to", tmp_path / "models", "tiny")
    assert (code, str(bad) in wrong, f"{digest} is damaged" in wrong) == (4, True, True)
    assert restore(*places([spare, *paths]), "--to", tmp_path / "models", "tiny")[0] == 0


def spoil(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


@needs_keygen
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("set.sha256", Path.unlink),
        ("set.sha256", spoil),
        ("set.sha256.sig", Path.unlink),
        ("set.sha256.sig", spoil),
        ("set.volumes.json", spoil),
    ],
)
def test_one_good_copy_of_each_paper_is_enough(
    tmp_path: Path, first: bool, name: str, how: Callable[[Path], None]
) -> None:
    """On whichever medium it lies."""
    mine = key(tmp_path / "mine")
    paths = signed("two folders", tmp_path / "in", mine)
    how(paths[not first] / name)
    assert restore(*places(paths), "--check", "--signers", mine)[0] == 0
    assert restore(*places(paths), "--check")[0] == 0


@needs_keygen
def test_no_paper_of_a_set_is_taken_on_trust(tmp_path: Path) -> None:
    """Sums without a signature, a signature without sums, sums that fit no descriptor."""
    mine = key(tmp_path / "mine")
    (place,) = signed("set", tmp_path / "in", mine)
    (place / "set.sha256").rename(tmp_path / "sums")
    assert restore("--from", place, "--list", "--signers", mine)[0] == 11
    assert restore("--from", place, "--list")[0] == 0
    (place / "set.sha256").write_bytes(b"\xff" + (tmp_path / "sums").read_bytes())
    assert restore("--from", place, "--list", "--signers", mine)[0] == 4
    assert restore("--from", place, "--list")[0] == 0
    assert restore("--from", place, "--check")[0] == 4


@pytest.mark.parametrize("words", [["--list"], ["--to", "models"]])
@pytest.mark.parametrize("shape", ["folder", "tar", "beside"])
def test_a_changed_readme_is_never_passed_over(tmp_path: Path, shape: str, words: list[str]) -> None:
    """Nor a changed restore.py: somebody may run it next. None at all is nothing."""
    readme = subprocess.run(["tar", "xOf", BUNDLE, "README.txt"], capture_output=True, check=True).stdout
    if shape == "tar":
        place = tmp_path / "b.tar"
        place.write_bytes(BUNDLE.read_bytes().replace(readme, b"!" + readme[1:]))
    elif shape == "folder":
        (place,) = shaped("folder", tmp_path / "in")
        (place / "README.txt").write_bytes(b"!" + readme[1:])
    else:
        (place,) = shaped("set", tmp_path / "in")
        with (place / "set.sha256").open("a") as sums:
            sums.write(f"{Digest.of(readme).hex}  restore.py\n")
        assert restore("--from", place, "--list")[0] == 0
        (place / "restore.py").write_bytes(readme)
        assert restore("--from", place, "--list")[0] == 0
        (place / "restore.py").write_bytes(b"!")
    code, _, wrong = restore("--from", place, *words, cwd=tmp_path)
    assert (code, " is damaged" in wrong) == (4, True)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "./../x", "a/../../x", "a/.."])
def test_sums_name_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    """A path that leads out is damage; one with `./` before it, or dots within, is none."""
    (place,) = shaped("folder", tmp_path / "in")
    sums = (place / "SHA256SUMS").read_text()
    (place / "..x").write_bytes(b"")
    mine = f"{Digest.of(b'').hex}  ..x\n"
    (place / "SHA256SUMS").write_text(sums.replace("  ", "  ./") + mine)
    assert restore("--from", place, "--check")[0] == 0
    (place / "SHA256SUMS").write_text(sums + mine.replace("..x", name))
    assert restore("--from", place, "--list")[0] == 4


@pytest.mark.parametrize("python", {OLDEST, PYTHONS[-1]}, ids=str)
def test_a_name_that_the_system_cannot_have(tmp_path: Path, python: Path) -> None:
    """In the C locale, and in a Python that knows nothing better: no crash."""
    (place,) = shaped("folder", tmp_path / "in")
    with (place / "SHA256SUMS").open("a", encoding="utf-8") as sums:
        sums.write(f"{'0' * 64}  \u00fc\n")
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    assert restore("--from", place, "--check", python=python, env=env)[0] in (3, 4)


def retarred(place: Path, *words: str) -> Path:
    """The fixture with an attachment of a long name, in a tar by GNU tar."""
    (folder,) = shaped("folder", place / "in")
    (folder / "attachments").mkdir()
    (folder / "attachments" / ("n" * 84 + ".pdf")).write_bytes(b"")
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{Digest.of(b'').hex}  attachments/{'n' * 84}.pdf\n")
    subprocess.run(["tar", "cf", place / "re.tar", "-C", folder, *words, "."], check=True)
    return place / "re.tar"


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_tars_by_gnu_tar_are_read(tmp_path: Path, kind: str) -> None:
    """`./` before each name, folders, and long names in either way."""
    made = retarred(tmp_path, f"--format={kind}")
    assert restore("--from", made, "--check")[0] == 0


def test_a_tar_that_is_cut_or_odd_is_damaged(tmp_path: Path) -> None:
    """Also at the end of a member; names that come twice, and links."""
    raw = BUNDLE.read_bytes().rstrip(b"\0")
    ends = -len(raw) % 512
    with tarfile.open(BUNDLE) as tar:
        last = max(tar.getmembers(), key=lambda one: one.offset_data)
    cuts = [BUNDLE.read_bytes()[: last.offset], raw + bytes(ends), raw + bytes(ends + 512)]
    for number, cut_off in enumerate(cuts):
        (tmp_path / "cut.tar").write_bytes(cut_off)
        assert restore("--from", tmp_path / "cut.tar", "--list")[0] == 4, number
    for kind, name in (
        (tarfile.SYMTYPE, "x"),
        (tarfile.REGTYPE, "index.json"),
        (tarfile.REGTYPE, "./index.json"),
    ):
        odd = Path(shutil.copy(BUNDLE, tmp_path / "odd.tar"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "index.json" if kind == tarfile.SYMTYPE else ""
        with tarfile.open(odd, "a") as tar:
            tar.addfile(member)
        code, _, wrong = restore("--from", odd, "--list")
        assert (code, "is a link, or there twice" in wrong) == (4, True)


def remade(
    place: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], name: str = "tiny:latest"
) -> Path:
    """The fixture, after *change* has had the manifest and the document of a model; all sums are right."""

    def kept(value: object) -> tuple[str, int]:
        raw = json.dumps(value).encode()
        digest = Digest.of(raw)
        (place / "blobs" / "sha256" / digest.hex).write_bytes(raw)
        return str(digest), len(raw)

    def blob(one: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((place / "blobs" / "sha256" / one["digest"][7:]).read_bytes())
        return found

    def changed(index: dict[str, Any]) -> None:
        (entry,) = (one for one in index["manifests"] if one["annotations"][REF].endswith(f"/{name}"))
        manifest = blob(entry)
        body = blob(manifest["config"])
        change(manifest, body)
        manifest["config"]["digest"], manifest["config"]["size"] = kept(body)
        entry["digest"], entry["size"] = kept(manifest)
        index["manifests"] = [entry]

    return rewritten(place, changed)


RECIPE = next(str(model.name) for model in Archive(BUNDLE).models() if isinstance(model.document, Recipe))


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("tiny:latest", lambda manifest, body: None, 0),
        ("tiny:latest", lambda manifest, body: manifest["layers"].append(manifest["layers"][0]), 4),
        ("tiny:latest", lambda manifest, body: manifest["layers"].pop(), 4),
        ("tiny:latest", lambda manifest, body: body.update(schemaVersion=1), 5),
        ("tiny:latest", lambda manifest, body: body.update(mediaType="application/json"), 5),
        ("tiny:latest", lambda manifest, body: body.update(x=float("nan")), 4),
        ("tiny:latest", lambda manifest, body: manifest.update(artifactType="application/x"), 5),
        (RECIPE, lambda manifest, body: None, 0),
        (RECIPE, lambda manifest, body: body.update(files={}), 4),
        (RECIPE, lambda manifest, body: body.update(files=[]), 4),
        (RECIPE, lambda manifest, body: body.update(adapters={"x": "sha256:" + "0" * 64}), 4),
        (RECIPE, lambda manifest, body: body.update(parameters={"x": float("inf")}), 4),
        (RECIPE, lambda manifest, body: manifest["layers"].pop(), 4),
    ],
)
def test_documents_that_contradict_each_other(
    tmp_path: Path, name: str, change: Callable[[dict[str, Any], dict[str, Any]], None], code: int
) -> None:
    """What is listed is what is named, once each; numbers are numbers; Ollama knows its kind."""
    assert restore("--from", remade(tmp_path / "in", change, name), "--list")[0] == code


def test_large_numbers_are_none(module: ModuleType) -> None:
    """1e999 is in JSON's grammar, and no server reads the Infinity that it would become."""
    for raw in (b"[1e999]", b"[NaN]", b"[-Infinity]"):
        with pytest.raises(ValueError, match="JSON"):
            module.document(raw)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda index: index.update(manifests=[]), 3),
        (lambda index: index["manifests"].append(index["manifests"][0]), 4),
        (lambda index: index["manifests"][0].update(size=index["manifests"][0]["size"] + 1), 4),
        (lambda index: [one.pop("artifactType") for one in index["manifests"]], 0),
    ],
)
def test_an_index_of_other_tools_or_none(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], code: int
) -> None:
    """No model is none restored; skopeo drops the type of an entry; twice, or another size, is damage."""
    place = rewritten(tmp_path / "in", change)
    assert restore("--from", place, "--to", tmp_path / "models", *([] if code else ["tiny"]))[0] == code


def test_a_volume_comes_once_and_has_a_whole_size(tmp_path: Path) -> None:
    """A size that is a float, a number that is true or comes twice: damage, before a byte is read."""
    (folder,) = shaped("set", tmp_path / "in")
    path = folder / "set.volumes.json"
    raw = json.loads(path.read_text())
    for number, change in enumerate(({"size": float(CUT)}, {"n": True}, {"n": 2})):
        volumes = [raw["volumes"][0] | change, *raw["volumes"][1:]]
        path.write_text(json.dumps(raw | {"volumes": volumes}))
        assert restore("--from", folder, "--list")[0] == 4, number


def rewritten(place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The fixture as a folder whose index.json was changed by somebody who changed SHA256SUMS as well."""
    shaped("folder", place)
    index = json.loads((place / "index.json").read_bytes())
    before = Digest.of((place / "index.json").read_bytes()).hex
    change(index)
    raw = json.dumps(index).encode()
    (place / "index.json").write_bytes(raw)
    sums = (place / "SHA256SUMS").read_text()
    (place / "SHA256SUMS").write_text(sums.replace(before, Digest.of(raw).hex))
    return place


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda index: index["annotations"].update({"dev.ollama-modelpack.needs": "delta,teleport"}), 5),
        (lambda index: index["annotations"].update({"dev.ollama-modelpack.format": "2"}), 5),
        (lambda index: index.update(manifests=5), 4),
        (lambda index: index["manifests"][0].update(digest="sha256:../../../etc/passwd"), 4),
        (lambda index: index["manifests"][0].update(digest="sha256:" + "0" * 64), 3),
        (lambda index: index["manifests"][0].update(size="x"), 4),
        (lambda index: index["manifests"][0].update(annotations={REF: "a/../../b:c"}), 4),
        (lambda index: index["manifests"][0].update(annotations={REF: "x/y/../z"}), 4),
        (lambda index: index["manifests"][0].update(annotations={REF: "h/n/m:t\n"}), 4),
        (lambda index: index["manifests"][0].update(annotations={REF: "n\0"}), 4),
    ],
)
def test_a_hostile_index_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], code: int
) -> None:
    """What it needs and nobody knows, names that are paths, digests that are paths."""
    place = rewritten(tmp_path / "in", change)
    before = tree(tmp_path)
    found, _, wrong = restore("--from", place, "--to", tmp_path / "models")
    assert found == code, wrong
    assert tree(tmp_path) == before


def test_large_documents_and_deep_ones_are_refused(tmp_path: Path) -> None:
    """Before they are read, or without a crash."""
    for number, raw in enumerate((b" " * (5 << 20), b"[" * 200_000, b'{"a":' * 100_000, b"\xff", b"")):
        place = tmp_path / str(number)
        shaped("folder", place)
        before = Digest.of((place / "index.json").read_bytes()).hex
        (place / "index.json").write_bytes(raw)
        sums = (place / "SHA256SUMS").read_text()
        (place / "SHA256SUMS").write_text(sums.replace(before, Digest.of(raw).hex))
        assert restore("--from", place, "--list")[0] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="its memory is told by Linux")
@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("index.json", b"[" + b"{}," * ((4 << 20) // 3 - 2) + b"{}]"),
        ("SHA256SUMS", b"\n".join(b"%064x  %x" % (n, n) for n in range(230_000))),
        ("SHA256SUMS", b"\n".join(b"%064x  %x" % (n, n) for n in range(115_000))),
    ],
    ids=["index", "too long", "long"],
)
def test_hostile_documents_take_little_memory(tmp_path: Path, name: str, raw: bytes) -> None:
    """At most 96 MiB, whatever they hold."""
    (place,) = shaped("folder", tmp_path / "in")
    before = Digest.of((place / name).read_bytes()).hex
    (place / name).write_bytes(raw)
    if name == "index.json":
        sums = (place / "SHA256SUMS").read_text()
        (place / "SHA256SUMS").write_text(sums.replace(before, Digest.of(raw).hex))
    start = (
        f"import runpy, sys; sys.argv[0] = {str(SCRIPT)!r}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    )
    command = [OLDEST, "-I", "-c", start, "--from", place, "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4, done.stderr
    assert int(done.stdout.split()[-1]) < 96 << 10  # KiB


@pytest.mark.parametrize("what", ["index.json", "blobs", "blobs/sha256", "blob", "SHA256SUMS"])
def test_links_in_a_bundle_are_not_followed(tmp_path: Path, what: str) -> None:
    """Neither folders nor files."""
    (place,) = shaped("folder", tmp_path / "in")
    path = place / (f"blobs/sha256/{weights()[0]}" if what == "blob" else what)
    path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "away")
    code, _, _ = restore("--from", place, "--to", tmp_path / "models", "tiny")
    assert code in (3, 6)
    assert not files_of(tmp_path / "models")


@pytest.mark.parametrize(
    "what", ["blobs", "manifests/registry.ollama.ai", "manifests/registry.ollama.ai/library/tiny/latest"]
)
def test_links_in_the_target_are_not_followed(tmp_path: Path, what: str) -> None:
    """Nothing is written where they lead."""
    models, away = tmp_path / "models", tmp_path / "away"
    (models / "manifests").mkdir(parents=True)
    away.mkdir()
    (models / what).parent.mkdir(parents=True, exist_ok=True)
    (models / what).symlink_to(away)
    assert restore("--from", BUNDLE, "--to", models, "tiny")[0] == 6
    assert list(away.iterdir()) == []


def test_a_blob_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    """A link by a blob's name is refused; the file that it leads to stays."""
    models = tmp_path / "models"
    models_dir(models)
    path = models / "blobs" / f"sha256-{weights()[0]}"
    path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "away")
    assert restore("--from", BUNDLE, "--to", models, "tiny")[0] == 6


def test_only_a_models_directory_is_filled(tmp_path: Path) -> None:
    """A folder of something else is left alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("x")
    assert restore("--from", BUNDLE, "--to", tmp_path / "home")[0] == 6
    assert list(files_of(tmp_path / "home")) == ["letter.txt"]


def test_a_name_that_is_taken_stays(tmp_path: Path) -> None:
    """Also where it differs in case alone."""
    store = MemoryStore()
    for name in ("TINY", "tiny"):
        models = tmp_path / name
        copy(store, [store.image(name, (MODEL, b"another"))], ModelsDir(models))
        before = files_of(models)
        code, _, wrong = restore("--from", BUNDLE, "--to", models, "tiny")
        assert (code, "stands there for another model" in wrong) == (6, True)
        assert files_of(models) == before


def test_names_choose(tmp_path: Path) -> None:
    """As Ollama reads them; one that is not there, or is no name, stops everything."""
    assert restore("--from", BUNDLE, "--to", tmp_path / "models", "registry.ollama.ai/Library/TINY")[0] == 0
    assert len(list((tmp_path / "models" / "manifests").rglob("latest"))) == 1
    assert restore("--from", BUNDLE, "--list", "nobody")[0] == 3
    assert restore("--from", BUNDLE, "--list", "../x")[0] == 2
    assert restore("--from", BUNDLE)[0] == 2
    assert restore("--from", tmp_path / "nothing", "--list")[0] == 3


@pytest.mark.parametrize("flag", ["--expect", "--signers"])
@pytest.mark.parametrize("value", ["", "sha256:", "0" * 63, "."])
def test_a_check_that_was_asked_for_is_made(tmp_path: Path, flag: str, value: str) -> None:
    """An empty value, of a variable that is not set, is usage: never no check."""
    assert restore("--from", BUNDLE, "--to", tmp_path / "models", flag, value, "tiny")[0] == 2
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "target", ["127.0.0.1:9", "localhost:9", "[::1]:9", "htp://h:9", "http:/h:9", "http://", "http://h:abc"]
)
def test_a_target_that_is_mistyped_is_no_folder(tmp_path: Path, target: str) -> None:
    """What looks like a server and is none is usage; HTTP:// is a server."""
    assert restore("--from", BUNDLE, "--to", target, "tiny", cwd=tmp_path)[0] == 2
    assert restore("--from", BUNDLE, "--to", "HTTP://127.0.0.1:9", "tiny", cwd=tmp_path)[0] == 7
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a new directory, too; what is old is removed, what may be of a run under way is not."""
    models = tmp_path / "models"
    (models / "blobs").mkdir(parents=True)
    for folder in (models, models / "blobs"):
        for name in (".restore-old", ".restore-new"):
            (folder / name).write_bytes(b"x")
        os.utime(folder / ".restore-old", (0, 0))
    assert restore("--from", BUNDLE, "--to", models, *IMAGES)[0] == 0
    left = {path.relative_to(models) for path in models.rglob(".restore-*")}
    assert left == {Path(".restore-new"), Path("blobs/.restore-new")}


@needs_root
@pytest.mark.parametrize("part", ["blobs", "manifests"])
def test_a_disk_of_its_own_within_the_directory(tmp_path: Path, part: str) -> None:
    """No rename leads from one file system to another."""
    place = tmp_path / "models" / part
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a disk here")
    try:
        assert restore("--from", BUNDLE, "--to", tmp_path / "models", *IMAGES)[0] == 0
        assert files_of(tmp_path / "models") == models_dir(tmp_path / "other")
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("ignored", "code"), [(False, 130), (True, 7)])
def test_a_line_that_is_cut_ends_it_tidily(tmp_path: Path, ignored: bool, code: int) -> None:
    """SIGHUP as SIGTERM; under nohup it goes on, here until the server goes away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [OLDEST, "-I", SCRIPT, "--from", BUNDLE, "--to", url, "tiny"]
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            signal.signal(signal.SIGHUP, before)
            connection, _ = server.accept()
            process.send_signal(signal.SIGHUP)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            connection.close()
            process.communicate(timeout=30)
    assert process.returncode == code


@needs_root
def test_owner_and_mode_are_the_directorys(tmp_path: Path) -> None:
    """Every file and folder, whoever restores."""
    models = tmp_path / "models"
    models.mkdir()
    os.chmod(models, 0o770)
    os.chown(models, 12345, 23456)
    assert restore("--from", BUNDLE, "--to", models, "tiny")[0] == 0
    for path in models.rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (12345, 23456)
        assert stat.S_IMODE(found.st_mode) == (0o770 if path.is_dir() else 0o660)


def test_a_delta_needs_what_it_expects(tmp_path: Path) -> None:
    """It is refused where the blobs are not, and whole where they are."""
    store = MemoryStore()
    model = store.image("tiny", *TINY)
    base = store.image("base", TINY[0])
    first = base.blobs[0]
    assert first.digest is not None
    expects = Expects((Expected(first.digest, first.size, base.name, base.document.id),))
    place = tmp_path / "delta"
    for member in bundle([model], expects=expects).members:
        path = place / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            member.content if isinstance(member.content, bytes) else store.bytes[member.content.digest]
        )
    models = tmp_path / "models"
    code, _, wrong = restore("--from", place, "--to", models)
    assert (code, "is not in the bundle, a delta" in wrong) == (3, True)
    assert not list(models.rglob("latest"))
    copy(store, [base], ModelsDir(models))
    assert restore("--from", place, "--to", models)[0] == 0
    assert restore("--from", place, "--check")[0] == 0
    assert {str(one.name) for one in ModelsDir(models).models()} == {"base:latest", "tiny:latest"}
    (place / "expects.json").write_bytes((place / "expects.json").read_bytes() + b" ")
    assert restore("--from", place, "--list")[0] == 4


# --- servers


def test_a_server_makes_the_same_models(tmp_path: Path) -> None:
    """Templates, texts, parameters and messages as in the bundle; a recipe, too; the second time, nothing."""
    with own_depot(tmp_path / "depot") as depot:
        code, said, wrong = restore("--from", BUNDLE, "--to", depot.url, *IMAGES)
        assert (code, wrong, said.count(" is made; ")) == (0, "", 2)
        shown = ask(depot.url, "POST", "/api/show", {"model": "team/full:1.0"}).json
        request = create_request_of(Archive(BUNDLE), Archive(BUNDLE).models()[1])
        for key in ("template", "system", "messages"):
            assert shown[key] == request[key]
        code, _, wrong = restore("--from", BUNDLE, "--to", depot.url, "tiny")
        assert code in (0, 6)


def test_a_server_that_has_the_very_model_is_left_alone(tmp_path: Path) -> None:
    """Same name and ID."""
    models_dir(tmp_path / "depot")
    with own_depot(tmp_path / "depot") as depot:
        before = files_of(tmp_path / "depot")
        code, said, _ = restore("--from", BUNDLE, "--to", depot.url, *IMAGES)
        assert (code, said.count("is there already, with the same ID")) == (0, 2)
        make(depot.url, "other")
        store = MemoryStore()
        copy(store, [store.image("other", TINY[0])], Archive(tmp_path / "other.tar"))
        assert restore("--from", tmp_path / "other.tar", "--to", depot.url)[0] == 6
        assert {name: files_of(tmp_path / "depot")[name] for name in before} == before


def test_a_damaged_blob_reaches_no_server(tmp_path: Path) -> None:
    """Its last piece is never sent; no model is made."""
    raw = bytearray(BUNDLE.read_bytes())
    raw[weights()[1] + 70_000] ^= 1
    (tmp_path / "bad.tar").write_bytes(raw)
    with own_depot(tmp_path / "depot") as depot:
        code, _, wrong = restore("--from", tmp_path / "bad.tar", "--to", depot.url, "tiny")
        assert (code, "is damaged" in wrong) == (4, True)
        assert ask(depot.url, "GET", "/api/tags").json == {"models": []}
    assert files_of(tmp_path / "depot") == {}


def test_what_no_server_makes_is_refused(tmp_path: Path) -> None:
    """Before a byte is sent: tensors, and a base that is not there."""
    store = MemoryStore()
    copy(store, [store.image("tensors", (TENSOR, b"x"))], Archive(tmp_path / "t.tar"))
    asked: list[str] = []
    with answering({"GET": b'{"models":[]}'}, asked) as url:
        assert restore("--from", tmp_path / "t.tar", "--to", url)[0] == 5
    assert asked == ["GET /api/tags"]


@contextlib.contextmanager
def answering(answers: dict[str, bytes], asked: list[str], status: int = 200) -> Iterator[str]:
    """A server that says the same on each request of a method; blobs are 404 on HEAD, 201 on POST."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            blob = "/blobs/" in self.path
            body = b"" if blob else answers[self.command]
            self.send_response(404 if self.command == "HEAD" else 201 if blob else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "stream",
    [
        b'{"status":"x"}\n{"error":"no \\u001b[31m room"}\n',
        b'{"status":"creating"}\n',
        b"",
        b'{"status":"success"}\n{"error":"late"}\n',
    ],
)
def test_only_success_at_the_end_is_success(stream: bytes) -> None:
    """Ollama's errors come inside the stream, after its 200."""
    with answering({"GET": b'{"models":[]}', "POST": stream}, []) as url:
        code, said, wrong = restore("--from", BUNDLE, "--to", url, "tiny")
    assert (code, "is made" in said) == (6, False)
    assert "\x1b" not in wrong


@pytest.mark.parametrize(
    "tags", [b"", b"[]", b'{"models":5}', b'{"models":[{"name":"../x"}]}', b"\xff", b"[" * 100_000]
)
def test_a_server_that_talks_nonsense_is_no_crash(tags: bytes) -> None:
    """Whatever it says of its models."""
    with answering({"GET": tags}, []) as url:
        assert restore("--from", BUNDLE, "--to", url, "tiny")[0] == 4


@pytest.mark.parametrize("status", [307, 401, 404, 500])
def test_a_server_that_refuses_is_quoted(status: int) -> None:
    """Its status and its words, and that it is no damage."""
    with answering({"GET": b"go away"}, [], status) as url:
        code, _, wrong = restore("--from", BUNDLE, "--to", url, "tiny")
    assert (code, f"{status} b'go away'" in wrong) == (6, True)


def test_a_model_that_is_refused_stops_no_other(tmp_path: Path) -> None:
    """So a second run goes on where the first one was stopped."""
    with own_depot(tmp_path / "depot") as depot:
        make(depot.url, "tiny")
        code, said, wrong = restore("--from", BUNDLE, "--to", depot.url, *IMAGES)
        assert (code, "under another ID" in wrong, "team/full:1.0 is made" in said) == (6, True, True)


def test_a_server_that_is_not_there() -> None:
    """Is unreachable, which is no damage."""
    assert restore("--from", BUNDLE, "--to", "http://127.0.0.1:9", "tiny")[0] == 7


def test_a_base_comes_first(tmp_path: Path) -> None:
    """A recipe that is made from a model that the server has not is refused: it would ask a registry."""
    place = tmp_path / "in"
    body = {"from": "base", "system": "x"}
    model = Model(Name.parse("mine"), Recipe.compose(body, {}))
    for member in bundle([model]).members:
        path = place / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(member.content, bytes)
        path.write_bytes(member.content)
    with own_depot(tmp_path / "depot") as depot:
        code, _, wrong = restore("--from", place, "--to", depot.url)
        assert (code, "load that one first" in wrong) == (3, True)
        make(depot.url, "base")
        assert restore("--from", place, "--to", depot.url)[0] == 0
        assert ask(depot.url, "POST", "/api/show", {"model": "mine"}).json["system"] == "x"


@pytest.mark.parametrize("key", ["MODEL", "From", "remote_host", "name", "stream", "pull"])
def test_a_recipe_asks_for_nothing_else(tmp_path: Path, key: str) -> None:
    """No key but those that were looked at reaches a server: Go takes MODEL for the name."""
    body = {"system": "x", key: "victim:latest"}
    model = Model(Name.parse("good"), Recipe.compose(body, {}))
    for member in bundle([model]).members:
        path = tmp_path / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(member.content, bytes)
        path.write_bytes(member.content)
    asked: list[str] = []
    with answering({"GET": b'{"models":[]}', "POST": b'{"status":"success"}'}, asked) as url:
        code, _, wrong = restore("--from", tmp_path, "--to", url)
    assert (code, "more than a recipe may" in wrong, asked) == (5, True, [])


# --- signatures


@needs_keygen
@pytest.mark.parametrize("shape", SHAPES)
def test_a_signature_by_somebody_known_is_good(tmp_path: Path, shape: str) -> None:
    """And by nobody else, nor over other bytes, nor none at all."""
    mine, other = key(tmp_path / "mine"), key(tmp_path / "other")
    source = places(signed(shape, tmp_path / "in", mine))
    code, said, _ = restore(*source, "--list", "--signers", mine)
    assert (code, "signature for mine@example.com with" in said) == (0, True)
    code, _, wrong = restore(*source, "--to", tmp_path / "models", "--signers", other)
    assert (code, "no good signature" in wrong) == (10, True)
    for path in (tmp_path / "in").rglob("*.sha256" if "set" in shape or "two" in shape else "SHA256SUMS"):
        path.write_bytes(path.read_bytes() + b"0" * 64 + b"  more\n")
    if shape != "tar":
        assert restore(*source, "--to", tmp_path / "models", "--signers", mine)[0] == 4
    for path in (tmp_path / "in").rglob("*.sig"):
        path.unlink()
    code, _, wrong = restore(*source, "--to", tmp_path / "models", "--signers", mine)
    assert (code, "is not signed" in wrong) == (10, True)
    assert not (tmp_path / "models").exists()


@needs_keygen
def test_what_is_signed_is_what_counts(tmp_path: Path) -> None:
    """Another index under a signature that is good, or another descriptor, is damage."""
    mine = key(tmp_path / "mine")
    signed("folder", tmp_path / "folder", mine)
    index = tmp_path / "folder" / "index.json"
    index.write_bytes(index.read_bytes() + b" ")
    assert restore("--from", tmp_path / "folder", "--list", "--signers", mine)[0] == 4
    (place,) = signed("set", tmp_path / "set", mine)
    descriptor = place / "set.volumes.json"
    descriptor.write_bytes(descriptor.read_bytes() + b" ")
    assert restore("--from", place, "--list")[0] == 0
    assert restore("--from", place, "--list", "--signers", mine)[0] == 4
    (place,) = signed("folder", tmp_path / "wrong", mine)
    sums = (place / "SHA256SUMS").read_bytes()
    (place / "SHA256SUMS.sig").write_bytes(sign(mine, sums, "modelpack-set"))
    assert restore("--from", place, "--list", "--signers", mine)[0] == 10


@needs_keygen
def test_expired_keys_and_odd_files_are_refused(tmp_path: Path) -> None:
    """Nothing but a good signature is one."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    line = mine.read_text()
    mine.write_text(line.replace(" ssh-", ' valid-before="20200101" ssh-'))
    assert restore("--from", place, "--list", "--signers", mine)[0] == 10
    for text, code in (("", 11), ("# me\n\n", 11), (" " * (5 << 20), 11), ("garbage\n", 11), ("* \n", 11)):
        mine.write_text(text)
        assert restore("--from", place, "--list", "--signers", mine)[0] == code, text
    assert restore("--from", place, "--list", "--signers", tmp_path / "none")[0] == 2
    mine.write_text(line)
    for raw in (b"", b"-----BEGIN SSH SIGNATURE-----\n", bytes(5 << 20)):
        (place / "SHA256SUMS.sig").write_bytes(raw)
        assert restore("--from", place, "--list", "--signers", mine)[0] == 4


@needs_keygen
def test_it_says_why_a_signature_is_none(tmp_path: Path) -> None:
    """BAD is damage; somebody unknown, or another purpose, is not to be trusted."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    sums, path = (place / "SHA256SUMS").read_bytes(), place / "SHA256SUMS.sig"
    good = path.read_bytes()
    cases = {
        good: 0,
        good.replace(b"\n", b"\r\n"): 0,
        sign(mine, sums + b" ", "modelpack-bundle"): 4,
        good[: len(good) // 2]: 4,
        good.replace(good[60:61], b"~", 1): 4,
        sign(mine, sums, "file"): 10,
        sign(key(tmp_path / "other"), sums, "modelpack-bundle"): 10,
    }
    for raw, code in cases.items():
        path.write_bytes(raw)
        found, _, wrong = restore("--from", place, "--list", "--signers", mine)
        assert found == code, wrong
    path.rename(tmp_path / "elsewhere.sig")
    for make_odd in (lambda: path.symlink_to(tmp_path / "elsewhere.sig"), path.mkdir):
        make_odd()
        code, _, wrong = restore("--from", place, "--list", "--signers", mine)
        assert (code, "is a link or a folder" in wrong) == (10, True)
        if path.is_symlink():
            path.unlink()


@needs_keygen
def test_every_line_about_a_key_counts(tmp_path: Path) -> None:
    """ssh-keygen tells of the first one alone; and an expired one is said to be expired."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    line = mine.read_text()
    mine.write_text(line.replace(" ssh-", ' namespaces="x" ssh-') + line)
    assert restore("--from", place, "--list", "--signers", mine)[0] == 0
    mine.write_text(line.replace(" ssh-", ' valid-before="20200101" ssh-') + "# the end\n")
    code, _, wrong = restore("--from", place, "--list", "--signers", mine)
    assert (code, "expired" in wrong) == (10, True)


@needs_keygen
@pytest.mark.parametrize("home", ["/nonexistent", "", "/"])
def test_a_user_without_a_home_can_check(tmp_path: Path, home: str) -> None:
    """Services have none."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    assert restore("--from", place, "--list", "--signers", mine, env={"HOME": home})[0] == 0


@needs_keygen
@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_signers_that_everybody_may_change_vouch_for_nothing(tmp_path: Path) -> None:
    """Nor where everybody may lay another file in their place."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    for path, mode, code in (
        (mine, 0o646, 10),
        (mine, 0o664, 0),
        (mine.parent, 0o777, 10),
        (mine.parent, 0o1777, 0),
    ):
        path.chmod(mode)
        found, _, wrong = restore("--from", place, "--list", "--signers", "signers", cwd=mine.parent)
        assert (found, "everybody may change" in wrong) == (code, bool(code))


@needs_keygen
def test_signers_that_came_with_the_bundle_vouch_for_nothing(tmp_path: Path, quick: Path) -> None:
    """They lie in its folder, or on its file system, which is none of the machine's own."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    with_it = Path(shutil.copy(mine, place))
    code, _, wrong = restore("--from", place, "--list", "--signers", with_it)
    assert (code, "medium" in wrong) == (10, True)
    if quick.stat().st_dev == Path("/").stat().st_dev:
        pytest.skip("no second file system here")
    (place,) = signed("folder", quick / "in", mine)
    (quick / "keys").mkdir()
    code, _, wrong = restore("--from", place, "--list", "--signers", shutil.copy(mine, quick / "keys"))
    assert (code, "medium" in wrong) == (10, True)
    assert restore("--from", place, "--list", "--signers", mine)[0] == 0


@needs_keygen
@pytest.mark.parametrize("shape", ["folder", "two folders"])
def test_nor_do_signers_in_a_folder_of_it(tmp_path: Path, shape: str) -> None:
    """However deep, in any folder of the bundle, and where a link leads there."""
    mine = key(tmp_path / "mine")
    paths = signed(shape, tmp_path / "in", mine)
    for number, place in enumerate(paths):
        (place / "attachments").mkdir()
        planted = Path(shutil.copy(mine, place / "attachments"))
        (tmp_path / f"link{number}").symlink_to(planted)
        for path in (planted, tmp_path / f"link{number}"):
            code, _, wrong = restore(*places(paths), "--list", "--signers", path)
            assert (code, "medium" in wrong) == (10, True)
    assert restore(*places(paths), "--list", "--signers", mine)[0] == 0


@needs_keygen
@pytest.mark.parametrize("what", ["set.tar.001", "README.txt"])
def test_check_of_a_set_covers_what_was_signed(tmp_path: Path, what: str) -> None:
    """A volume whose inner sums were adapted is still another one; so is what lies beside."""
    mine = key(tmp_path / "mine")
    folder = tmp_path / "in"
    cut(BUNDLE, folder)
    (folder / "README.txt").write_bytes(b"as it was")
    sums = folder / "set.sha256"
    sums.write_text(sums.read_text() + f"{Digest.of(b'as it was').hex}  README.txt\n")
    (folder / "set.sha256.sig").write_bytes(sign(mine, sums.read_bytes(), "modelpack-set"))
    assert restore("--from", folder, "--check", "--signers", mine)[0] == 0
    raw = (folder / "set.tar.001").read_bytes()
    if what == "README.txt":
        (folder / what).write_bytes(b"another")
    else:  # the padding after the first member of the tar, which no sum in it covers
        place = 512 + int(raw[124:135], 8)
        assert raw[place : place + 1] == b"\0"
        (folder / what).write_bytes(raw[:place] + b"!" + raw[place + 1 :])
        assert restore("--from", folder, "--list", "--signers", mine)[0] == 0
    for more in (["--signers", mine], []):
        code, said, wrong = restore("--from", folder, "--check", *more)
        assert (code, f"{what} is damaged" in wrong, "every file" in said) == (4, True, False)


def test_on_windows_no_program_of_the_drive_one_stands_on_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """There /usr/bin is on whatever drive is the current one, and that may be the medium."""
    monkeypatch.setattr(os, "name", "nt")
    code = compile(SCRIPT.read_bytes(), str(SCRIPT), "exec")
    names: dict[str, Any] = {"__name__": "restore_on_windows", "__file__": str(SCRIPT)}
    exec(code, names)
    monkeypatch.undo()
    assert {path[:3] for path in (*names["SSH_KEYGEN"], names["ROOT"])} == {"C:\\"}


@needs_keygen
@pytest.mark.parametrize(
    ("program", "code"),
    [
        (None, 11),
        ("echo 'ssh-keygen: illegal option -- Y' >&2; exit 1", 11),
        ("echo 'usage: ssh-keygen [-q]' >&2; exit 255", 11),
        ("exit 0", 11),
        ("echo good; exit 0", 11),
        ("exit 255", 11),
    ],
)
def test_an_old_or_strange_ssh_keygen_never_says_good(
    tmp_path: Path, module: ModuleType, program: str | None, code: int
) -> None:
    """Missing, old, or without a word of why: it could not be checked."""
    mine = key(tmp_path / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    fake = tmp_path / "keygen"
    if program is not None:
        fake.write_text(f"#!/bin/sh\n{program}\n")
        fake.chmod(0o755)
    module.SSH_KEYGEN = [str(fake)]
    found = module.open_bundle([str(place)], str(mine))
    with pytest.raises(module.Failure) as failed:
        module.read_index(found, None, str(mine))
    assert failed.value.code == code


# --- the script itself


def test_the_command_prints_it(tmp_path: Path) -> None:
    """To the byte, with its SHA-256 beside it."""
    done = CliRunner().invoke(command)
    assert done.exit_code == 0
    assert done.stdout_bytes == script() == SCRIPT.read_bytes()
    assert done.stderr == f"SHA-256 {script_digest().hex}\n"


def test_it_is_in_the_wheel(tmp_path: Path) -> None:
    """As it stands here."""
    pytest.importorskip("hatchling")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
    ]
    subprocess.run([*command, SCRIPT.parents[2]], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(wheel).read("modelpack/receiver/restore.py") == SCRIPT.read_bytes()


def test_a_folder_that_modelpack_made(tmp_path: Path, shelf: MemoryStore) -> None:
    """Odd names, shared blobs, an empty layer, a registry with a port."""
    models = list(shelf.models())
    copy(shelf, models, FolderBundle(tmp_path / "b"))
    assert restore("--from", tmp_path / "b", "--to", tmp_path / "models")[0] == 0
    copy(shelf, models, ModelsDir(tmp_path / "other"))
    assert files_of(tmp_path / "models") == files_of(tmp_path / "other")
    assert SYSTEM in {blob.media_type for model in models for blob in model.blobs}


def test_nothing_is_made_from_a_stranger(tmp_path: Path) -> None:
    """The base has the name of another model there: neither it nor what is made from it is touched."""
    gguf = next(raw for kind, raw in TINY if kind == MODEL)
    store = MemoryStore()
    store.image("foo:1", (MODEL, gguf), (SYSTEM, b"ours"))
    models = [*store.models()]
    for name, base in (("baz", "bar"), ("bar", "foo:1"), ("apart", "other")):
        body = {"from": base, "system": name}
        models.append(Model(Name.parse(name), Recipe.compose(body, {})))
        store.kept[models[-1].name.folded] = models[-1]
    copy(store, models, Archive(tmp_path / "b.tar"))
    with own_depot(tmp_path / "depot") as depot:
        make(depot.url, "foo:1")
        make(depot.url, "other")
        code, said, wrong = restore("--from", tmp_path / "b.tar", "--to", depot.url)
        assert (code, "apart:latest is made" in said) == (6, True)
        assert wrong.count("is made from") == 2
        tags = json.loads(ask(depot.url, "GET", "/api/tags").body)["models"]
        assert sorted(one["name"] for one in tags) == ["apart:latest", "foo:1", "other:latest"]


def test_a_volume_stands_for_its_set(tmp_path: Path) -> None:
    (place,) = shaped("set", tmp_path / "in.tar.001")
    assert restore("--from", place, "--list")[0] == 0
    assert restore("--from", place / "set.tar.002", "--list")[0] == 0


@pytest.mark.parametrize("harm", ["a line of the sums", "no file", "too large"])
def test_damaged_sums_on_one_medium_accuse_nobody(tmp_path: Path, harm: str) -> None:
    """README.txt is right: it is its line in one of the two copies that is not."""
    paths = shaped("two folders", tmp_path / "in")
    for path in paths:
        (path / "README.txt").write_bytes(b"words")
        lines = (path / "set.sha256").read_text() + f"{Digest.of(b'words').hex}  README.txt\n"
        (path / "set.sha256").write_text(lines)
    sums = paths[0] / "set.sha256"
    if harm == "a line of the sums":
        sums.write_text(sums.read_text().replace(Digest.of(b"words").hex, Digest.of(b"other").hex))
    elif harm == "no file":
        sums.unlink()
        sums.mkdir()
    else:
        sums.write_bytes(bytes(5 << 20))
    for there in (paths, paths[::-1]):
        assert restore(*places(there), "--list")[0] == 0
    (paths[1] / "README.txt").write_bytes(b"neither")
    assert restore(*places(paths), "--list")[0] == 4


@needs_keygen
def test_signers_that_the_medium_chose(tmp_path: Path) -> None:
    """A link on it, to a file or a directory of this machine; and a file with the sticky bit."""
    (tmp_path / "keys").mkdir()
    mine = key(tmp_path / "keys" / "mine")
    (place,) = signed("folder", tmp_path / "in", mine)
    (place / "link").symlink_to(mine)
    (place / "trust").symlink_to(mine.parent)
    assert restore("--from", place, "--list", "--signers", mine)[0] == 0
    for name in ("link", f"trust/{mine.name}"):
        assert restore("--from", place, "--list", "--signers", place / name)[0] == 10
    mine.chmod(0o1666)
    assert restore("--from", place, "--list", "--signers", mine)[0] == 10
