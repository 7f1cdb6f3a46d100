"""`pydocker info` and `pydocker version`."""

from __future__ import annotations

import platform
import sys

from dockerd_py.cli import text
from dockerd_py.cli.client import API_VERSION, Client
from dockerd_py.cli.command import Command, complain, warn
from dockerd_py.cli.errors import CliError
from dockerd_py.flags import Flag, Parsed
from dockerd_py.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = Flag(("-f", "--format"), help='"json", or a template such as {{json .}}', metavar="TEMPLATE")


def version(client: Client, given: Parsed) -> int:
    ours = {
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": sys.platform,
        "Arch": platform.machine(),
    }
    server: dict[str, Any] | None = None
    failure: CliError | None = None
    try:
        server = client.get("/version")
    except CliError as error:
        failure = error
    if given.string("format"):
        _formatted({"Client": ours, "Server": server}, given.string("format"))
    else:
        print(f"Client:\n{_indented(_version_lines(ours))}", end="")
        if server is not None:
            print(f"\nServer:\n{_indented(_version_lines(server))}", end="")
    if failure is not None:
        complain(str(failure))
        return failure.exit_code
    return 0


def info(client: Client, given: Parsed) -> int:
    found: dict[str, Any] = client.get("/info")
    if given.string("format"):
        _formatted(found, given.string("format"))
        return 0
    lines = []
    for label, key in (
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ):
        lines += _line(label, found.get(key))
    for pair in found.get("DriverStatus") or ():
        lines += _line(f" {pair[0]}", pair[1])
    for label, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Init Binary", "InitBinary"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ):
        lines += _line(label, found.get(key))
    if found.get("MemTotal"):
        lines += _line("Total Memory", text.binary_size(found["MemTotal"]))
    for label, key in (("Name", "Name"), ("ID", "ID"), ("Root Dir", "DockerRootDir"), ("Debug Mode", "Debug")):
        lines += _line(label, found.get(key))
    if found.get("Debug"):
        for label, key in ((" File Descriptors", "NFd"), (" Event Listeners", "NEventsListener")):
            lines += _line(label, found.get(key))
    print("\n".join(lines))
    for warning in found.get("Warnings") or ():
        warn(warning.removeprefix("WARNING: "))
    return 0


def _version_lines(found: dict[str, Any]) -> list[str]:
    lines = _line("Version", found.get("Version"))
    lines += _line("API version", found.get("ApiVersion"))
    lines += _line("Minimum API version", found.get("MinAPIVersion"))
    lines += _line("Python version", found.get("PythonVersion"))
    lines += _line("Git commit", found.get("GitCommit"))
    lines += _line("Kernel", found.get("KernelVersion"))
    lines += _line("OS/Arch", f"{found.get('Os')}/{found.get('Arch')}")
    for component in found.get("Components") or ():
        if component.get("Name") != "Engine":
            lines += _line(component.get("Name", ""), component.get("Version"))
    return lines


def _line(label: str, value: object) -> list[str]:
    if value is None or value == "":
        return []
    shown = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return [text.printable(f"{label}: {shown}")]


def _indented(lines: list[str]) -> str:
    return "".join(f" {line}\n" for line in lines)


def _formatted(value: dict[str, Any], format_: str) -> None:
    from dockerd_py.cli.template import Template, to_json

    print(to_json(value) if format_ == "json" else Template(format_, text.printable).render(value))


COMMANDS = {
    "info": Command(
        "info", "[OPTIONS]", "Show what the daemon runs on and how it is set up.", info, (FORMAT,), most=0
    ),
    "version": Command(
        "version", "[OPTIONS]", "Show the versions of client and daemon.", version, (FORMAT,), most=0
    ),
}
