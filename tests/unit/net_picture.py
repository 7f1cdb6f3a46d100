"""All that a daemon has made in the network of its host, as one value that two moments can be compared by.

What differs from run to run has the name of what it belongs to instead: containers' addresses, the subnets and bridges
of networks, ports that were chosen.  An address that nobody has stays as it is, and so shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import fnmatch
import ipaddress
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from net_house import CABLE, Namespace, NetDaemon

Picture = dict[str, Any]

_COUNTERS = re.compile(r"\[\d+:\d+\]|\bcounter packets \d+ bytes \d+|^#.*$", re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]+:[0-9a-f:]*)(?:/\d+)?(?![\w.])")
_SYS_PIDFD_GETFD = 438  # the same on every architecture
_SIOCGSKNS = 0x894C
_libc = ctypes.CDLL(None, use_errno=True)
_FORWARDING = "ipv4/ip_forward"  # that of IPv6 is turned on by the first network that has it, and stays
_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # a socket's state in /proc/net


def of(daemon: NetDaemon) -> Picture:
    """Of a daemon at rest."""
    networks = {each["Id"]: each for each in daemon.get("/networks").json}
    containers = [daemon.inspect(one["Id"]) for one in daemon.get("/containers/json?all=1").json]
    running = [one for one in containers if one["State"]["Running"]]
    names = _names(networks, running)
    return {
        "networks": sorted(f"{each['Name']} {each['Driver']}" for each in networks.values()),
        "attached": _endpoints(containers),
        "endpoints": _endpoints(running),
        "interfaces": _interfaces(daemon, names),
        "rules": _rules(daemon, names),
        "ports": _ports(daemon, running),
        "stray namespaces": _stray_namespaces(daemon, running),
        "forwarding": daemon.host.inside(Path("/proc/sys/net", _FORWARDING).read_text).strip(),
    }  # fmt: skip


def is_consistent(found: Picture) -> bool:
    """Whether what runs has all that it needs, and there is nothing else."""
    veths = sum(count for name, count in found["interfaces"].items() if name.startswith("veth on "))
    return (
        veths == len(found["endpoints"])
        and not found["stray namespaces"]
        and not any("unknown" in port for port in found["ports"])
        and not any("nobody's" in rule for rule in found["rules"])
    )


def _endpoints(containers: list[Any]) -> list[str]:
    return sorted(
        f"{one['Name']} on {name}"
        for one in containers
        for name in one["NetworkSettings"]["Networks"]
        if name not in ("host", "none")
    )


def _names(networks: dict[str, Any], running: list[Any]) -> dict[str, str]:
    """From addresses, subnets and bridges to whose they are."""
    names = {}
    for network in networks.values():
        name = network["Name"]
        bridge = (network["Options"] or {}).get("com.docker.network.bridge.name", f"br-{network['Id'][:12]}")
        names[bridge] = f"bridge of {name}"
        for pool in network["IPAM"]["Config"] or ():
            names[pool["Subnet"]] = f"subnet of {name}"
            if pool.get("Gateway"):
                gateway = pool["Gateway"].partition("/")[0]
                prefix = pool["Subnet"].partition("/")[2]
                names[gateway] = names[f"{gateway}/{prefix}"] = f"gateway of {name}"
    for container in running:
        for name, endpoint in container["NetworkSettings"]["Networks"].items():
            for address in (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]):
                if address:
                    names[address] = f"{container['Name']} on {name}"
    return names


def _interfaces(daemon: NetDaemon, names: dict[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in json.loads(daemon.host.run("ip", "-json", "address")):
        name, master = each["ifname"], each.get("master", "")
        if name == CABLE:
            continue
        addresses = sorted(
            names.get(text := f"{one['local']}/{one['prefixlen']}", text)
            for one in each["addr_info"]
            if one["scope"] != "link"
        )
        if name.startswith("veth"):
            name = f"veth on {names.get(master, master)}"
        found[f"{names.get(name, name)}{''.join(f', {each}' for each in addresses)}"] += 1
    return found


def rules_of(host: Namespace) -> str:
    """Of nftables, and of the legacy tables, where they are in use."""
    tables = re.split(r"^(?=table )", host.run("nft", "-s", "list", "ruleset", check=False), flags=re.MULTILINE)
    text = "".join(sorted(tables))  # they come in the order in which they were made
    for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
        text += host.run(program, check=False)
    return text


def _rules(daemon: NetDaemon, names: dict[str, str]) -> list[str]:
    text = rules_of(daemon.host)
    for name, instead in names.items():
        if instead.startswith("bridge of "):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", instead, text)
    subnets = [ipaddress.ip_network(name) for name in names if "/" in name and names[name].startswith("subnet")]

    def named(match: re.Match[str]) -> str:
        word = match[0]
        plain = word.removesuffix("/32").removesuffix("/128")
        with contextlib.suppress(ValueError):
            for each in (word, plain):
                if each in names:
                    return names[each]
            if any(ipaddress.ip_address(plain) in subnet for subnet in subnets):
                return f"nobody's {word}"
        return word

    lines = (_ADDRESS.sub(named, _COUNTERS.sub("", line)).strip() for line in text.splitlines())
    # An ephemeral port is another one each time.
    return [re.sub(r"\b(49[12]\d\d|[56]\d{4})\b", "PORT", line) for line in lines if line]


def _ports(daemon: NetDaemon, running: list[Any]) -> list[str]:
    """The host's ports on which somebody listens, by the containers' that are published there."""
    published = {}
    for one in running:
        for port, bindings in (one["NetworkSettings"]["Ports"] or {}).items():
            for binding in bindings or ():
                protocol = port.partition("/")[2]
                published[(protocol, int(binding["HostPort"]))] = f"{one['Name']} {port}"
    held = set(_listening(daemon))
    found = [f"held: {published.get(each, f'unknown {each}')}" for each in held]
    return sorted(found + [f"unknown, not held: {published[each]}" for each in published.keys() - held])


def _listening(daemon: NetDaemon) -> Iterator[tuple[str, int]]:
    for table, state in _LISTENING.items():
        text = daemon.host.inside(Path(f"/proc/thread-self/net/{table}").read_text)
        for line in text.splitlines()[1:]:
            words = line.split()
            if words[3] == state:
                yield table.rstrip("6"), int(words[1].rpartition(":")[2], 16)


def _stray_namespaces(daemon: NetDaemon, running: list[Any]) -> int:
    """How many network namespaces are held that no container is in any more: by a process of the daemon's that is in
    one or has a descriptor of it or a socket in it, or by a mount."""
    held = {os.stat(line.split()[4]).st_ino for line in fnmatch.filter(daemon.mounts(), "* - nsfs *")}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if _is_of(daemon, pid):
                held |= {os.stat(f"/proc/{pid}/ns/net").st_ino, *_held_by(pid)}
    known = {os.stat(each.path).st_ino for each in (daemon.host, daemon.outside)}
    for one in running:
        known.add(os.stat(f"/proc/{one['State']['Pid']}/ns/net").st_ino)
    return len(held - known)


def _is_of(daemon: NetDaemon, pid: int) -> bool:
    """Whether it is the daemon, or a process that names its directory."""
    if daemon.process is not None and pid == daemon.process.pid:  # which, as a fork, may have another's arguments
        return True
    return pid != os.getpid() and os.fsencode(daemon.directory) in Path(f"/proc/{pid}/cmdline").read_bytes()


def _held_by(pid: int) -> Iterator[int]:
    with open(os.pidfd_open(pid), "rb", buffering=0) as pidfd:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # it has been closed meanwhile
                what = os.readlink(f"/proc/{pid}/fd/{name}")
                if what.startswith("net:["):
                    yield os.stat(f"/proc/{pid}/fd/{name}").st_ino
                elif what.startswith("socket:["):
                    yield _namespace_of_socket(pidfd.fileno(), int(name))


def _namespace_of_socket(pidfd: int, number: int) -> int:
    """That of another process's socket (pidfd_getfd(2), SIOCGSKNS of socket(7))."""
    copy = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        namespace = fcntl.ioctl(copy, _SIOCGSKNS)
    finally:
        os.close(copy)
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)
