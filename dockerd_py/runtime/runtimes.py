"""The OCI runtimes of this host, by the names that users give them."""

from __future__ import annotations

import shutil
from pathlib import Path

from dockerd_py.errors import BadParameter, ConfigError
from dockerd_py.runtime.crun import Crun, Runc

_KINDS: dict[str, type[Crun]] = {"crun": Crun, "runc": Runc}
_ALIASES = {"io.containerd.runc.v2": "runc", "io.containerd.crun.v2": "crun"}


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

    def _make(self, name: str, path: str) -> Crun:
        return _KINDS.get(name, Crun)(root=self.root, binary=path)
