#!/usr/bin/python3
"""What an engine takes of the memory: PSS of its processes, alone and with containers that only sleep.

    memory.py NAME=SOCKET=WORD[,WORD...] [...] [--image busybox] [--containers 10]

A process is the engine's if its command line holds one of the words (a directory of the engine's own, best), and if it
is no container's.  PSS counts a page that several processes share in equal parts (proc_pid_smaps(5)).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peer_bench import Daemon

SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: tuple[str, ...]
    pss: int  # bytes

    @property
    def label(self) -> str:
        """What it is called in the table: the program, or the module that Python runs."""
        words = list(self.command)
        if "-m" in words[:-1]:
            return words[words.index("-m") + 1]
        programs = [word for word in words[:3] if not word.startswith("-")]
        python = "python" in programs[0] and len(programs) > 1
        return Path(programs[1] if python else programs[0]).name


def processes(words: Iterable[str]) -> list[Process]:
    """Those whose command line holds one of ``words``, but for ourselves."""
    found = []
    wanted = tuple(words)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            if int(folder.name) == own_pid() or not any(word in part for word in wanted for part in command):
                continue
            rollup = (folder / "smaps_rollup").read_text()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        kilobytes = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        found.append(Process(int(folder.name), parent, tuple(command), kilobytes * 1024))
    return found


def own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def report(daemon: Daemon, words: Iterable[str], image: str, containers: int) -> None:
    time.sleep(SETTLE_SECONDS)
    alone = processes(words)
    if not alone:
        print(f"# {daemon.name}: no process names any of {', '.join(words)}", file=sys.stderr)
        return
    made = [daemon.create(image, ["sleep", "600"], NetworkMode="none") for _ in range(containers)]
    try:
        for container in made:
            daemon.call("POST", f"/containers/{container}/start")
        time.sleep(SETTLE_SECONDS)
        busy = processes(words)
    finally:
        for container in made:
            daemon.call("DELETE", f"/containers/{container}?force=1")
    now = {process.pid: process for process in busy}
    print(f"{f'{daemon.name} (PSS, MiB)':40} {'alone':>8} {f'{containers} running':>12}")
    for process in sorted(alone, key=lambda each: -each.pss):
        if process.pid in now:
            print(row(process.label, process.pss, now[process.pid].pss))
    own = [process for process in busy if process.pid not in {each.pid for each in alone}]
    for label in sorted({process.label for process in own}):
        sizes = [process.pss for process in own if process.label == label]
        print(row(f"one of {len(sizes)} {label}", None, statistics.median(sizes)))
    before, after = (sum(process.pss for process in each) for each in (alone, busy))
    print(row("all", before, after))
    print(row("for each running container", None, (after - before) / containers))


def row(label: str, *sizes: float | None) -> str:
    cells = ["" if size is None else f"{size / 2**20:.1f}" for size in sizes]
    return f"  {label:38} {cells[0]:>8} {cells[1]:>12}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("daemons", nargs="+", metavar="NAME=SOCKET=WORD,WORD")
    parser.add_argument("--image", default="busybox:latest")
    parser.add_argument("--containers", type=int, default=10)
    options = parser.parse_args()
    for named in options.daemons:
        name, path, words = named.split("=", 2)
        report(Daemon(name, path), words.split(","), options.image, options.containers)


if __name__ == "__main__":
    main()
