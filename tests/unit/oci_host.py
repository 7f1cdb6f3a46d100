"""Runs containers with the real runtime, as their parent, for tests: no daemon, no monitor, no scope."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from dockerd_py.runtime import capabilities, seccomp
from dockerd_py.runtime.crun import Crun, mount_to_hide
from dockerd_py.runtime.spec import SpecInput, build_spec, default_environment

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, MS_REC, MS_SLAVE, MNT_DETACH = 0x20000, 0x4000, 0x80000, 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Outcome:
    created: int  # exit code of create
    log: str
    pid: int = 0
    started: int | None = None
    exit: int | None = None  # of the container; negative: a signal
    stdout: str = ""
    stderr: str = ""
    strangers: list[int] = field(default_factory=list)  # children reaped that were not the container's init


class OciHost:
    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory
        self.root = root
        self.crun = Crun(str(directory / "state"))
        self.profiles = seccomp.Profiles()
        self._count = 0

    def settings(self, *args: str, **fields: object) -> SpecInput:
        base = SpecInput(
            id="ab" * 32,
            root=str(self.root),
            args=args,
            environment=default_environment((), hostname="box", terminal=False, home="/root"),
            hostname="box",
            capabilities=capabilities.DEFAULT,
            seccomp=self.profiles.get(capabilities.DEFAULT),
        )
        return replace(base, **fields)  # type: ignore[arg-type]

    def create(self, name: str, settings: SpecInput, *, console_socket: str = "") -> Outcome:
        bundle = self.directory / name
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(build_spec(settings)))
        argv = self.crun.create(
            name,
            bundle=str(bundle),
            pid_file=str(bundle / "pid"),
            log=str(bundle / "log"),
            console_socket=console_socket,
        )
        with open(bundle / "stdout", "wb") as out, open(bundle / "stderr", "wb") as err:
            done = subprocess.run(
                argv,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=_as_the_gate,
                timeout=30,
            )
        log = (bundle / "log").read_text() if (bundle / "log").exists() else ""
        outcome = Outcome(done.returncode, log)
        if done.returncode == 0:
            outcome.pid = int((bundle / "pid").read_text())
        return outcome

    def run(self, *args: str, **fields: object) -> Outcome:
        """One container from create to delete."""
        self._count += 1
        name = f"c{self._count}"
        outcome = self.create(name, self.settings(*args, **fields))
        if outcome.created == 0:
            outcome.started = self.call(self.crun.start(name)).returncode
            outcome.exit, outcome.strangers = reap(outcome.pid)
            self.call(self.crun.delete(name))
        outcome.stdout = (self.directory / name / "stdout").read_text(errors="replace")
        outcome.stderr = (self.directory / name / "stderr").read_text(errors="replace")
        return outcome

    def sh(self, script: str, **fields: object) -> str:
        """What ``sh -c script`` prints in a container."""
        outcome = self.run("sh", "-c", script, **fields)
        assert outcome.created == 0, outcome.log
        return outcome.stdout + outcome.stderr

    def call(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)

    def left_over(self) -> list[str]:
        state = self.directory / "state"
        return os.listdir(state) if state.exists() else []


def reap(pid: int, seconds: float = 20.0) -> tuple[int, list[int]]:
    """The exit code of ``pid``, a child of ours, and whom else we had to reap."""
    strangers = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found == pid:
            return os.waitstatus_to_exitcode(status), strangers
        if found:
            strangers.append(found)
        else:
            time.sleep(0.002)
    raise AssertionError(f"the container's process {pid} did not end within {seconds} s")


def reap_all(seconds: float = 20.0) -> None:
    """Reap what has ended, or ends soon; fails for a child that lives on."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
        except ChildProcessError:
            return
    raise AssertionError(f"a child is still there after {seconds} s")


@contextmanager
def subreaper() -> Iterator[None]:
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_HIDE = mount_to_hide()


def _as_the_gate() -> None:
    """What the monitor's gate does before it becomes create."""
    if _HIDE:
        assert _libc.unshare(CLONE_NEWNS) == 0
        assert _libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None) == 0
        assert _libc.umount2(_HIDE.encode(), MNT_DETACH) == 0
