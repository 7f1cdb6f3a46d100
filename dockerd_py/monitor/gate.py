"""A child that waits at a gate until it becomes a program.

The daemon puts it into the container's scope meanwhile, or it goes there itself, so that the program and all that it
starts are born there.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""Nothing of ours reaches the runtime: it would hand NOTIFY_SOCKET, for one, on to the container."""

CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE = 0x4000, 0x80000
MNT_DETACH = 2


class Gate:
    def __init__(
        self,
        argv: list[str],
        stdio: tuple[int, int, int],
        *,
        log: str,
        hide: str = "",
        groups: Sequence[str] = (),
        directory: str = "",
    ) -> None:
        """Fork the child.  It writes to ``log`` when it cannot become ``argv``.

        hide: a mount that the program must not see, or "".
        groups: the ``cgroup.procs`` of the control groups that it joins when the gate is open (cgroups(7)).
        directory: where it begins, so that a path in ``argv`` can be short enough for a socket; "" for where we are.
        """
        waits, opens = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(opens)
            _wait_and_become(argv, waits, stdio, log, hide, groups, directory)
        os.close(waits)
        self._opens: int | None = opens

    def open(self) -> None:
        """Let the child become its program."""
        assert self._opens is not None
        try:
            os.write(self._opens, b"1")
        except BrokenPipeError:
            pass  # it was killed while it waited: its end tells
        self.close()

    def close(self) -> None:
        """Without `open` before, the child ends."""
        if self._opens is not None:
            os.close(self._opens)
            self._opens = None


def _wait_and_become(
    argv: list[str],
    gate: int,
    stdio: tuple[int, int, int],
    log: str,
    hide: str,
    groups: Sequence[str],
    directory: str,
) -> NoReturn:
    what = argv[0]
    try:
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
            for what in groups:
                with open(what, "w", encoding="ascii") as file:
                    file.write("0")  # whoever writes
            what = directory or argv[0]
            if directory:
                os.chdir(directory)
            what = argv[0]
            if hide:
                _hide_mount(hide)
            os.execve(argv[0], argv, ENVIRONMENT)
    except OSError as error:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{what}: {error.strerror}\n")
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
