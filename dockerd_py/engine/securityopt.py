"""``--security-opt``: one small language a setting, read once.

Docker's spellings: ``name=value``, and ``name:value`` of its first years.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dockerd_py.errors import BadParameter, NotSupported

UNCONFINED = "unconfined"
SELINUX = Path("/sys/fs/selinux/enforce")
_DEFAULT_SECCOMP = ("default", "builtin")
_LABELS = ("disable", "user", "role", "type", "level", "filetype")


@dataclass(frozen=True)
class SecurityOptions:
    seccomp: str = ""  # "": the default; "unconfined"; else a profile as JSON
    apparmor: str = ""  # "": the default; "unconfined"; else the name of a profile
    no_new_privileges: bool = False
    bare_system_paths: bool = False  # nothing of /proc and /sys is masked
    writable_cgroups: bool = False


def parse(options: Sequence[str], *, selinux: Path = SELINUX) -> SecurityOptions:
    """Raises BadParameter naming the option; NotSupported for those that cannot have an effect on this host.

    Labels are SELinux's: where that is off they change nothing, in Docker as here, and are accepted.
    """
    found = SecurityOptions()
    for option in options:
        found = _apply(found, option, selinux)
    return found


def _apply(found: SecurityOptions, option: str, selinux: Path) -> SecurityOptions:
    name, value, given = _split(option)
    if name == "no-new-privileges":
        return replace(found, no_new_privileges=_flag(option, value, given))
    if name == "writable-cgroups":
        return replace(found, writable_cgroups=_flag(option, value, given))
    if not value:
        raise BadParameter(f'invalid --security-opt: "{option}"')
    if name == "seccomp":
        return replace(found, seccomp=_seccomp(value))
    if name == "apparmor":
        return replace(found, apparmor=value)
    if name == "systempaths":
        if value != UNCONFINED:
            raise BadParameter(f'invalid --security-opt: "{option}": systempaths can only be unconfined')
        return replace(found, bare_system_paths=True)
    if name == "label":
        _check_label(option, value, selinux)
        return found
    if name == "credentialspec":
        raise NotSupported("the security option credentialspec is not supported: it belongs to containers of Windows")
    raise BadParameter(f'invalid --security-opt: "{option}"')


def _split(option: str) -> tuple[str, str, bool]:
    """The separator is the first "=", or else the first ":"."""
    for separator in ("=", ":"):
        name, found, value = option.partition(separator)
        if found:
            return name, value, True
    return option, "", False


def _flag(option: str, value: str, given: bool) -> bool:
    if not given or value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise BadParameter(f'invalid --security-opt: "{option}": it must be true or false')


def _seccomp(value: str) -> str:
    if value == UNCONFINED:
        return value
    if value in _DEFAULT_SECCOMP:
        return ""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadParameter(
            f"decoding the seccomp profile failed: {error}; the API takes unconfined, builtin or the profile itself, "
            "the command line the name of a file"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("defaultAction"), str):
        raise BadParameter("decoding the seccomp profile failed: it must be an object with a defaultAction")
    return value


def _check_label(option: str, value: str, selinux: Path) -> None:
    kind = value.partition(":")[0]
    if kind not in _LABELS or (kind != "disable") != bool(value.partition(":")[2]):
        raise BadParameter(f'invalid --security-opt: "{option}": a label is {", ".join(_LABELS)}, but for the first '
                           "with a colon and its value")  # fmt: skip
    if kind != "disable" and selinux.exists():
        raise NotSupported(
            f'the security option "{option}" is not supported: containers get no SELinux labels from this engine'
        )
