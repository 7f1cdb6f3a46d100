"""The last argument ``a{sv}`` of a method, read once and typed: an unknown key or a wrong type is refused by name."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from typing import Any

from dbus_next.signature import Variant

from dockerd_py.engine import network_checks
from dockerd_py.engine.links import parse as parse_link
from dockerd_py.engine.model import ContainerConfig, HostConfig, LogOptions, RestartPolicy
from dockerd_py.engine.mount_model import Bind
from dockerd_py.engine.network_model import DEFAULT, PROTOCOLS, EndpointRequest, PortBinding
from dockerd_py.errors import BadParameter

MICROSECOND = 1000  # nanoseconds

CREATE = {
    "Name": "s",
    "Env": "as",
    "WorkingDir": "s",
    "User": "s",
    "Hostname": "s",
    "Domainname": "s",
    "Entrypoint": "as",
    "Tty": "b",
    "OpenStdin": "b",
    "Labels": "a{ss}",
    "StopSignal": "s",
    "StopTimeout": "u",
    "Binds": "as",
    "ExposedPorts": "as",
    "PortBindings": "a(qssqq)",
    "PublishAllPorts": "b",
    "Memory": "t",
    "MemorySwap": "x",
    "PidsLimit": "x",
    "CpuShares": "t",
    "Cpus": "d",
    "NetworkMode": "s",
    "Links": "as",
    "NetworkAliases": "as",
    "IPv4Address": "s",
    "IPv6Address": "s",
    "MacAddress": "s",
    "AutoRemove": "b",
    "RestartPolicy": "(su)",
    "LogDriver": "s",
    "LogOptions": "a{ss}",
}

LOGS = {"Stdout": "b", "Stderr": "b", "Follow": "b", "Timestamps": "b", "Since": "t", "Until": "t", "Tail": "u"}

_INT64_MAX = 2**63 - 1


def read(given: Mapping[str, Variant], known: Mapping[str, str]) -> dict[str, Any]:
    """The plain values of ``given``, whose keys and types are those of ``known``.  Raises BadParameter."""
    for key, variant in given.items():
        if key not in known:
            have = ", ".join(sorted(known)) or "none at all"
            raise BadParameter(f"Unknown option {key!r}; there are: {have}")
        if variant.signature != known[key]:
            raise BadParameter(f"Option {key} is of type {known[key]!r}, not {variant.signature!r}")
        if known[key] == "t" and variant.value > _INT64_MAX:
            raise BadParameter(f"Option {key} is too large: {variant.value}")
    return {key: variant.value for key, variant in given.items()}


def container_settings(
    image: str, command: list[str], given: Mapping[str, Variant]
) -> tuple[str, ContainerConfig, HostConfig]:
    """Name and settings of a container to be created.  Raises BadParameter."""
    if not image:
        raise BadParameter("No image given")
    options = read(given, CREATE)
    config = ContainerConfig(
        image=image,
        cmd=tuple(command),
        entrypoint=tuple(options["Entrypoint"]) if "Entrypoint" in options else None,
        env=tuple(options.get("Env", ())),
        working_dir=options.get("WorkingDir", ""),
        user=options.get("User", ""),
        hostname=options.get("Hostname", ""),
        domainname=options.get("Domainname", ""),
        tty=options.get("Tty", False),
        open_stdin=options.get("OpenStdin", False),
        labels=dict(options.get("Labels", {})),
        stop_signal=options.get("StopSignal", ""),
        stop_timeout=options.get("StopTimeout"),
        exposed_ports=tuple(_port(each) for each in options.get("ExposedPorts", ())),
        mac_address=network_checks.mac_address(options.get("MacAddress", "")),
    )
    mode = options.get("NetworkMode", DEFAULT)
    network = EndpointRequest(
        mode,
        aliases=tuple(options.get("NetworkAliases", ())),
        ipv4=network_checks.ipv4_address(options.get("IPv4Address", "")),
        ipv6=network_checks.ipv6_address(options.get("IPv6Address", "")),
    )
    host = HostConfig(
        binds=tuple(_bind(each) for each in options.get("Binds", ())),
        memory=options.get("Memory", 0),
        memory_swap=options.get("MemorySwap", 0),
        cpu_shares=options.get("CpuShares", 0),
        nano_cpus=_nano_cpus(options.get("Cpus", 0.0)),
        pids_limit=options.get("PidsLimit", 0),
        network_mode=mode,
        links=tuple(map(parse_link, options.get("Links", ()))),
        networks=() if network == EndpointRequest(mode) else (network,),
        port_bindings=tuple(_port_binding(*each) for each in options.get("PortBindings", ())),
        publish_all=options.get("PublishAllPorts", False),
        auto_remove=options.get("AutoRemove", False),
        restart=RestartPolicy(*options.get("RestartPolicy", ("no", 0))),
        log_driver=options.get("LogDriver", ""),
        log_options=dict(options.get("LogOptions", {})),
    )
    network_checks.check_create(config, host)
    return options.get("Name", ""), config, host


def log_options(given: Mapping[str, Variant]) -> tuple[LogOptions, bool]:
    """What to read of a log, and whether each line gets its time.  Raises BadParameter."""
    options = read(given, LOGS)
    wanted = LogOptions(
        stdout=options.get("Stdout", True),
        stderr=options.get("Stderr", True),
        follow=options.get("Follow", False),
        since=options.get("Since", 0) * MICROSECOND,
        until=options.get("Until", 0) * MICROSECOND,
        tail=options.get("Tail"),
    )
    if not (wanted.stdout or wanted.stderr):
        raise BadParameter("Neither Stdout nor Stderr is wanted: choose at least one stream")
    return wanted, options.get("Timestamps", False)


def _bind(text: str) -> Bind:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise BadParameter(f"Invalid bind {text!r}: it is written as /on/the/host:/in/the/container[:ro|:rw]")
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        raise BadParameter(f"Invalid mode {mode!r} of bind {text!r}: it is ro or rw")
    return Bind(source=parts[0], target=parts[1], read_only=mode == "ro")


def _port(text: str) -> str:
    number, slash, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise BadParameter(f"Invalid port {text!r}: it is a number from 1 to 65535, and may have /tcp, /udp or /sctp")
    if (protocol or "tcp") not in PROTOCOLS or (slash and not protocol):
        raise BadParameter(f"Invalid protocol of port {text!r}: it is one of {', '.join(PROTOCOLS)}")
    return f"{int(number)}/{protocol or 'tcp'}"


def _port_binding(port: int, protocol: str, address: str, first: int, last: int) -> PortBinding:
    number, _, protocol = _port(f"{port}/{protocol or 'tcp'}").partition("/")
    try:
        address = str(ipaddress.ip_address(address)) if address else ""
    except ValueError:
        raise BadParameter(f"Invalid address {address!r} of port {port}") from None
    last = last or first
    if not (first == last == 0 or 0 < first <= last):
        raise BadParameter(f"Invalid range {first} to {last} of the host's ports for port {port}")
    return PortBinding(int(number), protocol, address, first, last)


def _nano_cpus(cpus: float) -> int:
    if not math.isfinite(cpus) or not 0 <= cpus <= 1_000_000:
        raise BadParameter(f"Option Cpus is a number of processors, not {cpus}")
    return round(cpus * 1e9)
