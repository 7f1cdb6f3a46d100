"""Every kind of failure that reaches a user: one class a kind, with its HTTP status and its D-Bus error name.

The front doors (`api`, `dbus`, `cli`) translate by these two attributes alone; nobody maps an error a second
time.  ``str(error)`` is the sentence that a user reads: it names what was wrong and, where it can, what to do.
"""

from __future__ import annotations

from typing import ClassVar

BUS_ERROR_PREFIX = "org.pydockerd1.Error."


class PydockerdError(Exception):
    """A failure with a sentence for the user.  Raised itself only for what went wrong on our side."""

    status: ClassVar[int] = 500
    bus_name: ClassVar[str] = BUS_ERROR_PREFIX + "Failed"


class BadParameter(PydockerdError):
    """The request itself is wrong: a value out of range, a malformed name, a syntax error."""

    status = 400
    bus_name = BUS_ERROR_PREFIX + "BadParameter"


class LinkedToNothing(BadParameter):
    """A link to a container, ``name``, that there is not."""

    def __init__(self, name: str, reason: PydockerdError) -> None:
        super().__init__(f"could not get container for {name}: {reason}")
        self.name = name


class NotSupported(BadParameter):
    """A setting that exists in Docker's API and has no effect here: refused by name, never ignored."""

    bus_name = BUS_ERROR_PREFIX + "NotSupported"


class NotReadable(PydockerdError):
    """A log that cannot be read back."""

    status = 501
    bus_name = BUS_ERROR_PREFIX + "NotReadable"

    def __init__(self, driver: str) -> None:
        super().__init__(f"configured logging driver does not support reading: {driver} keeps nothing")


class AmbiguousId(BadParameter):
    """An id prefix that more than one object starts with."""

    bus_name = BUS_ERROR_PREFIX + "AmbiguousId"

    def __init__(self, prefix: str) -> None:
        super().__init__(f"Multiple IDs found with provided prefix: {prefix}")


class BadArchive(BadParameter):
    """A tar that is none, is truncated, or tries to leave its root."""

    bus_name = BUS_ERROR_PREFIX + "BadArchive"


class NotFound(PydockerdError):
    status = 404
    bus_name = BUS_ERROR_PREFIX + "NotFound"


class NoSuchContainer(NotFound):
    bus_name = BUS_ERROR_PREFIX + "NoSuchContainer"

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such container: {ref}")
        self.ref = ref


class NoSuchImage(NotFound):
    bus_name = BUS_ERROR_PREFIX + "NoSuchImage"

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such image: {ref}")
        self.ref = ref


class NoSuchExec(NotFound):
    bus_name = BUS_ERROR_PREFIX + "NoSuchExec"

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such exec instance: {ref}")
        self.ref = ref


class NoSuchVolume(NotFound):
    bus_name = BUS_ERROR_PREFIX + "NoSuchVolume"

    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")
        self.name = name


class NoSuchNetwork(NotFound):
    bus_name = BUS_ERROR_PREFIX + "NoSuchNetwork"

    def __init__(self, ref: str) -> None:
        super().__init__(f"network {ref} not found")
        self.ref = ref


class Conflict(PydockerdError):
    """The state of things forbids it: a taken name, an image in use, a running container to be removed."""

    status = 409
    bus_name = BUS_ERROR_PREFIX + "Conflict"


class NameTaken(Conflict):
    """Another container, ``holder``, has the name already."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
        self.name = name
        self.holder = holder


class StillRunning(Conflict):
    """A container that has processes cannot be removed."""


class NotRunning(Conflict):
    bus_name = BUS_ERROR_PREFIX + "NotRunning"


class AlreadyInState(PydockerdError):
    """Starting what runs, stopping what is stopped: nothing to do (HTTP 304, no body)."""

    status = 304
    bus_name = BUS_ERROR_PREFIX + "AlreadyInState"


class Denied(PydockerdError):
    status = 403
    bus_name = "org.freedesktop.DBus.Error.AccessDenied"


class CommandNotFound(BadParameter):
    """The container's command does not exist in its root filesystem: exit code 127."""

    bus_name = BUS_ERROR_PREFIX + "CommandNotFound"
    exit_code = 127


class CommandNotExecutable(BadParameter):
    """The container's command is there and cannot be executed: exit code 126."""

    bus_name = BUS_ERROR_PREFIX + "CommandNotExecutable"
    exit_code = 126


class RuntimeFailed(PydockerdError):
    """The OCI runtime, or our monitor of it, failed: exit code 128."""

    bus_name = BUS_ERROR_PREFIX + "RuntimeFailed"
    exit_code = 128


class NetworkFailed(PydockerdError):
    """The kernel, or its firewall, refused what a network needs."""

    bus_name = BUS_ERROR_PREFIX + "NetworkFailed"


class TimedOut(PydockerdError):
    bus_name = BUS_ERROR_PREFIX + "TimedOut"


class ConfigError(PydockerdError):
    """A flag or a key of daemon.yaml that cannot be used; the daemon does not start."""


class StoreError(PydockerdError):
    """The layer store or its database cannot do what it must (disk full, file system without a feature)."""
