"""The first year's lxc keys: those that are a setting of ours become it, others are refused by name."""

from __future__ import annotations

import pytest

from dockerd_py.engine import lxcconf
from dockerd_py.engine.model import HostConfig
from dockerd_py.errors import BadParameter, NotSupported


def applied(*pairs: tuple[str, str]) -> HostConfig:
    return lxcconf.apply(HostConfig(lxc_conf=pairs))


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("memory.limit_in_bytes", "512M", "memory", 512 << 20),
        ("memory.memsw.limit_in_bytes", "1g", "memory_swap", 1 << 30),
        ("cpu.shares", "300", "cpu_shares", 300),
        ("cpu.cfs_quota_us", "20000", "cpu_quota", 20000),
        ("cpu.cfs_period_us", "50000", "cpu_period", 50000),
        ("pids.max", "7", "pids_limit", 7),
    ],
)
def test_a_control_group_key_becomes_the_setting_that_it_stands_for(
    key: str, value: str, field: str, expected: object
) -> None:
    assert getattr(applied((f"lxc.cgroup.{key}", value)), field) == expected


def test_allowed_devices_become_rules_in_their_order() -> None:
    given = ("lxc.cgroup.devices.allow", "c 10:* rwm"), ("lxc.cgroup.devices.allow", "b 7:0 r")
    assert applied(*given).security.device_cgroup_rules == ("c 10:* rwm", "b 7:0 r")


def test_what_was_given_is_kept_to_be_shown() -> None:
    given = (("lxc.cgroup.cpu.shares", "5"), ("lxc.cgroup.cpu.shares", "6"))
    host = applied(*given)
    assert (host.lxc_conf, host.cpu_shares) == (given, 6)


@pytest.mark.parametrize("key", ["lxc.utsname", "lxc.cgroup.devices.deny", "cpu.shares", "lxc.cgroup.", ""])
def test_any_other_key_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(NotSupported) as caught:
        applied((key, "1"))
    assert str(caught.value).startswith(f"the lxc-conf key {key} is not supported: there are lxc.cgroup.memory")


def test_a_value_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadParameter, match=r'invalid value "many" of the lxc-conf key lxc\.cgroup\.cpu\.shares'):
        applied(("lxc.cgroup.cpu.shares", "many"))
