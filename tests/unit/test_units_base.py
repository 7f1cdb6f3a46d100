"""The limits as they are meant, before anything enforces them."""

from __future__ import annotations

import pytest

from dockerd_py.errors import BadParameter
from dockerd_py.units.base import DEFAULT_DEVICES, SCOPE_NAME, Limits, weight_of_shares
from dockerd_py.units.cgroupfs import quota_and_period
from dockerd_py.units.groups import device_rules

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "swap"),
    [
        (Limits(), None),
        (Limits(memory=10 * MIB), 10 * MIB),
        (Limits(memory=10 * MIB, memory_swap=15 * MIB), 5 * MIB),
        (Limits(memory=10 * MIB, memory_swap=10 * MIB), 0),
        (Limits(memory=10 * MIB, memory_swap=-1), None),
    ],
)
def test_swap_is_what_the_total_leaves_beside_memory(limits: Limits, swap: int | None) -> None:
    assert limits.swap == swap


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (512, 50), (1024, 100), (2048, 200), (262144, 10000)])
def test_shares_become_weights_with_the_ordinary_value_kept_ordinary(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


@pytest.mark.parametrize(
    ("per_second", "expected"),
    [
        (1_000_000, (100_000, 100_000)),
        (2_500_000, (250_000, 100_000)),
        (10_000, (1_000, 100_000)),
        (9_999, (9_999, 1_000_000)),
        (1, (1_000, 1_000_000)),
    ],
)
def test_a_quota_is_never_below_what_the_kernel_takes(per_second: int, expected: tuple[int, int]) -> None:
    assert quota_and_period(per_second) == expected


def test_scope_names_are_full_ids_only() -> None:
    assert SCOPE_NAME.fullmatch(f"container-{'0a' * 32}.scope")
    assert not SCOPE_NAME.fullmatch("container-abc.scope")
    assert not SCOPE_NAME.fullmatch(f"container-{'0A' * 32}.scope")


def test_devices_become_rules_of_version_1() -> None:
    rules = list(device_rules((*DEFAULT_DEVICES, ("/dev/null", "r"))))
    assert rules[:2] == ["c 1:3 rwm", "c 1:5 rwm"]
    assert "c 136:* rwm" in rules  # the pseudo terminals, by /proc/devices
    assert rules[-3:] == ["c *:* m", "b *:* m", "c 1:3 r"]


def test_a_device_that_this_host_lacks_gives_no_rule() -> None:
    assert list(device_rules((("/dev/nonesuch", "rwm"), ("char-nonesuch", "rw")))) == []


@pytest.mark.parametrize(
    "device", [("null", "rwm"), ("/dev/null", "rx"), ("/dev/null", ""), ("/dev", "r"), ("pipe-x", "r")]
)
def test_a_malformed_device_is_refused(device: tuple[str, str]) -> None:
    with pytest.raises(BadParameter, match=r"invalid device|no device"):
        list(device_rules((device,)))
