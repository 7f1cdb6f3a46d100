"""What a container finds of its network in its files and its environment: /etc/hosts, /etc/resolv.conf, links.

A running container's hosts file is written again when a network comes or goes, or a link's other end gets another
address: in place, since it is mounted over the container's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dockerd_py.config import NetworkConfig
from dockerd_py.engine.isolation import joined_container
from dockerd_py.engine.network_model import HOST
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.record import Paths, Record
from dockerd_py.errors import NetworkFailed, NoSuchContainer
from dockerd_py.runtime import files

NAME_SERVER = "127.0.0.11"
"""Where the name service listens in each container on a network that was created."""


@dataclass(frozen=True)
class Texts:
    hosts: str
    resolv_conf: str
    environment: tuple[str, ...] = ()
    owner: str = ""  # the container whose files it has, as it has its network; "": its own


class NetFiles:
    def __init__(self, config: NetworkConfig, networking: Networking) -> None:
        self._config = config
        self._networking = networking
        self.find: Callable[[str], Record] = _nobody
        self.environment: Callable[[Record], tuple[str, ...]] = lambda record: ()  # of links
        self.aliases: Callable[[Record], tuple[tuple[str, str], ...]] = lambda record: ()  # (address, names)

    async def texts(self, record: Record) -> Texts:
        """What it starts with.  Raises NoSuchContainer, NetworkFailed."""
        if donor := joined_container(record.host.network_mode):
            return Texts("", "", owner=self._owner(self.find(donor)))
        host_hosts, host_resolv_conf = await asyncio.to_thread(_of_host)
        hosts = self._hosts_of_host(record, host_hosts) if record.host.network_mode == HOST else self.hosts(record)
        return Texts(hosts, self._resolv_conf(record, host_resolv_conf), self.environment(record))

    def hosts(self, record: Record) -> str:
        """The text of the hosts file of a container with a network of its own."""
        own = [address for one in record.state.endpoints for address in (one.ipv4, one.ipv6) if address]
        linked = "".join(f"{address}\t{names}\n" for address, names in self.aliases(record))
        config = record.config
        return files.hosts(config.hostname, config.domainname, tuple(own), self._extra(record)) + linked

    def rewrite_hosts(self, record: Record, paths: Paths) -> None:
        """In place, as it is mounted.  The container may have written to it: that is lost, as it is with Docker.

        Raises OSError.
        """
        if record.host.network_mode != HOST and not joined_container(record.host.network_mode):
            (paths.directory(record.id) / "hosts").write_text(self.hosts(record), errors="surrogateescape")

    def _hosts_of_host(self, record: Record, text: str) -> str:
        return text + ("" if not text or text.endswith("\n") else "\n") + files.extra_hosts(self._extra(record))

    def _extra(self, record: Record) -> list[str]:
        gateway = self._networking.host_gateway()
        meant = f":{files.HOST_GATEWAY}"
        found = []
        for text in record.host.resolver.extra_hosts:
            if text.endswith(meant):
                if not gateway:
                    raise NetworkFailed(f'the extra host "{text}" has no address: there is no default bridge')
                found.append(text[: -len(meant)] + f":{gateway}")
            else:
                found.append(text)
        return found

    def _resolv_conf(self, record: Record, text: str) -> str:
        resolver, default = record.host.resolver, self._config
        own_network = record.host.network_mode != HOST
        text = files.resolv_conf(
            text,
            own_network=own_network,
            servers=resolver.dns or (default.dns if own_network else ()),
            search=resolver.search or (default.dns_search if own_network else ()),
            options=resolver.options or (default.dns_options if own_network else ()),
        )
        if not self._networking.has_names(record):
            return text
        text = files.resolv_conf(text, own_network=False, servers=(NAME_SERVER,))
        return text if "ndots:" in text else text + "options ndots:0\n"

    def _owner(self, record: Record) -> str:
        donor = joined_container(record.host.network_mode)
        return self._owner(self.find(donor)) if donor else record.id


def _nobody(ref: str) -> Record:
    raise NoSuchContainer(ref)


def _of_host() -> tuple[str, str]:
    """The host's own hosts and resolv.conf."""
    try:
        hosts = Path("/etc/hosts").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        hosts = files.hosts()
    return hosts, files.host_resolv_conf()
