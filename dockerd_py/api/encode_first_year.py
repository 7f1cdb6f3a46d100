"""Containers, events and the system as the first year's clients read them: each version's keys, and no others."""

from __future__ import annotations

from dockerd_py.api import eras, ports
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.engine.model import Container, State

EVENTS = frozenset(("create", "start", "die", "stop", "restart", "kill", "destroy", "export", "untag", "delete"))
"""What happened, in the words of that time; there were no others."""


def inspect(container: Container, today: JsonObject, version: ApiVersion) -> JsonObject:
    """A container; ``today`` is the same as today's clients are shown it."""
    result = {key: today[key] for key in _INSPECT}
    state, network = today["State"], today["NetworkSettings"]
    result["ID"] = today["Id"]
    result["Config"] = _config(container, today["Config"], today["HostConfig"])
    result["State"] = {key: state[key] for key in _STATE} | {"Running": container.state.running, "Ghost": False}
    result["NetworkSettings"] = {
        **{key: network[key] for key in _NETWORK},
        **ports.first_year_settings(ports.ports_of(container), version),
    }
    result["Volumes"] = {mount.target: mount.source for mount in container.mounts if mount.source}
    result["VolumesRW"] = {mount.target: not mount.read_only for mount in container.mounts if mount.source}
    if eras.shows_host_config(version):
        host = {"LxcConf": None, **today["HostConfig"], "Links": None}  # they were names of the other container only
        result["HostConfig"] = {key: host[key] for key in _HOST_CONFIG}
    if eras.names_exec_driver(version):
        result["ExecDriver"] = container.runtime
    return result


def summary(container: Container, today: JsonObject, version: ApiVersion) -> JsonObject:
    """One item of the list."""
    result = {key: today[key] for key in (*_SUMMARY, "SizeRw", "SizeRootFs") if key in today}
    result["Ports"] = ports.first_year_list(ports.ports_of(container), version)
    return result


def status(state: State, up: str) -> str:
    """ "Up 3 seconds" or "Exit 0"; ``up`` is how long it has been up."""
    return f"Up {up}" if state.running else f"Exit {state.exit_code}"


def info(today: JsonObject) -> JsonObject:
    """Truth values are 1 and 0, as the engine of that time spelt them."""
    return {key: int(today[key]) if isinstance(today[key], bool) else today[key] for key in _INFO}


def version_of(today: JsonObject) -> JsonObject:
    return {key: today[key] for key in ("Version", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion")}


def _config(container: Container, today: JsonObject, host: JsonObject) -> JsonObject:
    """What stands in HostConfig today stood beside the rest."""
    return {
        **{key: today[key] for key in _CONFIG},
        **{key: host[key] for key in ("Memory", "MemorySwap", "CpuShares")},
        "Dns": host["Dns"] or None,
        "VolumesFrom": ",".join(host["VolumesFrom"] or ()),
        "PortSpecs": None,
        "ExposedPorts": today.get("ExposedPorts", {}),
        "NetworkDisabled": container.config.network_disabled,
    }


_INSPECT = ("Created", "Path", "Args", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "Name", "Driver")
_STATE = ("Pid", "ExitCode", "StartedAt", "FinishedAt")
_NETWORK = ("IPAddress", "IPPrefixLen", "Gateway", "Bridge")
_HOST_CONFIG = ("Binds", "ContainerIDFile", "LxcConf", "Privileged", "PortBindings", "Links", "PublishAllPorts")
_CONFIG = (
    "Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce",
    "Env", "Cmd", "Image", "Volumes", "WorkingDir", "Entrypoint", "OnBuild",
)  # fmt: skip
_SUMMARY = ("Id", "Names", "Image", "Command", "Created", "Status")
_INFO = (
    "Containers", "Images", "Driver", "DriverStatus", "MemoryLimit", "SwapLimit", "IPv4Forwarding", "Debug", "NFd",
    "NGoroutines", "ExecutionDriver", "NEventsListener", "KernelVersion", "IndexServerAddress", "InitSha1", "InitPath",
)  # fmt: skip
