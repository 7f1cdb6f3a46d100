"""What a container that runs, or starts, has on its networks besides what its row says."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from dockerd_py.nat.hostports import HeldPort
from dockerd_py.nat.model import Mapping


@dataclass
class Live:
    """What a container that runs, or starts, has in the firewall; and what it holds until it runs."""

    mappings: tuple[Mapping, ...] = ()
    relayed: tuple[tuple[str, int], ...] = ()
    front: str = ""  # the endpoint that published ports lead to
    held: list[HeldPort] = field(default_factory=list)  # until its monitor has them
    namespace: int = -1  # until its processes are in there
    sandbox: asyncio.Task[None] | None = None
    firewall: asyncio.Task[None] | None = None
    published: bool = False

    def close_namespace(self) -> None:
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1

    def close_held(self) -> None:
        for one in self.held:
            one.close()
        self.held.clear()

    async def give_up(self) -> None:
        """Stop what `begin` has begun, whatever has become of it."""
        tasks = [task for task in (self.sandbox, self.firewall) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.close_namespace()
