"""The daemon's settings: flags and daemon.yaml, read once into one frozen `Config`.

Every default stands here and nowhere else.  A flag wins over the file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from dockerd_py import flags
from dockerd_py.errors import ConfigError
from dockerd_py.flags import Flag

DEFAULT_CONFIG_FILE = Path("/etc/pydockerd/daemon.yaml")
DEFAULT_ROOT = "/var/lib/pydockerd"
DEFAULT_EXEC_ROOT = "/run/pydockerd"
DEFAULT_PIDFILE = "/run/pydockerd.pid"
DEFAULT_GROUP = "pydocker"
DEFAULT_START_TIMEOUT = 60
DEFAULT_RUNTIME = "crun"
LOG_DRIVERS = ("journald", "json-file", "local", "syslog", "none")
DEFAULT_EXEC_DRIVER = "native"
EXEC_DRIVERS = ("native", "lxc")
DEFAULT_UNPACK_LIMIT = 100 << 30
DEFAULT_PUBLISH_IP = "0.0.0.0"  # noqa: S104 - published ports are meant to be reached
FIREWALL_BACKENDS = ("auto", "iptables", "nftables")
MIN_MTU = 68  # RFC 791
MAX_MTU = 65535

NETWORK_FLAGS = (
    Flag(("-b", "--bridge"), help="A bridge to use instead of our own, pydocker0; 'none' for no network at all"),
    Flag(("--bip",), help="Address and prefix of our bridge, as in 10.9.0.1/16; not with -b"),
    Flag(("--fixed-cidr",), help="The part of the bridge's subnet that containers get their addresses from"),
    Flag(("--fixed-cidr-v6",), help="The same of its IPv6 subnet"),
    Flag(("--ipv6",), "bool", help="Give containers on our bridge IPv6 addresses, too"),
    Flag(("--default-address-pool",), "list", help="Where new networks lie: base=10.10.0.0/16,size=24 (repeatable)"),
    Flag(("--mtu",), "int", help="Of bridges and containers' interfaces; 0 for that of the host's default route"),
    Flag(("--dns",), "list", help="A name server for containers (repeatable)"),
    Flag(("--dns-search",), "list", help="A domain that containers look names up in (repeatable)"),
    Flag(("--dns-opt",), "list", help="An option of resolv.conf for containers (repeatable)"),
    Flag(("--iptables",), "bool", True, help="Let pydockerd set up the firewall; false: it touches nothing there"),
    Flag(("--firewall-backend",), choices=FIREWALL_BACKENDS, default="auto", help="Which tables to use"),
    Flag(("--ip-forward",), "bool", True, help="Turn on forwarding in the kernel"),
    Flag(("--ip-masq",), "bool", True, help="Let what containers send out have the host's address"),
    Flag(("--icc",), "bool", True, help="Let containers on our bridge reach each other without a link"),
    Flag(("--ip",), default=DEFAULT_PUBLISH_IP, help="The host's address that ports are published at"),
)

FLAGS = (
    Flag(("-v", "--version"), "bool", help="Print the version and quit"),
    Flag(("-d", "--daemon"), "bool", help="Accepted for the first year's sake: this program is always the daemon"),
    Flag(("-D", "--debug"), "bool", help="Log what is done, not only what matters"),
    Flag(("-H", "--host"), "list", help="Where to listen: unix://PATH, tcp://HOST:PORT or fd:// (repeatable)"),
    Flag(("-G", "--group"), default=DEFAULT_GROUP, help="Group that owns the unix sockets; '' for root alone"),
    Flag(("-g", "--graph"), default=DEFAULT_ROOT, help="Directory of images and containers"),
    Flag(("--exec-root",), default=DEFAULT_EXEC_ROOT, help="Directory of what a reboot clears"),
    Flag(("-p", "--pidfile"), default=DEFAULT_PIDFILE, help="File that holds the daemon's pid; '' for none"),
    Flag(("-s", "--storage-driver"), help="overlay, btrfs, aufs or vfs; by default the last one used, else the best"),
    Flag(("--log-driver",), help="journald, json-file, local, syslog or none; by default journald with systemd"),
    Flag(("--log-opt",), "list", help="An option of that driver, as KEY=VALUE (repeatable)"),
    Flag(("-r", "--restart"), "bool", help="Start again what ran when the host went down; see pydockerd(8)"),
    Flag(("--start-timeout",), "int", DEFAULT_START_TIMEOUT, help="Seconds that the start of a container may take"),
    Flag(("--runtime",), default=DEFAULT_RUNTIME, help="The OCI runtime: a name on the PATH or an absolute path"),
    Flag(("--api-enable-cors",), "bool", help="Let web pages of any origin use the Remote API"),
    Flag(("-e", "--exec-driver"), default=DEFAULT_EXEC_DRIVER, help="native or lxc: both mean the OCI runtime"),
    Flag(
        ("--unpack-limit",), "size", DEFAULT_UNPACK_LIMIT, metavar="SIZE",
        help="Most bytes of an archive, uncompressed, in import, load and cp (100g); 0 for no limit",
    ),
    Flag(("--config",), default=str(DEFAULT_CONFIG_FILE), help="File with the same settings, as YAML"),
    *NETWORK_FLAGS,
)

ONLY_FLAGS = {"version", "daemon", "config"}

USAGE = (
    "Usage: pydockerd [OPTIONS]\n       pydockerd fsck [OPTIONS]\n\nThe container engine of a systemd host.\n\n"
    + flags.describe(FLAGS)
)


@dataclass(frozen=True)
class NetworkConfig:
    bridge: str = ""  # "": our own; "none"
    bip: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    ipv6: bool = False
    address_pools: tuple[tuple[str, int], ...] = ()  # ("10.10.0.0/16", 24); (): the private ranges
    mtu: int = 0
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    iptables: bool = True
    firewall_backend: str = "auto"
    ip_forward: bool = True
    ip_masq: bool = True
    icc: bool = True
    ip: str = DEFAULT_PUBLISH_IP


@dataclass(frozen=True)
class Config:
    hosts: tuple[str, ...] = ()
    group: str = DEFAULT_GROUP
    group_given: bool = False  # a missing group is an error only if somebody asked for it
    root: Path = Path(DEFAULT_ROOT)
    exec_root: Path = Path(DEFAULT_EXEC_ROOT)
    pidfile: Path | None = Path(DEFAULT_PIDFILE)
    storage_driver: str = ""
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)
    restart: bool | None = None  # None: for containers of clients that know no restart policies
    start_timeout: int = DEFAULT_START_TIMEOUT  # seconds
    runtime: str = DEFAULT_RUNTIME
    api_enable_cors: bool = False
    exec_driver: str = DEFAULT_EXEC_DRIVER  # said in the log, and of no other effect
    unpack_limit: int = DEFAULT_UNPACK_LIMIT  # bytes; 0 for no limit
    debug: bool = False
    network: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def is_default_instance(self) -> bool:
        """Whether this is the host's own daemon rather than one started beside it."""
        return self.exec_root == Path(DEFAULT_EXEC_ROOT)


