#!/usr/bin/python3
"""Figures that only a booted systemd gives: on_systemd.py   (as root, where the package is installed)

How long a transient scope takes from the call until systemd has made it, alone and twenty at once, and after an idle
while with and without a word before; and how fast a container's lines go into the journal and come back.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dockerd_py.units.base import Limits, ScopeSpec
from dockerd_py.units.systemd import SystemdUnits

ROUNDS = 60
LINES = 100_000


@contextmanager
def held() -> Iterator[int]:
    """A process that waits; its pid."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def name() -> str:
    return f"container-{secrets.token_hex(32)}.scope"


async def one(units: SystemdUnits, *, pause: float = 0, expected: bool = False) -> float:
    await asyncio.sleep(pause)
    with held() as pid:
        if expected:
            await units.expect_start()
        begin = time.perf_counter()
        await units.start_scope(ScopeSpec(name(), limits=Limits(memory=64 << 20)), pid)
        return time.perf_counter() - begin


async def scopes() -> None:
    units = SystemdUnits()
    show("start_scope", [await one(units) for _ in range(ROUNDS)])
    show("start_scope after 80 ms", [await one(units, pause=0.08) for _ in range(15)])
    show("the same, expected", [await one(units, pause=0.08, expected=True) for _ in range(15)])
    begin = time.perf_counter()
    await asyncio.gather(*(one(units) for _ in range(20)))
    show("20 at once, with their processes", [time.perf_counter() - begin])
    await units.close()


def show(what: str, times: list[float]) -> None:
    times.sort()
    median, high = statistics.median(times) * 1e3, times[len(times) * 9 // 10] * 1e3
    print(f"{what:40} median {median:7.1f} ms   p90 {high:7.1f} ms")


def logs() -> None:
    script = f"yes 'a line of log text that is sixty-four characters long, about so' | head -n {LINES}"
    argv = ["pydocker", "run", "-d", "--network", "none", "busybox", "sh", "-c", script]
    begin = time.perf_counter()
    container = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["pydocker", "wait", container], check=True, stdout=subprocess.DEVNULL)
    print(f"{LINES} lines into the journal {time.perf_counter() - begin:6.2f} s")
    begin = time.perf_counter()
    output = subprocess.run(["pydocker", "logs", container], check=True, capture_output=True).stdout
    assert output.count(b"\n") == LINES, output.count(b"\n")
    print(f"{LINES} lines back from it     {time.perf_counter() - begin:6.2f} s")
    subprocess.run(["pydocker", "rm", container], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    asyncio.run(scopes())
    logs()
