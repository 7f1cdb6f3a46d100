"""Links: what a container is told of others that its settings name.

On the default network, as in Docker's first year, a link gives the container variables ("DB_PORT_5432_TCP_ADDR") and
lines in its hosts file, the other one a further name ("web/db"), and, where containers do not reach each other, a way
to the ports that the other one exposes.  On a network that was created a link is a name for the container's own eyes,
which is the name service's to answer; nothing else comes of it.

A link knows its target by id, so renaming breaks none.  One whose target was removed is none any more: whoever asks
finds it gone, and nothing has to be written for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from dockerd_py.engine.isolation import joined_container
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.engine.network_model import HOST, NONE, Endpoint, Link
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, LinkedToNothing, NoSuchContainer, NotRunning
from dockerd_py.nat.model import LinkRule

_ALIAS = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]*")
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-zA-Z]+))?", re.ASCII)  # an image may say anything
_NOT_PASSED_ON = ("HOME", "PATH")  # every container has its own
_UNDEFINED = "This would result in undefined behavior"


def parse(text: str) -> Link:
    """ "container:alias", "container", or what inspect shows: "/container:/parent/alias".  Raises BadParameter."""
    container, colon, alias = text.partition(":")
    if container.startswith("/"):
        container, alias = container[1:], alias.rpartition("/")[2]
    alias = alias if colon else container
    if not text:
        raise BadParameter("empty string specified for links")
    if not container or not _ALIAS.fullmatch(alias):
        raise BadParameter(f"bad format for links: {text}: it must be CONTAINER or CONTAINER:ALIAS")
    return Link(container, alias)


def resolve(host: HostConfig, find: Callable[[str], Record]) -> HostConfig:
    """``host`` with the ids of its links' targets.

    Raises LinkedToNothing for a target that is not there, and BadParameter for what goes not together.
    """
    found: dict[str, Link] = {}
    for link in host.links:
        target = _target(link, find)
        same = found.setdefault(link.alias, Link(target.id, link.alias))
        if same.container != target.id:
            raise BadParameter(f"the alias {link.alias} is given to two links: give one of them another")
    if found and host.network_mode == HOST:
        raise BadParameter(f"conflicting options: host type networking can't be used with links. {_UNDEFINED}")
    if found and joined_container(host.network_mode):
        raise BadParameter(f"conflicting options: container type network can't be used with links. {_UNDEFINED}")
    if found and (host.network_mode == NONE or not host.networks):
        raise BadParameter("conflicting options: links need a network, and the container is to have none")
    return replace(host, links=tuple(found.values()))


def joined(own: str, before: Sequence[Link], more: Sequence[Link]) -> tuple[Link, ...]:
    """The links of the container with the id ``own`` that is given more: none goes but for another of its alias.

    Raises BadParameter for one to itself.
    """
    for link in more:
        if link.container == own:
            raise BadParameter(f"a container cannot be linked to itself, as {link.alias} would be")
    return tuple({link.alias: link for link in (*before, *more)}.values())


def environment(
    name: str, alias: str, address: str, ports: Sequence[tuple[int, str]], target: Sequence[str]
) -> tuple[str, ...]:
    """The variables ("K=V") of the container ``name`` for one link.

    ports: number and protocol of those that the target exposes, in their order; target: its own variables.
    """
    prefix = alias.upper().replace("-", "_")
    shown = f"[{address}]" if ":" in address else address
    found: list[str] = []
    for number, protocol in ports:
        url, port = f"{protocol}://{shown}:{number}", f"{prefix}_PORT_{number}_{protocol.upper()}"
        if not found:
            found.append(f"{prefix}_PORT={url}")
        found += [f"{port}={url}", f"{port}_ADDR={address}", f"{port}_PORT={number}", f"{port}_PROTO={protocol}"]
    found.append(f"{prefix}_NAME=/{name}/{alias}")
    for entry in target:
        key, sign, _ = entry.partition("=")
        if sign and key not in _NOT_PASSED_ON:
            found.append(f"{prefix}_ENV_{entry}")
    return tuple(found)


def ports_of(config: ContainerConfig, host: HostConfig) -> list[tuple[int, str]]:
    """Number and protocol of what a container exposes or publishes: the lowest first, of one number tcp first."""
    found = {(binding.port, binding.protocol) for binding in host.port_bindings}
    for text in config.exposed_ports:
        if match := _PORT.fullmatch(text):
            first, last = int(match[1]), int(match[2] or match[1])
            found.update((number, (match[3] or "tcp").lower()) for number in range(first, last + 1))
    return sorted(found, key=lambda port: (port[0], port[1] != "tcp", port[1]))


def names_in_hosts(alias: str, target: Record) -> str:
    """By which the hosts file has a link's target."""
    return " ".join(dict.fromkeys(filter(None, (alias, target.config.hostname, target.name))))


def ordered(records: Iterable[Record]) -> list[Record]:
    """Targets before those that are linked to them; in a circle, whoever comes last waits for nobody."""
    left = {record.id: record for record in records}
    found: list[Record] = []
    while left:
        path = [left.pop(next(iter(left)))]
        while path:
            target = next((link.container for link in path[-1].host.links if link.container in left), None)
            if target is None:
                found.append(path.pop())
            else:
                path.append(left.pop(target))
    return found