def parse(argv: Sequence[str], more: Sequence[Flag] = ()) -> flags.Parsed:
    """Read the command line, with ``more`` flags than the daemon's.  Raises ConfigError, flags.HelpRequested."""
    try:
        parsed = flags.parse((*FLAGS, *more), argv)
    except flags.FlagError as error:
        raise ConfigError(str(error)) from error
    if parsed.args:
        raise ConfigError(f"unexpected argument {parsed.args[0]!r}: pydockerd takes only flags")
    return parsed


def load(parsed: flags.Parsed) -> Config:
    """Join the command line with the configuration file.

    Raises ConfigError for a file that can't be read, an unknown key, or a value of another type than its flag's.
    """
    path = Path(parsed.string("config"))
    settings = _read_file(path, must_exist=parsed.has("config"))

    def pick(flag: Flag) -> flags.Value:
        if not parsed.has(flag.key) and flag.key in settings:
            return _checked(path, flag, settings[flag.key])
        return _value(parsed, flag)

    values = {flag.key: pick(flag) for flag in FLAGS if flag.key not in ONLY_FLAGS}
    hosts, pidfile, timeout, limit = (values[key] for key in ("host", "pidfile", "start-timeout", "unpack-limit"))
    assert isinstance(hosts, list)
    assert isinstance(limit, int)
    assert isinstance(timeout, int)
    if timeout < 1:
        raise ConfigError(f"--start-timeout must be at least 1 second, not {timeout}")
    log_driver = str(values["log-driver"])
    if log_driver not in ("", *LOG_DRIVERS):
        raise ConfigError(f"unknown log driver {log_driver!r}: there are {', '.join(LOG_DRIVERS)}")
    if values["exec-driver"] not in EXEC_DRIVERS:
        raise ConfigError(f"unknown exec driver {values['exec-driver']!r}: there are {' and '.join(EXEC_DRIVERS)}")
    return Config(
        hosts=tuple(hosts),
        group=str(values["group"]),
        group_given=parsed.has("group") or "group" in settings,
        root=_directory("--graph", values["graph"]),
        exec_root=_directory("--exec-root", values["exec-root"]),
        pidfile=Path(os.path.abspath(str(pidfile))) if pidfile else None,
        storage_driver=str(values["storage-driver"]),
        log_driver=log_driver,
        log_options=_pairs("--log-opt", values["log-opt"]),
        restart=bool(values["restart"]) if parsed.has("restart") or "restart" in settings else None,
        start_timeout=timeout,
        runtime=str(values["runtime"]),
        api_enable_cors=bool(values["api-enable-cors"]),
        exec_driver=str(values["exec-driver"]),
        unpack_limit=limit,
        debug=bool(values["debug"]),
        network=_network(values),
    )


