"""The sentences of `README.txt`, and what of its lines for a shell is the same in every bundle."""

ABOUT = """\
WHAT THIS IS

Models for Ollama (https://ollama.com): the weights of language models, and
what is needed to run them. modelpack made it. Nothing here needs modelpack,
though: it is a folder of plain files (or a .tar of that folder), laid out as
an OCI image, and every file in blobs/sha256/ is named by its SHA-256.
index.json names the models; each entry leads to a manifest, whose "config" is
the model's own manifest, byte for byte, and whose "layers" are its files.
"""
JOIN = """\
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
CHECK = """\
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
SCRIPT = """\
HOW TO INSTALL IT, WITH PYTHON 3.6 OR NEWER

    python3 -I restore.py --list
    python3 -I restore.py --to /usr/share/ollama/.ollama/models
    python3 -I restore.py --to http://127.0.0.1:11434

The same script is in each bundle of that modelpack. It checks as it copies,
but nothing on a medium can vouch for the medium, neither this text nor the
script. Compare its SHA-256 with `modelpack restore-script` elsewhere:

    {digest}
"""
SHELL = """\
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
CURL = r"""Or into a running Ollama, whose files you cannot reach:

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
DELTA = """\
NOT ALL IS HERE

This bundle was made for somebody who has some of the files already:
expects.json names them. Models that need them are marked INCOMPLETE below.
"""
REST = """\
THE OTHER MODELS

These are WHAT. With ID, HOST, NAMESPACE, MODEL and TAG of one (for
"example:8b": registry.ollama.ai, library, example and 8b):

    mkdir -p "$MODELS/manifests/HOST/NAMESPACE/MODEL"
    whole=yes
    for b in $(grep -o 'sha256:[0-9a-f]\\{64\\}' blobs/sha256/ID | cut -c 8-)
    do put $b || whole=no; done
    [ $whole = yes ] && put ID manifests/HOST/NAMESPACE/MODEL/TAG
"""
