"""Building an image's configuration: the JSON whose sha256 is the image's id.

The form is OCI's image configuration with Docker's additions.  The same values always give the same bytes: keys sorted,
no spaces.
"""

from __future__ import annotations

import copy
import json
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from dockerd_py.errors import BadParameter
from dockerd_py.flags import parse_duration

# uname(2)'s machine: Go's names for architecture and variant.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}

_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def build(
    *,
    created: int,
    diff_ids: Sequence[str],
    config: dict[str, Any],
    author: str,
    comment: str,
    machine: str = "",
) -> bytes:
    """An image of one step's making.  Raises BadParameter for text that is not Unicode."""
    step: dict[str, Any] = {"created": format_time(created), "comment": comment}
    image: dict[str, Any] = {
        **_platform(machine),
        "config": config,
        "created": format_time(created),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [step],
        "comment": comment,
    }
    if author:
        image["author"] = step["author"] = author
    return encode(image)


def derive(
    parent: Mapping[str, Any],
    *,
    created: int,
    diff_ids: Sequence[str],
    config: Mapping[str, Any],
    author: str,
    comment: str,
    created_by: str,
    adds_layer: bool = True,
    container: str = "",
    container_config: Mapping[str, Any] | None = None,
    version: str = "",
) -> bytes:
    """An image made from another (``parent``: its configuration; {} where it is gone) by one more step.

    ``diff_ids`` are all layers, the new one included.  Raises BadParameter for text that is not Unicode.
    """
    step: dict[str, Any] = {"created": format_time(created), "created_by": created_by}
    step |= {key: value for key, value in (("author", author), ("comment", comment)) if value}
    if not adds_layer:
        step["empty_layer"] = True
    kept = {key: parent[key] for key in ("architecture", "os", "variant", "os.version", "os.features") if key in parent}
    image: dict[str, Any] = {
        **(kept if "architecture" in kept else _platform("")),
        "config": dict(config),
        "created": format_time(created),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [*(parent.get("history") or ()), step],
    }
    more = {
        "author": author,
        "comment": comment,
        "container": container,
        "container_config": container_config and dict(container_config),
        "docker_version": version,
    }
    return encode({**image, **{key: value for key, value in more.items() if value}})


def architecture(machine: str = "") -> tuple[str, str]:
    """(architecture, variant) as Go names them, of uname(2)'s ``machine``; "": this one."""
    machine = machine or platform.machine()
    return _ARCHITECTURES.get(machine, (machine, ""))


def encode(image: dict[str, Any]) -> bytes:
    try:
        return json.dumps(image, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadParameter("the image's settings hold text that is not Unicode") from None


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with as many digits as needed, as Go writes it."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{text}{digits}Z"


def parse_time(text: str) -> int:
    """The nanoseconds since the epoch; 0 for what is no RFC 3339 time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return 0
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return 0
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    difference = moment - epoch
    seconds = difference.days * 86400 + difference.seconds
    return seconds * 10**9 + int((fraction or "")[:9].ljust(9, "0"))


def apply_changes(changes: Sequence[str], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``config`` that Dockerfile lines make of the one ``before``, as given to ``import -c`` or ``commit -c``.

    Raises BadParameter for an instruction that cannot be used there, or whose arguments are wrong.
    """
    config: dict[str, Any] = copy.deepcopy(dict(before or {}))
    for line in (line.strip() for change in changes for line in change.splitlines()):
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        name, rest = word.upper(), rest.strip()
        instruction = _INSTRUCTIONS.get(name)
        if instruction is None:
            raise BadParameter(f"{name} is not a valid change command")
        if not rest:
            raise BadParameter(f"{name} requires at least one argument")
        instruction(config, rest)
    return config


def _platform(machine: str) -> dict[str, str]:
    processor, variant = architecture(machine)
    return {"architecture": processor, "os": "linux", **({"variant": variant} if variant else {})}


def _cmd(config: dict[str, Any], rest: str) -> None:
    config["Cmd"] = _command(rest)


def _entrypoint(config: dict[str, Any], rest: str) -> None:
    config["Entrypoint"] = _command(rest)


def _env(config: dict[str, Any], rest: str) -> None:
    variables: list[str] = config.setdefault("Env", [])
    for key, value in _pairs("ENV", rest):
        variables[:] = [each for each in variables if not each.startswith(f"{key}=")]
        variables.append(f"{key}={value}")


def _label(config: dict[str, Any], rest: str) -> None:
    config.setdefault("Labels", {}).update(_pairs("LABEL", rest))


def _workdir(config: dict[str, Any], rest: str) -> None:
    # A relative one goes on from the one before, as in a Dockerfile.
    before = config.get("WorkingDir", "/")
    parts: list[str] = []
    for part in (rest if rest.startswith("/") else f"{before}/{rest}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    config["WorkingDir"] = "/" + "/".join(parts)


def _user(config: dict[str, Any], rest: str) -> None:
    if len(rest.split()) != 1:
        raise BadParameter("USER requires exactly one argument")
    config["User"] = rest


def _expose(config: dict[str, Any], rest: str) -> None:
    ports: dict[str, dict[str, str]] = config.setdefault("ExposedPorts", {})
    for word in rest.split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if match is None or not 0 < first <= last < 65536:
            raise BadParameter(f"Invalid containerPort: {word}")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})


