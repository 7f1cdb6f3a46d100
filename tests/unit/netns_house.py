"""Network namespaces for tests: what is made in them goes with them, and nothing of the machine's own is touched."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from dockerd_py.nat.links import Links
from dockerd_py.nat.model import Bridge, Plug
from dockerd_py.nat.netns import Home, write_sysctl

T = TypeVar("T")

BRIDGE = Bridge("tbr0", ("172.30.0.1/16", "fd30::1/64"))


def run_in(namespace: int, work: Callable[[], T]) -> T:
    """Do it in a thread that is in that namespace, as are the threads and processes that it starts."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            with contextlib.closing(Home()) as home, home.inside(namespace):
                results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def new_namespace() -> int:
    """A new namespace."""
    made: list[int] = []

    def body() -> None:
        with contextlib.closing(Home()) as home:
            made.append(home.new())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return made[0]


def on_own_host(test: Callable[[Links], Coroutine[Any, Any, None]]) -> None:
    """Run a test with Links that take a new namespace for the host."""
    namespace = new_namespace()
    run_in(namespace, lambda: write_sysctl("net/ipv6/conf/all/disable_ipv6", "0"))  # a host has it everywhere

    async def main() -> None:
        links = await Links.open()
        try:
            await test(links)
        finally:
            await links.close()

    try:
        run_in(namespace, lambda: asyncio.run(main()))
    finally:
        os.close(namespace)


def a_plug(number: int, **changes: Any) -> Plug:
    """Number ``number`` on `BRIDGE`."""
    values: dict[str, Any] = {
        "interface": "eth0",
        "mac": f"02:42:ac:1e:00:{number:02x}",
        "addresses": (f"172.30.0.{number}/16", f"fd30::{number:x}/64"),
        "gateways": ("172.30.0.1", "fd30::1"),
        "parent": BRIDGE.name,
        "host_interface": f"veth{number}",
    }
    return Plug(**{**values, **changes})


def says(address: str, port: int, timeout: float = 5.0) -> str:
    """What a TCP server there says.  Raises OSError."""
    with socket.create_connection((address, port), timeout=timeout) as client:
        return client.recv(100).decode()


@contextlib.contextmanager
def serving(namespace: int, address: str, port: int, text: str) -> Iterator[None]:
    """Within: a TCP server in that namespace says this to everybody."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = run_in(namespace, lambda: socket.create_server((address, port), family=family))

    def body() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    client.sendall(text.encode())

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def names() -> set[str]:
    """The interfaces of the calling thread's namespace."""
    return {name for _, name in socket.if_nameindex()}


def call(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def ip(*words: str) -> list[dict[str, Any]]:
    """What ip(8) shows, in the calling thread's namespace."""
    shown: list[dict[str, Any]] = json.loads(call("ip", "-json", *words) or "[]")
    return [entry for entry in shown if entry]


def link(name: str) -> dict[str, Any]:
    return ip("-details", "link", "show", "dev", name)[0]


@contextlib.contextmanager
def closing(*namespaces: int) -> Iterator[None]:
    try:
        yield
    finally:
        for namespace in namespaces:
            os.close(namespace)


async def in_thread(namespace: int, work: Any) -> Any:
    return await asyncio.to_thread(run_in, namespace, work)
