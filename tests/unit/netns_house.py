"""Network namespaces for tests: what is made in them goes with them, and nothing of the machine's own is touched."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dockerd_py.nat.links import Links
from dockerd_py.nat.model import Bridge, Plug
from dockerd_py.nat.netns import Home

T = TypeVar("T")

BRIDGE = Bridge("tbr0", ("172.30.0.1/16", "fd30::1/64"))


def run_in(namespace: int, work: Callable[[], T]) -> T:
    """Do it in a thread that is in that namespace, as are the threads and processes that it starts."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            with Home().inside(namespace):
                results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def on_own_host(test: Callable[[Links], Coroutine[Any, Any, None]]) -> None:
    """Run a test with Links that take a new namespace for the host."""
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(Home().new()))
    thread.start()
    thread.join()

    async def main() -> None:
        links = await Links.open()
        try:
            await test(links)
        finally:
            await links.close()

    try:
        run_in(made[0], lambda: asyncio.run(main()))
    finally:
        os.close(made[0])


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


def serve(address: str, port: int, text: str) -> socket.socket:
    """A server that says this to everybody, until it is closed."""
    server = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    def body() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.sendall(text.encode())

    threading.Thread(target=body, daemon=True).start()
    return server


def names() -> set[str]:
    """The interfaces of the calling thread's namespace."""
    return {name for _, name in socket.if_nameindex()}
