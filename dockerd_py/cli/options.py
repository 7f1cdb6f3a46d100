"""The flags of `run` and `create`, and the settings that they make of them for the API.

Syntax is checked here, so that a slip is named before anything is asked of the daemon; whether the daemon can do what
is asked is its own to say.
"""

from __future__ import annotations

import os

from dockerd_py.cli import confine_options, health_options, keys, mounts, network_options, pairs, port_options
from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.flags import Flag, Parsed, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_STREAMS = ("stdin", "stdout", "stderr")
_LINE_MAX = 1 << 20  # of an --env-file


def _absolute(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError("it must be an absolute path")


def _volume(text: str) -> None:
    mounts.parse_volume(text)


def _mount(text: str) -> None:
    mounts.parse_mount(text)


def _tmpfs(text: str) -> None:
    mounts.parse_tmpfs(text)


def _link(text: str) -> None:
    container, colon, alias = text.partition(":")
    if not container or (colon and not alias):
        raise ValueError("it must be CONTAINER or CONTAINER:ALIAS")


def variable(text: str) -> None:
    if not text.partition("=")[0]:
        raise ValueError("it must be NAME=value, or NAME for its value here")


def _restart(text: str) -> None:
    parse_restart(text)


def _numbers(text: str) -> None:
    if not all(part.strip().replace("-", "", 1).isdecimal() for part in text.split(",")):
        raise ValueError("it must be numbers and ranges, such as 0-2,5")


def _device_weight(text: str) -> None:
    _device(text, int)


def _device_size(text: str) -> None:
    _device(text, parse_size)


def _device_number(text: str) -> None:
    _device(text, int)


def _memory_swap(text: str) -> None:
    if text != "-1":
        parse_size(text)


LIMIT_FLAGS = (
    Flag("--blkio-weight", "int", 0, "Weight of its share of the disks, 10 to 1000"),
    Flag("--cpu-period", "int", 0, "Over which time --cpu-quota is counted", metavar="MICROSECONDS"),
    Flag("--cpu-quota", "int", 0, "Processor time that it may use a period", metavar="MICROSECONDS"),
    Flag(("-c", "--cpu-shares"), "int", 0, "Weight of its share of the processors, 2 to 262144"),
    Flag("--cpus", "float", 0.0, "How many processors it may use, such as 1.5"),
    Flag("--cpuset-cpus", help="Which processors it may use", check=_numbers, metavar="0-2,5"),
    Flag("--cpuset-mems", help="Which memory nodes it may use", check=_numbers, metavar="0-2,5"),
    Flag(("-m", "--memory"), "size", 0, "Memory limit", metavar="BYTES[b|k|m|g]"),
    Flag("--memory-reservation", "size", 0, "Memory that is left to it when it is short", metavar="BYTES[b|k|m|g]"),
    Flag("--memory-swap", help="Limit of both; -1: all the swap", check=_memory_swap, metavar="BYTES[b|k|m|g]"),
    Flag("--pids-limit", "int", 0, "How many processes it may have; -1: any number"),
)  # fmt: skip
RESTART_FLAG = Flag(
    "--restart", "string", "no", "When it is started again after its end", check=_restart, metavar="POLICY"
)  # fmt: skip
DEVICE_FLAGS = (
    Flag("--blkio-weight-device", "list", help="Weight for one disk", check=_device_weight, metavar="DEVICE:WEIGHT"),
    Flag("--device-read-bps", "list", help="Bytes a second read of a disk", check=_device_size, metavar="DEVICE:BYTES"),
    Flag("--device-read-iops", "list", help="Reads a second", check=_device_number, metavar="DEVICE:NUMBER"),
    Flag("--device-write-bps", "list", help="Bytes a second written", check=_device_size, metavar="DEVICE:BYTES"),
    Flag("--device-write-iops", "list", help="Writes a second", check=_device_number, metavar="DEVICE:NUMBER"),
    Flag("--memory-swappiness", "int", -1, "How readily its memory is swapped, 0 to 100; -1: as the host's"),
)  # fmt: skip

_PLAIN_FLAGS = (
    *LIMIT_FLAGS,
    *DEVICE_FLAGS,
    *health_options.FLAGS,
    *port_options.FLAGS,
    RESTART_FLAG,
    Flag(("-a", "--attach"), "list", help="Attach to this stream", choices=_STREAMS, metavar="stdin|stdout|stderr"),
    Flag("--cidfile", help="Write the container's id to this file, which must not exist", metavar="FILE"),
    Flag(("-e", "--env"), "list", help="Set a variable (NAME: as it is here)", check=variable, metavar="NAME[=value]"),
    Flag("--entrypoint", help="What the command is given to as arguments, in place of the image's", metavar="COMMAND"),
    Flag("--env-file", "list", help="Set the variables in this file, one a line", metavar="FILE"),
    Flag(("-h", "--hostname"), help="Host name", metavar="NAME"),
    Flag(("-i", "--interactive"), "bool", help="Keep its standard input open"),
    Flag(("-l", "--label"), "list", help="Set a label", check=pairs.check, metavar="KEY=value"),
    Flag("--link", "list", help="A container that it is told of", check=_link, metavar="CONTAINER[:ALIAS]"),
    Flag("--log-driver", help="Where its output goes: journald or json-file", metavar="DRIVER"),
    Flag("--log-opt", "list", help="Set an option of the log driver", check=pairs.check, metavar="KEY=value"),
    Flag("--mount", "list", help="Mount something", check=_mount, metavar="type=TYPE,source=...,target=DIRECTORY"),
    Flag("--name", help="Its name", metavar="NAME"),
    Flag("--rm", "bool", help="Remove it when it ends"),
    Flag("--shm-size", "size", 0, "Size of /dev/shm, 64m by default", metavar="BYTES[b|k|m|g]"),
    Flag("--stop-signal", help="The signal that asks it to end", metavar="SIGNAL"),
    Flag("--stop-timeout", "int", 0, "Seconds that it has to end before it is killed", metavar="SECONDS"),
    Flag("--tmpfs", "list", help="Mount an empty tmpfs", check=_tmpfs, metavar="DIRECTORY[:OPTIONS]"),
    Flag(("-t", "--tty"), "bool", help="With a terminal of its own"),
    Flag(("-u", "--user"), help="Run as this user", metavar="NAME|UID[:GROUP|GID]"),
    Flag(("-v", "--volume"), "list", help="Mount a directory or a volume", check=_volume,
         metavar="[HOST|NAME:]CONTAINER[:MODE]"),
    Flag("--volume-driver", help="Driver of its new volumes: local", metavar="DRIVER"),
    Flag("--volumes-from", "list", help="Mount what another container has mounted", metavar="CONTAINER[:ro|rw]"),
    Flag(("-w", "--workdir"), help="Working directory", check=_absolute, metavar="DIRECTORY"),
)  # fmt: skip

FLAGS = tuple(sorted((*_PLAIN_FLAGS, *confine_options.FLAGS, *network_options.FLAGS), key=lambda flag: flag.key))

RUN_FLAGS = tuple(
    sorted(
        (
            *FLAGS,
            Flag(("-d", "--detach"), "bool", help="Let it run in the background, and print its id"),
            Flag("--detach-keys", help="Keys that leave it running", check=keys.parse, metavar="KEYS"),
            Flag("--sig-proxy", "bool", True, "Pass signals on to it"),
        ),
        key=lambda flag: flag.key,
    )
)


class Settings:
    """What is sent to create the container, how the client is to attach, and what to connect the container to."""

    def __init__(
        self, body: dict[str, Any], name: str, attached: frozenset[str], networks: dict[str, dict[str, Any]]
    ) -> None:
        self.body = body
        self.name = name
        self.attached = attached
        self.networks = networks

    @property
    def tty(self) -> bool:
        return bool(self.body["Tty"])

    @property
    def auto_remove(self) -> bool:
        return bool(self.body["HostConfig"]["AutoRemove"])


def settings(given: Parsed, *, detach: bool) -> Settings:
    """Translate a command line, of which args are the image, the command and its arguments.

    Raises UsageError for what contradicts itself, CliError for an --env-file that cannot be read.
    """
    attach = frozenset(given.strings("attach"))
    if attach and detach:
        raise UsageError("Conflicting options: -a and -d")
    interactive = given.boolean("interactive")
    if not attach and not detach:
        attach = frozenset(("stdin", "stdout", "stderr") if interactive else ("stdout", "stderr"))
    image, *command = given.args
    if not image:
        raise UsageError("the image's name is empty")
    binds: list[str] = []
    volumes: dict[str, dict[str, object]] = {}
    for source, target, mode in map(mounts.parse_volume, given.strings("volume")):
        if source:
            binds.append(f"{source}:{target}" + (f":{mode}" if mode else ""))
        else:
            volumes[target] = {}
    hostname, domain = _names(given)
    networks = network_options.networks(given)
    host: dict[str, Any] = {
        "Binds": binds,
        **limits(given),
        **_devices(given),
        "NetworkMode": networks.mode,
        "Links": given.strings("link") or None,
        "AutoRemove": given.boolean("rm"),
        "RestartPolicy": parse_restart(given.string("restart")),
        "ContainerIDFile": given.string("cidfile"),
        **port_options.host_settings(given),
        "Mounts": [mounts.parse_mount(text) for text in given.strings("mount")] or None,
        "VolumesFrom": given.strings("volumes-from") or None,
        "VolumeDriver": given.string("volume-driver"),
        "Tmpfs": dict(map(mounts.parse_tmpfs, given.strings("tmpfs"))) or None,
        "ShmSize": given.integer("shm-size"),
        "LogConfig": {"Type": given.string("log-driver"), "Config": pairs.parse(given.strings("log-opt"))},
        **confine_options.host_settings(given),
    }
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": command or None,
        "Entrypoint": _entrypoint(given),
        "Env": environment(given),
        "WorkingDir": given.string("workdir"),
        "User": given.string("user"),
        "Hostname": hostname,
        "Domainname": domain,
        "Tty": given.boolean("tty"),
        "OpenStdin": interactive,
        "StdinOnce": interactive and "stdin" in attach,
        "AttachStdin": "stdin" in attach,
        "AttachStdout": "stdout" in attach,
        "AttachStderr": "stderr" in attach,
        "Labels": pairs.parse(given.strings("label")),
        "ExposedPorts": port_options.exposed(given),
        "Volumes": volumes,
        "StopSignal": given.string("stop-signal"),
        "HostConfig": host,
        **networks.settings,
    }
    if healthcheck := health_options.healthcheck(given):
        body["Healthcheck"] = healthcheck
    if given.has("stop-timeout"):
        body["StopTimeout"] = given.integer("stop-timeout")
    return Settings(body, given.string("name"), attach, networks.more)


