"""The calls of the OCI runtime, as children of the monitor.

``create`` is special: it is forked early and waits at a gate, so that the daemon can put it into the container's
scope first.  What it then starts is born there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import NoReturn

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""Nothing of ours reaches the runtime: it would hand NOTIFY_SOCKET, for one, on to the container."""

REAP_SECONDS = 10.0

CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE = 0x4000, 0x80000
MNT_DETACH = 2


class OciRuntime:
    def __init__(self, *, create: list[str], start: list[str], delete: list[str], directory: str, hide: str) -> None:
        self._create = create
        self._start = start
        self._delete = delete
        self._log = os.path.join(directory, "runtime.log")
        self._pid_file = os.path.join(directory, "init.pid")
        self._hide = hide
        self._gate: int | None = None

    def gate(self, stdio: tuple[int, int, int]) -> int:
        """Fork the child that will become ``create``; its pid."""
        for path in (self._log, self._pid_file):
            _remove(path)
        waits, self._gate = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._become_create(waits, stdio)
        os.close(waits)
        return pid

    def open_gate(self) -> None:
        assert self._gate is not None
        os.write(self._gate, b"1")
        self.close_gate()

    def close_gate(self) -> None:
        """Without a byte written, the child at the gate ends."""
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    def start(self) -> int:
        return self._spawn(self._start)

    def init_pid(self) -> int:
        with open(self._pid_file, encoding="ascii") as file:
            return int(file.read())

    def failure(self, status: int) -> dict[str, str | int]:
        """What a failed call left in the runtime's log, for the daemon to explain."""
        try:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                text = file.read(64 * 1024)
        except FileNotFoundError:
            text = ""
        code = os.waitstatus_to_exitcode(status)
        return {"error": f"the OCI runtime ended with {code}", "log": text}

    def delete(self) -> None:
        """Take the runtime's own state of the container away, waiting for the end of it."""
        os.waitpid(self._spawn(self._delete), 0)

    def kill_everything(self) -> None:
        """Kill and reap whatever this monitor started, half-made containers included (they are ours: subreaper)."""
        self.close_gate()
        deadline = time.monotonic() + REAP_SECONDS
        while time.monotonic() < deadline:
            for pid in _children():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
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
            ENVIRONMENT,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
            ],
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )

    def _become_create(self, gate: int, stdio: tuple[int, int, int]) -> NoReturn:
        try:
            if self._gate is not None:
                os.close(self._gate)
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ,
            ):  # fmt: skip
                signal.signal(number, signal.SIG_DFL)
            for target, fd in enumerate(stdio):
                os.dup2(fd, target)
            if os.read(gate, 1):
                # the runtime takes 0 for "not said" and hands on what it has inherited
                with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                    file.write("0")
                if self._hide:
                    _hide_mount(self._hide)
                os.execve(self._create[0], self._create, ENVIRONMENT)
        except OSError as error:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(f"{self._create[0]}: {error.strerror}\n")
        finally:
            os._exit(125)


def _hide_mount(path: str) -> None:
    """Go into a mount namespace of our own that lacks the mount at ``path``.

    crun refuses to work where controllers of both cgroup versions are mounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.fsencode(os.path.dirname(path))
    if (
        libc.unshare(CLONE_NEWNS) != 0
        # Nothing but this one removal is kept from the host: a container's mounts may have to get there.
        or (
            libc.mount(None, parent, None, MS_SLAVE, None) != 0
            and libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None) != 0
        )
        or libc.umount2(os.fsencode(path), MNT_DETACH) != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot hide {path}: {os.strerror(number)}")


def _children() -> list[int]:
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
