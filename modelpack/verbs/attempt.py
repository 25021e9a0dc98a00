"""`--try`: does the model answer? One token, or one vector of an embedding model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modelpack.documents.receipt import Receipt, Tried
from modelpack.documents.record import SERVER, Host
from modelpack.errors import ModelpackError, NotFound, Refused, Unsupported
from modelpack.words.report import Report, Said, silent

if TYPE_CHECKING:  # requests costs a third of a start
    from modelpack.hands.ollama import Ollama

PATIENCE = 1800.0
"""Seconds of silence: loading 70 GB from a slow disk takes many minutes, and nothing comes meanwhile."""

_WORDS = 2000  # characters of a server's error
_NOT_GENERATE = "does not support generate"


def able(host: Host) -> Ollama:
    """The client for `attempts` at *host*; raises Unsupported for what runs no models, before anything moves.

    Unreachable and the like where a server does not say what it is.
    """
    if host.kind != SERVER:
        raise Unsupported(
            f"a {host.kind} runs no models: --try asks an Ollama server",
            where=host.where,
            advice="Leave --try away, or load to the server: --to http://HOST:11434",
        )
    from modelpack.hands.ollama import Ollama

    client = Ollama(host.where, timeout=PATIENCE)
    if client.about().is_depot:
        raise Unsupported(
            "is a depot: it keeps models and has no engine to run them",
            where=host.where,
            advice="Leave --try away.",
        )
    return client


def attempts(
    client: Ollama, receipts: Sequence[Receipt], report: Report = silent
) -> tuple[list[Receipt], dict[str, ModelpackError]]:
    """*receipts* with what came of trying each model, one after the other; and the errors by full names.

    A model that does not answer stays where it is. Its error is Refused with the server's words; what kept
    it from being asked (Unreachable, …) is an error without a result.
    """
    done: list[Receipt] = []
    failed: dict[str, ModelpackError] = {}
    for receipt in receipts:
        report(Said(f"asking {receipt.name} for one token"))
        try:
            tried = attempt(client, str(receipt.name))
        except ModelpackError as error:
            failed[receipt.name.full] = error
            done.append(receipt)
            continue
        done.append(replace(receipt, tried=tried))
        if not tried.ok:
            failed[receipt.name.full] = Refused(
                f"{receipt.name} is there, but it does not answer: {tried.words}",
                where=client.base,
                advice="See the server's log. The model stays; `ollama rm` removes it.",
                words=tried.words,
            )
    return done, failed


def attempt(client: Ollama, name: str) -> Tried:
    """Ask the model *name* for one token, an embedding model for one vector; then the server unloads it.

    What the server says against it is a result. Raises Unreachable, and NotFound where there is none.
    """
    from modelpack.hands.generate import one_token, one_vector

    begun = time.monotonic()

    def since() -> int:
        return round((time.monotonic() - begun) * 1000)

    kind = "token"
    try:
        able_to = client.show(name).capabilities
        if not ("embedding" in able_to and "completion" not in able_to):
            try:
                text, count = one_token(client, name)
            except Refused as error:
                if _NOT_GENERATE not in error.words:
                    raise
            else:
                return Tried(count > 0, kind, text, count, "" if count else "no token came", since())
        kind = "vector"
        length = one_vector(client, name)
        return Tried(length > 0, kind, "", length, "" if length else "no vector came", since())
    except NotFound:
        raise
    except Refused as error:
        return Tried(False, kind, words=(error.words or error.what)[:_WORDS], milliseconds=since())
