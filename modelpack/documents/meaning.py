"""Whether a model that stands on a server is what a create request would make.

Judged by what `POST /api/show` tells of it, as its manifest is the server's own (documents/show.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from modelpack.documents.show import DEFAULT_TEMPLATE, parameters_text, quoted

_DIGEST = re.compile(r"sha256[-:]([0-9a-f]{64})\s*$")

# template/*.gotmpl and *.json of Ollama, the same from 0.5.5 to 0.33: SHA-256 of a template that create adds
# by itself to a GGUF whose chat template is near a known one, and the stop words that come with it.
_DETECTED: Mapping[str, tuple[str, ...]] = {
    "3d8766305b70e46e": ("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),  # alfred
    "34ed3812a77d23f6": ("### Instruction:", "### Response"),  # alpaca
    "e3b2721cec511e3a": ("<|im_start|>", "<|im_end|>"),  # chatml
    "1c4b2e51cf108dc8": ("System:", "User:", "Assistant:", "<|begin_of_text|>"),  # chatqa
    "144e31793e9ebbc8": ("Source:", "Destination:", "<step>"),  # codellama-70b-instruct
    "cedc23829af01ffb": ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),  # command-r
    "6811aaaa5e188589": ("User:", "Assistant:"),  # falcon-instruct
    "4ea0df93422f8340": ("<start_of_turn>", "<end_of_turn>"),  # gemma-instruct
    "680a6206c5762f5a": ("<end_of_turn>",),  # gemma3-instruct; its temperature is never stored
    "d6bde791ae5d61ab": ("System:", "Question:", "Answer:"),  # granite-instruct
    "3f74e056f96c687f": ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),  # llama2-chat
    "61dc7b1a77154f40": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),  # llama3-instruct
    "25183b8f5dc6dfac": ("@@ Instruction", "@@ Response"),  # magicoder
    "c502cd9313888317": ("<|im_start|>", "<|im_end|>"),  # mistral-instruct
    "e4ef0210ea1e3e57": ("<|end_of_turn|>",),  # openchat
    "35360843d0c84fb1": ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),  # phi-3
    "2a9a67ad51b48060": ("### System:", "### User:", "### Assistant"),  # solar-instruct
    "60851c266b6fdc5b": ("### Instruction", "### Response", "<|endoftext|>"),  # starcoder2-instruct
    "a212eb1556b15dc9": ("<|system|>", "</s>", "<|user|>", "<|assistant|>"),  # zephyr
}


def same_meaning(
    request: Mapping[str, Any], shown: Mapping[str, Any], *, rewrites: bool = False
) -> bool | None:
    """Whether the model that *shown*, an answer of /api/show, tells of is what *request* would make.

    None where it cannot be told. *rewrites*: the server keeps GGUFs in its own form (0.30 and later), so that
    their digests say nothing. Templates and stop words that create adds by itself do not count as different.
    """
    return compare(request, shown, rewrites=rewrites)[0]


def compare(
    request: Mapping[str, Any], shown: Mapping[str, Any], *, rewrites: bool = False
) -> tuple[bool | None, str]:
    """As `same_meaning`, with a few words for the reason where it is not True."""
    unsure = ""
    for verdict, reason in _verdicts(request, shown, rewrites):
        if verdict is False:
            return False, reason
        if verdict is None:
            unsure = unsure or reason
    return (None, unsure) if unsure else (True, "")


def _verdicts(
    request: Mapping[str, Any], shown: Mapping[str, Any], rewrites: bool
) -> Iterator[tuple[bool | None, str]]:
    """A verdict for each part; True ones with no reason."""
    modelfile = _text(shown, "modelfile")
    paths, rest = _paths(modelfile)
    based = bool(request.get("from"))
    template, wanted = _text(shown, "template"), _text(request, "template")
    meant = wanted or DEFAULT_TEMPLATE
    in_file = next(
        (each for each in (meant, template) if rest.startswith(f"TEMPLATE {quoted(each)}\n")),
        None,  # since 0.30 `template` may be the GGUF's own chat template; the modelfile has the layer's
    )
    system, license_ = _text(shown, "system"), request.get("license") or []
    licences = [license_] if isinstance(license_, str) else list(license_)

    if meant not in (template, in_file) and (wanted or _digest(template) not in _DETECTED):
        yield (False if wanted else None), "its template is another"
    # A model that is made `from` another inherits what the request does not say.
    if system != _text(request, "system"):
        yield (None if based and not request.get("system") else False), "its system prompt is another"
    if _text(shown, "license") != "\n".join(licences):
        yield (None if based else False), "its licence is another"
    ours = [_message(each) for each in request.get("messages") or []]
    theirs = [_message(each) for each in shown.get("messages") or []]
    if ours != theirs:
        yield (None if based and not ours else False), "its messages are others"
    yield _parameters(request, shown, based)
    if _text(shown, "requires") != _text(request, "requires"):
        yield None if based else False, "it asks for another version of Ollama"
    yield from _engine(request, shown, rest, in_file, system)
    yield from _files(request, paths, rewrites)


def _parameters(request: Mapping[str, Any], shown: Mapping[str, Any], based: bool) -> tuple[bool | None, str]:
    params = request.get("parameters") or {}
    ours = Counter(parameters_text(params).splitlines())
    theirs = Counter(_text(shown, "parameters").splitlines())
    if ours - theirs:
        return False, "its parameters are others"
    more = theirs - ours
    if not more:
        return True, ""
    if "stop" not in params and any(
        more == Counter(parameters_text({"stop": list(stops)}).splitlines()) for stops in _DETECTED.values()
    ):
        return True, ""
    only_stops = "stop" not in params and all(line.split(" ", 1)[0] == "stop" for line in more)
    # Stop words may be the server's own, which it adds for some architectures.
    return (None if based or only_stops else False), "its parameters are others"


def _engine(
    request: Mapping[str, Any], shown: Mapping[str, Any], rest: str, template: str | None, system: str
) -> Iterator[tuple[bool | None, str]]:
    """Renderer and parser: only the modelfile tells of them, after the template and the system prompt."""
    tail: str | None = None
    if template is not None:
        tail = rest.removeprefix(f"TEMPLATE {quoted(template)}\n")
        tail = tail.removeprefix(f"SYSTEM {quoted(system)}\n") if system else tail
    for command in ("RENDERER", "PARSER"):
        key = command.lower()
        there = _text(shown, key)
        if tail is not None and tail.startswith(f"{command} "):
            there, _, tail = tail.removeprefix(f"{command} ").partition("\n")
        elif tail is None and not there:
            if f"\n{command} " in rest or request.get(key):
                yield None, f"its {key} cannot be read"
            continue
        wanted = _text(request, key)
        if there != wanted:
            # The server adds one by itself for some architectures, and inherits one from a base.
            yield (False if wanted else None), f"its {key} is another"


def _files(
    request: Mapping[str, Any], paths: Mapping[str, Counter[str]], rewrites: bool
) -> Iterator[tuple[bool | None, str]]:
    reason = "its files are others"
    for field, command in (("adapters", "ADAPTER"), ("draft_files", "DRAFT")):
        if _digests(request, field) != paths[command]:
            yield (None if request.get("from") or not _is_gguf(request, field) else False), reason
    if request.get("from"):
        yield None, "what a model made from another holds is not told"
        return
    ours, theirs = _digests(request, "files"), paths["FROM"]
    if ours == theirs and not request.get("quantize"):
        return
    changed = request.get("quantize") or request.get("quantization") or not _is_gguf(request, "files")
    if changed or (sum(ours.values()) > 2 and rewrites):  # shards are merged
        yield None, "the server makes files of its own from what it is given"
    elif rewrites and sum(ours.values()) == sum(theirs.values()) and sum((ours - theirs).values()) == 1:
        yield None, "this server rewrites GGUFs, so their digests cannot be compared"
    else:
        yield False, reason


def _paths(modelfile: str) -> tuple[dict[str, Counter[str]], str]:
    """The digests that FROM, ADAPTER and DRAFT name at the front of *modelfile*, and the text after them."""
    found = {command: Counter[str]() for command in ("FROM", "ADAPTER", "DRAFT")}
    rest = modelfile
    while rest:
        line, _, after = rest.partition("\n")
        command = line.split(" ", 1)[0]
        if line and not line.startswith("#"):
            if command not in found:
                break
            digest = _DIGEST.search(line)
            found[command][digest[1] if digest else line] += 1
        rest = after
    return found, rest


def _digests(request: Mapping[str, Any], field: str) -> Counter[str]:
    return Counter(str(text)[-64:].lower() for text in (request.get(field) or {}).values())


def _is_gguf(request: Mapping[str, Any], field: str) -> bool:
    return all(name.endswith(".gguf") for name in request.get(field) or {})


def _message(value: Any) -> tuple[object, object]:
    return (value.get("role"), value.get("content", "")) if isinstance(value, dict) else (None, value)


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
