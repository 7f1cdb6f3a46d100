"""Log drivers and their options: checked when a container is made, and turned into what its monitor is told."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dockerd_py.config import LOG_DRIVERS
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, NotSupported
from dockerd_py.monitor.syslogwriter import FACILITIES, FORMATS

FILES = frozenset(("json-file", "local"))

_ANY = ("mode", "max-buffer-size")
_CHOICE = ("labels", "labels-regex", "env", "env-regex", "tag")
_SIZES = ("max-size", "max-file", "compress")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
OPTIONS: dict[str, frozenset[str]] = {
    "journald": frozenset((*_ANY, *_CHOICE)),
    "json-file": frozenset((*_ANY, *_CHOICE, *_SIZES)),
    "local": frozenset((*_ANY, *_CHOICE, *_SIZES)),
    "syslog": frozenset((*_ANY, *_CHOICE, *_CACHE, "syslog-address", "syslog-facility", "syslog-format")),
    "none": frozenset(),
}

LOCAL_SIZE, LOCAL_FILES = 20 << 20, 5

_TAG_PART = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,15})([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raises BadParameter, naming driver or option, and NotSupported for an option that has no effect here."""
    if driver not in LOG_DRIVERS:
        raise BadParameter(f"logger: no log driver named '{driver}' is registered: there are {', '.join(LOG_DRIVERS)}")
    for name, value in options.items():
        if name not in OPTIONS[driver]:
            known = ", ".join(sorted(OPTIONS[driver] - set(_ANY))) or "none"
            raise BadParameter(f"unknown log opt '{name}' for {driver} log driver; there are: {known}")
        if name in ("compress", "cache-compress") and _flag(name, value):
            raise NotSupported(f"log opt '{name}={value}' is not supported by this version")
        if name == "mode" and value not in ("", "blocking"):
            raise NotSupported(f"log opt 'mode={value}' is not supported: nothing that a container writes is dropped")
        if name == "max-buffer-size":
            raise BadParameter("log opt 'max-buffer-size' is only for mode=non-blocking, which is not supported")
        if name in ("labels-regex", "env-regex"):
            _expression(name, value)
    _check_sizes(options, "")
    _check_sizes(options, "cache-")
    _flag("cache-disabled", options.get("cache-disabled", ""))
    _check_syslog(options)
    expand_tag(options.get("tag", ""), {})


def effective(host: HostConfig, driver: str, defaults: Mapping[str, str]) -> dict[str, str]:
    """The options of a container: the daemon's defaults are for its own default driver."""
    if host.log_driver and host.log_driver != driver:
        return dict(host.log_options)
    return {**defaults, **host.log_options}


def readable(driver: str, options: Mapping[str, str]) -> bool:
    """Whether what was logged can be read back."""
    return driver != "none" and not (driver == "syslog" and _flag("", options.get("cache-disabled", "")))


def for_monitor(record: Record) -> dict[str, Any]:
    """What `monitor.drivers.make` takes as its settings."""
    options = record.host.log_options
    attributes = attributes_of(record.config, options)
    if "tag" in options and record.log_driver in FILES:
        attributes["tag"] = tag_of(record)
    match record.log_driver:
        case "json-file":
            limits = _limits(options, "", 0, 1)
        case "local":
            limits = _limits(options, "", LOCAL_SIZE, LOCAL_FILES)
        case "syslog":
            found: dict[str, Any] = {
                "syslog": {
                    "address": options.get("syslog-address", ""),
                    "facility": _facility(options.get("syslog-facility", "daemon")),
                    "format": options.get("syslog-format", ""),
                    "tag": tag_of(record),
                    "hostname": socket.gethostname(),
                }
            }
            if readable("syslog", options):
                found["file"] = _limits(options, "cache-", LOCAL_SIZE, LOCAL_FILES)
            return found
        case _:
            return {}
    return {"file": {**limits, **({"attributes": attributes} if attributes else {})}}


