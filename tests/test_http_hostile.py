"""Servers that speak HTTP badly, on purpose: each ends in an error of ours, soon, and shows no secret."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable

import pytest
from servers import head_of, talking

from modelpack.errors import ModelpackError, Refused, Unreachable
from modelpack.hands import paced
from modelpack.hands.http import Http
from modelpack.words.blob import KIB

Talk = Callable[[socket.socket], None]


def sends(*pieces: bytes, times: int = 1) -> Talk:
    def talk(connection: socket.socket) -> None:
        head_of(connection)
        for piece in pieces:
            for _ in range(times):
                connection.sendall(piece)

    return talk


def hints(connection: socket.socket) -> None:
    head_of(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def trailers(connection: socket.socket) -> None:
    head_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    while True:
        connection.sendall(b"X-More: 1\r\n")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: "


@pytest.mark.parametrize(
    "talk",
    [
        hints,
        trailers,
        sends(CHUNKED + b"-1\r\n" + b"x" * 200_000),
        sends(CHUNKED + b"ffffffffffffffffffff\r\n{}"),
        sends(PLAIN + b"-7\r\n\r\n{}"),
        sends(PLAIN + "²".encode("latin-1") + b"\r\n\r\n{}"),
        sends(PLAIN + b"9" * 5000 + b"\r\n\r\n{}"),
    ],
    ids=["hints", "trailers", "a chunk below zero", "a huge chunk", "-7", "²", "nines"],
)
def test_what_does_not_speak_http(talk: Talk) -> None:
    began = time.monotonic()
    with talking(talk) as base, pytest.raises(Unreachable):
        Http(base).ask("GET", "/x").json()
    assert time.monotonic() - began < 5


def test_a_document_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "GRACE", 0.3)

    def drip(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(PLAIN + b"4000000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    with talking(drip) as base, pytest.raises(Unreachable, match="slowly"):
        Http(base).ask("GET", "/x").json()


def test_objects_without_number() -> None:
    body = b'{"models":[' + b"{}," * 2_000_000 + b"{}]}"
    with talking(sends(PLAIN + b"%d\r\n\r\n" % len(body), body)) as base, pytest.raises(Refused):
        Http(base).ask("GET", "/x").json()


def test_blank_lines_without_end() -> None:
    def blank(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"\n" * 64 * KIB)

    with talking(blank) as base, pytest.raises(Refused, match="blank"):
        list(Http(base).ask("GET", "/x").lines())


@pytest.mark.parametrize("value", ["Bearer TOKSECRET", "Basic " + base64.b64encode(b"joe:PWSECRET").decode()])
def test_a_server_that_repeats_who_we_are(value: str) -> None:
    def echo(connection: socket.socket) -> None:
        given = next(
            line for line in head_of(connection).split(b"\r\n") if line.lower().startswith(b"authoriz")
        )
        body = b"you sent " + given + b", that is joe:PWSECRET or PWSECRET"
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with talking(echo) as base, pytest.raises(ModelpackError) as caught:
        Http(base, headers={"Authorization": value}).ask("GET", "/x")
    shown = f"{caught.value} {caught.value.what} {caught.value.advice} {getattr(caught.value, 'words', '')}"
    assert "you sent" in shown
    assert value.partition(" ")[2] not in shown
    assert "PWSECRET" not in shown or "TOK" in value  # of another's password nothing is known here
