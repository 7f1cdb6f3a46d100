#!/usr/bin/python3
"""The figures of docs/performance.md: pydockerd of this checkout beside dockerd, on this machine, in one run.

    beside_dockerd.py DIRECTORY-OF-OUR-PROGRAMS [--tar FILE] [peer_bench.py's other options]

Both get a root of their own, in a network namespace and a mount namespace of their own, so that nothing stays of
either.  A dockerd that is installed is used; otherwise the distribution's packages are fetched, and unpacked
beside, not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import memory
from peer_bench import Daemon, import_tar

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
PEER_PACKAGES = ("docker.io", "containerd", "runc")
START_SECONDS = 60
IN_NAMESPACES = "PYDOCKERD_BENCH_IN_NAMESPACES"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("beside_dockerd.py: it needs root", file=sys.stderr)
        return 1
    if not os.environ.get(IN_NAMESPACES):
        os.environ[IN_NAMESPACES] = "yes"
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.environ["PATH"] = f"{peer_programs()}:{os.environ['PATH']}"
        os.execvp(unshare[0], [*unshare, sys.executable, os.path.abspath(__file__), *sys.argv[1:]])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pydockerd-bench-", dir="/var/tmp")))
        image = home / "busybox.tar"
        subprocess.run([TOP / "contrib" / "mkimage", "busybox", "--output", image], check=True)
        stack.enter_context(cgroups_of_dockerd_removed())
        ours = stack.enter_context(running("pydockerd", pydockerd(Path(sys.argv[1]), home), home))
        theirs = stack.enter_context(running("dockerd", dockerd(home), home))
        for daemon in (ours, theirs):
            with image.open("rb") as body:
                import_tar(daemon, "busybox", body)
        sockets = [f"{name}={socket_of(home, name)}" for name in ("dockerd", "pydockerd")]
        subprocess.run([sys.executable, HERE / "peer_bench.py", *sockets, *sys.argv[2:]], check=True)
        print()
        for daemon in (ours, theirs):
            memory.report(daemon, [os.fspath(home / daemon.name)], "busybox:latest", 10)
    return 0


def socket_of(home: Path, name: str) -> Path:
    return home / name / "docker.sock"


def pydockerd(programs: Path, home: Path) -> list[str]:
    own = home / "pydockerd"
    return [f"{programs.absolute()}/pydockerd", "-H", f"unix://{own}/docker.sock", "-g", f"{own}/root",
            "-p", f"{own}/pid", "--exec-root", f"{own}/run"]  # fmt: skip


def dockerd(home: Path) -> list[str]:
    own = home / "dockerd"
    return ["dockerd", "-H", f"unix://{own}/docker.sock", "--data-root", f"{own}/root", "-p", f"{own}/pid",
            "--exec-root", f"{own}/run"]  # fmt: skip


@contextmanager
def running(name: str, argv: Sequence[str], home: Path) -> Iterator[Daemon]:
    """The daemon, from when it answers until the block is left."""
    (home / name).mkdir()
    log = home / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        daemon = Daemon(name, os.fspath(socket_of(home, name)))
        deadline = time.monotonic() + START_SECONDS
        while not answers(daemon):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer; its log:\n{log.read_text()}")
            time.sleep(0.1)
        yield daemon
    finally:
        process.terminate()
        process.wait()


@contextmanager
def cgroups_of_dockerd_removed() -> Iterator[None]:
    """The one thing that dockerd leaves behind: its parent group in each hierarchy."""

    def groups() -> set[Path]:
        mounts = Path("/sys/fs/cgroup")
        return {*mounts.glob("docker"), *mounts.glob("*/docker")}

    before = groups()
    yield
    for group in groups() - before:
        group.rmdir()


def answers(daemon: Daemon) -> bool:
    try:
        daemon.call("GET", "/_ping", fresh=True)
    except (OSError, RuntimeError):
        return False
    return True


def peer_programs() -> str:
    """Directories with dockerd and what it runs, for PATH."""
    if shutil.which("dockerd"):
        return ""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "pydockerd-bench"
    if not (cache / "usr/sbin/dockerd").exists():
        print("fetching dockerd's packages (once)", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *PEER_PACKAGES]
            subprocess.run(fetch, cwd=folder, check=True)
            for package in Path(folder).iterdir():
                subprocess.run(["dpkg-deb", "-x", package, cache], check=True)
    return f"{cache}/usr/sbin:{cache}/usr/bin"


if __name__ == "__main__":
    sys.exit(main())