def attributes_of(config: ContainerConfig, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables that the options choose for every record."""
    found: dict[str, str] = {}
    variables = dict(entry.partition("=")[::2] for entry in config.env)
    for kind, values in (("labels", config.labels), ("env", variables)):
        names = [name.strip() for name in options.get(kind, "").split(",") if name.strip()]
        found |= {name: values[name] for name in names if name in values}
        if pattern := options.get(f"{kind}-regex"):
            matches = _expression(f"{kind}-regex", pattern).search
            found |= {name: value for name, value in values.items() if matches(name)}
    return found


def tag_of(record: Record) -> str:
    """Docker's log tag: a template of a few names, by default the short id."""
    return expand_tag(
        record.host.log_options.get("tag", ""),
        {
            "ID": record.id[:12],
            "FullID": record.id,
            "Name": record.name,
            "ImageName": record.config.image,
            "ImageID": record.image_id[:12],
            "ImageFullID": record.image_id,
            "DaemonName": "pydockerd",
            "Command": " ".join((record.path, *record.args)),
        },
    )


def expand_tag(template: str, values: Mapping[str, str]) -> str:
    """Fill ``{{.Name}}`` and its like in.  Raises BadParameter for what is not known."""
    known = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName", "Command")

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise BadParameter(f"log opt tag: there is no {{{{.{match[1]}}}}}; there are {', '.join(known)}")
        return values.get(match[1], "")

    filled = _TAG_PART.sub(fill, template or "{{.ID}}")
    if "{{" in filled and not values:
        raise BadParameter(f"log opt tag: {template!r} is more of a template than is understood here")
    return filled.replace("\n", " ")


def journal_fields(config: ContainerConfig, options: Mapping[str, str]) -> dict[str, str]:
    """`attributes_of` under names that the journal takes (systemd.journal-fields(7)), as Docker writes them."""
    found = {}
    for name, value in attributes_of(config, options).items():
        field = re.sub(r"[^A-Z0-9]", "_", name.upper()).lstrip("_0123456789")[:64]
        if field:
            found[field] = value
    return found


def _check_sizes(options: Mapping[str, str], prefix: str) -> None:
    _limits(options, prefix, 0, 1)
    if options.get(f"{prefix}max-file", "1") != "1" and not prefix and "max-size" not in options:
        raise BadParameter("log opt 'max-file' needs 'max-size': without it no file is ever full")


def _limits(options: Mapping[str, str], prefix: str, size: int, files: int) -> dict[str, int]:
    if text := options.get(f"{prefix}max-size"):
        match = _SIZE.fullmatch(text.strip())
        if text.strip() == "-1":
            size = 0
        elif match is None or not int(match[1]):
            raise BadParameter(f"log opt '{prefix}max-size={text}': it must be a size, such as 10m")
        else:
            size = int(match[1]) * _UNITS[match[2].lower()]
    if text := options.get(f"{prefix}max-file"):
        if not text.isdecimal() or not 1 <= int(text) <= 1000:
            raise BadParameter(f"log opt '{prefix}max-file={text}': it must be a number from 1 to 1000")
        files = int(text)
    return {"max_size": size, "max_files": files}


def _check_syslog(options: Mapping[str, str]) -> None:
    _facility(options.get("syslog-facility", "daemon"))
    form = options.get("syslog-format", "")
    if form not in FORMATS:
        raise BadParameter(f"log opt 'syslog-format={form}': there are {', '.join(FORMATS[1:])}")
    address = options.get("syslog-address", "")
    if not address:
        return
    url = urlsplit(address)
    wrong = BadParameter(f"log opt 'syslog-address={address}': it must be udp://, tcp://, unix:// or unixgram://")
    if url.scheme == "tcp+tls":
        raise NotSupported("log opt 'syslog-address': tcp+tls is not supported by this version")
    try:
        reachable = url.hostname if url.scheme in ("udp", "tcp") else url.path
        _ = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("udp", "tcp", "unix", "unixgram") or not reachable:
        raise wrong
    if url.scheme in ("unix", "unixgram") and not os.path.exists(url.path):
        raise BadParameter(f"log opt 'syslog-address={address}': {url.path} does not exist")


def _facility(text: str) -> str:
    names = {number: name for name, number in FACILITIES.items()}
    name = names.get(int(text), "") if text.isdecimal() else text
    if name not in FACILITIES:
        raise BadParameter(f"log opt 'syslog-facility={text}': there are {', '.join(FACILITIES)}")
    return name


def _flag(name: str, text: str) -> bool:
    if text.lower() in ("", "0", "f", "false"):
        return False
    if text.lower() in ("1", "t", "true"):
        return True
    raise BadParameter(f"log opt '{name}={text}': it must be true or false")


def _expression(name: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise BadParameter(f"log opt '{name}={text}': {error}") from None
