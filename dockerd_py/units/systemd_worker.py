"""A program: systemd's bus, one process away from the daemon.  Started by `systemd_link`, by its file name.

pystemd never releases the interpreter lock: a call that waits for PID 1, for a daemon-reload say, would stand the
whole daemon still, whatever thread it was made in.  So it waits here.  Requests and answers are JSON lines on
stdin, a stream socket; the program ends when that does.  It imports nothing but the standard library and pystemd.

Requests, each with an ``id`` that the answer repeats:
  {"op": "call", "destination"?, "path"?, "interface"?, "member", "signature", "args"}  → {"value": body}
  {"op": "get", "unit" or "path", "interface", "property", "signature"}                 → {"value": ...}
  {"op": "set", "unit", "properties": [[name, signature, value]]}                       → {"value": null}
  {"op": "job", "member", "unit", "mode", "properties"?: [[name, signature, value]], "timeout"}
       → {"value": "done" | "failed" | ...}, once the job that the method queued is removed
Failures: {"error": last part of the D-Bus error's name or of the errno's, "text": the message}
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature, path_encode

SYSTEMD = b"org.freedesktop.systemd1"
SYSTEMD_PATH = b"/org/freedesktop/systemd1"
MANAGER = b"org.freedesktop.systemd1.Manager"
UNIT = b"org.freedesktop.systemd1.Unit"
BUS = b"org.freedesktop.DBus"
BUS_PATH = b"/org/freedesktop/DBus"

CALL_TIMEOUT = "15s"
RECONNECT_WITHIN = 5.0  # seconds for one request
CHECK_JOBS_EVERY = 0.5  # a JobRemoved signal can be lost while systemd re-executes itself

Arguments = list[tuple[int, Any]]


class Gone(Exception):
    """The connection to the bus broke, with the errno's name."""


@dataclass
class Job:
    request: int
    unit: str
    starting: bool
    deadline: float
    next_check: float


