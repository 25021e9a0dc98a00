"""The Modelfile: what it says, read as Ollama reads it, and written so that Ollama reads the same.

Facts: parser/parser.go (CreateRequest) of Ollama v0.33, in this the same as v0.24; golang.org/x/mod/semver.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelpack.documents.modelfile_grammar import (
    PATHS,
    ROLES,
    TEXTS,
    Command,
    breaks,
    commands_in,
    decoded,
    dropped_in,
    looks_like_modelfile,
    read_value,
    refused,
)
from modelpack.documents.parameters import DEPRECATED, PARAMETERS, Kind, parameter_texts, parse_parameter
from modelpack.errors import Corrupt, ModelpackError, Unsupported

__all__ = ["Command", "Modelfile", "looks_like_modelfile", "parse_modelfile", "write_modelfile"]

_NUMBER, _WORDS = r"(?:0|[1-9][0-9]*+)", r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_MOST_FILES = 100
"""The most FROM and DRAFT together: each is a file to open, and no real model has more than a few."""
_PRE = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+{_WORDS})?)?)?", re.ASCII
)


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says: its instructions, what they come to, and what is worth a warning.

    *body* holds fields of `POST /api/create`, only those that are there and not empty: `template`, `system`,
    `license` (a list), `parameters`, `messages`, `renderer`, `parser`, `requires`. *remarks* are sentences.
    """

    commands: tuple[Command, ...]
    body: dict[str, Any]
    remarks: tuple[str, ...]

    @property
    def sources(self) -> tuple[Command, ...]:
        """The FROM instructions, at least one: paths or names."""
        return self._of("from")

    @property
    def adapters(self) -> tuple[Command, ...]:
        """The ADAPTER instruction, if there is one: a path."""
        return self._of("adapter")

    @property
    def drafts(self) -> tuple[Command, ...]:
        """The DRAFT instructions: paths."""
        return self._of("draft")

    def _of(self, name: str) -> tuple[Command, ...]:
        return tuple(command for command in self.commands if command.name == name)


def parse_modelfile(raw: bytes, where: object = "") -> Modelfile:
    """Read a Modelfile as `ollama create` does: the same values, character for character.

    What Ollama takes without a word, and wrongly, is an error here: bytes that are not valid in the file's
    encoding (UTF-8, or UTF-16 with a byte order mark), NUL, an empty FROM, ADAPTER or DRAFT, a second
    ADAPTER, and `PARAMETER model x`, which is FROM to it (so with the names of other instructions).
    What it takes and changes is a remark: characters that it drops (all but letters, marks, numbers,
    punctuation, symbols, spaces, tabs and, in quotes, line breaks), parameters that it knows no more, and all
    but the last of several TEMPLATE, SYSTEM, RENDERER, PARSER or REQUIRES. Of a parameter, too, the last
    counts, save `stop`, which is a list.

    Raises Corrupt for what Ollama would not take, with the line, and for more than LIMIT bytes; Unsupported
    for two adapters, more than MOST instructions, and a value of more than words.blob.SMALL bytes.
    """
    return _parsed(raw, where, {})


def _parsed(raw: bytes, where: object, known: Mapping[str, str]) -> Modelfile:
    """As `parse_modelfile`; of texts that are *known* no second copy is kept."""
    text = decoded(raw, where)
    commands: list[Command] = []
    dropped, first = 0, 0
    for command, start, end in commands_in(text, where):
        command = replace(command, value=known.get(command.value, command.value))
        commands.append(command)
        count = text.count("\0", start, end)
        if count and not dropped:
            first = text.find("\0", start)
        dropped += count
    if not any(command.name == "from" for command in commands):
        advice = "Begin it with FROM and a path or a model's name."
        raise Corrupt("is not a Modelfile: it has no FROM", where=where, advice=advice)
    body = _body(commands, where)
    remarks = list(_remarks(commands))
    if dropped:
        remarks.append(
            f"Ollama drops {dropped} invisible character{'s' * (dropped > 1)} of it; the first is on "
            f"line {1 + breaks(text, 0, first)}."
        )
    return Modelfile(tuple(commands), body, tuple(remarks))