def _network(values: Mapping[str, flags.Value]) -> NetworkConfig:
    """Raises ConfigError for what is no address, subnet or pool, and for settings that exclude each other."""

    def text(key: str, check: Callable[[str], object]) -> str:
        value = str(values[key])
        try:
            if value:
                check(value)
        except ValueError as error:
            raise ConfigError(f"--{key} {value}: {error}") from None
        return value

    def texts(key: str) -> tuple[str, ...]:
        value = values[key]
        assert isinstance(value, list)
        return tuple(value)

    for server in texts("dns"):
        try:
            ipaddress.ip_address(server)
        except ValueError as error:
            raise ConfigError(f"--dns {server}: {error}") from None
    mtu = values["mtu"]
    assert isinstance(mtu, int)
    if mtu and not MIN_MTU <= mtu <= MAX_MTU:
        raise ConfigError(f"--mtu must be from {MIN_MTU} to {MAX_MTU}, or 0, not {mtu}")
    bridge = str(values["bridge"])
    if bridge and values["bip"]:
        raise ConfigError("--bip is the address of our own bridge: it goes with no --bridge")
    if not values["iptables"] and not values["icc"]:
        raise ConfigError("--icc=false needs the firewall: it goes with no --iptables=false")
    return NetworkConfig(
        bridge=bridge,
        bip=text("bip", ipaddress.IPv4Interface),
        fixed_cidr=text("fixed-cidr", ipaddress.IPv4Network),
        fixed_cidr_v6=text("fixed-cidr-v6", ipaddress.IPv6Network),
        ipv6=bool(values["ipv6"]),
        address_pools=tuple(map(_pool, texts("default-address-pool"))),
        mtu=mtu,
        dns=texts("dns"),
        dns_search=texts("dns-search"),
        dns_options=texts("dns-opt"),
        iptables=bool(values["iptables"]),
        firewall_backend=str(values["firewall-backend"]),
        ip_forward=bool(values["ip-forward"]),
        ip_masq=bool(values["ip-masq"]),
        icc=bool(values["icc"]),
        ip=text("ip", ipaddress.ip_address) or NetworkConfig.ip,
    )


def _pool(text: str) -> tuple[str, int]:
    """Raises ConfigError."""
    given = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        base, size = ipaddress.ip_network(given.pop("base")), int(given.pop("size"))
    except (KeyError, ValueError):
        raise ConfigError(f"--default-address-pool {text}: it must be base=SUBNET,size=PREFIX") from None
    if given or not base.prefixlen <= size <= base.max_prefixlen - 2:
        raise ConfigError(f"--default-address-pool {text}: it must be base=SUBNET,size=PREFIX, of subnets in the base")
    return str(base), size


def _pairs(flag: str, texts: flags.Value) -> dict[str, str]:
    assert isinstance(texts, list)
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"{flag} {text}: it must be KEY=VALUE")
        found[key] = value
    return found


def _directory(flag: str, value: flags.Value) -> Path:
    if not value:
        raise ConfigError(f"{flag} needs a directory")
    return Path(os.path.abspath(str(value)))


def _value(parsed: flags.Parsed, flag: Flag) -> flags.Value:
    match flag.kind:
        case "bool":
            return parsed.boolean(flag.key)
        case "int" | "size":
            return parsed.integer(flag.key)
        case "list":
            return parsed.strings(flag.key)
        case _:
            return parsed.string(flag.key)


def _read_file(path: Path, *, must_exist: bool) -> Mapping[str, object]:
    try:
        settings = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"the configuration file {path} does not exist") from None
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold keys and values, as in 'debug: true'")
    known = {flag.key for flag in FLAGS} - ONLY_FLAGS
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; there are {', '.join(sorted(known))}")
    return settings


def _checked(path: Path, flag: Flag, value: object) -> flags.Value:
    """A value of the file, if it has its flag's type."""
    if flag.kind == "list":
        items = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in items):
            return [str(item) for item in items]
    elif flag.kind == "bool":
        if isinstance(value, bool):
            return value
    elif flag.kind == "size":
        with contextlib.suppress(ValueError):
            if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
                return flags.parse_size(str(value))
    elif flag.kind == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return value
    kinds = {
        "list": "a text or a list of texts", "bool": "true or false", "int": "a whole number",
        "size": 'a number of bytes, or a text like "20g"',
    }  # fmt: skip
    raise ConfigError(f"{path}: {flag.key} must be {kinds.get(flag.kind, 'a text')}, not {value!r}")