def is_current(hosts: str, aliases: Iterable[str], wanted: Iterable[tuple[str, str]]) -> bool:
    """Whether the text of a hosts file says of links' ``aliases`` what is ``wanted`` (address, names)."""
    known = set(aliases)
    lines = (line.partition("\t")[::2] for line in hosts.splitlines())
    return sorted(line for line in lines if line[1].partition(" ")[0] in known) == sorted(wanted)


class LinkTable:
    """Who is linked to whom now.

    by_id: all containers, as they come and go.  runs: whether one has a place on its networks, or is getting it.
    """

    def __init__(self, by_id: Mapping[str, Record], networks: Networks, runs: Callable[[Record], bool]) -> None:
        self._by_id = by_id
        self._networks = networks
        self._runs = runs
        self._by_target: dict[str, list[tuple[Record, str]]] | None = None

    def changed(self) -> None:
        """A container has come or gone, or has other links."""
        self._by_target = None

    def sources(self, target: Record) -> list[tuple[Record, str]]:
        """Who has a link to it, and under which alias."""
        if self._by_target is None:
            self._by_target = {}
            for record in self._by_id.values():
                for link in record.host.links:
                    self._by_target.setdefault(link.container, []).append((record, link.alias))
        return self._by_target.get(target.id, [])

    def names(self, target: Record) -> tuple[str, ...]:
        """By which it is linked to on the default network: "parent/alias"."""
        sources = self.sources(target)
        return tuple(sorted(f"{source.name}/{alias}" for source, alias in sources if self._is_plain(source)))

    def shown(self, record: Record) -> tuple[Link, ...]:
        """Its links, with the targets' names."""
        return tuple(Link(target.name, alias) for alias, target in self._targets(record))

    def find(self, parent: Record, alias: str) -> Record | None:
        """The target of one of its links."""
        return next((target for name, target in self._targets(parent) if name == alias), None)

    def environment(self, record: Record) -> tuple[str, ...]:
        """The variables that its links give it at its start.

        Raises NotRunning, and BadParameter for a target that is not on the default network.
        """
        found: list[str] = []
        for alias, target in self._plain(record):
            if not target.state.running:
                raise NotRunning(
                    f"Cannot link to a non running container: /{target.name} AS /{record.name}/{alias}"
                )
            endpoint = self._endpoint(target)
            if endpoint is None:
                raise BadParameter(f"Cannot link to /{target.name}, as it does not belong to the default network")
            ports = ports_of(target.config, target.host)
            found += environment(record.name, alias, endpoint.ipv4 or endpoint.ipv6, ports, target.config.env)
        return tuple(found)

    def aliases(self, record: Record) -> tuple[tuple[str, str], ...]:
        """What its hosts file says of its links: (address, names)."""
        return tuple(
            (address, names_in_hosts(alias, target))
            for alias, target in self._plain(record)
            if (endpoint := self._endpoint(target)) is not None
            for address in (endpoint.ipv4, endpoint.ipv6)
            if address
        )

    def is_current(self, record: Record, hosts: str) -> bool:
        """Whether the text of its hosts file is right about its links."""
        return is_current(hosts, (link.alias for link in record.host.links), self.aliases(record))

    def rules(self) -> tuple[LinkRule, ...]:
        """What may pass on the default network although its containers do not reach each other."""
        network = self._networks.default
        if network is None or self._networks.has_icc(network):
            return ()
        return tuple(
            dict.fromkeys(
                LinkRule(network.bridge, source, address, protocol, number)
                for record in self._by_id.values()
                if record.host.links and self._runs(record)
                for _, target in self._plain(record)
                for source, address in self._ends(record, target)
                for number, protocol in ports_of(target.config, target.host)
            )
        )

    def _ends(self, source: Record, target: Record) -> Iterator[tuple[str, str]]:
        """The addresses of both, of each family that both have."""
        one, other = self._endpoint(source), self._endpoint(target)
        if one is not None and other is not None and self._runs(self._owner(target)):
            yield from (pair for pair in ((one.ipv4, other.ipv4), (one.ipv6, other.ipv6)) if all(pair))

    def _targets(self, record: Record) -> Iterator[tuple[str, Record]]:
        for link in record.host.links:
            if (target := self._by_id.get(link.container)) is not None:
                yield link.alias, target

    def _plain(self, record: Record) -> Iterator[tuple[str, Record]]:
        """Its links, as far as they are the first year's."""
        return self._targets(record) if self._is_plain(record) else iter(())

    def _is_plain(self, record: Record) -> bool:
        default = self._networks.default
        return default is not None and any(asked.network == default.id for asked in record.host.networks)

    def _endpoint(self, record: Record) -> Endpoint | None:
        """Where it is, or last was, on the default network."""
        default, owner = self._networks.default, self._owner(record)
        if default is None:
            return None
        return next((one for one in owner.state.endpoints if one.network_id == default.id), None)

    def _owner(self, record: Record) -> Record:
        """The container whose network it has; itself, as a rule."""
        donor = self._by_id.get(joined_container(record.host.network_mode))
        return record if donor is None else self._owner(donor)


def _target(link: Link, find: Callable[[str], Record]) -> Record:
    """Raises LinkedToNothing; BadParameter for one without a network of its own."""
    try:
        target = owner = find(link.container)
        while donor := joined_container(owner.host.network_mode):
            owner = find(donor)
    except NoSuchContainer as error:
        raise LinkedToNothing(link.container, error) from error
    if owner.host.network_mode == HOST:
        raise BadParameter(f"conflicting options: host type networking can't be used with links. {_UNDEFINED}")
    return target
