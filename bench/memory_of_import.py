#!/usr/bin/python3
"""What the daemon takes of the memory while it imports a large root filesystem through the HTTP API.

    memory_of_import.py DIRECTORY-OF-OUR-PROGRAMS [--megabytes 2048] [--files 2000]

Starts a daemon of this checkout with a root of its own below $TMPDIR (/var/tmp), which needs twice the room.  The
figures are the peaks of the resident sets (VmHWM, proc_pid_status(5)): that of the daemon, and that of the helper that
unpacks; and the daemon's at rest before.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
START_SECONDS = 30


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--files", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pydockerd-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
        home = Path(directory)
        path = home / "sock"
        argv = [options.programs / "pydockerd", "-H", f"unix://{path}", "-g", home / "root", "-p", home / "pid"]
        daemon = subprocess.Popen([*argv, "--exec-root", home / "run", "-b", "none"])
        try:
            wait_until_ready(path, daemon)
            before = peak(daemon.pid)
            watch = Watch(daemon.pid)
            begun = time.perf_counter()
            send(path, root_filesystem(options.megabytes * MIB, options.files))
            seconds = time.perf_counter() - begun
            helpers = watch.stop()
            after = peak(daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
    print(f"import of {options.megabytes} MiB in {options.files} files: {seconds:.1f} s")
    print(f"  the daemon before       {before / MIB:7.1f} MiB")
    print(f"  the daemon at its peak  {after / MIB:7.1f} MiB")
    print(f"  its helper at its peak  {helpers / MIB:7.1f} MiB")
    return 0


class Watch:
    """The largest peak among the children of a process that unpack, looked at every 50 ms."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._largest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._largest

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for child in Path(f"/proc/{self._pid}/task").glob("*/children"):
                try:
                    pids = [int(word) for word in child.read_text().split()]
                    unpacking = [pid for pid in pids if b"unpack" in Path(f"/proc/{pid}/cmdline").read_bytes()]
                    self._largest = max([self._largest, *map(peak, unpacking)])
                except (OSError, StopIteration):
                    continue  # it has ended


def peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def wait_until_ready(path: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("memory_of_import.py: the daemon did not start")
        time.sleep(0.05)
    connection = UnixConnection(path)
    connection.request("GET", "/_ping")
    connection.getresponse().read()


def root_filesystem(size: int, files: int) -> Iterator[bytes]:
    """A tar of files whose contents do not compress, made as it is sent."""
    block = os.urandom(MIB)
    for number in range(files):
        info = tarfile.TarInfo(f"d{number // 100}/f{number}")
        info.size = size // files
        yield info.tobuf()
        for at in range(0, info.size, MIB):
            yield block[: min(MIB, info.size - at)]
        yield bytes(-info.size % 512)
    yield bytes(1024)


def send(path: Path, pieces: Iterator[bytes]) -> None:
    connection = UnixConnection(path)
    connection.request("POST", "/images/create?fromSrc=-&repo=large", body=pieces, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    reply = connection.getresponse().read()
    if b'"error"' in reply or b'"status"' not in reply:
        raise SystemExit(f"memory_of_import.py: {reply[-500:]!r}")


if __name__ == "__main__":
    sys.exit(main())
