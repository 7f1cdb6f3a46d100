"""A host of its own for tests of the network, and somebody outside: two network namespaces with a cable between.

They live as long as their `Namespace` objects or a process in them, so whatever a daemon makes there goes with them.
The outside has no route to what is behind the host: an answer comes back only if the question had the host's address.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import json
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from daemons import Daemon, spawn

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"
CABLE = "eth0"  # its name at both ends

PREDEFINED = ("bridge", "host", "none")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Namespace:
    """A network namespace."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls) -> Namespace:
        """One whose loopback interface is up."""
        made = cls(_in_thread(_new_namespace))
        made.run("ip", "link", "set", "lo", "up")
        return made

    @classmethod
    def of(cls, pid: int) -> Namespace:
        """That in which a process is: a container's."""
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        os.close(self.fd)

    def inside(self, work: Callable[[], T]) -> T:
        """Call something in here.  Sockets that it makes and processes that it starts stay in this namespace."""

        def act() -> T:
            _check(_libc.setns(self.fd, _CLONE_NEWNET))
            return work()

        return _in_thread(act)

    def run(self, *argv: str, data: str = "", check: bool = True) -> str:
        """What a program prints that runs in here; AssertionError with its complaints if it fails."""
        done = self._done(*argv, data=data)
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}"
        return done.stdout

    def complaints(self, *argv: str) -> str:
        """What a program writes to its standard error."""
        return self._done(*argv).stderr

    def _done(self, *argv: str, data: str = "") -> subprocess.CompletedProcess[str]:
        return self.inside(
            lambda: subprocess.run(argv, input=data, capture_output=True, text=True, check=False, timeout=30)
        )

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        made = self.inside(lambda: socket.socket(family, kind))
        made.settimeout(10)
        return made

    def interfaces(self) -> dict[str, set[str]]:
        """Each one's addresses with their prefixes, without those that the kernel gives every interface."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-json", "address"))
        return {
            each["ifname"]: {
                f"{one['local']}/{one['prefixlen']}" for one in each["addr_info"] if one["scope"] != "link"
            }
            for each in found
        }


class Ground:
    """The host and the outside."""

    def __init__(self) -> None:
        self.host = Namespace.new()
        self.outside = Namespace.new()
        self.host.run("ip", "-batch", "-", data=f"""
            link add {CABLE} type veth peer name {CABLE} netns {self.outside.path}
            link set {CABLE} up
            address add {HOST}/24 dev {CABLE}
            address add {HOST6}/64 dev {CABLE} nodad
        """)  # fmt: skip
        self.outside.run("ip", "-batch", "-", data=f"""
            link set {CABLE} up
            address add {OUTSIDE}/24 dev {CABLE}
            address add {OUTSIDE6}/64 dev {CABLE} nodad
        """)  # fmt: skip
        # A route before the other end is up would be refused.
        self.host.run("ip", "-batch", "-", data=f"route add default via {OUTSIDE}\nroute add default via {OUTSIDE6}")

    def close(self) -> None:
        self.host.close()
        self.outside.close()


class NetDaemon(Daemon):
    """A daemon on a host of its own, with all its networks."""

    def __init__(self, directory: Path, *flags: str) -> None:
        super().__init__(directory, *flags, network=True)
        self.ground = Ground()
        self.host, self.outside = self.ground.host, self.ground.outside
        self.spawn = self._spawn

    def clear(self) -> None:
        """As `Daemon.clear`, with the networks that somebody has made."""
        super().clear()
        for network in self.get("/networks").json:
            if network["Name"] not in PREDEFINED:
                self.delete(f"/networks/{network['Id']}")

    def vanish(self) -> None:
        """Let go of the host."""
        self.ground.close()

    @contextlib.contextmanager
    def within(self, container: str) -> Iterator[Namespace]:
        """The network namespace of a running container."""
        with contextlib.closing(Namespace.of(self.inspect(container)["State"]["Pid"])) as one:
            yield one

    def address(self, container: str, network: str = "bridge") -> str:
        """A running container's IPv4 address on a network."""
        address: str = self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"]
        assert address, "it has none"
        return address

    def port(self, container: str, port: str = "80/tcp") -> int:
        """Where a port of a running container's is on the host."""
        return int(self.inspect(container)["NetworkSettings"]["Ports"][port][0]["HostPort"])

    def _spawn(self, argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return self.host.inside(functools.partial(spawn, argv, log))


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp_answer(
    caller: Namespace, address: str, port: int, data: bytes = b"", timeout: float = 5, *, half_close: bool = True
) -> bytes:
    """All that comes back to somebody who sends something and then ends his side, or leaves it open.

    OSError: nobody is there, or answers in time.
    """
    with caller.socket(family_of(address)) as connection:
        connection.settimeout(timeout)
        connection.connect((address, port))
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def udp_answer(caller: Namespace, address: str, port: int, data: bytes = b"?", timeout: float = 5) -> bytes:
    """The datagram that comes back.  OSError: none does."""
    with caller.socket(family_of(address), socket.SOCK_DGRAM) as connection:
        connection.settimeout(timeout)
        connection.connect((address, port))  # so that a refusal is told
        connection.send(data)
        return connection.recv(65536)


def is_reached(
    answer: Callable[..., bytes], caller: Namespace, address: str, port: int, data: bytes | None = None
) -> bool:
    """Whether somebody answers, by `tcp_answer` or `udp_answer`; a second is enough where all are on one machine.

    Whoever is told who he is says nothing himself over TCP: what is not read there ends a connection by a reset.
    """
    try:
        answer(caller, address, port, *(() if data is None else (data,)), timeout=1)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def telling_who_asks(place: Namespace, port: int) -> Iterator[None]:
    """Whoever comes to a TCP or UDP port in ``place`` is told which address he comes from."""
    stop, stopped = socket.socketpair()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                one = stack.enter_context(place.socket(family, kind))
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((anywhere, port))
                if kind == socket.SOCK_STREAM:
                    one.listen()
                selector.register(one, selectors.EVENT_READ)
        selector.register(stopped, selectors.EVENT_READ)
        thread = threading.Thread(target=_tell, args=(selector, stopped))
        thread.start()
        try:
            yield
        finally:
            stop.close()
            thread.join()
            stopped.close()


def _tell(selector: selectors.BaseSelector, stopped: socket.socket) -> None:
    while True:
        for key, _ in selector.select():
            one: Any = key.fileobj
            if one is stopped:
                return
            if one.type == socket.SOCK_DGRAM:
                _, asker = one.recvfrom(65536)
                one.sendto(asker[0].encode(), asker)
                continue
            connection, asker = one.accept()
            with connection, contextlib.suppress(OSError):  # he may have left
                connection.sendall(asker[0].encode())


def _new_namespace() -> int:
    _check(_libc.unshare(_CLONE_NEWNET))
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(work: Callable[[], T]) -> T:
    """A thread's namespace is its own."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
