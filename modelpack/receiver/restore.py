#!/usr/bin/env python3
"""Restore Ollama models from a modelpack bundle, with Python 3.6 or newer and nothing else.

    python3 -I restore.py --list
    python3 -I restore.py --check
    python3 -I restore.py --to /usr/share/ollama/.ollama/models [NAME ...]
    python3 -I restore.py --to http://127.0.0.1:11434 [NAME ...]

The bundle is what lies beside this script: a folder with index.json, one .tar, or the volumes of a set
(STEM.volumes.json, STEM.tar.001, ...). --from names another folder or tar; repeat it where the volumes of a
set lie in several folders. Without NAMEs, every model is restored.

How far to trust it: nothing on a medium can vouch for that medium, and this script lies on it. Compare its
SHA-256 with what `modelpack restore-script` says on a machine that you trust, or run the copy from there.
-I keeps Python from importing what lies beside the script. Then give it what came by another road than the
bundle: --expect FINGERPRINT (the SHA-256 of index.json), or --signers FILE (an allowed_signers file of
OpenSSH; ssh-keygen checks the signature). From there on all is hashes: index.json names the manifests by
their SHA-256, those name the blobs, and each blob is hashed while it is copied. It appears by rename, whole
and right, and a model's manifest after all of its blobs; on a server, the model is made last.

Exit codes: 0 done, 2 usage, 3 not found, 4 damaged, 5 cannot be done, 6 refused, 7 no answer,
9 this machine (disk, rights), 10 untrusted, 11 could not be checked, 130 interrupted.
"""

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the script's own directory: a json.py planted there would be imported

import os

HERE = os.path.dirname(os.path.realpath(__file__))
if __name__ == "__main__":  # PYTHONPATH may name that directory, or the present one, once more
    sys.path[:] = [one for one in sys.path if os.path.realpath(one) not in (HERE, os.path.realpath("."))]

import argparse
import contextlib
import hashlib
import http.client
import itertools
import json
import re
import signal
import stat
import subprocess
import tempfile
import time
import urllib.parse

MISSING, DAMAGED, UNSUPPORTED, REFUSED, UNREACHABLE, LOCAL, UNTRUSTED, UNCHECKED = 3, 4, 5, 6, 7, 9, 10, 11
PIECE, DOCUMENT = 1 << 20, 4 << 20  # bytes at a time; the most that a document has
CONTAINERS = 100000  # the most lists and objects in a document: each takes far more memory than its two bytes
STRIPPED = ("README.txt", "restore.py")  # what stations on the way may take out
LAYER, OURS = "application/vnd.ollama.image.", "application/vnd.ollama-modelpack."
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
NAME, NOTE = "org.opencontainers.image.ref.name", "dev.ollama-modelpack."
NEWER = " is of a newer kind: use the restore.py of the modelpack that made it"
WINDOWS = os.name == "nt"  # where "/usr/bin" would be on the drive one stands on, which may be the medium
ROOT = "C:\\" if WINDOWS else "/"
SSH_KEYGEN = [place + "/bin/ssh-keygen" for place in ("/usr", "", "/usr/local", "/opt/homebrew")]
if WINDOWS:
    SSH_KEYGEN = [ROOT + r"Windows\System32\OpenSSH\ssh-keygen.exe"]
# What a recipe may ask of a server (CreateRequest of Ollama). Go reads keys in any case; only these pass.
FIELDS = set("files adapters draft_files from quantize quantization draft_quantize template license".split())
FIELDS |= set("system parameters messages renderer parser requires info".split())
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Failure(Exception):
    """What went wrong, in words, and the exit code for it."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def say(text, file=None):
    """Print a line; what a terminal might obey is shown as an escape."""
    print(re.sub("[^ -~]", lambda odd: ascii(odd.group())[1:-1], str(text)), file=file or sys.stdout)


@contextlib.contextmanager
def expecting(where):
    """Values from elsewhere are taken apart inside: what does not fit is damage, and no bug."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        raise Failure(DAMAGED, where + " is not what it should be") from None


def sha256(raw):
    """The SHA-256 of *raw*, in hex digits."""
    return hashlib.sha256(raw).hexdigest()