def _volume(config: dict[str, Any], rest: str) -> None:
    volumes: dict[str, dict[str, str]] = config.setdefault("Volumes", {})
    for path in _json_strings(rest) or rest.split():
        if not path.strip():
            raise BadParameter("VOLUME specified can not be an empty string")
        volumes[path.strip()] = {}


def _stop_signal(config: dict[str, Any], rest: str) -> None:
    if len(rest.split()) != 1:
        raise BadParameter("STOPSIGNAL requires exactly one argument")
    config["StopSignal"] = rest


def _on_build(config: dict[str, Any], rest: str) -> None:
    trigger = rest.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise BadParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise BadParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.setdefault("OnBuild", []).append(rest)


def _healthcheck(config: dict[str, Any], rest: str) -> None:
    options: dict[str, int] = {}
    while match := re.match(r"--([a-z-]+)=(\S*)\s*", rest):
        key = _HEALTH_OPTIONS.get(match[1])
        if key is None:
            raise BadParameter(f"Unknown flag: {match[1]}")
        options[key] = _retries(match[2]) if key == "Retries" else _health_duration(key, match[2])
        rest = rest[match.end() :]
    words = rest.split(maxsplit=1)
    kind = words[0].upper() if words else ""
    if kind == "NONE":
        if len(words) > 1 or options:
            raise BadParameter("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind != "CMD":
        raise BadParameter(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    if len(words) < 2:
        raise BadParameter("Missing command after HEALTHCHECK CMD")
    strings = _json_strings(words[1])
    if strings == []:
        raise BadParameter("Missing command after HEALTHCHECK CMD")
    test = ["CMD-SHELL", words[1]] if strings is None else ["CMD", *strings]
    config["Healthcheck"] = {"Test": test, **{key: value for key, value in options.items() if value}}


def _retries(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadParameter(f"--retries of HEALTHCHECK is a number, not {text!r}")
    return int(text)


def _health_duration(key: str, text: str) -> int:
    try:
        nanoseconds = parse_duration(text)
    except ValueError as error:
        raise BadParameter(f"{key} of HEALTHCHECK {text!r}: {error}") from None
    if nanoseconds and nanoseconds < 1_000_000:
        raise BadParameter(f"{key} of HEALTHCHECK cannot be less than 1ms")
    return nanoseconds


_HEALTH_OPTIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}

_INSTRUCTIONS = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "LABEL": _label,
    "WORKDIR": _workdir,
    "USER": _user,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "STOPSIGNAL": _stop_signal,
    "ONBUILD": _on_build,
    "HEALTHCHECK": _healthcheck,
}


def _command(rest: str) -> list[str]:
    """The exec form is JSON; anything else is a line for the shell."""
    strings = _json_strings(rest)
    return [*_SHELL, rest] if strings is None else strings


def _json_strings(rest: str) -> list[str] | None:
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return None


def _pairs(name: str, rest: str) -> list[tuple[str, str]]:
    """``K=V K2="V 2"``, or the old ``K the whole rest``."""
    first = rest.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) == 1:
            raise BadParameter(f"{name} must have two arguments")
        return [(first[0], first[1])]
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BadParameter(f"{name} {rest}: {error}") from None
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadParameter(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        pairs.append((key, value))
    return pairs
