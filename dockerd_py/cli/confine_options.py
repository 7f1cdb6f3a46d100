"""The flags of `run` and `create` that say what separates a container from its host, as settings for the API."""

from __future__ import annotations

from dockerd_py.cli import pairs
from dockerd_py.cli.errors import CliError
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROFILE_MAX = 1 << 20
_SECCOMP_WORDS = ("unconfined", "builtin", "default")


def _device(text: str) -> None:
    parse_device(text)


def _ulimit(text: str) -> None:
    parse_ulimit(text)


def _host(text: str) -> None:
    parse_host(text)


FLAGS = (
    Flag("--add-host", "list", help="Add a line to /etc/hosts", check=_host, metavar="NAME:ADDRESS"),
    Flag("--annotation", "list", help="Add an annotation for the OCI runtime", check=pairs.both, metavar="KEY=value"),
    Flag("--cap-add", "list", help="Add a capability, or ALL", metavar="CAPABILITY"),
    Flag("--cap-drop", "list", help="Drop a capability, or ALL", metavar="CAPABILITY"),
    Flag("--cgroup-parent", help="Slice in which its scope is", metavar="NAME.slice"),
    Flag("--cgroupns", help="Control group namespace", choices=("host", "private"), metavar="host|private"),
    Flag("--device", "list", help="Add a device of the host, or a directory of them", check=_device,
         metavar="HOST[:CONTAINER[:rwm]]"),
    Flag("--device-cgroup-rule", "list", help="Allow devices by number, as in 'c 10:* rwm'", metavar="RULE"),
    Flag("--dns", "list", help="Name server", metavar="ADDRESS"),
    Flag(("--dns-opt", "--dns-option"), "list", help="Option of the resolver", metavar="OPTION"),
    Flag("--dns-search", "list", help="Domain to search; '.' for none", metavar="DOMAIN"),
    Flag("--domainname", help="NIS domain name", metavar="NAME"),
    Flag("--group-add", "list", help="Group that its process is in, too", metavar="GROUP"),
    Flag("--init", "bool", help="Run a small init before the command, which reaps and passes signals on"),
    Flag("--ipc", help="IPC: none, private, shareable, host, container:NAME", metavar="MODE"),
    Flag("--lxc-conf", "list", help="The first year's way to set limits", check=pairs.both, metavar="KEY=value"),
    Flag("--oom-kill-disable", "bool", help="Let it wait where it would be killed for want of memory"),
    Flag("--oom-score-adj", "int", 0, "How willingly the kernel kills it for want of memory, -1000 to 1000"),
    Flag("--pid", help="Process ids: private, host, container:NAME", metavar="MODE"),
    Flag("--privileged", "bool", help="All devices and capabilities, nothing masked or filtered"),
    Flag("--read-only", "bool", help="Mount its root file system read-only"),
    Flag("--runtime", help="OCI runtime: crun or runc", metavar="NAME"),
    Flag("--security-opt", "list", help="seccomp=, apparmor=, no-new-privileges, ...", metavar="OPTION"),
    Flag("--storage-opt", "list", help="Option of the storage driver", check=pairs.both, metavar="KEY=value"),
    Flag("--sysctl", "list", help="Kernel parameter of its namespaces", check=pairs.both, metavar="KEY=value"),
    Flag("--ulimit", "list", help="Resource limit, -1 for none", check=_ulimit, metavar="NAME=SOFT[:HARD]"),
    Flag("--userns", help="User namespace: host", metavar="MODE"),
    Flag("--uts", help="Host name: host for the host's own", choices=("host",), metavar="host"),
)  # fmt: skip


