"""Requests of the first year's clients, API 1.0 to 1.10, in today's form.

Its bodies were flat: limits, name servers and VolumesFrom stood beside the container's configuration, HostConfig came
with start, and values were typed loosely ("0", "False" and 0 are false).  Sources: the reference of that time.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from dockerd_py.api import encode, eras
from dockerd_py.api.decode_host import decode_host
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.api.truth import is_true
from dockerd_py.engine.model import Container, ContainerConfig, HostConfig
from dockerd_py.errors import NoSuchImage

DEPRECATED_MAPPING = "The mapping to public ports on your host has been deprecated. Use -p to publish the ports."

_FLAGS = frozenset((
    "attachstdin", "attachstdout", "attachstderr", "tty", "openstdin", "stdinonce", "networkdisabled", "privileged",
    "publishallports",
))  # fmt: skip
_NUMBERS = frozenset(("memory", "memoryswap", "cpushares"))


def typed(body: JsonObject) -> JsonObject:
    """``body`` with the values of its flags and numbers in the types that they mean."""
    return {key: _typed(key.casefold(), value) for key, value in body.items()}


def create_body(body: JsonObject, version: ApiVersion) -> tuple[JsonObject, list[str]]:
    """The body of create in today's form, and warnings.  BadParameter for PortSpecs that are no list of texts."""
    result: JsonObject = {}
    warnings: list[str] = []
    exposed: dict[str, Any] = {}
    for key, value in typed(body).items():
        folded = key.casefold()
        if folded == "portspecs":
            specs = Fields({"PortSpecs": value}).texts("PortSpecs")
            exposed |= {spec.rpartition(":")[2]: {} for spec in specs}
            if any(":" in spec for spec in specs):
                warnings.append(DEPRECATED_MAPPING)
        elif folded != "onbuild" or eras.reads_on_build(version):
            result[key] = value
    if exposed:
        fields = Fields(result)
        given = fields.raw("ExposedPorts")
        fields.key_set("ExposedPorts")
        result = {key: value for key, value in result.items() if key.casefold() != "exposedports"}
        result["ExposedPorts"] = {**(given or {}), **exposed}
    return result, warnings


def join_with_image(config: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """What the first year took over from an image and today's joining does not: its command behind another entry
    point, and its terminal and standard input."""
    return replace(
        config,
        cmd=config.cmd or image.cmd,
        entrypoint=config.entrypoint or None,
        tty=config.tty or image.tty,
        open_stdin=config.open_stdin or image.open_stdin,
        stdin_once=config.stdin_once or image.stdin_once,
    )


def no_such_image(ref: str) -> NoSuchImage:
    """As create said it: with the tag that was looked for."""
    repository, _, tag = ref.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = ref, "latest"
    return NoSuchImage(f"{repository} (tag: {tag})")


def settings_of_start(container: Container, body: JsonObject, version: ApiVersion) -> HostConfig:
    """All of a container's HostConfig, once ``body``, which is not empty, has taken its place.

    What ``version`` could not say in a start stays as it is unless the body names it.  BadParameter, NotSupported.
    """
    gone = {key.casefold() for key in (*body, *eras.host_config_of_start(version))}
    kept = {key: value for key, value in encode.host_config(container).items() if key.casefold() not in gone}
    host = decode_host(Fields({**kept, **(typed(body) if eras.is_first_year(version) else body)}))
    if host.network_mode == container.host.network_mode:
        host = replace(host, networks=container.host.networks)
    return eras.settle_restart_policy(version, host)


def _typed(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in _FLAGS and isinstance(value, (str, int, float)):
        return is_true(value) if isinstance(value, str) else bool(value)
    if key in _NUMBERS and isinstance(value, (str, float)):
        with contextlib.suppress(ValueError, OverflowError):
            return int(float(value))
        return 0
    return value
