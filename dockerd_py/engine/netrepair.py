"""Bridges and what is on them, brought to what the records say."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress

from dockerd_py.engine.addressing import VETH
from dockerd_py.engine.network_model import BRIDGE
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record
from dockerd_py.errors import NoSuchNetwork
from dockerd_py.nat.links import Links

log = logging.getLogger(__name__)


async def remove_unknown(networks: Networks, links: Links, known: Collection[str]) -> None:
    """Take away interfaces of ours on our bridges but for the ``known`` ones.  Raises NetworkFailed."""
    for network in networks.list():
        # On an administrator's own bridge such a name may be somebody else's.
        if network.driver == BRIDGE and not networks.is_given(network):
            for interface in await links.ports_of(network.bridge):
                if interface.startswith(VETH) and interface not in known:
                    log.info("removing %s, which no container has", interface)
                    await links.unplug(interface)


async def put_back(networks: Networks, links: Links, running: Iterable[Record]) -> None:
    """Put containers that run back on their networks' bridges, where somebody has deleted one and it is another now.

    Raises NetworkFailed."""
    for record in running:
        for endpoint in record.state.endpoints:
            with suppress(NoSuchNetwork):
                bridge = networks.get(endpoint.network_id).bridge
                if endpoint.host_interface:
                    await links.put_back(bridge, endpoint.host_interface)
