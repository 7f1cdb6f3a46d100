"""/_ping, /version, /info, /events and /auth."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import platform

from aiohttp import web

from dockerd_py.api import encode, encode_first_year, eras
from dockerd_py.api.call import COMMON_HEADERS, Call, dump
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.filters import event_filter
from dockerd_py.api.routing import ApiVersion, Route, spell
from dockerd_py.engine.model import Event
from dockerd_py.engine.network_model import BRIDGE, HOST_DRIVER, IPVLAN, MACVLAN, NULL_DRIVER
from dockerd_py.engine.system_model import SystemInfo
from dockerd_py.errors import BadParameter, NotSupported
from dockerd_py.version import API_VERSION, MIN_API_VERSION, VERSION

_PING_HEADERS = {
    **COMMON_HEADERS,
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Content-Type": "text/plain; charset=utf-8",
}

NETWORK_DRIVERS = (BRIDGE, HOST_DRIVER, IPVLAN, MACVLAN, NULL_DRIVER)

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "loongarch64": "loong64"}


async def ping(_call: Call) -> web.StreamResponse:
    return web.Response(body=b"OK", headers=_PING_HEADERS)


async def version(call: Call) -> web.StreamResponse:
    info = await call.engine.info()
    arch = go_architecture(info.architecture)
    api_version, oldest = spell(API_VERSION), spell(MIN_API_VERSION)
    python = platform.python_version()
    engine = {
        "ApiVersion": api_version,
        "Arch": arch,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": info.kernel_version,
        "MinAPIVersion": oldest,
        "Os": "linux",
        "PythonVersion": python,
    }
    result: JsonObject = {
        "Platform": {"Name": "pydockerd"},
        "Components": [
            {"Name": "Engine", "Version": VERSION, "Details": engine},
            {"Name": info.runtime, "Version": _bare_version(info.runtime_version), "Details": {"GitCommit": ""}},
        ],
        "Version": VERSION,
        "ApiVersion": api_version,
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": python,
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": info.kernel_version,
        "BuildTime": "",
    }
    return call.json(encode_first_year.version_of(result) if eras.is_first_year(call.version) else result)


async def info(call: Call) -> web.StreamResponse:
    result = _info(await call.engine.info())
    if eras.layers_are_images(call.version):
        result["Images"] = len(call.engine.graph)
    return call.json(encode_first_year.info(result) if eras.is_first_year(call.version) else result)


async def auth(_call: Call) -> web.StreamResponse:
    raise NotSupported("logging in to a registry is not supported by this version")


async def events(call: Call) -> web.StreamResponse:
    """History from ``since``, then what happens, until ``until`` or until the client has enough."""
    passes = event_filter(call.text("filters"))
    since, until = call.moment("since"), call.moment("until")
    first_year = eras.is_first_year(call.version)
    if until and since > until:
        raise BadParameter(
            f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
        )

    async def pump() -> web.StreamResponse:
        async with contextlib.aclosing(call.engine.events.subscribe(since=since, until=until)) as source:

            async def following() -> Event | None:
                return await anext(source, None)

            upcoming = asyncio.ensure_future(following())
            try:
                # The subscription holds once its task has run: what a client does on seeing the head is in it.
                await asyncio.sleep(0)
                response = await call.stream("application/json")
                while (event := await upcoming) is not None:
                    upcoming = asyncio.ensure_future(following())
                    if not passes(event) or not _is_told(event, call.version):
                        continue
                    line = dump(encode.event(event, call.version))
                    await response.write(line[:-1] if first_year else line)
            finally:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)
        await response.write_eof()
        return response

    return await call.front.while_connected(pump())


def _is_told(event: Event, version: ApiVersion) -> bool:
    """Whether that version had such events."""
    if not eras.has_types_in_events(version) and event.type not in ("container", "image"):
        return False
    return event.action in encode_first_year.EVENTS or not eras.is_first_year(version)


def go_architecture(machine: str) -> str:
    """The machine's architecture as Docker names it: amd64 for x86_64."""
    return _GO_ARCHITECTURES.get(machine, machine)


def _bare_version(text: str) -> str:
    """ "crun version 1.8.1" → "1.8.1"."""
    return text.partition(" version ")[2] or text


def _info(info: SystemInfo) -> JsonObject:
    now = datetime.datetime.now(datetime.timezone.utc).astimezone()
    return {
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": info.driver,
        "DriverStatus": [list(pair) for pair in info.driver_status],
        "Plugins": {
            "Volume": ["local"],
            "Network": list(NETWORK_DRIVERS),
            "Authorization": None,
            "Log": ["journald", "json-file"] if info.init_system == "systemd" else ["json-file"],
        },
        "MemoryLimit": info.memory_limit,
        "SwapLimit": info.swap_limit,
        "KernelMemoryTCP": False,
        "CpuCfsPeriod": info.cpu_limit,
        "CpuCfsQuota": info.cpu_limit,
        "CPUShares": info.cpu_limit,
        "CPUSet": False,
        "PidsLimit": info.pids_limit,
        "IPv4Forwarding": info.ipv4_forwarding,
        "BridgeNfIptables": info.bridge_nf_iptables,
        "BridgeNfIp6tables": info.bridge_nf_ip6tables,
        "Debug": info.debug,
        "NFd": info.file_descriptors,
        "OomKillDisable": info.oom_kill_disable,
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": now.isoformat(),
        "LoggingDriver": info.log_driver,
        "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": info.cgroup_version,
        "NEventsListener": info.event_listeners,
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": "linux",
        "Architecture": info.architecture,
        "IndexServerAddress": "",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": [],
            "IndexConfigs": {},
            "Mirrors": [],
        },
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": None,
        "DockerRootDir": info.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": VERSION,
        "Runtimes": {name: {"path": path} for name, path in info.runtimes},
        "DefaultRuntime": info.runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": _bare_version(info.runtime_version), "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": list(info.security_options),
        "ProductLicense": "",
        "InitPath": "",
        "InitSha1": "",
        "ExecutionDriver": info.runtime,
        "InitSystem": info.init_system,
        "Warnings": list(info.warnings) or None,
    }


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events),
    Route("POST", "/auth", auth),
)