def host_settings(given: Parsed) -> dict[str, Any]:
    """The keys of HostConfig.  Raises CliError for a seccomp profile that cannot be read."""
    options, bare = _security_options(given.strings("security-opt"))
    settings: dict[str, Any] = {
        "ExtraHosts": [f"{name}:{address}" for name, address in map(parse_host, given.strings("add-host"))],
        "Annotations": pairs.parse(given.strings("annotation")),
        "CapAdd": given.strings("cap-add"),
        "CapDrop": given.strings("cap-drop"),
        "CgroupParent": given.string("cgroup-parent"),
        "CgroupnsMode": given.string("cgroupns"),
        "Devices": [parse_device(text) for text in given.strings("device")],
        "DeviceCgroupRules": given.strings("device-cgroup-rule"),
        "Dns": given.strings("dns"),
        "DnsOptions": given.strings("dns-option"),
        "DnsSearch": given.strings("dns-search"),
        "GroupAdd": given.strings("group-add"),
        "IpcMode": given.string("ipc"),
        "LxcConf": [
            {"Key": key.strip(), "Value": value.strip()}
            for key, value in pairs.parse(given.strings("lxc-conf")).items()
        ],
        "OomKillDisable": given.boolean("oom-kill-disable"),
        "OomScoreAdj": given.integer("oom-score-adj"),
        "PidMode": given.string("pid"),
        "Privileged": given.boolean("privileged"),
        "ReadonlyRootfs": given.boolean("read-only"),
        "Runtime": given.string("runtime"),
        "SecurityOpt": options,
        "StorageOpt": pairs.parse(given.strings("storage-opt")),
        "Sysctls": pairs.parse(given.strings("sysctl")),
        "Ulimits": [parse_ulimit(text) for text in given.strings("ulimit")],
        "UsernsMode": given.string("userns"),
        "UTSMode": given.string("uts"),
    }
    if given.has("init"):
        settings["Init"] = given.boolean("init")
    if bare:
        settings |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return settings


def parse_device(text: str) -> dict[str, str]:
    """``HOST[:CONTAINER[:rwm]]``, or ``HOST:rwm``.  Raises ValueError."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError("it must be HOST[:CONTAINER[:rwm]]")
    on_host, in_container, permissions = parts[0], parts[0], "rwm"
    if len(parts) == 2 and _is_mode(parts[1]):
        permissions = parts[1]
    elif len(parts) > 1:
        in_container = parts[1]
    if len(parts) == 3:
        if not _is_mode(parts[2]):
            raise ValueError(f'"{parts[2]}" is no mode: it must be letters of rwm')
        permissions = parts[2]
    if not on_host.startswith("/") or not in_container.startswith("/"):
        raise ValueError("the paths must be absolute")
    return {"PathOnHost": on_host, "PathInContainer": in_container, "CgroupPermissions": permissions}


def parse_ulimit(text: str) -> dict[str, str | int]:
    """``NAME=SOFT[:HARD]``.  Raises ValueError."""
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        numbers = int(soft), int(hard or soft)
    except ValueError:
        raise ValueError("it must be NAME=SOFT[:HARD], with numbers") from None
    if not name:
        raise ValueError("it must be NAME=SOFT[:HARD]")
    return {"Name": name, "Soft": numbers[0], "Hard": numbers[1]}


def parse_host(text: str) -> tuple[str, str]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS``, the address of IPv6 in brackets or not.  Raises ValueError."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    if not name or not address:
        raise ValueError("it must be NAME:ADDRESS")
    return name, address


def _is_mode(text: str) -> bool:
    return not set(text) - set("rwm") and len(set(text)) == len(text)


def _security_options(texts: list[str]) -> tuple[list[str], bool]:
    """The options with the profiles that they name in them; and whether nothing is to be masked, which the API says
    by empty lists of paths."""
    options, bare = [], False
    for text in texts:
        name, sign, value = text.partition("=")
        if text == "systempaths=unconfined":
            bare = True
        elif name == "seccomp" and sign and value not in _SECCOMP_WORDS:
            options.append(f"seccomp={_profile(value)}")
        else:
            options.append(text)
    return options, bare


def _profile(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_PROFILE_MAX + 1)
        if len(text) > _PROFILE_MAX:
            raise CliError(f"the seccomp profile {path} has more than {_PROFILE_MAX} bytes")
        return json.dumps(json.loads(text), separators=(",", ":"))
    except OSError as error:
        raise CliError(f"the seccomp profile {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CliError(f"the seccomp profile {path} is no JSON: {error}") from None
