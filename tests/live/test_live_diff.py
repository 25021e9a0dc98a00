"""A real server as one side of diff: read back where it calls back, by /api/show where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpack.hands.callback import Calling
from modelpack.hands.ollama import Ollama
from modelpack.stores.archive import Archive
from modelpack.stores.models_dir import ModelsDir
from modelpack.verbs.diff import diff
from modelpack.verbs.gather import gather
from modelpack.verbs.installed import Installed
from modelpack.verbs.transfer import copy
from modelpack.words.name import Name

from .test_live_create import FIXTURES

pytestmark = pytest.mark.live

BASE = f"""\
FROM {FIXTURES}/tiny-chat.gguf
TEMPLATE {{{{ .Prompt }}}} old
PARAMETER top_k 3
PARAMETER stop <|a|>
"""


def packed(place: Path, name: str, modelfile: str) -> Archive:
    """A bundle of one model."""
    place.with_suffix(".modelfile").write_text(modelfile, encoding="utf-8")
    found = gather([str(place.with_suffix(".modelfile"))], look=Installed(()), name=Name.parse(name))
    copy(found.source, found.models, Archive(place))
    return Archive(place)


def test_a_server_against_a_bundle(ollama: Ollama, tmp_path: Path) -> None:
    """The same where it is the same; and where not, both ways say the same of it."""
    old = packed(tmp_path / "old.tar", "m", BASE)
    copy(old, old.models(), ModelsDir(tmp_path / "ollama" / "models"))
    assert not diff(str(tmp_path / "old.tar"), ollama.base).differs
    new = BASE.replace("old", "new").replace("top_k 3", "top_k 4").replace("tiny-chat", "tiny-llama")
    packed(tmp_path / "new.tar", "m", new + "SYSTEM be\nRENDERER qwen3-coder\nREQUIRES 0.14.0\n")
    seen = []
    for calling in (Calling(), Calling(off=True)):
        found = diff(str(tmp_path / "new.tar"), ollama.base, calling=calling)
        ((changed,), unsure) = found.changed, found.unsure
        assert not unsure
        seen.append({(each.part, each.key): (each.before, each.after) for each in changed.changes})
        assert bool(changed.unsure) == calling.off, changed.unsure
    read, told = seen
    parts = {("template", ""), ("system", ""), ("parameters", "top_k"), ("weights", "")}
    assert parts | {("config", "renderer"), ("config", "requires")} <= read.keys()
    assert ("weights metadata", "general.file_type") in read
    for key in parts:
        digests = [[side and side.get("digest") for side in pair] if key[1] == "" else pair for pair in
                   (read[key], told[key])]  # fmt: skip
        assert digests[0] == digests[1], key
    assert told.keys() <= read.keys()
    assert not [each.name for each in ollama.list() if "modelpack" in each.name]


def test_a_server_against_its_own_directory(ollama: Ollama, tmp_path: Path) -> None:
    old = packed(tmp_path / "old.tar", "m", BASE)
    copy(old, old.models(), ModelsDir(tmp_path / "ollama" / "models"))
    ollama.copy("m", "other")
    found = diff(ollama.base, str(tmp_path / "ollama" / "models"))
    assert (found.differs, len(found.same)) == (False, 2)
    found = diff(str(tmp_path / "old.tar"), ollama.base)
    assert [str(one.entry.name) for one in found.added] == ["other:latest"]
    assert [str(name) for name in found.added[0].twins] == ["m:latest"]
