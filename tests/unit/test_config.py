"""The daemon's settings: flags, daemon.yaml, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_py import config
from dockerd_py.config import Config, NetworkConfig
from dockerd_py.errors import ConfigError


def load(*argv: str) -> Config:
    return config.load(config.parse(["--config", "/dev/null", *argv]))


def from_file(tmp_path: Path, text: str, *argv: str) -> Config:
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    return config.load(config.parse(["--config", str(path), *argv]))


def test_the_defaults_are_the_documented_ones() -> None:
    assert load() == Config()


def test_flags_in_both_spellings() -> None:
    one = load("-D", "-H", "unix:///a", "-H", "tcp://127.0.0.1:1", "-g", "/g", "-p", "/p", "-s", "vfs", "-G", "wheel")
    other = load(
        *("--debug", "--host=unix:///a", "--host=tcp://127.0.0.1:1", "--graph=/g", "--pidfile=/p"),
        *("--storage-driver=vfs", "--group=wheel"),
    )
    assert one == other
    assert (one.debug, one.hosts) == (True, ("unix:///a", "tcp://127.0.0.1:1"))
    assert (one.root, one.pidfile, one.storage_driver, one.group) == (Path("/g"), Path("/p"), "vfs", "wheel")


def test_an_empty_pidfile_means_none() -> None:
    assert load("-p", "").pidfile is None


def test_every_setting_can_stand_in_the_file(tmp_path: Path) -> None:
    text = "debug: true\nhost: [unix:///a]\ngraph: /g\npidfile: ''\nstorage-driver: vfs\ngroup: wheel\nexec-root: /e\n"
    more = "log-driver: json-file\nstart-timeout: 5\nruntime: /usr/bin/crun\napi-enable-cors: true\nunpack-limit: 20g\n"
    one = from_file(tmp_path, text + more)
    assert one == Config(
        hosts=("unix:///a",),
        group="wheel",
        group_given=True,
        root=Path("/g"),
        exec_root=Path("/e"),
        pidfile=None,
        storage_driver="vfs",
        log_driver="json-file",
        start_timeout=5,
        runtime="/usr/bin/crun",
        api_enable_cors=True,
        unpack_limit=20 << 30,
        debug=True,
    )


@pytest.mark.parametrize(("value", "size"), [("0", 0), ("5000", 5000), ("'1.5g'", 3 << 29), ("64m", 64 << 20)])
def test_a_size_is_a_number_or_has_a_unit(tmp_path: Path, value: str, size: int) -> None:
    assert from_file(tmp_path, f"unpack-limit: {value}\n").unpack_limit == size
    assert load(f"--unpack-limit={value.strip(chr(39))}").unpack_limit == size


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    assert from_file(tmp_path, "graph: /file\n", "-g", "/flag").root == Path("/flag")


@pytest.mark.parametrize(("given", "allowed"), [((), False), (("--api-enable-cors",), True)])
def test_other_origins_are_allowed_only_if_somebody_says_so(given: tuple[str, ...], allowed: bool) -> None:
    assert load(*given).api_enable_cors is allowed


@pytest.mark.parametrize(("given", "restart"), [((), None), (("-r",), True), (("-r=false",), False)])
def test_whether_containers_come_back_is_said_or_left_open(given: tuple[str, ...], restart: bool | None) -> None:
    assert load(*given).restart is restart


def test_the_network_has_its_settings() -> None:
    one = load(
        *("--bip=10.9.0.1/16", "--fixed-cidr=10.9.1.0/24", "--ipv6", "--fixed-cidr-v6=fd00:1::/64", "--mtu=1400"),
        *("--default-address-pool=base=10.10.0.0/16,size=24", "--dns=9.9.9.9", "--dns-search=lan", "--dns-opt=ndots:2"),
        *("--firewall-backend=nftables", "--ip-forward=false", "--ip-masq=false", "--icc=false", "--ip=127.0.0.1"),
    ).network
    assert one == NetworkConfig(
        bip="10.9.0.1/16",
        fixed_cidr="10.9.1.0/24",
        fixed_cidr_v6="fd00:1::/64",
        ipv6=True,
        address_pools=(("10.10.0.0/16", 24),),
        mtu=1400,
        dns=("9.9.9.9",),
        dns_search=("lan",),
        dns_options=("ndots:2",),
        firewall_backend="nftables",
        ip_forward=False,
        ip_masq=False,
        icc=False,
        ip="127.0.0.1",
    )
    assert load("-b", "br7", "--iptables=false").network == NetworkConfig(bridge="br7", iptables=False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--bip=1",), "--bip 1: "),
        (("--bip=10.9.0.1/16", "-b", "br7"), "goes with no --bridge"),
        (("--fixed-cidr=10.9.0.1/16",), "--fixed-cidr 10.9.0.1/16: .*host bits"),
        (("--fixed-cidr-v6=10.9.0.0/16",), "--fixed-cidr-v6 10.9.0.0/16: "),
        (("--dns=dns.example",), "--dns dns.example: "),
        (("--ip=everywhere",), "--ip everywhere: "),
        (("--mtu=20",), "--mtu must be from 68 to 65535, or 0, not 20"),
        (("--iptables=false", "--icc=false"), "--icc=false needs the firewall"),
        (("--firewall-backend=pf",), "firewall-backend"),
        (("--default-address-pool=10.0.0.0/8",), "it must be base=SUBNET,size=PREFIX"),
        (("--default-address-pool=base=10.0.0.0/16,size=8",), "of subnets in the base"),
        (("--default-address-pool=base=10.0.0.0/16,size=24,colour=red",), "it must be base=SUBNET"),
    ],
)
def test_a_network_setting_that_means_nothing_is_refused_by_name(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpah: /g\n", "unknown key 'grpah'"),
        ("debug: maybe\n", "debug must be true or false"),
        ("graph: 5\n", "graph must be a text"),
        ("start-timeout: soon\n", "start-timeout must be a whole number"),
        ("unpack-limit: -1\n", "unpack-limit must be a number of bytes"),
        ("unpack-limit: plenty\n", "unpack-limit must be a number of bytes"),
        ("unpack-limit: true\n", "unpack-limit must be a number of bytes"),
        ("host: [1]\n", "host must be a text or a list of texts"),
        ("- a\n", "must hold keys and values"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_file(tmp_path, text)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nosuch"], "nosuch"),
        (["extra"], "extra"),
        (["--start-timeout=0"], "at least 1 second"),
        (["--log-driver=smoke"], "unknown log driver 'smoke'"),
        (["--log-opt=tag"], "--log-opt tag: it must be KEY=VALUE"),
        (["-g", ""], "--graph needs a directory"),
    ],
)
def test_a_wrong_command_line_is_refused_with_its_reason(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(*argv)


def test_a_file_that_was_named_must_exist() -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(config.parse(["--config", "/no/such/daemon.yaml"]))


def test_the_first_years_execution_drivers_are_accepted_and_no_other(tmp_path: Path) -> None:
    assert load("-e", "lxc").exec_driver == "lxc"
    assert from_file(tmp_path, "exec-driver: native\n").exec_driver == "native"
    with pytest.raises(ConfigError, match="unknown exec driver 'chroot': there are native and lxc"):
        load("--exec-driver=chroot")
