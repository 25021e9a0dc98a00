"""Signing: by a file, an agent, a passphrase; what is signed, and what is not."""

from __future__ import annotations

import base64
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import MemoryStore, files_of, tree
from signing import agent, folder_of, needs_keygen, new_key, public, set_of, signers_file, tar_of

from modelpack.cli.sign import command
from modelpack.documents.sshsig import BUNDLE, SET, Signature, lines_of
from modelpack.errors import Corrupt, Local, NotFound, Refused, Unsupported
from modelpack.hands import sshsig
from modelpack.stores.archive import Archive
from modelpack.stores.folder import FolderBundle
from modelpack.stores.volumes import VolumeSet
from modelpack.verbs.papers import Signable
from modelpack.verbs.sign import sign
from modelpack.verbs.trust import GOOD, Trust, check

pytestmark = needs_keygen


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "alice")


def store_of(kind: str, tmp_path: Path, tiny: MemoryStore) -> Archive | FolderBundle | VolumeSet:
    made = {"tar": tar_of, "folder": folder_of, "set": set_of}[kind]
    return made(tmp_path / ("b.tar" if kind == "tar" else "b"), tiny)


def apart(path: Path) -> Path:
    """The same name in a folder of its own: beside a tar, nobody is believed."""
    (path.parent / "etc").mkdir(exist_ok=True)
    return path.parent / "etc" / path.name


def accepted(store: Signable, key: Path, where: Path) -> bool:
    where = apart(where)
    found = check(store, Trust(signers_file(where, f"alice@example.com {public(key)}")), "a test")
    return found.state == GOOD


@pytest.mark.parametrize(
    ("kind", "there", "namespace", "over"),
    [
        ("tar", "b.tar.sig", BUNDLE, ""),
        ("folder", "b/SHA256SUMS.sig", BUNDLE, "b/SHA256SUMS"),
        ("set", "b/tiny.sha256.sig", SET, "b/tiny.sha256"),
    ],
)
def test_where_it_lies_and_that_ssh_keygen_alone_takes_it(
    kind: str, there: str, namespace: str, over: str, key: Path, tmp_path: Path, tiny: MemoryStore
) -> None:
    store = store_of(kind, tmp_path, tiny)
    before = tree(tmp_path)
    made = sign(store, key)
    assert made.path == tmp_path / there
    assert tree(tmp_path).keys() - before.keys() == {there}
    assert {name: tree(tmp_path)[name] for name in before} == before
    assert made.path.stat().st_mode & 0o777 & ~0o644 == 0
    who = signers_file(tmp_path / "signers", f"alice@example.com {public(key)}")
    what = (tmp_path / over).read_bytes() if over else store.read("SHA256SUMS", 1 << 20)
    done = subprocess.run(
        [
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            who,
            "-I",
            "alice@example.com",
            "-n",
            namespace,
            "-s",
            made.path,
        ],
        input=what,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert made.key.split()[1].encode() in done.stdout
    assert accepted(store, key, who)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys(kind: str, tmp_path: Path, tiny: MemoryStore) -> None:
    key, store = new_key(tmp_path / "key", kind), tar_of(tmp_path / "b.tar", tiny)
    assert sign(store, key).key.startswith(kind.upper())
    assert accepted(store, key, tmp_path / "signers")


def test_an_agent_signs_for_a_public_key(
    key: Path, tmp_path: Path, tiny: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tar_of(tmp_path / "b.tar", tiny)
    with agent(key) as socket:
        key.rename(tmp_path / "elsewhere")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        sign(store, Path(f"{key}.pub"))
    assert accepted(store, key, tmp_path / "signers")


def test_an_agent_without_the_key(
    key: Path, tmp_path: Path, tiny: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "none"))
    key.unlink()
    with pytest.raises(Local, match="made no signature"):
        sign(tar_of(tmp_path / "b.tar", tiny), Path(f"{key}.pub"))
    assert not (tmp_path / "b.tar.sig").exists()


def test_a_passphrase_is_asked_for_at_the_terminal(tmp_path: Path, tiny: MemoryStore) -> None:
    key = new_key(tmp_path / "key", passphrase="open sesame")
    tar_of(tmp_path / "b.tar", tiny)
    code = "from modelpack.cli.sign import command; command(standalone_mode=False)"
    child, screen = pty.fork()
    if not child:
        os.execv(
            sys.executable,
            [sys.executable, "-c", code, str(tmp_path / "b.tar"), "--key", str(key)],
        )
    shown = b""
    try:
        while piece := os.read(screen, 4096):
            if b"passphrase" in piece and b"passphrase" not in shown:
                os.write(screen, b"open sesame\n")
            shown += piece
    except OSError:  # EIO is the end
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    os.close(screen)
    assert b"ED25519 SHA256:" in shown
    assert b"open sesame" not in shown
    assert accepted(Archive(tmp_path / "b.tar"), key, tmp_path / "signers")


def test_a_certificate_signs(key: Path, tmp_path: Path, tiny: MemoryStore) -> None:
    authority, store = new_key(tmp_path / "ca"), tar_of(tmp_path / "b.tar", tiny)
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "1", "-n", "alice@example.com", f"{key}.pub"], check=True
    )
    made = sign(store, Path(f"{key}-cert.pub"))
    who = signers_file(apart(tmp_path / "signers"), f"*@example.com cert-authority {public(authority)}")
    found = check(store, Trust(who), "a test")
    assert (found.who, found.key) == (("alice@example.com",), made.key)
    assert Signature.parse(made.path.read_bytes(), "").shown.startswith("a certificate")


