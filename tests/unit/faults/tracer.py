"""A program that stops a process and all that it starts before each step, and kills at one of them.

    tracer.py PIDS DIRECTORY STEP VICTIMS REST

PIDS are NAME=PID, separated by commas.  It says ``ready`` once it traces, and from then on counts the steps of these
processes (all threads), and of every process that descends from them from now on.  Before step number STEP (from 1) it
kills with SIGKILL the processes whose names are in VICTIMS (separated by commas; ``*`` for all that it traces).  The
rest goes on at once, or with REST ``late`` when standard input ends.  Without a kill, it ends when standard input does,
or the first of the processes.  Before it ends it says in a line of JSON what there was:
``{"killed": bool, "steps": [text, ...]}``.

A process that was not given a name is called by its program, a helper of ours by its module; until it has become a
program, by whose fork it is.  DIRECTORY is left out of the texts; what goes to ``DIRECTORY/daemon.log`` is no step.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from syscalls import Call, numbers, shown

_SYSCALL, _GETEVENTMSG, _LISTEN, _SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 24, 0x4201, 0x4208, 0x4206, 0x4207, 0x420E
_EVENT_FORK, _EVENT_EXEC, _EVENT_STOP = 1, 4, 128
_OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10  # SYSGOOD, FORK, VFORK, CLONE, EXEC
_WALL = 0x40000000
_ENTRY = 1
_FORK = "a fork"
_FORKS_OF = {"fork server": "monitor", "crun": "init", "init": "init"}
"""What their forks are, as soon as there are any; the container's process is ``init`` until it is a program."""
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _SyscallInfo(ctypes.Structure):
    """ptrace(2)'s, as it is at the entry of a call."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


class Tracer:
    def __init__(
        self, names: dict[int, str], directory: str, step: int, victims: frozenset[str], late: bool
    ) -> None:
        self._first = next(iter(names))
        self._directory = directory
        self._step = step
        self._victims = victims
        self._late = late
        self._calls = numbers()
        self._names = names
        self._processes: dict[int, int] = {}  # from a thread to its process
        self._steps: list[str] = []
        self._reporting = threading.RLock()  # held by a kill until its end
        self.input_ended = threading.Event()
        self._log = f"{directory}/daemon.log"

    def attach(self) -> None:
        """Take hold of every thread there is; new ones are taken hold of by the kernel."""
        for pid in self._names:
            while fresh := {int(name) for name in os.listdir(f"/proc/{pid}/task")} - self._processes.keys():
                for thread in fresh:
                    self._processes[thread] = pid
                    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                        _ptrace(_SEIZE, thread, 0, _OPTIONS)
                        _ptrace(_INTERRUPT, thread)

    def run(self) -> None:
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                if self._processes.pop(thread, 0) == thread == self._first:
                    self.report(killed=False)
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has been killed meanwhile
                if number == signal.SIGTRAP | 0x80:
                    self._at_syscall(thread)
                    _ptrace(_SYSCALL, thread)
                elif event == _EVENT_STOP and number in _STOPPING:
                    _ptrace(_LISTEN, thread)
                elif event:
                    if event == _EVENT_EXEC:
                        self._names[self._process(thread)] = _program(thread)
                    elif event == _EVENT_FORK:
                        self._forked(thread)
                    _ptrace(_SYSCALL, thread)
                else:
                    _ptrace(_SYSCALL, thread, 0, number)

    def report(self, *, killed: bool) -> None:
        """The last words, and the end: the kernel lets all go that are still traced."""
        with self._reporting:
            os.write(1, json.dumps({"killed": killed, "steps": self._steps}).encode() + b"\n")
            if killed and self._late:
                self.input_ended.wait()
            os._exit(0)

    def _forked(self, thread: int) -> None:
        new = ctypes.c_ulong()
        _ptrace(_GETEVENTMSG, thread, 0, ctypes.addressof(new))
        name = _FORKS_OF.get(self._names.get(self._process(thread), ""))
        if name is not None:
            self._names[new.value] = name

    def _at_syscall(self, thread: int) -> None:
        info = _SyscallInfo()
        _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op != _ENTRY or info.nr not in self._calls:
            return
        name, describe = self._calls[info.nr]
        try:
            what = describe(Call(thread, info.args))
        except OSError:  # it has been killed meanwhile
            return
        if not what or what == self._log or "__pycache__" in what:
            return
        process = self._process(thread)
        who = self._names.get(process, _FORK)
        self._steps.append(f"{who}: {name} {shown(what, self._directory)}")
        if len(self._steps) == self._step:
            self._kill()

    def _kill(self) -> None:
        """Kill the victims, and wait until they are dead."""
        self._reporting.acquire()
        doomed = set(self._processes.values())
        if "*" not in self._victims:
            doomed = {each for each in doomed if self._names.get(each) in self._victims}
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        while doomed:
            thread, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):  # else it stays where it is until we end
                doomed.discard(thread)
        # A fork has everything that the daemon had, its lock too, until it becomes a program: that is never late.
        self._late = self._late and _traced() <= self._names.keys()
        self.report(killed=True)

    def _process(self, thread: int) -> int:
        if thread not in self._processes:
            with open(f"/proc/{thread}/status") as file:
                self._processes[thread] = next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))
        return self._processes[thread]


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise ProcessLookupError(thread)
        raise OSError(number, os.strerror(number))


def _traced() -> set[int]:
    """The processes that we trace, also those of which the kernel has told us nothing yet."""
    own, found = f"TracerPid:\t{os.getpid()}\n", set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/status") as file:
            if own in file.read():
                found.add(int(name))
    return found


def _program(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        argv = os.fsdecode(file.read()).split("\0")
    if "-c" in argv and "dockerd_py.store.archive" in argv[argv.index("-c") + 1]:
        return argv[argv.index("-c") + 3]
    if any(word.endswith("/dockerd_py/monitor/__main__.py") for word in argv):
        return "fork server"
    return os.path.basename(argv[0])


def main() -> None:
    pids, directory, step, victims, rest = sys.argv[1:]
    names = {int(pid): name for name, _, pid in (each.partition("=") for each in pids.split(","))}
    tracer = Tracer(names, directory, int(step), frozenset(victims.split(",")), rest == "late")
    tracer.attach()
    os.write(1, b"ready\n")

    def watch() -> None:
        sys.stdin.read()
        tracer.input_ended.set()
        tracer.report(killed=False)

    threading.Thread(target=watch, daemon=True).start()
    tracer.run()


if __name__ == "__main__":
    main()
