"""The end of a monitor: everybody still gets what is on its way to them, as long as they take it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dockerd_py.monitor.clients import Attached, Client
from dockerd_py.monitor.recorder import Recorder

if TYPE_CHECKING:
    from dockerd_py.monitor.relay import Relay

PARTING_SECONDS = 10.0  # how long a client may read nothing of the last output; at shutdown, the time for all of it


def part(clients: list[Client], relay: Relay | None, in_haste: Callable[[], bool]) -> None:
    """Send each of ``clients`` what is buffered for it and close it; and the connections of the container's ports.

    ``in_haste``: whether nobody is waited for longer than PARTING_SECONDS, though they read.
    """
    begun = time.monotonic()
    for client in clients:
        client.last_progress = begun
    while clients or relay is not None:
        now = time.monotonic()
        late = in_haste() and now > begun + PARTING_SECONDS
        for client in clients:
            client.flush()
            if client.buffer:
                client.gone |= late or (not client.held and now > client.last_progress + PARTING_SECONDS)
            else:
                client.gone |= late or client.part(now)
            if client.gone:
                client.close()
        clients = [client for client in clients if not client.gone]
        if relay is not None and (late or not relay.lingers(now)):
            relay.close()
            relay = None
        if clients or relay is not None:
            _await_progress(clients, relay)


def drain(recorder: Recorder) -> None:
    """Write down what is not written yet, if it can be."""
    deadline = time.monotonic() + PARTING_SECONDS
    while recorder.waits and time.monotonic() < deadline:
        time.sleep(0.01)
        recorder.flush()


def _await_progress(clients: list[Client], relay: Relay | None) -> None:
    """Wait, a second at most, until one of ``clients`` can be sent something, is held no longer, or has ended, or until
    something happened on a connection."""
    poll = select.poll()
    holds = {client.hold: client for client in clients if isinstance(client, Attached) and client.hold is not None}
    for fd in holds:
        poll.register(fd, select.POLLIN)
    for client in clients:
        if not client.held:
            poll.register(client.sock, select.POLLOUT if client.buffer else select.POLLIN)
    if relay is not None:
        poll.register(relay.loop.fileno(), select.POLLIN)
    for fd, _ in poll.poll(1000):
        if fd in holds:
            holds[fd].hold_ended()
        elif relay is not None and fd == relay.loop.fileno():
            relay.turn()