# --- Reading files. A bundle is one file, several that belong together, or a folder.
def plain_size(path):
    """The size of the plain file at *path*; None where there is none (a link is none)."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def stretch(parts, offset, size):
    """The *size* bytes from *offset* on of *parts*, files [(path, size)] that are read as one; in pieces."""
    for path, length in parts:
        if size and offset < length:
            with open(os.open(path, READ), "rb", buffering=0) as file:
                file.seek(offset)
                while size and offset < length:
                    try:
                        piece = file.read(min(PIECE, size, length - offset))
                    except OSError as error:
                        raise Failure(LOCAL, f"{path} cannot be read: {error}") from error
                    if not piece:
                        raise Failure(DAMAGED, path + " has become shorter")
                    offset, size = offset + len(piece), size - len(piece)
                    yield piece
        offset = max(offset - length, 0)
    if size:
        raise Failure(DAMAGED, parts[-1][0] + " ends too early: copy it again")


def hashed(pieces, digest, what):
    """Hand on *pieces*; a Failure comes in place of the last one where they do not have that SHA-256."""
    hasher, held = hashlib.sha256(), b""
    for piece in pieces:
        hasher.update(piece)
        if held:
            yield held
        held = piece
    if hasher.hexdigest() != digest:
        raise Failure(DAMAGED, what + " is damaged: copy it again, or name another copy first by --from")
    if held:
        yield held


def small(path):
    """The bytes of the small file at *path*."""
    size = plain_size(path)
    if size is None:
        raise Failure(MISSING, path + " is missing, or no plain file")
    if size > DOCUMENT:
        raise Failure(DAMAGED, path + " is larger than any real one")
    return b"".join(stretch([(path, size)], 0, size))


def readable(paths):
    """The bytes of those small *paths* that can be read; where none of them can, the first Failure."""
    found, failed = [], []
    for path in paths:
        try:
            found.append(small(path))
        except (Failure, OSError) as error:
            failed.append(error)
    if failed and not found:
        raise failed[0]
    return found


def sums_in(raw):
    """What the lines of sha256sum in *raw* say: {name: hex digits}. No name is absolute, or has a `..`."""
    lines = (line.group() for line in re.finditer("[^\n]+", raw.decode()))
    form = r"([0-9a-f]{64}) [ *](?:\./)?(?!/|(?:.*/)?\.\.(?:/|\Z))(.+)\Z"
    found = (re.match(form, line).groups() for line in lines)
    return {name: digest for digest, name in found}


def document(raw):
    """The JSON value in *raw*; ValueError."""
    if raw.count(b"{") + raw.count(b"[") > CONTAINERS:
        raise ValueError("too many lists and objects")
    value = json.loads(raw.decode())
    json.dumps(value, allow_nan=False)  # NaN and 1e999 are no numbers of JSON's
    return value


def members(parts):
    """The plain files in a tar: {name: (offset, size)}. The names are looked up, and never used as paths."""

    def number(field):
        return int.from_bytes(field[1:], "big") if field[0] & 128 else int(field.strip(b" \0") or b"0", 8)

    found, notes, place, end = {}, {}, 0, sum(size for _, size in parts)
    while place + 512 <= end and len(found) < 100000:
        head = b"".join(stretch(parts, place, 512))
        if head == bytes(512) == b"".join(stretch(parts, place + 512, 512)):
            return found
        with expecting(f"{parts[0][0]}: a header of the tar, at byte {place},"):
            size, kind = number(head[124:136]), head[156:157]
            if sum(head[:148]) + 256 + sum(head[156:]) != number(head[148:156]) or size < 0:
                raise ValueError("no header")
        place += 512
        if kind == b"x":  # notes for the next member: a large size, a long name
            data = b"".join(stretch(parts, place, min(size, 65536)))
            notes = dict(re.findall(rb"(?:^|\n)\d+ (path|size)=([^\n]{1,512})(?=\n)", data))
        elif kind == b"L":  # GNU tar's way to tell a long name
            notes[b"path"] = b"".join(stretch(parts, place, min(size, 512))).rstrip(b"\0")
        elif kind != b"g":
            if notes.get(b"size", b"").isdigit():
                size = int(notes[b"size"][:19])
            name = notes.get(b"path", head[:100].rstrip(b"\0")).decode("utf-8", "replace")
            name = name[2:] if name.startswith("./") else name
            if kind not in b"\x00057" or name in found:
                raise Failure(DAMAGED, f"{parts[0][0]} is no bundle: {name} is a link, or there twice")
            if kind != b"5":
                found[name] = (place, size)
            notes = {}
        place += size + -size % 512
    raise Failure(DAMAGED, parts[0][0] + " is cut: it has no end")


class Bundle:
    """The bundle in *folder*, or in the tar that is made of *parts*; *signature* is where one would lie."""

    def __init__(self, folder, parts, signature):
        self.folder, self.parts, self.signature = folder, parts, signature
        self.tar = members(parts) if parts else {}
        self.inside = [folder] if folder else []  # no file in here vouches for it
        self.index = None  # the SHA-256 that it has to have, where a set of volumes says so
        self.volumes, self.papers = [], []  # of a set: [(path, SHA-256)], copies of STEM.sha256 (None: bad)
        self.sums, self.expects = {}, set()

    def find(self, name):
        """Where the file *name* of the bundle lies: parts, offset, size; None where it is not there."""
        if self.parts:
            return (self.parts,) + self.tar[name] if name in self.tar else None
        steps, path = name.split("/"), self.folder
        with expecting(f"{self.folder}: the name {name}"):  # nor need this system be able to have it
            for step in steps:
                path = os.path.join(path, step)
                if step in ("", ".", "..") or re.search(r"[\\:\0]", step) or os.path.islink(path):
                    raise Failure(REFUSED, f"{self.folder}: {name} leads out of the bundle")
        size = plain_size(path)
        return None if size is None else ([(path, size)], 0, size)

    def read(self, name, most=DOCUMENT):
        """The small file *name*."""
        found = self.find(name)
        if found is None:
            raise Failure(MISSING, name + " is missing in the bundle: copy it again")
        if found[2] > most:
            raise Failure(DAMAGED, name + " is larger than any real one")
        return b"".join(stretch(*found))

    def blob(self, digest):
        """The bytes of a blob that is there, hashed on the way."""
        what = "blobs/sha256/" + digest
        parts, offset, size = self.find(what)
        ends = zip(parts, itertools.accumulate(length for _, length in parts))
        there = [path for (path, length), end in ends if end - length < offset + size and offset < end]
        return hashed(stretch(parts, offset, size), digest, ", ".join(there + [what]))


def open_bundle(places, signers):
    """The bundle in *places*: folders, or one tar."""
    gone = [place for place in places if not os.path.exists(place)]
    if gone:
        raise Failure(MISSING, "there is no " + gone[0])
    volumes = [place for place in places if os.path.isfile(place) and re.search(r"\.tar\.\d{3}\Z", place)]
    places = [os.path.dirname(place) if place in volumes else place for place in places]  # the set is meant
    found = [place for place in places if os.path.isfile(place)]
    for folder in (place for place in places if os.path.isdir(place)):
        names = [name for name in sorted(os.listdir(folder)) if not name.startswith("._")]
        if "index.json" in names and len(places) == 1:
            return Bundle(folder, None, os.path.join(folder, "SHA256SUMS.sig"))
        found += [os.path.join(folder, name) for name in names if name.endswith((".tar", ".volumes.json"))]
    found = [path for path in found if plain_size(path) is not None]
    sets = [path for path in found if path.endswith(".volumes.json")]
    if sets:
        return open_set(places, sets, signers)
    if len(found) != 1:
        raise Failure(MISSING, f"no bundle, or several, in {', '.join(places)}: name it by --from")
    return Bundle(None, [(found[0], plain_size(found[0]))], found[0] + ".sig")


def open_set(folders, sets, signers):
    """The bundle whose volumes lie in *folders*; *sets* are the descriptors that were found there."""
    stem = os.path.basename(sets[0])[: -len(".volumes.json")]
    line, copies = stem + ".volumes.json", {sha256(raw): raw for raw in readable(sets)}
    papers = [os.path.join(folder, stem + ".sha256") for folder in folders]  # on each medium; one is enough
    texts = list(dict.fromkeys(readable(path for path in papers if plain_size(path) is not None)))
    if signers is not None:
        texts = [check_signatures(texts, [one + ".sig" for one in papers], "modelpack-set", signers, folders)]
    known = {}  # which descriptor is named by which texts; one that is damaged names none
    for text in texts:
        with contextlib.suppress(ValueError, AttributeError):
            known.setdefault(sums_in(text).get(line), []).append(text)
    if signers is not None and not set(copies) & set(known):
        raise Failure(DAMAGED, sets[0] + " is not the one that was signed")
    right = [digest for digest in copies if digest in known] or list(copies)
    if len(right) > 1 or any(os.path.basename(path) != line for path in sets):
        raise Failure(REFUSED, "volumes of different sets: " + ", ".join(sets))
    parts, volumes, need = [], [], []
    with expecting(sets[0]):
        descriptor = document(copies[right[0]])
        if descriptor["format"] != "modelpack-volumes/1":
            raise Failure(UNSUPPORTED, sets[0] + NEWER)
        for n, volume in enumerate(descriptor["volumes"], 1):
            size = volume["size"]
            if [type(volume["n"]), type(size)] != [int, int] or volume["n"] != n:
                raise ValueError("no volume")
            name = f"{stem}.tar.{n:03d}"  # no path is taken from the medium
            there = [os.path.join(folder, name) for folder in folders]
            there = [path for path in there if plain_size(path) == size]
            parts += [(path, size) for path in there[:1]]
            volumes += [(path, volume["sha256"].split(":")[-1]) for path in there[:1]]
            need += [] if there else [str(n)]
        index, _ = descriptor["bundle"].split(":")[-1], descriptor["volumes"][0]  # there is one at least
    if need:
        what = "volumes are missing, cut short, or renamed (call it {}.tar.{:03} again). need: {}"
        raise Failure(MISSING, what.format(stem, int(need[0]), ", ".join(need)))
    bundle = Bundle(None, parts, None)
    bundle.index, bundle.volumes, bundle.papers = index, volumes, known.get(right[0]) if texts else []
    bundle.inside = folders
    return bundle


# --- Whose bundle it is, and what is in it.
def check_signatures(texts, signatures, namespace, signers, inside):
    """The first of *texts* that a file of *signatures* is good for; without one, the first Failure."""
    there = [path for path in signatures if os.path.lexists(path)]
    first = None if there else Failure(UNTRUSTED, "is not signed: there is no " + signatures[0])
    for text, signature in itertools.product(texts, there):
        try:
            check_signature(text, signature, namespace, signers, inside)
            return text
        except Failure as failure:
            first = first or failure
    raise first or Failure(UNCHECKED, there[0] + " cannot be checked: what it was made for was taken out")


def check_signature(text, signature, namespace, signers, inside):
    """Raise a Failure unless *signature* is one over *text* by one of *signers*, a file from elsewhere."""
    if plain_size(signature) is None:
        raise Failure(UNTRUSTED, signature + " is a link or a folder, and no signature")
    medium, *inside = (os.path.realpath(path) for path in (os.path.dirname(signature), *inside))
    real = os.path.realpath(signers)
    ours = [os.stat(path).st_dev for path in (ROOT, os.path.expanduser("~")) if os.path.exists(path)]
    media = {os.stat(path).st_dev for path in (medium, *inside)}.difference(ours)
    folder, name = os.path.split(os.path.abspath(signers))  # where a link to it lies counts as well
    ways = real, os.path.join(folder, name), os.path.join(os.path.realpath(folder), name)
    below = any(way.startswith(os.path.join(path, "")) for path in inside for way in ways)
    if below or os.path.dirname(real) == medium or os.stat(real).st_dev in media:
        raise Failure(UNTRUSTED, signers + " lies on the medium that it should vouch for: bring another")
    modes = [os.stat(one).st_mode for one in (os.path.dirname(real), os.path.dirname(signers) or ".")]
    open_to_all = any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in modes)
    if not WINDOWS and (open_to_all or os.stat(real).st_mode & stat.S_IWOTH):
        raise Failure(UNTRUSTED, "everybody may change " + signers + ": `chmod o-w`, after a look at it")
    lines, tool = [], [path for path in SSH_KEYGEN if os.path.isfile(path)]
    with contextlib.suppress(OSError, Failure):
        lines = [one for one in small(real).splitlines() if one.strip() and one.lstrip()[:1] != b"#"]
    if not tool or not lines:
        what = signers + " is empty, or cannot be read" if tool else "there is no ssh-keygen here"
        raise Failure(UNCHECKED, what + ": compare the fingerprint by --expect instead")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "sig"), "wb") as file:
            file.write(small(signature).replace(b"\r\n", b"\n"))  # a mail, or a copy as text, changed them

        def keygen(*words):
            command = [tool[0], "-Y", *words, "-s", "sig", "-f", "signers"]
            kept = {key: os.environ[key] for key in ("TZ", "SYSTEMROOT") if key in os.environ}
            pipe = subprocess.PIPE
            done = subprocess.run(command, input=text, stdout=pipe, stderr=pipe, cwd=folder, env=kept)
            told = done.stderr.decode("utf-8", "replace").strip()
            if re.search("(illegal|unknown|invalid) option|usage:|Unsupported operation", told):
                raise Failure(UNCHECKED, "this ssh-keygen is older than OpenSSH 8.2: use --expect instead")
            return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else "", told

        said, told = keygen("check-novalidate", "-n", namespace)  # whoever made it
        if not said.startswith(f'Good "{namespace}" signature with '):
            code = UNCHECKED if "unsupported" in told or not told else DAMAGED
            code = UNTRUSTED if "namespace" in told else code  # made for another purpose
            raise Failure(code, f"{signature} is a BAD one, or none for this: {told or 'no word of why'}")
        told, odd = "no line is about its key", ""
        for line in lines:  # one by one: of several about one key, find-principals tells of the first alone
            with open(os.path.join(folder, "signers"), "wb") as file:
                file.write(line + b"\n")
            names, why = keygen("find-principals")
            told = why if "expired" in why or "not yet valid" in why else told
            odd = why if re.search("bad options|invalid key|missing key", why) else odd
            for who in names.split("\n")[:-1]:
                said, told = keygen("verify", "-n", namespace, "-I", who)
                if said.startswith(f'Good "{namespace}" signature for {who} with '):
                    return say(said.strip())
    code, told = (UNTRUSTED, told) if told != "no line is about its key" or not odd else (UNCHECKED, odd)
    raise Failure(code, f"{signature}: no good signature by any of {signers} ({told})")


def read_index(bundle, expect, signers):
    """The bytes of index.json, if signature, fingerprint and SHA256SUMS are right; none is parsed before."""
    sums = bundle.read("SHA256SUMS", 2 * DOCUMENT)
    if signers is not None and bundle.signature:
        check_signatures([sums], [bundle.signature], "modelpack-bundle", signers, bundle.inside)
    index = bundle.read("index.json")
    say("fingerprint sha256:" + sha256(index))
    if expect is not None and expect.lower().split(":")[-1] != sha256(index):
        raise Failure(REFUSED, f"it is not the bundle that was expected ({expect}): do not use it")
    with expecting("SHA256SUMS"):
        bundle.sums = sums_in(sums)
        if bundle.sums["index.json"] != sha256(index) or bundle.index not in (None, sha256(index)):
            raise Failure(DAMAGED, "index.json is not the one that SHA256SUMS, or the set, names")
    return index


def parse_name(text):
    """HOST/NAMESPACE/MODEL:TAG and its four parts, by Ollama's rules; ValueError."""
    head, slash, last = text.rpartition("/")
    host, two, namespace = head.rpartition("/")
    model, colon, tag = last.partition(":")
    host, namespace = host if two else "registry.ollama.ai", namespace if slash else "library"
    parts = (host, namespace, model, tag if colon else "latest")
    forms = (r"\w[\w.:-]{0,349}", r"\w[\w-]{0,79}", r"\w[\w.-]{0,79}", r"\w[\w.-]{0,79}")
    if not all(re.match(forms[n] + r"\Z", parts[n], re.ASCII) for n in range(4)):
        raise ValueError(text)
    return f"{host}/{namespace}/{model}:{parts[3]}", parts


