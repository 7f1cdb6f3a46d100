"""The errors that the D-Bus specification itself names, for calls that do not reach the engine."""

from __future__ import annotations

from dockerd_py.errors import PydockerdError

_STANDARD = "org.freedesktop.DBus.Error."


class UnknownObject(PydockerdError):
    """No object at this path (any more)."""

    status = 404
    bus_name = _STANDARD + "UnknownObject"


class UnknownInterface(PydockerdError):
    status = 404
    bus_name = _STANDARD + "UnknownInterface"


class UnknownMethod(PydockerdError):
    """No such method, or not with these argument types."""

    status = 404
    bus_name = _STANDARD + "UnknownMethod"


class UnknownProperty(PydockerdError):
    status = 404
    bus_name = _STANDARD + "UnknownProperty"


class PropertyReadOnly(PydockerdError):
    status = 400
    bus_name = _STANDARD + "PropertyReadOnly"


class LimitsExceeded(PydockerdError):
    """One message is too large, or one caller has too many calls under way."""

    status = 429
    bus_name = _STANDARD + "LimitsExceeded"


class InteractionRequired(PydockerdError):
    """polkit would ask the user for a password, and the caller did not allow that."""

    status = 403
    bus_name = _STANDARD + "InteractiveAuthorizationRequired"
