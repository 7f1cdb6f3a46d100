"""/networks: list, create, inspect, remove, connect, disconnect and prune."""

from __future__ import annotations

from aiohttp import web

from dockerd_py.api import encode_network, eras
from dockerd_py.api.call import Call
from dockerd_py.api.decode_network import container_of, decode_connect, decode_network
from dockerd_py.api.fields import Fields
from dockerd_py.api.filters import network_filter, prune_networks_filter
from dockerd_py.api.routing import Route
from dockerd_py.engine.network_model import Network
from dockerd_py.errors import NoSuchNetwork


async def list_(call: Call) -> web.StreamResponse:
    attached = call.engine.connecting.attached
    passes = network_filter(call.text("filters"), lambda network: bool(attached(network.id)))
    with_containers = eras.lists_containers_of_networks(call.version)
    return call.json([
        encode_network.network(network, attached(network.id) if with_containers else ())
        for network in call.engine.networks.list()
        if passes(network)
    ])  # fmt: skip


async def inspect(call: Call) -> web.StreamResponse:
    """``verbose`` asks for the services of a swarm, of which there are none."""
    network = call.engine.networks.get(call.name)
    call.flag("verbose")
    if call.text("scope") not in ("", "local"):
        raise NoSuchNetwork(call.name)
    return call.json(encode_network.network(network, call.engine.connecting.attached(network.id)))


async def create(call: Call) -> web.StreamResponse:
    network = await call.engine.networks.create(decode_network(await call.json_body()))
    return call.json({"Id": network.id, "Warning": ""}, 201)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.networks.remove(call.name)
    return call.empty()


async def connect(call: Call) -> web.StreamResponse:
    container, wanted = decode_connect(await call.json_body(), call.name)
    await call.engine.connecting.connect(call.name, container, wanted)
    return call.empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    fields = Fields(await call.json_body())
    container, force = container_of(fields), fields.flag("Force")
    await call.engine.connecting.disconnect(call.name, container, force=force)
    return call.empty(200)


async def prune(call: Call) -> web.StreamResponse:
    goes = prune_networks_filter(call.text("filters"))

    def stays(network: Network) -> bool:
        return not goes(network)

    removed = await call.engine.networks.prune(stays)
    return call.json({"NetworksDeleted": list(removed) or None})


ROUTES = (
    Route("GET", "/networks", list_),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{}", inspect),
    Route("DELETE", "/networks/{}", remove),
    Route("POST", "/networks/{}/connect", connect),
    Route("POST", "/networks/{}/disconnect", disconnect),
)