def test_a_second_signature_takes_the_place_of_none(key: Path, tmp_path: Path, tiny: MemoryStore) -> None:
    store = tar_of(tmp_path / "b.tar", tiny)
    before = sign(store, key).path.read_bytes()
    with pytest.raises(Refused, match="already"):
        sign(store, new_key(tmp_path / "bob"))
    assert (tmp_path / "b.tar.sig").read_bytes() == before


def test_what_is_no_bundle(key: Path, tmp_path: Path, tiny: MemoryStore) -> None:
    with pytest.raises(Unsupported):
        sign(tiny, key)
    with pytest.raises(NotFound):
        sign(tar_of(tmp_path / "b.tar", tiny), tmp_path / "nobody")


def test_documents_that_do_not_fit_are_not_signed(key: Path, tmp_path: Path, tiny: MemoryStore) -> None:
    store = folder_of(tmp_path / "b", tiny)
    sums = (store.path / "SHA256SUMS").read_bytes()
    (store.path / "SHA256SUMS").write_bytes(sums.replace(b"  index.json", b"  index.jsom"))
    with pytest.raises(Corrupt):
        sign(store, key)
    (store.path / "SHA256SUMS.new").write_bytes(sums)  # what a killed pack leaves
    with pytest.raises(Corrupt):
        sign(FolderBundle(store.path), key)
    assert "SHA256SUMS.sig" not in files_of(store.path)


def test_sums_of_a_set_that_contradict_it_are_not_signed(
    key: Path, tmp_path: Path, tiny: MemoryStore
) -> None:
    store = set_of(tmp_path / "b", tiny)
    sums = store.path / "tiny.sha256"
    lines = sums.read_bytes().split(b"\n")
    sums.write_bytes(b"\n".join([b"0" * 64 + lines[0][64:], *lines[1:]]))
    with pytest.raises(Corrupt, match="contradict"):
        sign(store, key)


def test_a_tool_that_writes_something_else_is_noticed(
    key: Path, tmp_path: Path, tiny: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tar_of(tmp_path / "other.tar", tiny)
    wrong = sign(other, key).path.read_bytes()
    folder = folder_of(tmp_path / "b", tiny)
    monkeypatch.setattr(sshsig.Keygen, "sign", lambda *_: wrong.replace(b"A", b"B"))
    with pytest.raises((Local, Corrupt)):
        sign(folder, key)
    assert "SHA256SUMS.sig" not in files_of(folder.path)


def test_the_command(key: Path, tmp_path: Path, tiny: MemoryStore) -> None:
    store = tar_of(tmp_path / "b.tar", tiny)
    done = CliRunner().invoke(command, [str(store.path), "--key", str(key)])
    assert done.exception is None
    assert done.stdout.startswith(f"{store.path}.sig: signed by\n  ED25519 SHA256:")
    assert str(store.fingerprint) in done.stderr
    assert done.stdout.count("\n") == 2


def test_lines_of_a_signers_file(key: Path, tmp_path: Path) -> None:
    one, other = public(key), public(new_key(tmp_path / "bob"))
    signature = base64.b64decode(one.split()[1])
    text = f'\ufeffalice {one}\r\n# alice {one}\nbob {other}\n\nagain namespaces="x y" {one}\nAAAA AAAA====\n'
    found = lines_of(text.encode(), signature)
    assert [line.split()[0] for line in found] == [b"alice", b"again"]
