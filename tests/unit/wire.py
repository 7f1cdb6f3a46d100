"""HTTP as bytes on a socket: what a test needs to send what no client library would, and to read the answer."""

from __future__ import annotations

import http.client
import json
import os
import socket
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@dataclass(frozen=True)
class Reply:
    status: int
    data: bytes
    headers: HTTPMessage

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def message(self) -> str:
        return str(self.json["message"])


def ask(path: Path, method: str, url: str, body: object = None, timeout: float = 60) -> Reply:
    """One request on a connection of its own.

    body: bytes as they are; an iterator of bytes, which is sent in chunks; anything else but None as JSON.
    """
    connection = UnixConnection(path, timeout)
    headers = {}
    chunked = hasattr(body, "__next__")
    if body is not None and not isinstance(body, bytes) and not chunked:
        body = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, url, body=body, headers=headers, encode_chunked=chunked)  # type: ignore[arg-type]
        response = connection.getresponse()
        return Reply(response.status, response.read(), response.headers)
    finally:
        connection.close()


def read_head(connection: socket.socket) -> bytes:
    """Up to and with the empty line, and not a byte more."""
    return read_until(connection, b"\r\n\r\n")


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = connection.recv(1)
        assert piece, data
        data += piece
    return data


def read_to_end(connection: socket.socket) -> bytes:
    data = bytearray()
    while piece := connection.recv(65536):
        data += piece
    return bytes(data)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, bytes(data)
        data += piece
    return bytes(data)


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of an answer whose length is declared, on a connection that goes on."""
    head = read_head(connection)
    left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < left:
        piece = connection.recv(left - len(body))
        assert piece, body
        body += piece
    return head, body


def objects(data: bytes) -> list[Any]:
    """JSON values one behind the other, with white space between them or without."""
    decoder, text, found, at = json.JSONDecoder(), data.decode().strip(), [], 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Docker's stdcopy frames."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        found.append((data[at], data[at + 8 : at + 8 + size]))
        at += 8 + size
    return found
