"""One booted test host: a root filesystem of which no change stays, in namespaces of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from . import cgroups

BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
BOOT_SECONDS = 60
SHUTDOWN_SECONDS = 30
REPORT_SECONDS = 5
GROUPS = "cgroups"
"""File in a run's directory: the groups that it makes, for whoever has to remove them."""

POWER_OFF = signal.SIGRTMIN + 4  # systemd(1)

REPORT = """\
#!/bin/sh
echo "$EXIT_CODE $EXIT_STATUS" > "$1.new"
mv "$1.new" "$1"
"""
"""Run by systemd when a service has ended (ExecStopPost= in systemd.service(5))."""


class MachineFailed(Exception):
    """The host did not boot, or did not shut down by itself."""


class Machine:
    """A context manager: inside the block, the host runs.

    template: the root filesystem that it starts with, which it doesn't change.
    runs: where it keeps its changes while it runs.
    root: the host's root directory; files may be put there.
    pid: of the host's PID 1, as seen from outside.
    Leaving the block shuts the host down as an administrator would.  Raises MachineFailed when it hangs at that,
    or never came up; it is killed and removed then too.
    """

    def __init__(self, template: Path, runs: Path) -> None:
        self._template = template
        self._runs = runs
        self._commands = 0

    def __enter__(self) -> Machine:
        self._runs.mkdir(exist_ok=True)
        with _held(self._runs):  # nobody sweeps up our directory before it is locked
            _sweep(self._runs)
            self._directory = Path(tempfile.mkdtemp(prefix="pydockerd-test-", dir=self._runs))
            self._lock = _lock(self._directory)
        self.name = self._directory.name
        self._groups = cgroups.places(self.name)
        (self._directory / GROUPS).write_text("".join(f"{group}\n" for group in self._groups))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._boot()
        except BaseException:
            self._destroy()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._shut_down()
        finally:
            self._destroy()

    def run(self, argv: Sequence[str], *, quiet: bool = False, properties: Sequence[str] = ()) -> int:
        """Run ``argv`` in the host as a service of its own, with our output, and return its exit code.

        quiet: show what it prints only if it fails.
        properties: further settings of the service.
        Raises MachineFailed when it was killed, or the host ended before it did.
        """
        self._commands += 1
        unit = f"testhost-{self._commands}.service"
        folder = self.root / "run/pydockerd-testhost"
        (folder / "report").write_text(REPORT)
        (folder / "report").chmod(0o755)
        # A plain nsenter would leave the process in a cgroup outside the host.
        words = ["systemd-run", "--quiet", "--collect", "--pipe", f"--unit={unit}"]
        report = f"ExecStopPost=/run/pydockerd-testhost/report /run/pydockerd-testhost/{unit}"
        words += [f"--property={setting}" for setting in (report, "TasksMax=infinity", *properties)]
        with tempfile.TemporaryFile() as kept:
            output = kept if quiet else None
            subprocess.run(
                [*self._enter(), *words, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
            how, status = self._awaited(unit, folder / unit).split()
            if quiet and (how, status) != ("exited", "0"):
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
        if how != "exited":
            raise MachineFailed(f"{argv[0]} was {how} in the test host: {status}")
        return int(status)

    def shell(self) -> int:
        """A login shell with a terminal that is joined to ours; returns its exit code."""
        words = ["systemd-run", "--quiet", "--collect", "--wait", "--pty", "--working-directory=/root"]
        return subprocess.run([*self._enter(), *words, "/bin/bash", "--login"], check=False).returncode

    def _awaited(self, unit: str, result: Path) -> str:
        """What the service's report says: systemd-run stops waiting, without an error, when the bus or PID 1 starts
        anew.
        """
        assert self._process is not None
        deadline = time.monotonic() + REPORT_SECONDS
        while not result.exists():
            ask = [*self._enter(), "systemctl", "is-active", unit]
            state = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
            if state in ("active", "activating", "deactivating"):
                deadline = time.monotonic() + REPORT_SECONDS
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineFailed(f"{unit} in the test host ended without a report, or never began")
            time.sleep(0.1)
        return result.read_text()

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                f"TERM={os.environ.get('TERM', 'dumb')}", "LANG=C.UTF-8"]  # fmt: skip

    def _boot(self) -> None:
        cgroups.create(self._groups)
        options = ["unified" if each.unified else each.options for each in cgroups.hierarchies()]
        self._process = subprocess.Popen(
            # PID 1 dies with unshare, and unshare with us.  It must not see the terminal's Ctrl-C, which reboots.
            ["setpriv", "--pdeathsig", "KILL",
             "unshare", "--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc", "--fork", "--kill-child",
             BOOT_SCRIPT, self._template, self._directory, *options],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: cgroups.enter(self._groups),  # noqa: PLW1509 - there are no threads here
        )  # fmt: skip
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._is_up():
            if self._process.poll() is not None:
                raise MachineFailed(f"the test host's PID 1 ended with code {self._process.returncode} at once")
            if time.monotonic() > deadline:
                raise MachineFailed(f"the test host was not up after {BOOT_SECONDS} s")
            time.sleep(0.02)
        state = subprocess.run([*self._enter(), "systemctl", "is-system-running", "--wait"],
                               stdout=subprocess.PIPE, text=True, timeout=BOOT_SECONDS, check=False)  # fmt: skip
        if state.stdout.strip() != "running":
            subprocess.run([*self._enter(), "systemctl", "--no-pager", "--failed"], check=False)
            raise MachineFailed(f"the test host is {state.stdout.strip()} after its boot")

    def _is_up(self) -> bool:
        """Whether systemd, not the boot script any more, is PID 1 and listens."""
        assert self._process is not None
        parent = self._process.pid
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            if not children:
                return False
            self.pid = int(children[0])
            self.root = Path(f"/proc/{self.pid}/root")
            systemd = Path(f"/proc/{self.pid}/comm").read_text().strip() == "systemd"
        except FileNotFoundError:
            return False
        return systemd and (self.root / "run/systemd/private").exists()

    def _shut_down(self) -> None:
        assert self._process is not None
        os.kill(self.pid, POWER_OFF)
        try:
            self._process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            raise MachineFailed(f"the test host had not shut down after {SHUTDOWN_SECONDS} s") from None

    def _destroy(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        _remove(self._directory)
        os.close(self._lock)


def _lock(directory: Path) -> int:
    """Held while the run lives; the kernel lets go of it when we die, however that is."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(runs: Path) -> None:
    """Remove what runs left that were killed."""
    for directory in runs.iterdir():
        try:
            lock = _lock(directory)
        except BlockingIOError:
            continue
        _remove(directory)
        os.close(lock)


def _remove(directory: Path) -> None:
    recorded = directory / GROUPS
    if recorded.exists():
        cgroups.remove([Path(line) for line in recorded.read_text().splitlines()])
    shutil.rmtree(directory)
