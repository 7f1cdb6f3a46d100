"""What /proc says of a process by its id."""

from __future__ import annotations


def is_dead(pid: int) -> bool:
    """Whether it has ended: one is there until somebody has waited for it (proc_pid_stat(5), wait(2))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in b"ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children_of(pid: int) -> list[int]:
    """The children of its main thread; none when it is gone (proc_pid_task(5))."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
