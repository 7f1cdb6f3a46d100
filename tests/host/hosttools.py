"""Helpers of the host tests: programs, the daemon's socket, the journal, waiting."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SOCKET = Path("/run/pydockerd/docker.sock")
CLIENTS = Path("/opt/pydockerd-testhost/clients")
"""Docker clients beside the distribution's own, one file each; the file's name tells them apart."""


def run(
    *argv: str | Path,
    check: bool = True,
    input: str | bytes | IO[bytes] | None = None,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and keep what it prints (UTF-8; other bytes are escaped).

    Raises AssertionError with its output when it ends with another code than 0 and ``check`` is set.
    """
    stream = input if isinstance(input, io.IOBase) else None
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        input=input.encode() if isinstance(input, str) else input if isinstance(input, bytes) else None,
        stdin=stream if stream is not None else subprocess.DEVNULL if input is None else None,
        capture_output=True,
        timeout=timeout,
        env=None if env is None else {**os.environ, **env},
        check=False,
    )
    result = subprocess.CompletedProcess(
        done.args,
        done.returncode,
        done.stdout.decode(errors="backslashreplace"),
        done.stderr.decode(errors="backslashreplace"),
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(result.args)} ended with {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result


@dataclass(frozen=True)
class Cli:
    """A command line client.  Call it like ``run``; ``out`` returns what was printed, without the last newline."""

    name: str
    argv: tuple[str, ...]

    def __call__(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run(*self.argv, *args, **options)

    def out(self, *args: str, **options: Any) -> str:
        return self(*args, **options).stdout.rstrip("\n")

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and return at once, with pipes on its three streams unless ``options`` say otherwise."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([*self.argv, *args], **{**streams, **options})


def docker_clients() -> list[Cli]:
    """The distribution's docker first."""
    others = sorted(CLIENTS.iterdir()) if CLIENTS.is_dir() else []
    found = [("docker", Path("/usr/bin/docker")), *((path.name, path) for path in others)]
    return [Cli(name, (*_speaking_our_api(path), "-H", f"unix://{SOCKET}")) for name, path in found]


def _speaking_our_api(client: Path) -> tuple[str, ...]:
    """From 29 on, docker asks for API 1.44 or newer unless it is told otherwise."""
    version = run(client, "--version").stdout.split()[2]
    if int(version.split(".", maxsplit=1)[0]) < 29:
        return (os.fspath(client),)
    return ("env", "DOCKER_API_VERSION=1.43", os.fspath(client))


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    request: str

    @property
    def json(self) -> Any:
        self.check()
        return json.loads(self.body)

    def check(self) -> Reply:
        assert self.status < 400, f"{self.request}: {self.status} {self.body.decode(errors='replace')}"
        return self


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class Api:
    """The Remote API without a client between: one connection a request, no version unless the path has one."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Reply:
        sent = dict(headers or {})
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        elif body is not None:
            sent.setdefault("Content-Type", "application/x-tar")
        connection = _UnixConnection(self._path, timeout)
        try:
            connection.request(method, path, body=body, headers=sent)
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read(), f"{method} {path}")
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Reply:
        return self.request("GET", path, **options)

    def post(self, path: str, json_body: Any = None, **options: Any) -> Reply:
        return self.request("POST", path, json_body=json_body, **options)

    def delete(self, path: str, **options: Any) -> Reply:
        return self.request("DELETE", path, **options)


def systemctl(*args: str, check: bool = True, timeout: float = 60) -> str:
    """What ``systemctl ARGS`` prints, without the last newline."""
    return run("systemctl", "--no-pager", *args, check=check, timeout=timeout).stdout.rstrip("\n")


def unit_property(unit: str, name: str) -> str:
    return systemctl("show", "--value", "-p", name, unit)


def main_pid(unit: str = "pydockerd.service") -> int:
    """The pid of a service's main process; 0 when it does not run."""
    return int(unit_property(unit, "MainPID"))


def journal(*args: str) -> list[str]:
    """The messages that ``journalctl ARGS`` finds, oldest first, one line each."""
    return run("journalctl", "--no-pager", "-q", "-o", "cat", *args).stdout.splitlines()


def journal_entries(*args: str) -> list[dict[str, Any]]:
    """The same with all fields, as ``journalctl -o json`` prints them."""
    text = run("journalctl", "--no-pager", "-q", "-a", "-o", "json", *args).stdout
    return [json.loads(line) for line in text.splitlines()]


def rules() -> str:
    """All of the host's firewall, of both kinds."""
    kinds = (("nft", "list", "ruleset"), ("iptables-legacy-save",), ("ip6tables-legacy-save",))
    return "".join(run(*argv, check=False).stdout for argv in kinds)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Ask until ``condition`` is true.  Raises AssertionError after ``seconds``, naming ``what`` was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            last: object = condition()
        except OSError as error:
            last = error
        if last and not isinstance(last, OSError):
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what} (last: {last!r})"
        time.sleep(0.02)