def described(one):
    """The hex digits and the size in a descriptor."""
    if type(one["size"]) is not int or one["size"] < 0:
        raise ValueError("no size")
    return re.match(r"sha256:([0-9a-f]{64})\Z", one["digest"]).group(1), one["size"]


class Model:
    """A model: its name, its document (`raw`, whose SHA-256 is the `id`), and its `blobs`: {digest: size}."""

    def __init__(self, bundle, name, entry):
        def read(one):
            digest, size = described(one)
            raw = bundle.read("blobs/sha256/" + digest)
            if len(raw) != size:
                raise ValueError("another size")
            return b"".join(hashed([raw], digest, "blobs/sha256/" + digest))

        self.name, self.parts = parse_name(name)
        manifest = document(read(entry))
        kinds = manifest["artifactType"], manifest["config"]["mediaType"]
        self.recipe = kinds[1] == OURS + "recipe.v1+json"  # what servers make
        if kinds[0] != OURS + "model.v1" or not (self.recipe or kinds[1] == OURS + "image.v1+json"):
            raise Failure(UNSUPPORTED, self.name + NEWER)
        self.raw = read(manifest["config"])
        self.id, self.body = sha256(self.raw), document(self.raw)
        layers = list(map(described, manifest["layers"]))
        self.blobs, self.base = dict(layers), self.body.get("from")
        self.layers = [] if self.recipe else [self.body["config"], *(self.body.get("layers") or [])]
        kind = None if self.recipe else (self.body["schemaVersion"], self.body.get("mediaType", DOCKER))
        if kind not in (None, (2, DOCKER)):
            raise Failure(UNSUPPORTED, self.name + " has a manifest of another kind than Ollama's")
        if self.recipe and set(self.body) - FIELDS:
            raise Failure(UNSUPPORTED, self.name + " asks a server for more than a recipe may")
        files = [self.body.get(key) or {} for key in ("files", "adapters", "draft_files")]
        asked = {digest for group in files for digest in group.values()}
        ours = {"sha256:" + digest for digest in self.blobs}
        fits = asked == ours if self.recipe else dict(map(described, self.layers)) == self.blobs
        if not fits or len(layers) != len(self.blobs):
            raise Failure(DAMAGED, f"the manifests of {self.name} contradict each other")


