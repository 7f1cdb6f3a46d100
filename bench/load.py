#!/usr/bin/python3
"""Many containers: how long it takes to start them at once, to list them, and until a daemon that is started again
while they run is ready.

    load.py DIRECTORY-OF-OUR-PROGRAMS [CONTAINERS]

The daemon gets a root of its own.  dockerd is not beside it: it ends its containers when it is started again.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory
from beside_dockerd import START_SECONDS, TOP, answers, pydockerd, socket_of
from peer_bench import Daemon, import_tar, timed

AT_ONCE = 100


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    many = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory(prefix="pydockerd-bench-", dir="/var/tmp") as folder:
        home = Path(folder)
        (home / "pydockerd").mkdir()
        argv = [*pydockerd(Path(sys.argv[1]), home), "-b", "none"]
        daemon = Daemon("pydockerd", os.fspath(socket_of(home, "pydockerd")))
        process = started(argv, daemon, home)
        try:
            image = subprocess.run([TOP / "contrib" / "mkimage", "busybox"], stdout=subprocess.PIPE, check=True).stdout
            (home / "busybox.tar").write_bytes(image)
            with open(home / "busybox.tar", "rb") as body:
                import_tar(daemon, "busybox", body)
            made = [daemon.create("busybox", ["sleep", "100000"], NetworkMode="none") for _ in range(many)]
            for begin in range(0, many, AT_ONCE):
                part = made[begin : begin + AT_ONCE]
                seconds = timed(lambda part=part: at_once(daemon, "POST", "start", part))  # type: ignore[misc]
                row(f"{len(part)} starts at once, beside {begin} that run", seconds)
            seconds = statistics.median(timed(lambda: daemon.call("GET", "/containers/json")) for _ in range(9))
            row(f"ps with {many} that run", seconds)
            for number in (signal.SIGTERM, signal.SIGKILL):
                process.send_signal(number)
                process.wait()
                begin_at = time.perf_counter()
                process = started(argv, daemon, home)
                row(f"ready again beside {many} that run, after {number.name}", time.perf_counter() - begin_at)
            if len(daemon.call("GET", "/containers/json")) != many:
                raise RuntimeError("not all of them run")
            memory_of(home, many)
            row(f"{many} forced removals at once", timed(lambda: at_once(daemon, "DELETE", "", made, "?force=1")))
        finally:
            process.terminate()
            process.wait()
    return 0


def started(argv: list[str], daemon: Daemon, home: Path) -> subprocess.Popen[bytes]:
    """A daemon that answers."""
    with open(home / "log", "ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + START_SECONDS
    while not answers(daemon):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it does not answer; its log:\n{(home / 'log').read_text()}")
        time.sleep(0.005)
    return process


def at_once(daemon: Daemon, method: str, verb: str, containers: list[str], query: str = "") -> None:
    def ask(container: str) -> None:
        daemon.call(method, "/".join(filter(None, ("/containers", container, verb))) + query, fresh=True)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(ask, containers))


def memory_of(home: Path, many: int) -> None:
    """The engine is what has the most; everything else is fork server and monitors."""
    sizes = sorted(process.pss for process in memory.processes([os.fspath(home)]))
    print(f"{'engine (PSS)':50} {sizes[-1] / 2**20:8.1f} MiB")
    print(f"{'for each running container (PSS)':50} {sum(sizes[:-1]) / many / 2**20:8.1f} MiB", flush=True)


def row(what: str, seconds: float) -> None:
    print(f"{what:50} {seconds * 1e3:8.0f} ms", flush=True)


if __name__ == "__main__":
    sys.exit(main())
