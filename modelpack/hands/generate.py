"""One token, or one vector, of a model on a server: what shows that it can be run at all.

Facts: GenerateHandler and EmbedHandler in server/routes.go of Ollama v0.33; seen on 0.24 and 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpack.errors import Refused
from modelpack.hands.http import Answer
from modelpack.hands.ollama import Ollama

_PROMPT = "Hi"  # an empty one would only load the model
_TEXT = 400  # characters of a token: no real one has so many
_WORDS = 2000  # characters of an error that are passed on


def one_token(client: Ollama, name: str) -> tuple[str, int]:
    """The first token at temperature 0 that model *name* says, and how many it counted; then it is unloaded.

    The text may be empty: a thinking model's token is elsewhere, and one may be a part of a character.
    Raises Refused with the server's words, Unreachable where the client's time runs out.
    """
    value = _asked(client, "/api/generate", {
        "model": name, "prompt": _PROMPT, "stream": False, "keep_alive": 0,
        "options": {"num_predict": 1, "temperature": 0, "seed": 0},
    })  # fmt: skip
    text, thought, count = value.get("response"), value.get("thinking"), value.get("eval_count")
    said = next((one for one in (text, thought) if isinstance(one, str) and one), "")
    return said[:_TEXT], count if type(count) is int and 0 <= count < 1 << 31 else int(bool(said))


def one_vector(client: Ollama, name: str) -> int:
    """How many numbers the vector has that embedding model *name* makes of a word; 0 where it makes none."""
    value = _asked(client, "/api/embed", {"model": name, "input": _PROMPT, "keep_alive": 0})
    found = value.get("embeddings")
    vector = found[0] if isinstance(found, list) and found else None
    return len(vector) if isinstance(vector, list) else 0


def _asked(client: Ollama, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, asked once: that it is slow is no reason to make the server do it again."""
    answer: Answer = client._http.ask("POST", path, data=dict(data))
    value = answer.json()
    if value.get("error") is not None:
        words = answer.masked(str(value["error"]))[:_WORDS]
        raise Refused(words, where=answer.where, words=words)
    return value