def limits(given: Parsed) -> dict[str, Any]:
    """The limits that a command line names, as both create and update take them."""
    found: dict[str, Any] = {
        "BlkioWeight": given.integer("blkio-weight"),
        "CpuPeriod": given.integer("cpu-period"),
        "CpuQuota": given.integer("cpu-quota"),
        "CpuShares": given.integer("cpu-shares"),
        "NanoCpus": _nano_cpus(given.number("cpus")),
        "CpusetCpus": given.string("cpuset-cpus"),
        "CpusetMems": given.string("cpuset-mems"),
        "Memory": given.integer("memory"),
        "MemoryReservation": given.integer("memory-reservation"),
        "MemorySwap": _swap(given.string("memory-swap")),
        "PidsLimit": given.integer("pids-limit"),
    }
    return {key: value for key, value in found.items() if value}


def _devices(given: Parsed) -> dict[str, Any]:
    found: dict[str, Any] = {
        "BlkioWeightDevice": [
            {"Path": path, "Weight": weight} for path, weight in _device_values(given, "blkio-weight-device", int)
        ]
    }
    for key, flag, parse in (
        ("BlkioDeviceReadBps", "device-read-bps", parse_size),
        ("BlkioDeviceReadIOps", "device-read-iops", int),
        ("BlkioDeviceWriteBps", "device-write-bps", parse_size),
        ("BlkioDeviceWriteIOps", "device-write-iops", int),
    ):
        found[key] = [{"Path": path, "Rate": rate} for path, rate in _device_values(given, flag, parse)]
    if given.has("memory-swappiness"):
        found["MemorySwappiness"] = given.integer("memory-swappiness")
    return {key: value for key, value in found.items() if value not in ([], None)}