def named(index):
    """Names and entries of the models in an index; other tools drop the type from it, not the name."""
    for one in index["manifests"]:
        name = (one.get("annotations") or {}).get(NAME)
        if one.get("artifactType", OURS + "model.v1") == OURS + "model.v1" and name is not None:
            yield name, one


def read_models(bundle, raw):
    """The models that index.json (*raw*) names, with every document checked and every blob there."""
    with expecting("index.json, or a manifest,"):
        index = document(raw)
        notes = index.get("annotations") or {}
        needs = set(notes.get(NOTE + "needs", "").replace(" ", "").split(",")) - {""}
        if notes.get(NOTE + "format", "1") != "1" or needs - {"delta"}:
            raise Failure(UNSUPPORTED, "the bundle" + NEWER)
        if "delta" in needs:  # blobs that it does not hold are expected where the models go
            listed = bundle.read("expects.json")
            list(hashed([listed], notes[NOTE + "expects"].split(":")[-1], "expects.json"))
            bundle.expects = set(dict(map(described, document(listed)["blobs"])))
        models = [Model(bundle, name, one) for name, one in named(index)]
    if not models:
        raise Failure(MISSING, "the bundle holds no model")
    if len({model.name.lower() for model in models}) < len(models):
        raise Failure(DAMAGED, "index.json names a model twice")
    for digest, size in {pair for model in models for pair in model.blobs.items()}:
        found = bundle.find("blobs/sha256/" + digest)
        if found is None and digest not in bundle.expects:
            raise Failure(MISSING, f"blobs/sha256/{digest} is missing in the bundle: copy it again")
        if found is not None and found[2] != size:
            raise Failure(DAMAGED, f"blobs/sha256/{digest} is damaged (its size): copy the bundle again")
    return models


