"""The three files that a container gets over its image's own: /etc/hostname, /etc/hosts, /etc/resolv.conf.

Their texts are functions of their arguments; `write` puts one in place whole or not at all.  They are made anew
at each start, so a crash needs no more than that.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from dockerd_py.errors import BadParameter

HOST_GATEWAY = "host-gateway"
SYSTEMD_RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_STUB = "127.0.0.53"

_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # the name of an interface, or its number

_LOOPBACK = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hostname(name: str) -> str:
    """The text of /etc/hostname."""
    return name + "\n"


def hosts(name: str = "", domain: str = "", addresses: tuple[str, ...] = (), extra: Iterable[str] = ()) -> str:
    """The text of /etc/hosts: loopback, the container's own name at each address that it has, and ``extra``."""
    own = f"{name}.{domain} {name}" if domain else name
    lines = [*_LOOPBACK, *((address, own) for address in addresses if name)]
    return "".join(f"{address}\t{names}\n" for address, names in lines) + extra_hosts(extra)


def extra_hosts(extra: Iterable[str]) -> str:
    """Lines of /etc/hosts for "name:address" each, as `split_host` reads them."""
    return "".join(f"{address}\t{name}\n" for name, address in map(split_host, extra))


def split_host(text: str) -> tuple[str, str]:
    """"name:address" as (name, address): the address may be one of IPv6, in brackets or not, or HOST_GATEWAY.

    Raises BadParameter.
    """
    name, colon, address = text.partition(":")
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if not colon or not name or not address or any(c.isspace() or c == "#" for c in name):
        raise BadParameter(f'bad format for add-host: "{text}": it must be NAME:ADDRESS')
    try:
        if address != HOST_GATEWAY:
            _check_zoned(address)
    except ValueError:
        raise BadParameter(f'invalid IP address in add-host: "{address}"') from None
    return name, address


def check_address(text: str) -> None:
    """A name server's address, with the zone of a link-local one behind "%".  Raises BadParameter."""
    try:
        _check_zoned(text)
    except ValueError:
        raise BadParameter(f"{text} is not an ip address") from None


def resolv_conf(
    host: str,
    *,
    own_network: bool,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> str:
    """The text of /etc/resolv.conf, from the host's; what is given replaces the host's lines of its kind.

    With the host's network it is the host's.  In a network namespace of its own a container cannot reach name
    servers on the host's loopback: their lines are left out.  A search of "." alone is none at all.
    """
    lines = host.splitlines(keepends=True)
    if own_network:
        lines = [line for line in lines if not any(map(_is_loopback, name_servers(line)))]
    given = {"nameserver": servers, "search": search, "options": options}
    replaced = {keyword for keyword, values in given.items() if values}
    if search:
        replaced.add("domain")  # the older word for a search list of one
    kept = [line for line in lines if not replaced.intersection(line.split()[:1])]
    kept += [f"nameserver {server}\n" for server in servers]
    if search and tuple(search) != (".",):
        kept.append(f"search {' '.join(search)}\n")
    if options:
        kept.append(f"options {' '.join(options)}\n")
    return "".join(line if line.endswith("\n") else line + "\n" for line in kept)


def host_resolv_conf(path: Path = Path("/etc/resolv.conf"), upstream: Path = SYSTEMD_RESOLVED_UPSTREAM) -> str:
    """The host's resolv.conf; behind systemd-resolved's stub, the one that names the real servers.

    A missing file is an empty one, as for the resolver (resolv.conf(5)).
    """
    text = _read(path)
    if name_servers(text) == (_STUB,):
        return _read(upstream) or text
    return text


def name_servers(text: str) -> tuple[str, ...]:
    """The addresses in a resolv.conf, as they stand there (resolv.conf(5))."""
    lines = [line.split() for line in text.splitlines()]
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


class HostResolver:
    """The host's name servers as they are now: they change with the networks that it is on."""

    def __init__(self, path: Path = Path("/etc/resolv.conf"), upstream: Path = SYSTEMD_RESOLVED_UPSTREAM) -> None:
        self._path = path
        self._upstream = upstream

    def servers(self) -> tuple[str, ...]:
        """For questions from the host's own network."""
        return name_servers(_read(self._path))

    def is_on_loopback(self) -> bool:
        """Whether there are servers, and a container reaches none of them."""
        found = name_servers(host_resolv_conf(self._path, self._upstream))
        return bool(found) and all(map(_is_loopback, found))


def write(directory: str | os.PathLike[str], name: str, text: str) -> str:
    """Put ``text`` into ``directory``/``name`` (root's, mode 644) atomically; returns the path.

    Not synced: the next start writes it again.  Raises OSError.
    """
    path = os.path.join(directory, name)
    fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(fd, 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def sweep(directory: Path) -> None:
    """Take away what a process that was killed inside `write` has left."""
    for path in directory.glob(".*.*"):
        path.unlink(missing_ok=True)


def _check_zoned(text: str) -> None:
    """Raises ValueError.  What is behind a "%" may be anything, a line's end too, as far as `ipaddress` goes."""
    ipaddress.ip_address(text)
    _, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError(zone)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