class Bus:
    """The connection, made anew after it broke.  Jobs that are waited for are known by their object path."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._bus: DBus | None = None
        self._was_there = False

    def fileno(self) -> int | None:
        return None if self._bus is None else int(self._bus.get_fd())

    def connect(self) -> DBus:
        if self._bus is not None:
            return self._bus
        bus = DBus()
        bus.open()
        self._bus, self._was_there = bus, True
        rule = (
            f"type='signal',sender='{SYSTEMD.decode()}',path='{SYSTEMD_PATH.decode()}',"
            f"interface='{MANAGER.decode()}',member='JobRemoved'"
        )
        bus.call_method(BUS, BUS_PATH, BUS, b"AddMatch", apply_signature(b"s", [rule]))
        # No Subscribe: systemd reports the jobs that a client queued to that client without it, and the rest of
        # what it would say (every unit that comes and goes, with its properties) costs more than a scope's start.
        return bus

    def drop(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def removed_jobs(self) -> list[tuple[str, str]]:
        """(path, result) of every JobRemoved that has arrived.  `process` yields one message a call, and nothing
        also when it was busy with the connection itself: two empty ones in a row are the end."""
        found: list[tuple[str, str]] = []
        empty = 0
        while self._bus is not None and empty < 2:
            try:
                message = self._bus.process()
            except DBusBaseError:
                self.drop()
                break
            if message.is_empty():
                empty += 1
                continue
            empty = 0
            if message.is_signal(MANAGER, b"JobRemoved"):
                message.process_reply(False)
                _number, path, _unit, result = message.body
                found.append((_text(path), _text(result)))
        return found

    def call(self, destination: bytes, path: bytes, interface: bytes, member: bytes, args: Arguments) -> Any:
        bus = self._connected()
        return self._checked(lambda: bus.call_method(destination, path, interface, member, args).body)

    def get(self, path: bytes, interface: bytes, name: bytes, signature: bytes) -> Any:
        bus = self._connected()
        return self._checked(lambda: bus.get_property(SYSTEMD, path, interface, name, signature))

    def _connected(self) -> DBus:
        deadline = time.monotonic() + RECONNECT_WITHIN
        while True:
            try:
                return self.connect()
            except DBusBaseError:
                self.drop()
                if not self._was_there or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _checked(self, action: Any) -> Any:
        try:
            return action()
        except DBusBaseError as error:
            if -error.errno in (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE, errno.EBADF):
                self.drop()
                raise Gone(errno.errorcode[-error.errno]) from error
            raise


class Worker:
    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._bus = Bus()
        self._unread = b""

    def run(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._peer, select.POLLIN)
            if (fd := self._bus.fileno()) is not None:
                poll.register(fd, select.POLLIN)
            ready = {number for number, _events in poll.poll(50 if self._bus.jobs else None)}
            if self._peer.fileno() in ready:
                data = self._peer.recv(1 << 16)
                if not data:
                    return
                *lines, self._unread = (self._unread + data).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))
                    self._settle()
            self._settle()
            self._check_jobs()

    def _handle(self, request: dict[str, Any]) -> None:
        try:
            if request["op"] == "job":
                self._start_job(request)
                return
            action = {"call": self._call, "get": self._get, "set": self._set}[request["op"]]
            self._answer(request["id"], action(request))
        except (DBusBaseError, Gone) as error:
            name, text = _explain(error)
            self._send({"id": request["id"], "error": name, "text": text})

    def _call(self, request: dict[str, Any]) -> Any:
        return self._bus.call(
            request.get("destination", SYSTEMD.decode()).encode(),
            request.get("path", SYSTEMD_PATH.decode()).encode(),
            request.get("interface", MANAGER.decode()).encode(),
            request["member"].encode(),
            apply_signature(request["signature"].encode(), request["args"]),
        )

    def _get(self, request: dict[str, Any]) -> Any:
        path = _unit_path(request["unit"]) if "unit" in request else request["path"].encode()
        names = (request[key].encode() for key in ("interface", "property", "signature"))
        return self._bus.get(path, *names)

    def _set(self, request: dict[str, Any]) -> Any:
        args = apply_signature(b"sb", [request["unit"], True])  # until reboot, as the scope itself
        args += _properties(request["properties"])
        return self._bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, b"SetUnitProperties", args)

    def _start_job(self, request: dict[str, Any]) -> None:
        args = apply_signature(b"ss", [request["unit"], request["mode"]])
        if "properties" in request:
            args += _properties(request["properties"])
            args += [(ord("a"), b"(sa(sv))"), (-1, None)]  # no auxiliary units
        now = time.monotonic()
        path = self._bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, request["member"].encode(), args)
        self._bus.jobs[_text(path)] = Job(
            request["id"],
            request["unit"],
            request["member"] != "StopUnit",
            now + request["timeout"],
            now + CHECK_JOBS_EVERY,
        )

    def _settle(self) -> None:
        """Answer for every job whose removal was heard of, also before the reply to the call that queued it."""
        for path, result in self._bus.removed_jobs():
            job = self._bus.jobs.pop(path, None)
            if job is not None:
                self._answer(job.request, result)

    def _check_jobs(self) -> None:
        now = time.monotonic()
        for path, job in list(self._bus.jobs.items()):
            if now < job.next_check:
                continue
            job.next_check = now + CHECK_JOBS_EVERY
            result = self._result_without_signal(job)
            if result is not None:
                del self._bus.jobs[path]
                self._answer(job.request, result)
            elif now > job.deadline:
                del self._bus.jobs[path]
                text = f"systemd's job for {job.unit} has not ended in time"
                self._send({"id": job.request, "error": "TimedOut", "text": text})

    def _result_without_signal(self, job: Job) -> str | None:
        unit = _unit_path(job.unit)
        try:
            number, _path = self._bus.get(unit, UNIT, b"Job", b"(uo)")
            state = _text(self._bus.get(unit, UNIT, b"ActiveState", b"s"))
        except (DBusBaseError, Gone):
            return None
        if number:
            return None
        return "done" if not job.starting or state in ("active", "reloading") else "failed"

    def _answer(self, request: int, value: Any) -> None:
        self._send({"id": request, "value": value})

    def _send(self, answer: dict[str, Any]) -> None:
        self._peer.sendall(json.dumps(answer, default=_text).encode() + b"\n")


def _properties(properties: list[tuple[str, str, Any]]) -> Arguments:
    args: Arguments = [(ord("a"), b"(sv)")]
    for name, signature, value in properties:
        args += [(ord("r"), b"sv"), (ord("s"), name), (ord("v"), signature.encode())]
        args += apply_signature(signature.encode(), [value])
        args += [(-1, None), (-1, None)]
    return [*args, (-1, None)]


def _unit_path(name: str) -> bytes:
    return bytes(path_encode(SYSTEMD_PATH + b"/unit", name.encode()))


def _explain(error: Exception) -> tuple[str, str]:
    """The short name of an error and its text: pystemd keeps the name only for errors that it has no class for."""
    if not isinstance(error, DBusBaseError):
        return "Disconnected", f"the connection to systemd broke: {error}"
    text = _text(error.err_message)
    if type(error) is not DBusBaseError:
        return type(error).__name__.removeprefix("DBus").removesuffix("Error"), text
    if error.err_name:
        return _text(error.err_name).rpartition(".")[2], text
    return errno.errorcode.get(-error.errno, "Failed"), text or os.strerror(-error.errno)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def main() -> None:
    # A terminal's Ctrl-C and a service's stop reach the whole group; the daemon may need us until its own end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ["SYSTEMD_BUS_TIMEOUT"] = CALL_TIMEOUT
    with socket.socket(fileno=os.dup(0)) as peer:
        try:
            Worker(peer).run()
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)


if __name__ == "__main__":
    main()
