"""`pydocker network`: create, ls, inspect, rm, connect, disconnect and prune."""

from __future__ import annotations

import sys

from dockerd_py.cli import filters, network_options, pairs, text
from dockerd_py.cli.client import Client
from dockerd_py.cli.command import Command, complain, for_each
from dockerd_py.cli.errors import CliError, DaemonError, UsageError
from dockerd_py.cli.group import Group
from dockerd_py.cli.listing import render
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADINGS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED",
}


def create(client: Client, given: Parsed) -> int:
    payload = {
        "Name": given.args[0],
        "CheckDuplicate": True,
        "Driver": given.string("driver"),
        "Internal": given.boolean("internal"),
        "Attachable": given.boolean("attachable"),
        "EnableIPv6": given.boolean("ipv6"),
        "IPAM": {
            "Driver": given.string("ipam-driver"),
            "Options": pairs.parse(given.strings("ipam-opt")),
            "Config": pools(given),
        },
        "Options": pairs.parse(given.strings("opt")),
        "Labels": pairs.parse(given.strings("label")),
    }
    made = client.post("/networks/create", payload=payload)
    if made.get("Warning"):
        complain(made["Warning"])
    print(made["Id"])
    return 0


def pools(given: Parsed) -> list[dict[str, Any]]:
    """The subnets, each with the range, the gateway and the other addresses that lie in it.  Raises UsageError."""
    from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

    found: dict[IPv4Network | IPv6Network, dict[str, Any]] = {}
    for subnet in given.strings("subnet"):
        network = ip_network(subnet, strict=False)
        if any(network.overlaps(other) for other in found if network.version == other.version):
            raise UsageError(f"the subnet {subnet} overlaps with another one")
        found[network] = {"Subnet": subnet}

    def pool_of(first: str, what: str) -> dict[str, Any]:
        address = ip_address(first.partition("/")[0])
        for network, pool in found.items():
            if address in network:
                return pool
        raise UsageError(f"no matching subnet for {what} {first}")

    for flag, key in (("ip-range", "IPRange"), ("gateway", "Gateway")):
        for value in given.strings(flag):
            pool = pool_of(value, flag)
            if key in pool:
                raise UsageError(f"cannot configure two of --{flag} ({pool[key]}, {value}) on one subnet")
            pool[key] = value
    for value in given.strings("aux-address"):
        name, _, address = value.partition("=")
        pool_of(address, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


def ls(client: Client, given: Parsed) -> int:
    query = {"filters": filters.encoded(given.strings("filter"))}
    found: list[dict[str, Any]] = client.get("/networks", query)
    found.sort(key=lambda network: (str(network["Name"]), str(network["Id"])))
    full = given.boolean("no-trunc")
    if given.boolean("quiet"):
        sys.stdout.write("".join(f"{_id(network, full)}\n" for network in found))
        return 0
    rows = [
        {
            "ID": _id(network, full),
            "Name": str(network["Name"]),
            "Driver": str(network.get("Driver") or ""),
            "Scope": str(network.get("Scope") or ""),
            "IPv6": "true" if network.get("EnableIPv6") else "false",
            "Internal": "true" if network.get("Internal") else "false",
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((network.get("Labels") or {}).items())),
            "CreatedAt": str(network.get("Created") or ""),
        }
        for network in found
    ]
    sys.stdout.write(render(rows, HEADINGS, ("ID", "Name", "Driver", "Scope"), given.string("format")))
    return 0


def inspect(client: Client, given: Parsed) -> int:
    from dockerd_py.cli.inspecting import inspect_each

    query = {"verbose": given.boolean("verbose") or None}
    return inspect_each(given.args, lambda name: client.get(path(name), query), given.string("format"))


def rm(client: Client, given: Parsed) -> int:
    def remove(name: str) -> None:
        try:
            client.delete(path(name))
        except DaemonError as error:
            if error.status != 404 or not given.boolean("force"):
                raise

    return for_each(given.args, remove)


def connect(client: Client, given: Parsed) -> int:
    network, container = given.args
    join(client, network, container, network_options.endpoint_of_connect(given))
    return 0


def join(client: Client, network: str, container: str, endpoint: dict[str, Any]) -> None:
    client.post(path(network, "/connect"), payload={"Container": container, "EndpointConfig": endpoint})


def disconnect(client: Client, given: Parsed) -> int:
    network, container = given.args
    client.post(path(network, "/disconnect"), payload={"Container": container, "Force": given.boolean("force")})
    return 0


def prune(client: Client, given: Parsed) -> int:
    from dockerd_py.cli.commands.upkeep import show_list, sure

    if not sure(given, "This removes all networks that no container is on."):
        return 1
    done = client.post("/networks/prune", {"filters": filters.encoded(given.strings("filter"))})
    show_list("Deleted Networks:", done.get("NetworksDeleted") or ())
    return 0


