"""The name service at work: a host of its own, containers that are a process in a namespace, servers upstream.

What is asked and answered is written and read by dnslib, which the service has nothing of.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import fcntl
import itertools
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dnslib import EDNS0, DNSRecord

from dockerd_py import wire
from dockerd_py.nat.dns import sockets, state
from dockerd_py.nat.dns import stamp as service_code
from dockerd_py.nat.dns.model import NameEntry, NetworkNames

PROGRAM = str(Path(service_code.__file__).parent / "__main__.py")
ADDRESS = "127.0.0.11"
T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_libc = ctypes.CDLL(None, use_errno=True)


def in_thread(work: Callable[[], T]) -> T:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Namespace:
    """A network namespace whose loopback is up."""

    def __init__(self) -> None:
        def make() -> int:
            assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", 1))
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = in_thread(make)

    def inside(self, work: Callable[[], T]) -> T:
        """Sockets that it makes and processes that it starts stay in this namespace."""

        def act() -> T:
            with sockets.inside(self.fd):
                return work()

        return in_thread(act)

    def close(self) -> None:
        os.close(self.fd)


class Container:
    """A process in a namespace of its own."""

    numbers = itertools.count(1)

    def __init__(self) -> None:
        self.id = f"{next(self.numbers):064x}"
        self.namespace = Namespace()
        self.process = self.namespace.inside(lambda: subprocess.Popen(["sleep", "1000"]))

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.end()
        self.namespace.close()

    def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, edns: int = 0, timeout: float = 10, port: int = 53
    ) -> DNSRecord:
        query = DNSRecord.question(name, kind)
        if edns:
            query.add_ar(EDNS0(udp_len=edns))
        answer = DNSRecord.parse(self.send(query.pack(), tcp=tcp, timeout=timeout, port=port))
        assert answer.header.id == query.header.id
        assert answer.q == query.q
        return answer

    def send(self, data: bytes, *, tcp: bool = False, timeout: float = 10, port: int = 53) -> bytes:
        """What comes back.  Raises TimeoutError."""
        with self.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((ADDRESS, port))
            if not tcp:
                sock.send(data)
                return sock.recv(65536)
            sock.sendall(len(data).to_bytes(2, "big") + data)
            return read_message(sock)

    def socket(self, kind: int) -> socket.socket:
        return self.namespace.inside(lambda: socket.socket(socket.AF_INET, kind))

    def addresses(self, name: str, kind: str = "A", **more: Any) -> list[str]:
        """Sorted; [] for a name without such, LookupError with the code for what is no name."""
        answer = self.ask(name, kind, **more)
        if answer.header.rcode:
            raise LookupError(answer.header.rcode)
        return sorted(str(record.rdata) for record in answer.rr)


def read_message(sock: socket.socket) -> bytes:
    size = int.from_bytes(_exactly(sock, 2), "big")
    return _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


class Upstream:
    """A name server at an address of the host's loopback.  It answers by UDP and TCP what ``answer`` says: a packet,
    or nothing.  ``asked`` has every question, with "udp" or "tcp"."""

    def __init__(self, host: Namespace, address: str, answer: Callable[[DNSRecord, str], bytes | None]) -> None:
        self.address = address
        self.asked: list[tuple[str, str]] = []
        self._answer = answer
        self._udp = host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._tcp = host.inside(socket.socket)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self._udp, self._tcp):
            sock.bind((address, 53))
        self._tcp.listen()
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.write(self._ended, b"x")
        self._thread.join()
        for sock in (self._udp, self._tcp):
            sock.close()
        os.close(self._end)
        os.close(self._ended)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._tcp, self._end], [], [])
            if self._end in ready:
                return
            if self._udp in ready:
                data, sender = self._udp.recvfrom(65536)
                answer = self._note(data, "udp")
                if answer is not None:
                    self._udp.sendto(answer, sender)
            if self._tcp in ready:
                connection, _ = self._tcp.accept()
                with connection:
                    answer = self._note(read_message(connection), "tcp")
                    if answer is not None:
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _note(self, data: bytes, by: str) -> bytes | None:
        query = DNSRecord.parse(data)
        self.asked.append((str(query.q.qname), by))
        return self._answer(query, by)


class House:
    """A host with a running service, spoken to as the daemon does."""

    def __init__(self, directory: Path, *prefix: str) -> None:
        """prefix: what starts the service, like prlimit(1)."""
        self.directory = directory
        self.prefix = prefix
        self.host = Namespace()
        self.path = str(directory / "names.sock")
        self.containers: list[Container] = []
        self.upstreams: list[Upstream] = []
        self._numbers = itertools.count()
        self.start()

    def clear(self) -> None:
        """Without a container and without a server upstream again; the service runs on."""
        for container in self.containers:
            self.request("forget", id=container.id)
        for each in (*self.containers, *self.upstreams):
            each.close()
        self.containers.clear()
        self.upstreams.clear()

    def start(self) -> None:
        argv = [*self.prefix, sys.executable, "-I", "-S", PROGRAM, self.path]
        self.process = self.host.inside(lambda: subprocess.Popen(argv))
        self.connect()

    def connect(self) -> None:
        until(self._connected, 10)

    def _connected(self) -> bool:
        try:
            self.link = wire.connect(self.path)
        except OSError:
            return False
        self.link.settimeout(10)
        return True

    def kill(self) -> None:
        self.link.close()
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for each in (*self.containers, *self.upstreams):
            each.close()
        self.host.close()

    def request(self, op: str, *fds: int, **fields: Any) -> dict[str, Any]:
        number = next(self._numbers)
        wire.send(self.link, {"op": op, "seq": number, **fields}, fds)
        reply, _ = wire.receive(self.link)
        assert reply is not None
        assert reply.pop("seq") == number
        return reply

    def container(self) -> Container:
        self.containers.append(Container())
        return self.containers[-1]

    def upstream(self, address: str, answer: Callable[[DNSRecord, str], bytes | None]) -> Upstream:
        self.upstreams.append(Upstream(self.host, address, answer))
        return self.upstreams[-1]

    def put(self, container: Container, *networks: NetworkNames, started: bool = True, **more: Any) -> NameEntry:
        entry = NameEntry(container.id, networks, **more)
        own = sockets.open_in(container.namespace.fd)
        fds = [sock.fileno() for sock in own]
        with contextlib.ExitStack() as stack:
            if started:
                pidfd = os.pidfd_open(container.pid)
                stack.callback(os.close, pidfd)
                fds.append(pidfd)
                state.write(self.directory / "names", state.Saved(entry, state.Process.of(container.pid), own.ports))
            stack.callback(own.close)
            assert self.request("put", *fds, entry=entry.to_json()) == {}
        return entry

    def known(self) -> list[str]:
        return [each[0] for each in self.request("list", after="")["entries"]]

    def memory(self) -> int:
        """Bytes of its own."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


@contextlib.contextmanager
def house(directory: Path, *prefix: str) -> Iterator[House]:
    it = House(directory, *prefix)
    try:
        yield it
    finally:
        it.close()


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.01)
