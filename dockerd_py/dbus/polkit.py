"""Who may do what: root everything, others what polkit says, nobody else when polkit is not there.

The subject is the caller's unique name on the bus, which names one connection for ever, so that nothing can change
between question and answer.  Actions and their defaults stand in packaging/polkit/org.pydockerd1.policy.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence

from dbus_next.signature import Variant

from dockerd_py.dbus.connection import BUS_NAME, BUS_PATH, BusCallFailed, Connection
from dockerd_py.dbus.errors import InteractionRequired
from dockerd_py.errors import Denied, TimedOut

log = logging.getLogger(__name__)

CREATE = "org.pydockerd1.containers.create"
START = "org.pydockerd1.containers.start"
STOP = "org.pydockerd1.containers.stop"
KILL = "org.pydockerd1.containers.kill"
PAUSE = "org.pydockerd1.containers.pause"
RENAME = "org.pydockerd1.containers.rename"
REMOVE = "org.pydockerd1.containers.remove"
LOGS = "org.pydockerd1.containers.logs"
IMPORT_IMAGE = "org.pydockerd1.images.import"
REMOVE_IMAGE = "org.pydockerd1.images.remove"

ACTIONS = (CREATE, START, STOP, KILL, PAUSE, RENAME, REMOVE, LOGS, IMPORT_IMAGE, REMOVE_IMAGE)

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE = "org.freedesktop.PolicyKit1.Authority"

_ALLOW_USER_INTERACTION = 1
_SECONDS = 20.0
_SECONDS_FOR_A_PASSWORD = 300.0

# Not installed, not started by the bus, or not to be started by systemd (masked, failing).
_NOT_THERE = ("ServiceUnknown", "NameHasNoOwner", "Spawn.", "org.freedesktop.systemd1.")


class Authority:
    """Asks the bus who a caller is and polkit what it may do."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._serial = itertools.count(1)

    async def user_of(self, caller: str) -> int:
        """The user id of the caller with this unique name.  Raises Denied when it has left the bus."""
        try:
            answer = await self._connection.ask(
                BUS_NAME, BUS_PATH, BUS_NAME, "GetConnectionUnixUser", "s", [caller]
            )
        except BusCallFailed as error:
            raise Denied(f"the bus does not say who {caller} is") from error
        return int(answer[0])

    async def require(
        self, caller: str, uid: int, actions: Sequence[str], details: Mapping[str, str], *, interactive: bool
    ) -> None:
        """Return if ``caller`` may do all of ``actions``.

        ``details`` are for the administrator's rules.  Raises Denied, InteractionRequired, or TimedOut when polkit
        or the user at its prompt does not answer.
        """
        if uid == 0:
            return
        for action in actions:
            await self._require_one(caller, uid, action, details, interactive)

    async def _require_one(
        self, caller: str, uid: int, action: str, details: Mapping[str, str], interactive: bool
    ) -> None:
        cancellation = f"pydockerd-{next(self._serial)}"
        try:
            answer = await self._connection.ask(
                _NAME,
                _PATH,
                _INTERFACE,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                [
                    ["system-bus-name", {"name": Variant("s", caller)}],
                    action,
                    dict(details),
                    _ALLOW_USER_INTERACTION if interactive else 0,
                    cancellation,
                ],
                timeout=_SECONDS_FOR_A_PASSWORD if interactive else _SECONDS,
            )
        except BusCallFailed as error:
            raise _explain(error, action) from error
        except (TimedOut, asyncio.CancelledError):
            self._connection.tell(_NAME, _PATH, _INTERFACE, "CancelCheckAuthorization", "s", [cancellation])
            raise
        allowed, challenge, _ = answer[0]
        if allowed:
            return
        log.info("user %d may not %s", uid, action)
        if challenge and not interactive:
            raise InteractionRequired(f"{action} needs a password, and the caller does not allow a prompt for it")
        raise Denied(f"user {uid} is not authorised for {action}")


def _explain(error: BusCallFailed, action: str) -> Denied:
    if any(part in error.name for part in _NOT_THERE):
        return Denied(f"only root may do this, as polkit is not there to be asked about {action}")
    log.error("polkit did not decide about %s: %s", action, error)
    return Denied(f"only root may do this, as polkit did not decide about {action}: {error}")