def path(name: str, rest: str = "") -> str:
    if name in ("", ".", "..") or "/" in name:
        raise CliError(f'"{name}" is no network\'s name or id')
    from urllib.parse import quote

    return f"/networks/{quote(name, safe='')}{rest}"


def find(client: Client, name: str) -> Any:
    """The network; None where there is none."""
    try:
        return client.get(path(name))
    except DaemonError as error:
        if error.status != 404:
            raise
        return None


def _id(network: dict[str, Any], full: bool) -> str:
    return str(network["Id"]) if full else text.short_id(network["Id"])


def _subnet(value: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_network(value if "/" in value else "", strict=False)
    except ValueError:
        raise ValueError("it must be ADDRESS/PREFIX") from None


def _address(value: str) -> None:
    import ipaddress

    ipaddress.ip_address(value)


def _named_address(value: str) -> None:
    pairs.check(value)
    _address(value.partition("=")[2])


COMMANDS = {
    "network": Group(
        "network",
        "Manage networks.",
        {
            "connect": Command(
                "network connect",
                "[OPTIONS] NETWORK CONTAINER",
                "Connect a container to a network, running or not.",
                connect,
                network_options.CONNECT_FLAGS,
                least=2,
                most=2,
            ),
            "create": Command(
                "network create",
                "[OPTIONS] NETWORK",
                "Make a network, and print its id.",
                create,
                (
                    Flag("--attachable", "bool", help="As for swarms, where it lets containers join; shown, no more"),
                    Flag("--aux-address", "list", help="An address that no container gets", check=_named_address,
                         metavar="NAME=ADDRESS"),
                    Flag(("-d", "--driver"), "string", "bridge", "bridge, macvlan or ipvlan"),
                    Flag("--gateway", "list", help="The gateway of a subnet", check=_address, metavar="ADDRESS"),
                    Flag("--internal", "bool", help="Without a way out of it"),
                    Flag("--ip-range", "list", help="The part of a subnet that containers get addresses from",
                         check=_subnet, metavar="SUBNET"),
                    Flag("--ipam-driver", "string", "default", "There is no other than default"),
                    Flag("--ipam-opt", "list", help="An option of that driver", check=pairs.check, metavar="KEY=value"),
                    Flag("--ipv6", "bool", help="With IPv6 addresses, too"),
                    Flag("--label", "list", help="Set a label", check=pairs.check, metavar="KEY=value"),
                    Flag(("-o", "--opt"), "list", help="An option of the driver", check=pairs.check,
                         metavar="KEY=value"),
                    Flag("--subnet", "list", help="A subnet of it", check=_subnet, metavar="SUBNET"),
                ),
                least=1,
                most=1,
            ),
            "disconnect": Command(
                "network disconnect",
                "[OPTIONS] NETWORK CONTAINER",
                "Take a container off a network.",
                disconnect,
                (Flag(("-f", "--force"), "bool", help="Even if the container is not there any more"),),
                least=2,
                most=2,
            ),
            "inspect": Command(
                "network inspect",
                "[OPTIONS] NETWORK...",
                "Show all that is known about networks, as JSON.",
                inspect,
                (
                    Flag(("-f", "--format"), help='"json", or a template such as {{.Driver}}', metavar="TEMPLATE"),
                    Flag(("-v", "--verbose"), "bool", help="As for swarms; nothing more is shown here"),
                ),
                least=1,
            ),
            "ls": Command(
                "network ls",
                "[OPTIONS]",
                "List networks.",
                ls,
                (
                    filters.FLAG,
                    Flag("--format", help='"table", "json", or a template such as {{.Name}}', metavar="TEMPLATE"),
                    Flag("--no-trunc", "bool", help="Cut nothing short"),
                    Flag(("-q", "--quiet"), "bool", help="Ids only"),
                ),
                most=0,
            ),
            "prune": Command(
                "network prune",
                "[OPTIONS]",
                "Remove the networks that no container is on.",
                prune,
                (
                    Flag("--filter", "list", help="Only what matches: until=TIME, label=KEY, label!=KEY",
                         check=filters.check, metavar="key=value"),
                    Flag(("-f", "--force"), "bool", help="Do not ask"),
                ),
                most=0,
            ),
            "rm": Command(
                "network rm",
                "[OPTIONS] NETWORK...",
                "Remove networks that no container is on.",
                rm,
                (Flag(("-f", "--force"), "bool", help="No error for one that is not there"),),
                least=1,
            ),
        },
    )
}  # fmt: skip
