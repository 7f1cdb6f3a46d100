"""Bridges, network namespaces, and the cables between them: what the daemon asks of the kernel's network.

Everything happens in the network namespace in which `Links.open` was called.  Each call is done as a whole or leaves
nothing; one that is cancelled leaves nothing either.  Failures are NetworkFailed with a sentence.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from dockerd_py.nat import bridges, hostnet, plugs
from dockerd_py.nat.model import Bridge, Plug
from dockerd_py.nat.rtnl import Kernel, Workers, delete

# Deleting takes the kernel 15 to 30 ms, in which it mostly waits; four at once take no longer.
_REMOVERS = 4


def exists(interface: str) -> bool:
    """Whether the network namespace of this thread has an interface of that name: one system call."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


class Links:
    """What is made is made by one thread, in the order asked for; what is deleted hinders nobody."""

    def __init__(self) -> None:
        self._makers = Workers(1, "links")
        self._removers = Workers(_REMOVERS, "unlinks")

    @classmethod
    async def open(cls) -> Links:
        """Takes about 0.1 s, in a thread: pyroute2 is imported then."""
        links = cls()
        await links._makers.run("cannot use the kernel's network settings", lambda kernel: kernel.ip)
        return links

    async def close(self) -> None:
        """After what was asked for is done."""
        await self._makers.close()
        await self._removers.close()

    async def ensure_bridge(self, bridge: Bridge) -> None:
        """Make it, or bring one that is there to what is wanted; it is up then.  One that is given must exist."""
        await self._makers.run(f"cannot make bridge {bridge.name}", lambda kernel: bridges.ensure(kernel, bridge))

    async def addresses_of(self, interface: str) -> tuple[str, ...]:
        """With their prefixes, those of the link only (fe80::) left out.  Raises NetworkFailed if it is not there."""
        return await self._makers.run(
            f"cannot read the addresses of {interface}", lambda kernel: bridges.addresses(kernel, interface)
        )

    async def remove_bridge(self, name: str) -> None:
        """Fine when it is gone.  Raises NetworkFailed for an interface that is no bridge."""
        await self._removers.run(f"cannot remove bridge {name}", lambda kernel: bridges.remove(kernel, name))

    async def ports_of(self, bridge: str) -> tuple[str, ...]:
        """The interfaces on it; none if there is no such bridge."""
        return await self._makers.run(
            f"cannot read the ports of {bridge}", lambda kernel: bridges.ports(kernel, bridge)
        )

    async def put_back(self, bridge: str, interface: str) -> None:
        """Put an interface that is on no bridge on this one; fine when either is gone."""
        await self._makers.run(
            f"cannot put {interface} on {bridge}", lambda kernel: bridges.put_back(kernel, bridge, interface)
        )

    async def occupied(self, *, but: str = "") -> tuple[str, ...]:
        """Subnets that the host has routes to or addresses in, default routes left out, and its name servers'; without
        those of the interface ``but``."""
        return await self._makers.run("cannot read the host's routes", lambda kernel: hostnet.occupied(kernel, but))

    async def default_mtu(self) -> int:
        """That of the interface of the host's default route, or 1500."""
        return await self._makers.run("cannot read the host's routes", hostnet.default_mtu)

    async def set_forwarding(self, *, ipv6: bool) -> None:
        """IPv4's, and IPv6's if asked for.  Interfaces that take router advertisements go on doing so."""
        await self._makers.run("cannot turn on forwarding", lambda kernel: hostnet.set_forwarding(kernel, ipv6=ipv6))

    async def new_namespace(self) -> int:
        """A descriptor (close-on-exec, the caller's) of a new network namespace, its loopback interface up.

        It goes, with all interfaces in it, with the last descriptor and the last process in it.
        """
        return await self._makers.run(
            "cannot make a network namespace", lambda kernel: kernel.home.new(), undo=os.close
        )

    async def plug(self, namespace: int, plug: Plug) -> None:
        """Raises NetworkFailed, BadParameter for an unknown mode."""
        own = os.dup(namespace)  # a caller that is cancelled may close its own while the job is still to come

        def job(kernel: Kernel) -> None:
            try:
                plugs.plug(kernel, own, plug)
            except BaseException:
                os.close(own)
                raise

        def undo(_: None) -> None:
            self._removers.start("", _closing(own, lambda kernel: plugs.unplug_any(kernel, own, plug)))

        await self._makers.run(f"cannot connect to {plug.parent}", job, undo=undo)
        os.close(own)

    async def lead_out(self, namespace: int, plug: Plug) -> None:
        """Give a namespace, which is plugged in so already, the default routes of this plug: it has none any more.

        Raises NetworkFailed."""
        own = os.dup(namespace)

        def job(kernel: Kernel) -> None:
            try:
                plugs.lead_out(kernel, own, plug)
            finally:
                os.close(own)

        await self._makers.run(f"cannot set the routes by {plug.parent}", job)

    async def unplug(self, host_interface: str) -> None:
        """Delete a veth pair by its end on the host; fine when it is gone."""
        await self._removers.run(f"cannot remove {host_interface}", lambda _: delete(host_interface))

    async def unplug_inside(self, namespace: int, interface: str) -> None:
        """Delete an interface of a namespace's; fine when it is gone."""
        own = os.dup(namespace)
        await self._removers.run(
            f"cannot remove {interface} of a container",
            _closing(own, lambda kernel: plugs.unplug_inside(kernel, own, interface)),
        )


def _closing(fd: int, job: Callable[[Kernel], None]) -> Callable[[Kernel], None]:
    def closing(kernel: Kernel) -> None:
        try:
            job(kernel)
        finally:
            os.close(fd)

    return closing
