"""The calls of the OCI runtime, as children of the monitor.

``create`` is special: it waits at a gate, so that the daemon can put it into the container's scope first.
"""

from __future__ import annotations

import os
import signal
import time

from dockerd_py.monitor.children import kill
from dockerd_py.monitor.gate import Gate, environment
from dockerd_py.pids import children_of

REAP_SECONDS = 10.0
LOG_LIMIT = 64 * 1024


class OciRuntime:
    def __init__(self, *, create: list[str], start: list[str], delete: list[str], directory: str, hide: str) -> None:
        self._create = create
        self._start = start
        self._delete = delete
        self._log = os.path.join(directory, "runtime.log")
        self._pid_file = os.path.join(directory, "init.pid")
        self._hide = hide
        self._gate: Gate | None = None

    def gate(self, stdio: tuple[int, int, int]) -> int:
        """Fork the child that will become ``create``; its pid."""
        for path in (self._log, self._pid_file):
            remove(path)
        self._gate = Gate(self._create, stdio, log=self._log, hide=self._hide)
        return self._gate.pid

    def open_gate(self) -> None:
        assert self._gate is not None
        self._gate.open()

    def start(self) -> int:
        return self._spawn(self._start)

    def init_pid(self) -> int:
        return read_pid(self._pid_file)

    def failure(self, status: int) -> dict[str, str | int]:
        """What a failed call left in the runtime's log, for the daemon to explain."""
        return failure(status, self._log)

    def delete(self) -> None:
        """Take the runtime's own state of the container away, waiting for the end of it."""
        os.waitpid(self._spawn(self._delete), 0)

    def kill_everything(self) -> None:
        """Kill and reap whatever this monitor started, half-made containers included (they are ours: subreaper)."""
        if self._gate is not None:
            self._gate.close()
        deadline = time.monotonic() + REAP_SECONDS
        while time.monotonic() < deadline:
            for pid in children_of(os.getpid()):
                kill(pid)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.002)

    def _spawn(self, argv: list[str]) -> int:
        null = "/dev/null"
        return os.posix_spawn(
            argv[0],
            argv,
            environment(os.path.dirname(self._log)),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
            ],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )


def read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def failure(status: int, log: str) -> dict[str, str | int]:
    """The reply's fields for a call that ended with ``status`` (waitpid(2)) and wrote to ``log``."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read(LOG_LIMIT)
    except FileNotFoundError:
        text = ""
    code = os.waitstatus_to_exitcode(status)
    return {"error": f"the OCI runtime ended with {code}", "log": text}


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