def write_modelfile(
    body: Mapping[str, Any], sources: Sequence[str], adapters: Sequence[str] = (), drafts: Sequence[str] = ()
) -> bytes:
    """A Modelfile that says *body* (as in `Modelfile`) of these models, in UTF-8 with line feeds.

    Fields of *body* that no Modelfile has (`files`, `info`, `quantize`, …) are left to the caller. What is
    written is read again, and compared. Raises Unsupported for what Ollama's grammar cannot hold: it has no
    escapes, so that some texts would end early, and the rest of them would be instructions.
    """
    wanted = {name: body[name] for name in (*TEXTS, "parameters", "license", "messages") if body.get(name)}
    lines = [*_lines("FROM", sources), *_lines("ADAPTER", adapters), *_lines("DRAFT", drafts)]
    for name in TEXTS:
        lines += _lines(name.upper(), [wanted[name]] if name in wanted else [])
    for name, value in sorted(_typed(wanted, "parameters", dict).items()):
        try:
            lines += _lines(f"PARAMETER {name}", parameter_texts(name, value))
        except ValueError as error:
            raise _unwritable(f"PARAMETER: {error}") from None
    lines += _lines("LICENSE", _typed(wanted, "license", list))
    for message in _typed(wanted, "messages", list):
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise _unwritable("MESSAGE: it holds a role and a text, and one of these has other parts")
        if message["role"] not in ROLES:
            raise _unwritable(f"MESSAGE: {str(message['role'])[:40]!r} is none of its roles")
        lines += _lines(f"MESSAGE {message['role']}", [message["content"]])
    raw = b"".join(lines)
    lines.clear()
    try:
        back = _parsed(raw, "", {text: text for text in _texts(wanted)})
    except ModelpackError as error:
        raise _unwritable(error.what) from None
    named = [[command.value for command in each] for each in (back.sources, back.adapters, back.drafts)]
    if named != [list(sources), list(adapters), list(drafts)] or back.body != wanted:
        raise _unwritable("Ollama would read something else")
    return raw


def _body(commands: Sequence[Command], where: object) -> dict[str, Any]:
    """What *commands* come to; the last of a kind counts, save those that add up."""
    named = [command for command in commands if command.name in ("from", "draft")]
    if len(named) > _MOST_FILES:
        what = f"line {named[_MOST_FILES].line}: it has more than {_MOST_FILES} FROM and DRAFT"
        raise Unsupported(what, where=where, advice="Merge shards first, or name their folder.")
    body: dict[str, Any] = dict.fromkeys(TEXTS, "")
    licenses: list[str] = []
    parameters: dict[str, Any] = {}
    messages: list[dict[str, str]] = []
    adapter = 0
    for command in commands:
        name, value, line = command.name, command.value, command.line
        if name in PATHS and not value:
            raise refused(line, f"{name.upper()} names nothing", where)
        if name == "adapter":
            if adapter:
                advice = "Ollama would take the last without a word: leave one."
                what = f"has two adapters, on lines {adapter} and {line}"
                raise Unsupported(what, where=where, advice=advice)
            adapter = line
        elif name == "license":
            licenses.append(value)
        elif name == "message":
            messages.append({"role": command.key, "content": value})
        elif name == "parameter" and command.key not in DEPRECATED:
            try:
                item = parse_parameter(command.key, value)
            except ValueError as error:
                raise refused(line, str(error), where) from None
            if PARAMETERS[command.key] is Kind.LIST:
                parameters.setdefault(command.key, []).append(item)
            else:
                parameters[command.key] = item
        elif name == "requires":
            body[name] = value.removeprefix("v")
            if not _SEMVER.fullmatch(body[name]):
                raise refused(line, f"{value[:40]!r} is not a version such as 0.14.0", where)
        elif name in TEXTS:
            body[name] = value
    body |= {"license": licenses, "parameters": parameters, "messages": messages}
    return {name: value for name, value in body.items() if value}


def _remarks(commands: Sequence[Command]) -> Iterator[str]:
    dropped = {each.key for each in commands if each.name == "parameter" and each.key in DEPRECATED}
    if dropped:
        yield f"Ollama knows these parameters no more, and drops them: {', '.join(sorted(dropped))}."
    for name in TEXTS:
        lines = [command.line for command in commands if command.name == name]
        if len(lines) > 1:
            yield f"{name.upper()} stands there {len(lines)} times; the last counts, on line {lines[-1]}."


def _texts(body: Mapping[str, Any]) -> Iterator[str]:
    """The texts of *body* that may be long."""
    yield from (body[name] for name in TEXTS if name in body)
    yield from body.get("license", ())
    yield from (message["content"] for message in body.get("messages", ()))


def _lines(words: str, values: Sequence[Any]) -> list[bytes]:
    return [_line(words, value) for value in values]


def _line(words: str, text: Any) -> bytes:
    """*words* and *text* in the first of the forms that Ollama knows which says it; Unsupported if none."""
    if not isinstance(text, str):
        raise _unwritable(f"{words}: its value is not a text")
    dropped = sorted(dropped_in(text))
    if dropped:
        named = ", ".join(f"U+{ord(char):04X}" for char in dropped[:5])
        raise _unwritable(f"{words}: it has characters that Ollama drops: {named}")
    for quotes in ('"""', '"') if "\n" in text else ("", '"', '"""'):
        form = f"{quotes}{text}{quotes}"
        if form and read_value(form, 0) == (text, len(form)):
            return f"{words} {form}\n".encode()
    raise _unwritable(f'{words}: a line in it ends with """, which would end the text there')


def _typed(body: Mapping[str, Any], name: str, kind: type) -> Any:
    value = body.get(name, kind())
    if not isinstance(value, kind):
        raise _unwritable(f"{name}: it is not a {kind.__name__}")
    return value


def _unwritable(why: str) -> Unsupported:
    return Unsupported(
        f"no Modelfile can say it: {why}",
        advice="Keep the bundle, and load that: it carries every text as it is.",
    )
