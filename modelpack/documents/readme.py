"""`README.txt` of a bundle: plain words for whoever finds the disc in ten years and has no modelpack.

ASCII with line feeds. Digests that are not known yet stand as zeros: its length never depends on them. The
lines for a shell hold nothing from elsewhere but digests and the names of models, which need no quoting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelpack.documents.expects import NOTHING, Expects
from modelpack.documents.extras import path_of
from modelpack.documents.image import Image
from modelpack.documents.model import Model
from modelpack.documents.recipe import Recipe
from modelpack.documents.sshsig import BUNDLE, SET
from modelpack.errors import Unsupported
from modelpack.words.blob import (
    ADAPTER,
    DRAFT,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    PROJECTOR,
    PROMPT,
    SMALL,
    SYSTEM,
    TEMPLATE,
    TEXTS,
    Blob,
)
from modelpack.words.digest import ZERO, Digest

MOST_IN_FULL = 20
"""Models with lines of their own; of the others the name and the ID are told."""
MOST_NAMED = 500
"""Models that are named at all; index.json names every one."""
MOST_BLOBS = 50
"""Blobs of a model with lines of its own; others are told by the pattern."""

_FILES = {MODEL: "files", PROJECTOR: "files", ADAPTER: "adapters", DRAFT: "draft_files"}
_SINGLE = {MODEL, ADAPTER, DRAFT}
_LONGEST = 80  # characters of an attachment's name

_ABOUT = """\
WHAT THIS IS

