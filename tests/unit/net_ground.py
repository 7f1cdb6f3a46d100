"""A piece of network to try things on: a host, somebody outside, and containers, each a network namespace.

Nothing of it has a name or a process: a namespace lives as long as a descriptor or a thread of this process holds it,
and so do its interfaces, rules and sockets. The machine's own namespace is never touched.

    with Ground() as ground:
        bridge = ground.bridge("br0", "172.30.0.1/24")
        one = ground.container("one", bridge, "172.30.0.2/24")
        with Echo(one, "tcp", 80):
            assert ask(ground.outside, "tcp", ground.HOST, 8080) == "one 192.0.2.2"

`outside` and the host are neighbours on 192.0.2.0/24 and 2001:db8::/64; outside knows the way to all subnets of
bridges through the host, and is the host's default route; behind it is 198.51.100.1 (ground.FAR).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import select
import socket
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

PATIENCE = 10.0  # seconds, for what has to come
NO_ANSWER = 0.4  # seconds, for what must not
SCTP = 132


class Space:
    """One network namespace, with its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _setns(before)
            os.close(before)
        self.ip("link set lo up")
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in it, and so is every thread and process that it starts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _setns(self.fd)
        try:
            yield
        finally:
            _setns(before)
            os.close(before)

    def command(self, *argv: str) -> list[str]:
        """What starts a program in it."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, check: bool = True, text: str | None = None) -> str:
        done = subprocess.run(self.command(*argv), input=text, text=True, capture_output=True, check=False, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {argv}: {done.stderr or done.stdout}")
        return done.stdout + done.stderr

    def ip(self, *commands: str) -> None:
        """Several commands of ip(8) at once, without the "ip"."""
        self.run("ip", "-batch", "-", text="\n".join(commands) + "\n")

    def sysctl(self, name: str, value: str) -> None:
        with self.entered(), open(f"/proc/sys/{name}", "w") as setting:
            setting.write(value)

    def socket(self, *kind: int) -> socket.socket:
        with self.entered():
            return socket.socket(*kind)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine whose threads, too, are in it."""
        with self.entered():
            return asyncio.run(coroutine)

    def close(self) -> None:
        os.close(self.fd)


class Ground:
    HOST, HOST6 = "192.0.2.1", "2001:db8::1"
    OUTSIDE, OUTSIDE6 = "192.0.2.2", "2001:db8::2"
    FAR, FAR6 = "198.51.100.1", "2001:db8:ffff::1"

    def __init__(self, *, bridge_netfilter: bool = False) -> None:
        """``bridge_netfilter``: all that crosses a bridge of the host passes its rules, too, as some engines set it."""
        self.spaces: list[Space] = []
        self.host, self.outside = self.space("host"), self.space("outside")
        self.host.ip(
            f"link add up0 type veth peer name up0 netns {self.outside.path}",
            f"address add {self.HOST}/24 dev up0",
            f"address add {self.HOST6}/64 dev up0 nodad",
            "link set up0 up",
        )
        self.outside.ip(
            f"address add {self.OUTSIDE}/24 dev up0",
            f"address add {self.OUTSIDE6}/64 dev up0 nodad",
            f"address add {self.FAR}/32 dev lo",
            f"address add {self.FAR6}/128 dev lo nodad",
            "link set up0 up",
        )
        self.host.ip(f"route add default via {self.OUTSIDE}", f"route add default via {self.OUTSIDE6}")
        self.host.sysctl("net/ipv4/ip_forward", "1")
        self.host.sysctl("net/ipv6/conf/all/forwarding", "1")
        if os.path.exists("/proc/sys/net/bridge"):
            for family in ("iptables", "ip6tables"):
                self.host.sysctl(f"net/bridge/bridge-nf-call-{family}", str(int(bridge_netfilter)))

    def space(self, name: str) -> Space:
        space = Space(name)
        self.spaces.append(space)
        return space

    def bridge(self, name: str, *addresses: str) -> str:
        """A bridge of the host's, with addresses; outside gets routes to their subnets."""
        self.host.ip(
            f"link add {name} type bridge forward_delay 0",
            f"link set {name} up",
            *(f"address add {address} dev {name}{' nodad' * (':' in address)}" for address in addresses),
        )
        for address in addresses:
            subnet = ipaddress.ip_interface(address).network
            self.outside.ip(f"route add {subnet} via {self.HOST if subnet.version == 4 else self.HOST6}")
        return name

    def container(self, name: str, bridge: str, *addresses: str, gateways: Sequence[str] = ()) -> Space:
        """A namespace on a bridge, with eth0. Gateways: each subnet's first address unless they are given."""
        space = self.space(name)
        self.host.ip(
            f"link add v{name} type veth peer name eth0 netns {space.path}",
            f"link set v{name} master {bridge} up",
            f"link set v{name} type bridge_slave hairpin on",
        )
        space.ip(
            *(f"address add {address} dev eth0{' nodad' * (':' in address)}" for address in addresses),
            "link set eth0 up",
        )
        for gateway in gateways or [str(ipaddress.ip_interface(one).network[1]) for one in addresses]:
            space.ip(f"route add default via {gateway}")
        return space

    def close(self) -> None:
        for space in self.spaces:
            space.close()

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Echo:
    """A server in a namespace, TCP or UDP, that answers whoever comes with its name and who came: "one 192.0.2.2"."""

    def __init__(self, space: Space, protocol: str, port: int, address: str = "::") -> None:
        self._space, self._protocol = space, protocol
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = space.socket(family, _kind(protocol))
        if address == "::":
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        if protocol == "tcp":
            self._socket.listen()
        self._ends, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        self._thread.join()
        os.close(self._ends)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._ends], [], [])
            if self._ends in ready:
                return
            if self._protocol == "udp":
                _, peer = self._socket.recvfrom(1000)
                self._socket.sendto(self._answer(peer), peer)
            else:
                connection, peer = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(self._answer(peer))

    def _answer(self, peer: Any) -> bytes:
        return f"{self._space.name} {peer[0].removeprefix('::ffff:')}".encode()


def ask(space: Space, protocol: str, address: str, port: int, *, patience: float = PATIENCE) -> str:
    """What an Echo at that address says to who asks from this namespace; "" if nothing comes back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with space.socket(family, _kind(protocol)) as asking:
        asking.settimeout(patience)
        try:
            asking.connect((address, port))
            if protocol == "udp":
                asking.send(b"?")
            return asking.recv(1000).decode()
        except OSError:
            return ""


Try = tuple[Space, str, str, int]  # who asks, the protocol, the address, the port


def reached(*tries: Try) -> list[str]:
    """Those that got an answer: for what must not get any, since it does not wait long. All are tried at once."""

    def attempt(one: Try) -> str:
        space, protocol, address, port = one
        answer = ask(space, protocol, address, port, patience=NO_ANSWER)
        return f"{space.name}: {protocol} {address} {port}: {answer}" if answer else ""

    with ThreadPoolExecutor(len(tries)) as pool:
        return [answer for answer in pool.map(attempt, tries) if answer]


def _kind(protocol: str) -> int:
    return socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
