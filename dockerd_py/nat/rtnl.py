"""The kernel's network settings over rtnetlink(7): worker threads, each with a socket of its own, and readable errors.

pyroute2's plain IPRoute is used, in threads: it blocks, and its way to be asynchronous differs from version to version.
pyroute2 is imported by the first thread, since that takes a good part of the daemon's whole start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from dockerd_py.errors import NetworkFailed, PydockerdError
from dockerd_py.nat.netns import Home

T = TypeVar("T")

_RTM_DELLINK, _RTM_DELADDR = 17, 21  # rtnetlink.h
_IFA_LOCAL = 2
_NLM_F_REQUEST, _NLM_F_ACK = 0x01, 0x04

_TEXTS = {
    errno.EPERM: "not permitted: the daemon needs the capability CAP_NET_ADMIN",
    errno.ENOBUFS: "the kernel has no memory for it",
    errno.ENOSPC: "the kernel's limit of namespaces is reached (user.max_net_namespaces)",
}


class Kernel:
    """What one worker thread has: its home namespace, that of the thread that starts it, and a socket there."""

    def __init__(self) -> None:
        self.home = Home()
        self._ip: Any = None

    @property
    def ip(self) -> Any:
        """pyroute2's IPRoute of the home namespace."""
        if self._ip is None:
            self._ip = open_socket()
        return self._ip

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[Any]:
        """Within: in another namespace, with an IPRoute of that one."""
        with self.home.inside(namespace), contextlib.closing(open_socket()) as ip:
            yield ip

    def forget_socket(self) -> None:
        """After a failure whose answers may still be underway."""
        if self._ip is not None:
            self._ip.close()
            self._ip = None

    def close(self) -> None:
        self.forget_socket()
        self.home.close()


class Workers:
    """Threads that do one job after another; one alone keeps their order.  They start in the caller's namespace."""

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[Kernel], None] | None] = queue.SimpleQueue()
        self._names = [f"{name}-{number}" for number in range(threads)]
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def run(self, what: str, job: Callable[[Kernel], T], *, undo: Callable[[T], object] | None = None) -> T:
        """The job's result.  ``what`` begins the sentence of the NetworkFailed that a failure of the kernel's becomes.

        If the caller is cancelled, the job goes on by itself, and what it has made is undone.
        """
        future = asyncio.wrap_future(self.start(what, job))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:

            def finished(late: asyncio.Future[T]) -> None:
                if not late.cancelled() and late.exception() is None and undo is not None:
                    undo(late.result())

            future.add_done_callback(finished)
            raise

    def start(self, what: str, job: Callable[[Kernel], T]) -> Future[T]:
        """As `run`, without waiting."""
        if self._closed:
            raise NetworkFailed(f"{what}: the daemon is stopping")
        while len(self._threads) < len(self._names):
            self._start_one(what)
        future: Future[T] = Future()

        def answered(kernel: Kernel) -> None:
            try:
                future.set_result(_translated(what, kernel, job))
            except BaseException as error:  # noqa: BLE001 - it is raised where the job was asked for
                future.set_exception(error)

        self._jobs.put(answered)
        return future

    async def close(self) -> None:
        """After the jobs that were accepted."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _start_one(self, what: str) -> None:
        try:
            kernel = Kernel()
        except OSError as error:
            raise NetworkFailed(f"{what}: {error.strerror}") from error
        name = self._names[len(self._threads)]
        thread = threading.Thread(target=self._work, args=(kernel,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, kernel: Kernel) -> None:
        with contextlib.closing(kernel):
            while (job := self._jobs.get()) is not None:
                job(kernel)


def _translated(what: str, kernel: Kernel, job: Callable[[Kernel], T]) -> T:
    try:
        kernel.home.enter_at_start()
        return job(kernel)
    except PydockerdError:
        raise
    except Exception as error:
        code = code_of(error)
        if code is None:
            kernel.forget_socket()
            raise
        raise NetworkFailed(f"{what}: {_TEXTS.get(code, os.strerror(code))}") from error


def open_socket() -> Any:
    """An IPRoute of the namespace that the calling thread is in, for that thread alone."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - 80 ms

    return IPRoute()


def code_of(error: BaseException) -> int | None:
    """The errno of the kernel's answer, if this is one: pyroute2's NetlinkError is no OSError in all versions."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    return code if isinstance(code, int) else None


@contextlib.contextmanager
def refused(*codes: int, text: str | Callable[[], str]) -> Iterator[None]:
    """Turn these answers of the kernel into NetworkFailed with this text."""
    try:
        yield
    except PydockerdError:
        raise
    except Exception as error:
        if code_of(error) not in codes:
            raise
        raise NetworkFailed(text if isinstance(text, str) else text()) from error


def index_of(interface: str) -> int:
    """0 if there is none of that name in the calling thread's namespace.  Raises OSError for what else goes wrong."""
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        if error.errno not in (None, errno.ENODEV):
            raise
        return 0


def link_of(ip: Any, index: int) -> Any:
    """The ifinfomsg of one interface."""
    return next(iter(ip.link("get", index=index)))


def kind_of(link: Any) -> str:
    """ "bridge", "veth", ...; "" for hardware."""
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def delete(interface: str) -> None:
    """Delete an interface of the calling thread's namespace; fine when gone.  Raises OSError.

    pyroute2 before 0.7 sets flags here that kernels from 6.0 on take for something else.
    """
    if index := index_of(interface):
        _ask(_RTM_DELLINK, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0), unless=errno.ENODEV)


def delete_address(index: int, address: str) -> None:
    """As `delete`, an address with its prefix."""
    what = ipaddress.ip_interface(address)
    family = socket.AF_INET if what.version == 4 else socket.AF_INET6
    raw = what.ip.packed
    message = struct.pack("=BBBBI", family, what.network.prefixlen, 0, 0, index)
    message += struct.pack("=HH", 4 + len(raw), _IFA_LOCAL) + raw
    _ask(_RTM_DELADDR, message, unless=errno.EADDRNOTAVAIL)


def _ask(kind: int, message: bytes, *, unless: int) -> None:
    """One request of netlink(7) and its answer.  Raises OSError for an answer that is neither yes nor ``unless``."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        header = struct.pack("=IHHII", 16 + len(message), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        kernel.send(header + message)
        code = -int(struct.unpack_from("=i", kernel.recv(65536), 16)[0])
    if code and code != unless:
        raise OSError(code, os.strerror(code))
