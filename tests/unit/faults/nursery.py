"""Daemons that start in a third of the time: forked from a process that has imported all their modules already.

Two thirds of a daemon's start are imports, and hundreds of starts are many minutes.  What is forked runs the same
``main`` with the same arguments, and starts its helpers as any other.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import IO

_CLONE_NEWNET = 0x40000000
_LARGEST = 65536
_MAIN = "dockerd_py.daemon.main"
_MODULES = (_MAIN, "dockerd_py.api.server", "dockerd_py.dbus.service", "dockerd_py.engine.engine")
"""The last three it imports itself only when its sockets are open."""


class Child:
    """A daemon; what `subprocess.Popen` has and the tests use."""

    def __init__(self, nursery: Nursery, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self._pidfd = pidfd

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._pidfd, number)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.returncode = self._nursery.reap(self.pid)
            os.close(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"daemon {self.pid}", timeout or 0)
        code = self.poll()
        assert code is not None
        return code


class Nursery:
    """The process that has imported everything."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
                cwd="/",
            )

    def spawn(
        self, argv: list[str], log: IO[bytes], *, stopped: bool = False, namespace: int | None = None
    ) -> Child:
        """Start a daemon as `Daemon.argv` has it; its standard error goes to ``log``.

        stopped: it waits for a SIGCONT before it begins.
        namespace: a descriptor of the network namespace that it is in; by default ours.
        """
        request = [stopped, *argv[argv.index(_MAIN) + 1 :]]
        fds = [log.fileno(), *([] if namespace is None else [namespace])]
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
            data, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, 1)
        return Child(self, int(data), fds[0])

    def reap(self, pid: int) -> int:
        """The exit code of a daemon that has ended, as `subprocess` has it."""
        with self._asking:
            self._socket.send(json.dumps(pid).encode())
            return int(self._socket.recv(_LARGEST))

    def close(self) -> None:
        self._socket.close()
        self._process.wait(30)


def _serve(asked: socket.socket) -> None:
    while True:
        data, fds, _, _ = socket.recv_fds(asked, _LARGEST, 2)
        if not data:
            return
        request = json.loads(data)
        if isinstance(request, int):
            _, status = os.waitpid(request, 0)
            asked.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            asked.close()
            for namespace in fds[1:]:
                if ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET) < 0:
                    os._exit(1)
                os.close(namespace)
            _be_daemon(*request, log=fds[0])
        if request[0]:
            os.waitpid(pid, os.WUNTRACED)  # until it has stopped
        pidfd = os.pidfd_open(pid)
        socket.send_fds(asked, [str(pid).encode()], [pidfd])
        for fd in (pidfd, *fds):
            os.close(fd)


def _be_daemon(stopped: bool, *argv: str, log: int) -> None:
    from dockerd_py.daemon.main import main

    if stopped:
        os.kill(os.getpid(), signal.SIGSTOP)
    os.dup2(log, 2)
    os.close(log)
    sys.argv = ["pydockerd", *argv]
    code = 1
    try:
        code = main()
    except BaseException:  # noqa: BLE001 - where Python would have written it
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()  # not to be copied by the collection of each daemon's own
    _serve(socket.socket(fileno=int(sys.argv[1])))
