"""The OCI runtimes of this host, by the names that users give them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.errors import BadParameter, ConfigError
from dockerd_py.runtime.crun import FIFO, Crun, Runc

_KINDS: dict[str, type[Crun]] = {"crun": Crun, "runc": Runc}
_ALIASES = {"io.containerd.runc.v2": "runc", "io.containerd.crun.v2": "crun"}

DELETE_ATTEMPTS = 20
DELETE_PAUSE = 0.05  # seconds


class Runtimes:
    """``default``: a name on the PATH or an absolute path, of which the last part is the name.

    ``root`` is the directory in which runtimes keep what they know of containers.
    """

    def __init__(self, root: str, default: str) -> None:
        path = shutil.which(default)
        if path is None:
            raise ConfigError(
                f"the OCI runtime {default!r} is not installed: install it (package crun), or name another"
            )
        self.root = root
        self.default = Path(path).name
        self._default_path = path

    @staticmethod
    def name(runtime: Crun) -> str:
        return Path(runtime.binary).name

    def get(self, name: str) -> Crun:
        """The runtime that ``name`` means; "": the default one.  Raises BadParameter where it is not there."""
        name = _ALIASES.get(name, name) or self.default
        if name == self.default:
            return self._make(name, self._default_path)
        if name not in _KINDS:
            there_are = ", ".join(sorted({*_KINDS, self.default}))
            raise BadParameter(f"unknown or invalid runtime name: {name}: there are {there_are}")
        path = shutil.which(name)
        if path is None:
            raise BadParameter(f"the runtime {name} is not installed: install the package {name}")
        return self._make(name, path)

    def installed(self) -> tuple[tuple[str, str], ...]:
        """(name, path) of each that a container may have."""
        found = {name: path for name in sorted(_KINDS) if (path := shutil.which(name))}
        return tuple({**found, self.default: self._default_path}.items())

    def of_state(self, container_id: str) -> Crun:
        """The runtime that has left its state of a container: each keeps a file of another name."""
        left_by_runc = Path(self.root, container_id, Runc.STATE_FILE).exists()
        return self.get("runc" if left_by_runc else "crun" if self.default == "runc" else self.default)

    async def forget(self, container_id: str) -> None:
        """Take the state away that a killed monitor left of a container whose processes are dead.

        Raises ProgramFailed.
        """
        state = Path(self.root, container_id)
        for attempt in range(DELETE_ATTEMPTS):
            if not state.exists():  # noqa: ASYNC240 - on a tmpfs
                return
            try:
                with _starts_let_go(state):
                    await subprocesses.run(self.of_state(container_id).delete(container_id, force=True))
            except subprocesses.ProgramFailed:
                # The killed monitor's own call of the runtime may live on, and have been at it at the same time.
                if attempt == DELETE_ATTEMPTS - 1 and state.exists():  # noqa: ASYNC240
                    raise
                await asyncio.sleep(DELETE_PAUSE)

    def _make(self, name: str, path: str) -> Crun:
        return _KINDS.get(name, Crun)(root=self.root, binary=path)


@contextlib.contextmanager
def _starts_let_go(state: Path) -> Iterator[None]:
    """The killed monitor's call of ``start`` may wait for the container's init, and would for ever: it is dead.  Here
    somebody is at the fifo's other end until that is gone."""
    try:
        # To write as well, because that does not wait for anybody (fifo(7)).
        fd = os.open(state / FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        fd = -1  # started, or never made
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)