def check(bundle, every):
    """Hash every file of the bundle; or only those README.txt and restore.py that are there, to be run."""
    if every and bundle.papers is None:
        raise Failure(DAMAGED, "the .sha256 of the set is damaged, or of another set")
    listed = [sums_in(text) for text in bundle.papers or []]
    for path, name in [(os.path.join(folder, name), name) for folder in bundle.inside for name in STRIPPED]:
        due = {lines[name] for lines in listed if name in lines}
        if due and plain_size(path) is not None and sha256(small(path)) not in due:
            raise Failure(DAMAGED, path + " is damaged, or was changed: do not follow it")
    for path, digest in bundle.volumes if every else []:
        size = plain_size(path)
        for _ in hashed(stretch([(path, size)], 0, size), digest, path) if size is not None else ():
            pass
    for name, digest in sorted(bundle.sums.items()):
        found = bundle.find(name) if every or name in STRIPPED else None
        if found is not None:
            for _ in hashed(stretch(*found), digest, name):
                pass
        elif every and name in STRIPPED:
            say(f"warning: {name} was taken out, which does no harm", sys.stderr)
        elif every:
            raise Failure(MISSING, name + " is missing in the bundle: copy it again")


# --- Where models go.
class Directory:
    """A models directory. What is made in it gets its owner, and its mode as far as a file can have it."""

    def __init__(self, path):
        os.makedirs(path, exist_ok=True)
        names = [name for name in os.listdir(path) if not name.startswith(".restore-")]
        if "manifests" not in names and set(names) - {"blobs"}:
            raise Failure(REFUSED, path + " is neither empty nor a models directory: it has no manifests/")
        self.path, self.like = path, os.stat(path)
        for folder in filter(os.path.isdir, (path, self.find("blobs"))):
            left = [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(".restore-")]
            for one in left:  # of a run that was killed; one that is under way still writes to its own
                if plain_size(one) is not None and os.lstat(one).st_mtime < time.time() - 3600:
                    os.unlink(one)

    def find(self, *parts):
        """The path of a file there; a link on the way is refused, upper and lower case are one."""
        path = self.path
        for part in parts:
            same = [part] if os.path.lexists(os.path.join(path, part)) or not os.path.isdir(path) else []
            same = same or [name for name in os.listdir(path) if name.lower() == part.lower()]
            path = os.path.join(path, (same or [part])[0])
            if os.path.islink(path):
                raise Failure(REFUSED, path + " is a link, which is not followed")
        return path

    def own(self, change, file, **how):
        """Give *file* to the directory's owner, where we may."""
        with contextlib.suppress(PermissionError):
            change(file, self.like.st_uid, self.like.st_gid, **how)

    def make(self, folder):
        """Make *folder* and those above it, up to the directory."""
        if folder != self.path and not os.path.isdir(folder):
            self.make(os.path.dirname(folder))
            os.mkdir(folder)
            os.chmod(folder, stat.S_IMODE(self.like.st_mode))  # mkdir's own mode goes through the umask
            if hasattr(os, "chown"):
                self.own(os.chown, folder, follow_symlinks=False)

    def write(self, path, pieces):
        """Make the file at *path* of *pieces*: whole, or not at all."""
        folder = os.path.dirname(path)
        self.make(folder)
        apart = os.stat(folder).st_dev != self.like.st_dev  # a disk of its own: no rename leads there
        fd, new = tempfile.mkstemp(prefix=".restore-", dir=folder if apart else self.path)
        try:
            with open(fd, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                if hasattr(os, "fchown"):
                    self.own(os.fchown, fd)
                    os.fchmod(fd, stat.S_IMODE(self.like.st_mode) & 0o666)
                os.fsync(fd)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
        if os.name != "nt":  # the name, too, is on the medium before the next one
            fd = os.open(folder, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    def restore(self, bundle, model):
        """Install *model*: its blobs, then its manifest."""
        if model.recipe:
            raise Failure(UNSUPPORTED, model.name + " is made by a server only: --to http://HOST:11434")
        manifest = self.find("manifests", *model.parts)
        if plain_size(manifest) is not None and small(manifest) != model.raw:
            raise Failure(REFUSED, model.name + " stands there for another model: `ollama rm` that one first")
        for digest, size in model.blobs.items():
            path = self.find("blobs", "sha256-" + digest)
            if plain_size(path) == size:
                with contextlib.suppress(Failure):  # a damaged one is written anew
                    for _ in hashed(stretch([(path, size)], 0, size), digest, path):
                        pass
                    with contextlib.suppress(PermissionError):
                        os.utime(path)  # Ollama removes old blobs that no manifest names
                    continue
            if bundle.find("blobs/sha256/" + digest) is None:
                raise Failure(MISSING, f"sha256:{digest} is not in the bundle, a delta, nor in {self.path}")
            self.write(path, bundle.blob(digest))
        if plain_size(manifest) is None:
            self.write(manifest, [model.raw])
        say(f"{model.name} is installed, ID {model.id[:12]}")


class Server:
    """The Ollama server at *url*."""

    def __init__(self, url):
        at = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        self.url, self.prefix = url, at.path.rstrip("/")
        self.connect = lambda: kind(at.hostname, at.port, timeout=3600)

    def ask(self, method, path, body=None, length=None):
        """One request: the status and the body of the answer, 4 MiB of it at most."""
        headers = {} if length is None else {"Content-Length": str(length)}
        connection = self.connect()
        try:
            connection.request(method, self.prefix + path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(DOCUMENT)
        except (OSError, http.client.HTTPException) as error:
            raise Failure(UNREACHABLE, f"{self.url}: no whole answer ({error})") from error
        finally:
            connection.close()

    def restore(self, bundle, model):
        """Upload the files of *model*, then have the server make it; its manifest is the server's own."""
        with expecting(self.url + "/api/tags"):
            status, words = self.ask("GET", "/api/tags")
            if status != 200:
                raise Failure(REFUSED, f"{self.url}/api/tags: {status} {words[:300]!r}")
            tags = document(words)["models"]
            there = {parse_name(one["name"])[0].lower(): one["digest"] for one in tags}
        if there.get(model.name.lower()) == model.id:
            return say(model.name + " is there already, with the same ID")
        if model.name.lower() in there:
            what = " is there under another ID: of an earlier create, or another model: `ollama rm` it first"
            raise Failure(REFUSED, model.name + what)
        with expecting("the document of " + model.name):
            request, digests = create_request(bundle, model)
            if model.base and parse_name(model.base)[0].lower() not in there:  # it would ask its registry
                raise Failure(MISSING, f"{model.name} is made from {model.base}: load that one first")
        for digest in digests:
            path = "/api/blobs/sha256:" + digest
            if self.ask("HEAD", path)[0] == 200:
                continue
            if bundle.find("blobs/sha256/" + digest) is None:
                raise Failure(MISSING, f"sha256:{digest} is not in the bundle, a delta, nor on {self.url}")
            status, words = self.ask("POST", path, bundle.blob(digest), model.blobs[digest])
            if status not in (200, 201):
                raise Failure(REFUSED, f"{self.url} refused a blob: {status} {words[:300]!r}")
        status, words = self.ask("POST", "/api/create", json.dumps(request).encode())
        last = (words.splitlines() or [b""])[-1]
        if status != 200 or b'{"error"' in words or last.replace(b" ", b"") != b'{"status":"success"}':
            raise Failure(REFUSED, f"{self.url} did not make {model.name}: {status} {last[:300]!r}")
        return say(f"{model.name} is made; the server gave it an ID of its own")


def create_request(bundle, model):
    """The body of POST /api/create that makes *model*, and the digests of the files that it names."""
    if model.recipe:
        return dict(model.body, model=model.name), list(model.blobs)
    request, digests = {"model": model.name}, []
    fields = {"model": "files", "projector": "files", "adapter": "adapters", "draft": "draft_files"}
    texts = {"template": "template", "prompt": "template", "system": "system"}

    def text(layer):
        if described(layer)[1] > DOCUMENT:
            raise Failure(UNSUPPORTED, f"{model.name} has a text that no request carries")
        return b"".join(bundle.blob(described(layer)[0]))

    config, kinds = document(text(model.layers[0])), [layer["mediaType"] for layer in model.layers[1:]]
    known = {LAYER + kind for kind in (*fields, *texts, "license", "params", "messages")}
    if set(kinds) - known or kinds.count(LAYER + "model") != 1 or config.get("model_format") == "safetensors":
        raise Failure(UNSUPPORTED, f"{model.name}: no server can make it, only a models directory takes it")
    for number, layer in enumerate(model.layers[1:]):
        kind = layer["mediaType"][len(LAYER) :]
        if kind in fields:
            request.setdefault(fields[kind], {})[f"{kind}-{number}.gguf"] = layer["digest"]
            digests.append(described(layer)[0])
        elif kind in texts:
            request[texts[kind]] = text(layer).decode()
        elif kind == "license":
            request.setdefault("license", []).append(text(layer).decode())
        elif kind == "params":
            request.setdefault("parameters", {}).update(document(text(layer)) or {})
        else:
            request["messages"] = document(text(layer))
    request.update({key: config[key] for key in ("renderer", "parser", "requires") if config.get(key)})
    if config.get("capabilities"):
        request["info"] = {"capabilities": config["capabilities"]}
    return request, digests


def by_base(models):
    """Each of *models*, and the name in lower case of what it is made from; that one comes first."""
    left = [(one, parse_name(one.base)[0].lower() if one.base else None) for one in models]
    left.sort(key=lambda pair: pair[0].recipe)
    while left:
        names = {model.name.lower() for model, _ in left}
        first = next((pair for pair in left if pair[1] not in names), left[0])  # none: they go in a circle
        left.remove(first)
        yield first


def target_kind(to, parser):
    """Server or Directory, whichever *to* names; what looks like a URL and is none is usage."""
    if not re.match(r"[^/\\]{2,}:", to):
        return Directory
    with contextlib.suppress(ValueError):
        at = urllib.parse.urlsplit(to)
        if at.scheme in ("http", "https") and at.hostname and at.port != 0:
            return Server
    return parser.error("--to is neither http://HOST:PORT nor a folder: " + ascii(to))


def main():
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Restore Ollama models from a modelpack bundle.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to restore (all)")
    more = "folder or .tar of the bundle; repeat it for volumes in several folders"
    parser.add_argument("--from", dest="places", action="append", metavar="PATH", help=more)
    parser.add_argument("--to", metavar="TARGET", help="models directory, or http://HOST:PORT of an Ollama")
    parser.add_argument("--list", action="store_true", help="name the models, restore nothing")
    parser.add_argument("--check", action="store_true", help="hash every file, restore nothing")
    parser.add_argument("--expect", metavar="FINGERPRINT", help="refuse any other bundle")
    parser.add_argument("--signers", metavar="FILE", help="refuse a bundle that none of these has signed")
    args = parser.parse_args()
    if not (args.list or args.check or args.to):
        parser.error("say --list, --check, or where to restore --to")
    if args.expect is not None and not re.match(r"(sha256:)?[0-9a-f]{64}\Z", args.expect.lower()):
        parser.error("--expect is no fingerprint: 64 hex digits")
    if args.signers is not None and not os.path.isfile(args.signers):
        parser.error("--signers is no file")
    kind = target_kind(args.to or "", parser)
    bundle = open_bundle([os.path.realpath(place) for place in args.places or [HERE]], args.signers)
    models = read_models(bundle, read_index(bundle, args.expect, args.signers))
    try:
        wanted = {parse_name(name)[0].lower() for name in args.names}
    except ValueError as error:
        parser.error(f"{error} is no model's name")
    if wanted - {model.name.lower() for model in models}:
        raise Failure(MISSING, "not all of these models are in the bundle; --list names those that are")
    models = [model for model in models if not wanted or model.name.lower() in wanted]
    check(bundle, args.check)
    if args.check:
        say("every file is as SHA256SUMS says")
        if args.expect is not None and args.signers is None:
            say("warning: the fingerprint covers the models, and no other file", sys.stderr)
    if args.list:
        for model in models:
            say(f"{model.name}  {model.id[:12]}  {sum(model.blobs.values())} bytes")
    if args.to and not (args.list or args.check):
        target, refused = kind(args.to), set()
        for model, base in by_base(models):
            try:
                if base in refused:
                    raise Failure(REFUSED, f"{model.name} is made from {base}, which is another one there")
                target.restore(bundle, model)
            except Failure as failure:
                if failure.code != REFUSED or len(models) == 1:
                    raise
                refused.add(model.name.lower())  # those that are not made from it can do without
                say("restore.py: " + str(failure), sys.stderr)
        if refused:
            raise Failure(REFUSED, "not all models were restored: see above")


if __name__ == "__main__":
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda *_: sys.exit(130))  # so that temporary files are removed
    try:
        main()
    except (Failure, OSError) as error:
        say(f"restore.py: {error}", sys.stderr)
        sys.exit(getattr(error, "code", LOCAL))