def _device_values(given: Parsed, flag: str, parse: Callable[[str], int]) -> list[tuple[str, int]]:
    return [_device(text, parse) for text in given.strings(flag)]


def _device(text: str, parse: Callable[[str], int]) -> tuple[str, int]:
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise ValueError("it must be /dev/NAME:VALUE")
    try:
        return path, parse(value)
    except ValueError:
        raise ValueError(f'"{value}" is no number') from None


def _names(given: Parsed) -> tuple[str, str]:
    """Host and domain name: the first dot parts them, unless the domain is given by itself."""
    if given.has("domainname"):
        return given.string("hostname"), given.string("domainname")
    hostname, _, domain = given.string("hostname").partition(".")
    return hostname, domain


def parse_restart(text: str) -> dict[str, Any]:
    """``no``, ``always``, ``unless-stopped`` or ``on-failure[:times]`` as the API's RestartPolicy.  Raises ValueError.

    Whether there is a policy of that name is the daemon's to say.
    """
    name, colon, times = text.partition(":")
    if colon and not (times.isascii() and times.isdigit()):
        raise ValueError("behind the colon must be a number of times")
    return {"Name": name, "MaximumRetryCount": int(times or 0)}


def _entrypoint(given: Parsed) -> list[str] | None:
    if not given.has("entrypoint"):
        return None
    # One empty string is how the API takes the image's entrypoint away.
    return [given.string("entrypoint")]


def environment(given: Parsed) -> list[str]:
    """The variables of the flags ``env`` and ``env-file``.  Raises CliError for a file that cannot be read."""
    variables: list[str] = []
    for path in given.strings("env-file"):
        variables += _env_file(path)
    variables += given.strings("env")
    found = []
    for variable in variables:
        if "=" in variable:
            found.append(variable)
        elif variable in os.environ:
            found.append(f"{variable}={os.environ[variable]}")
    return found


def _env_file(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            lines = file.read(_LINE_MAX + 1).splitlines()
            if file.tell() > _LINE_MAX:
                raise CliError(f"{path}: an environment of more than {_LINE_MAX} bytes")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    variables = []
    for number, line in enumerate(lines, 1):
        text = os.fsdecode(line).lstrip().removeprefix("\ufeff")
        if not text or text.startswith("#"):
            continue
        name = text.partition("=")[0]
        if not name or any(c.isspace() for c in name):
            raise CliError(f'{path}, line {number}: "{name}" is no name of a variable')
        variables.append(text)
    return variables


def _swap(text: str) -> int:
    if not text:
        return 0
    return -1 if text == "-1" else parse_size(text)


def _nano_cpus(cpus: float) -> int:
    return round(cpus * 1_000_000_000)
