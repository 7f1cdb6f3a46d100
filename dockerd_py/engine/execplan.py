"""The files of an exec: what the OCI runtime is given and what it answers, and what a later daemon has to know.

They lie in a directory of the container's that goes with its end: ``<token>.proc`` (the process, for the runtime),
``.log`` and ``.pid`` (its answers), ``.tty`` (a socket for the terminal), ``.json`` (what was asked for).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dockerd_py.engine import forms
from dockerd_py.engine.model import ExecConfig
from dockerd_py.engine.record import Paths, Record
from dockerd_py.runtime import capabilities, users
from dockerd_py.runtime.process import ProcessInput, build_process
from dockerd_py.runtime.runtimes import Runtimes

TOKEN = 8
"""Digits of an exec's id that name its files: a socket's path has no room for all of them."""


@dataclass(frozen=True)
class Call:
    """The runtime's call that starts a process."""

    argv: list[str]
    log: str
    pid_file: str
    console: str  # "": no terminal
    directory: str  # where it is made; the console's socket is named from there, as a long path fits no socket


class ExecPlanner:
    def __init__(self, paths: Paths, runtimes: Runtimes) -> None:
        self._paths = paths
        self._runtimes = runtimes

    def call(self, record: Record, exec_id: str, config: ExecConfig) -> Call:
        log, pid_file = self._file(record, exec_id, "log"), self._file(record, exec_id, "pid")
        console = self._file(record, exec_id, "tty") if config.tty else ""
        argv = self._runtimes.get(record.runtime).exec(
            record.id,
            process=self._file(record, exec_id, "proc"),
            pid_file=pid_file,
            detach=True,
            log=log,
            console_socket=os.path.basename(console),
        )
        return Call(argv, log, pid_file, console, str(self._paths.exec_directory(record.id)))

    def write(self, record: Record, exec_id: str, config: ExecConfig, console_size: tuple[int, int]) -> None:
        """Write what the runtime reads.  Blocks.

        Raises BadParameter for a user that the container does not know, FileNotFoundError when it has ended.
        """
        self._paths.exec_directory(record.id).mkdir(mode=0o700, exist_ok=True)
        with open(self._paths.run_directory(record.id) / "config.json", encoding="utf-8") as file:
            bundle = json.load(file)
        user = _user(record, bundle["root"]["path"], config.user) if config.user else None
        process = build_process(
            bundle,
            ProcessInput(
                args=config.cmd,
                environment=config.env,
                container_environment=record.config.env,
                cwd=config.working_dir or record.config.working_dir,
                terminal=config.tty,
                user=user,
                capabilities=capabilities.available() if config.privileged else None,
                console_size=console_size if all(console_size) else config.console_size,
            ),
        )
        _write(self._file(record, exec_id, "proc"), json.dumps(process))
        _write(self._file(record, exec_id, "json"), forms.dump_exec(exec_id, config))

    def started(self, record: Record, exec_id: str) -> None:
        """Take away what only the start needs."""
        for kind in ("proc", "log", "pid", "tty"):
            _remove(self._file(record, exec_id, kind))

    def forget(self, record: Record, exec_id: str) -> None:
        self.started(record, exec_id)
        _remove(self._file(record, exec_id, "json"))

    def known(self, record: Record) -> Iterator[tuple[str, ExecConfig]]:
        """What an earlier daemon has written down of this container's execs."""
        for path in self._paths.exec_directory(record.id).glob("*.json"):
            try:
                yield forms.load_exec(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)  # it was killed while it wrote

    def clear(self, record: Record, keep: set[str]) -> None:
        """Take away the files of all execs but ``keep``."""
        tokens = {exec_id[:TOKEN] for exec_id in keep}
        for path in self._paths.exec_directory(record.id).glob("*"):
            if path.suffix != ".json" or path.stem not in tokens:
                path.unlink(missing_ok=True)

    def _file(self, record: Record, exec_id: str, kind: str) -> str:
        return str(self._paths.exec_directory(record.id) / f"{exec_id[:TOKEN]}.{kind}")


def _user(record: Record, root: str, spec: str) -> users.User:
    """With the groups that every process of the container is in."""
    user = users.resolve(root, spec)
    more = users.group_ids(root, record.host.security.group_add)
    return replace(user, groups=tuple(sorted({*user.groups, *more})))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