Models for Ollama (https://ollama.com): the weights of language models, and
what is needed to run them. modelpack made it. Nothing here needs modelpack,
though: it is a folder of plain files (or a .tar of that folder), laid out as
an OCI image, and every file in blobs/sha256/ is named by its SHA-256.
index.json names the models; each entry leads to a manifest, whose "config" is
the model's own manifest, byte for byte, and whose "layers" are its files.
"""
_JOIN = """\
FIRST, JOIN THE VOLUMES

The folder is a .tar that was cut into volumes: NAME.tar.001, NAME.tar.002, ...
Copy all of them into one folder, with this file and those beside it, and:

    sha256sum -c --ignore-missing ./*.sha256
    cat ./*.tar.[0-9][0-9][0-9] > bundle.tar

7-Zip joins them, too: open NAME.tar.001. Of a volume that is missing or damaged
the number is enough to ask for it. What is said of signatures below holds for
NAME.sha256.sig, with NAME.sha256 for SHA256SUMS and -n {space}: that
list is the one above, so a good signature is one over all volumes.
"""
_CHECK = """\
HOW TO CHECK IT

Before a .tar is unpacked, take out its list of files:

    tar xOf bundle.tar SHA256SUMS > SHA256SUMS

Whose it is, a signature tells: the .tar.sig that lay beside the .tar, or
SHA256SUMS.sig in a folder. SIGNERS is a file that you have from the maker by
another road, never from here; each of its lines names somebody (WHO) and a
key:

    ssh-keygen -Y find-principals -s bundle.tar.sig -f SIGNERS
    ssh-keygen -Y verify -n {space} -f SIGNERS -I WHO \\
        -s bundle.tar.sig < SHA256SUMS

Then unpack it, and go into the folder:

    mkdir bundle && tar xf bundle.tar -C bundle && cd bundle

All lines have to say OK (README.txt and restore.py alone may be missing:
some stations take such files out on the way, which does no harm). It is the
list from before (of what always was a folder, the one in it) that counts:

    sha256sum -c ../SHA256SUMS

Without a signature that finds damage, but no malice: whoever changed a file
could change the list as well. Then there is the fingerprint, to be compared
with one that came by another road (paper, telephone). It covers the models,
but no README.txt, no restore.py, and nothing in attachments/:

    sha256sum index.json
"""
_SCRIPT = """\
HOW TO INSTALL IT, WITH PYTHON 3.6 OR NEWER

    python3 -I restore.py --list
    python3 -I restore.py --to /usr/share/ollama/.ollama/models
    python3 -I restore.py --to http://127.0.0.1:11434

The same script is in each bundle of that modelpack. It checks as it copies,
but nothing on a medium can vouch for the medium, neither this text nor the
script. Compare its SHA-256 with `modelpack restore-script` elsewhere:

    {digest}
"""
_SHELL = """\
HOW TO INSTALL IT, WITH A SHELL ALONE

In the unpacked folder, after the check. Into Ollama's models directory
(change the first line where it is another: ~/.ollama/models for yourself):

    MODELS=/usr/share/ollama/.ollama/models
    mkdir -p "$MODELS/blobs" "$MODELS/manifests"
    put() {
        to="$MODELS/${2:-blobs/sha256-$1}"
        if [ -e "$to" ] && [ "$(sha256sum < "$to" | cut -c -64)" = "$1" ]
        then return 0; fi
        if [ -e "$to" ] && [ -n "${2:-}" ]
        then echo "$to is there, for another model" >&2; return 1; fi
        install -m 644 "blobs/sha256/$1" "$to"
    }

then the lines of each model below that begin with `mkdir` and `put`, and, if
you are root, give all to the directory's owner:

    chown -R --reference="$MODELS" "$MODELS/blobs" "$MODELS/manifests"

Ollama sees the models at once. Each has the ID that is named here. Where
another model has the name, `put` says so and leaves that one alone.
"""
_CURL = r"""Or into a running Ollama, whose files you cannot reach:

    OLLAMA=http://127.0.0.1:11434
    LC_ALL=C; export LC_ALL
    send() {
        curl -sfI -o /dev/null "$OLLAMA/api/blobs/sha256:$1" ||
        curl -sf -X POST -T "blobs/sha256/$1" "$OLLAMA/api/blobs/sha256:$1"
    }
    rules=$(
        printf 's/\\\\/&&/g; s/"/\\\\&/g; s/\377/\\\\n/g; s/\376/\\\\u0000/g'
        for n in 1 2 3 4 5 6 7 8 9 11 12 13 14 15 16 17 18 19 20 21 22 23 24 \
            25 26 27 28 29 30 31
        do printf "; s/\\$(printf %03o $n)/\\\\\\\\u%04x/g" $n; done
    )
    text() { tr '\n\000' '\377\376' < "blobs/sha256/$1" | sed "$rules"; }
    config() { tr -d '\n' < "blobs/sha256/$1" | grep -o "$2" | sed -n "1$3"; }
    word() { config $1 "\"$2\": *\"[^\"\\\\]*\"" 's/.*"\(.*\)"/\1/p'; }
    info() { config $1 '"capabilities": *\[[^]]\{1,\}]' 's/.*/,"info":{&}/p'; }
    create() {
        curl -sf --data-binary @- "$OLLAMA/api/create" | tail -n 1
    }

then the lines of each model below from `send` to `create`. The last answer
has to be {"status":"success"}; every other, and none at all, is an error. The
server writes a manifest of its own: the same model under another ID.
"""
_DELTA = """\
NOT ALL IS HERE

This bundle was made for somebody who has some of the files already:
expects.json names them. Models that need them are marked INCOMPLETE below.
"""
_REST = """\
THE OTHER MODELS

These are WHAT. With ID, HOST, NAMESPACE, MODEL and TAG of one (for
"example:8b": registry.ollama.ai, library, example and 8b):

    mkdir -p "$MODELS/manifests/HOST/NAMESPACE/MODEL"
    whole=yes
    for b in $(grep -o 'sha256:[0-9a-f]\\{64\\}' blobs/sha256/ID | cut -c 8-)
    do put $b || whole=no; done
    [ $whole = yes ] && put ID manifests/HOST/NAMESPACE/MODEL/TAG
"""


def readme(
    models: Sequence[Model],
    *,
    script: Digest | None,
    volumes: bool = False,
    attachments: Sequence[str] = (),
    expects: Expects = NOTHING,
) -> bytes:
    """README.txt of a bundle of *models*, or of the set of its *volumes*.

    *script* is the SHA-256 of the restore.py that travels along, *attachments* are file names, *expects*
    tells which blobs the bundle does not hold. The same arguments give the same bytes.
    """
    parts = [_ABOUT, *([_JOIN.format(space=SET)] if volumes else []), _CHECK.format(space=BUNDLE)]
    if script is not None:
        parts.append(_SCRIPT.format(digest=script.hex))
    if attachments:
        named = [f"    {path_of(one)[:_LONGEST]}\n" for one in attachments[:MOST_NAMED]]
        parts.append("WHAT ELSE IS HERE\n\nFiles that came along with the models:\n\n" + "".join(named))
    parts += [_SHELL, _CURL]
    if any(blob in expects for model in models for blob in model.blobs):
        parts.append(_DELTA)
    whole: list[Model] = []
    others: list[Model] = []
    for model in models:
        full = len(whole) < MOST_IN_FULL and len(model.blobs) <= MOST_BLOBS
        (whole if full else others).append(model)
    parts += [_model(model, expects, script is not None) for model in whole]
    if others:
        parts.append(_others(others))
    return "\n\n".join(parts).encode("ascii")


def _model(model: Model, expects: Expects, script: bool) -> str:
    """The lines of one model."""
    document, name = model.document, str(model.name)
    lines = [name, "-" * len(name), "", f"ID {document.id.hex}", f"{model.size} bytes"]
    if any(blob in expects for blob in model.blobs):
        lines.append("INCOMPLETE: files that are in no line below have to be there already")
    lines.append("")
    there = [blob for blob in model.blobs if blob not in expects]
    if isinstance(document, Image):
        host, namespace, called, tag = model.name.parts
        lines.append(f'    mkdir -p "$MODELS/manifests/{host}/{namespace}/{called}" &&')
        lines += [f"    put {_hex(blob)} &&" for blob in there]
        lines += [f"    put {document.id.hex} manifests/{host}/{namespace}/{called}/{tag}", ""]
        sent = [blob for blob in there if blob.media_type in _FILES]
        read = {document.config, *document.of_kind(*TEXTS)}
        body = [] if any(blob in expects for blob in read) else list(_body_of_image(document))
    else:
        lines += ["    Only a server can make this one of its files.", *_base(document), ""]
        body = ["','", f'"$(tail -c +2 blobs/sha256/{document.id.hex})"']  # all but its first brace
        sent = there
    if not body:
        way = ", or restore.py" if script else ""
        return "\n".join([*lines, f"    (No server makes it: it needs the models directory{way}.)"]) + "\n"
    lines += [f"    send {_hex(blob)} &&" for blob in sent]
    body.insert(0, f'\'{{"model":"{name}"\'')
    return (
        "\n".join([*lines, "    printf '%s' \\", *(f"        {part} \\" for part in body), "    | create"])
        + "\n"
    )


def _base(recipe: Recipe) -> Iterator[str]:
    try:
        if recipe.base is not None:
            yield f"    It is made from {recipe.base}, which has to be there before."
    except Unsupported:
        yield "    It is made from another model, which has to be there before."


def _body_of_image(image: Image) -> Iterator[str]:
    """What follows `"model"` in a create request, as words of a shell; nothing where no server makes it."""
    kinds = [layer.media_type for layer in image.layers]
    known = all(kind in _FILES or kind in TEXTS for kind in kinds)
    if not known or MODEL not in kinds or any(kinds.count(kind) > 1 for kind in (*_SINGLE, PARAMS)):
        return
    if any(blob.size > SMALL for blob in (image.config, *image.of_kind(*TEXTS))):
        return
    groups: dict[str, list[str]] = {}
    for place, layer in enumerate(image.layers):
        if layer.media_type in _FILES:
            file = f'"{layer.kind}-{place}.gguf":"sha256:{_hex(layer)}"'
            groups.setdefault(_FILES[layer.media_type], []).append(file)
    for key, files in groups.items():
        yield f"',\"{key}\":{{{','.join(files)}}}'"
    for key, of in (("template", (TEMPLATE, PROMPT)), ("system", (SYSTEM,))):
        if found := image.of_kind(*of):
            yield f""" ',"{key}":"' "$(text {_hex(found[-1])})" '"'""".strip()
    if found := image.of_kind(LICENSE):
        inner = """ '","' """.join(f'"$(text {_hex(each)})"' for each in found)
        yield f""" ',"license":["' {inner} '"]'""".strip()
    for key, kind in (("parameters", PARAMS), ("messages", MESSAGES)):
        if found := image.of_kind(kind):
            yield f""" ',"{key}":' "$(cat blobs/sha256/{_hex(found[-1])})" """.strip()
    for key in ("renderer", "parser", "requires"):
        yield f""" ',"{key}":"' "$(word {_hex(image.config)} {key})" '"'""".strip()
    yield f'"$(info {_hex(image.config)})"'
    yield "'}'"


def _others(models: Sequence[Model]) -> str:
    named = models[:MOST_NAMED]
    more = f", and {len(models) - len(named)} more that index.json names" if len(models) > len(named) else ""
    lines = [
        f"    {one.document.id.hex} {one.name}"
        + (" (only a server makes it)" * isinstance(one.document, Recipe))
        for one in named
    ]
    return "\n".join([_REST.replace("WHAT", f"{len(named)} more{more}"), *lines, ""])


def _hex(blob: Blob) -> str:
    return (blob.digest or ZERO).hex
