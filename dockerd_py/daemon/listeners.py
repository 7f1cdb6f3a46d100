"""The sockets that the daemon serves: made, or taken over from the service manager."""

from __future__ import annotations

import grp
import logging
import os
import socket
import stat
from pathlib import Path

from dockerd_py.config import Config
from dockerd_py.errors import ConfigError
from dockerd_py.units.activation import activation_sockets

log = logging.getLogger(__name__)

DEFAULT_HOST = "unix:///run/pydockerd/docker.sock"
BACKLOG = 4096
LOOPBACK = ("127.", "localhost", "::1", "[::1]")


class Listeners:
    """Open sockets, and the files to remove in the end."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._files: list[Path] = []

    def open(self, config: Config) -> None:
        """Open every ``-H``.  Clients can connect from here on; they are answered when the daemon is ready.

        Raises ConfigError.
        """
        for host in config.hosts or (DEFAULT_HOST,):
            scheme, sign, rest = host.partition("://")
            if not sign:
                scheme, rest = "tcp", host
            if scheme == "unix":
                self._open_unix(Path(os.path.abspath(rest or DEFAULT_HOST.partition("://")[2])), config)
            elif scheme == "tcp":
                self._open_tcp(host, rest)
            elif scheme == "fd":
                self._take(host, rest)
            else:
                raise ConfigError(f"-H {host}: unknown kind {scheme!r}; use unix://PATH, tcp://HOST:PORT or fd://")

    def remove_files(self) -> None:
        for path in self._files:
            path.unlink(missing_ok=True)

    def _open_unix(self, path: Path, config: Config) -> None:
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                if _answers(path):
                    raise ConfigError(f"-H unix://{path}: another daemon serves this socket")
                path.unlink()
            else:
                raise ConfigError(f"-H unix://{path}: there is a file of this name which is no socket")
        except FileNotFoundError:
            pass
        gid = _group_id(config)
        sock = socket.socket(socket.AF_UNIX)
        old = os.umask(0o777)  # nobody connects before the owner is right
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            sock.bind(os.fspath(path))
            os.chown(path, 0, gid)
            path.chmod(0o660 if gid else 0o600)
        except OSError as error:
            sock.close()
            raise ConfigError(f"-H unix://{path}: {error.strerror or error}") from error
        finally:
            os.umask(old)
        sock.listen(BACKLOG)
        self.sockets.append(sock)
        self._files.append(path)

    def _open_tcp(self, host: str, rest: str) -> None:
        address, _, port = rest.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"-H {host}: a port is needed, as in tcp://127.0.0.1:2375")
        if not address.startswith(LOOPBACK):
            log.warning("-H %s: whoever reaches this address is root on this host: it has no authentication", host)
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                address.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(f"-H {host}: {error.strerror or error}") from error
        self.sockets.append(sock)

    def _take(self, host: str, rest: str) -> None:
        passed = activation_sockets()
        if rest in ("", "*"):
            chosen = passed
        elif rest.isdecimal() and 0 <= int(rest) - 3 < len(passed):
            chosen = [passed[int(rest) - 3]]
        else:
            chosen = [one for one in passed if one.name == rest]
        if not chosen:
            raise ConfigError(f"-H {host}: the service manager passed no such socket: start pydockerd.socket")
        self.sockets += [one.socket for one in chosen]


def _group_id(config: Config) -> int:
    if not config.group:
        return 0
    try:
        return grp.getgrnam(config.group).gr_gid
    except KeyError:
        if config.group_given:
            raise ConfigError(f"-G {config.group}: there is no such group") from None
        log.debug("there is no group %s: the socket is root's alone", config.group)
        return 0


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return False
        return True
