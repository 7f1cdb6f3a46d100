"""The limits as they are meant, before anything enforces them."""

from __future__ import annotations

import pytest

from dockerd_py.errors import BadParameter
from dockerd_py.units.base import DEFAULT_DEVICES, SCOPE_NAME, Limits, Rate, weight_of_shares
from dockerd_py.units.groups import device_rules
from dockerd_py.units.limits import (
    INFINITY,
    birth_files,
    birth_properties,
    numbers_of,
    quota_and_period,
    run_properties,
)

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


def test_limits_become_properties_and_changes_of_them_only_what_changed() -> None:
    limits = Limits(memory=64 * MIB, cpu_shares=512, cpuset_cpus="0-1,9", blkio_read_bps=(Rate("/dev/vda", 5),))
    assert birth_properties(limits, 2) == {
        "MemoryMax": 64 * MIB, "MemorySwapMax": 64 * MIB, "CPUWeight": 50, "AllowedCPUs": [0b11, 0b10],
        "IOReadBandwidthMax": [("/dev/vda", 5)],
    }  # fmt: skip
    assert birth_properties(limits, 2, limits) == {}
    assert birth_properties(Limits(), 2, limits) == {
        "MemoryMax": INFINITY, "MemorySwapMax": INFINITY, "CPUWeight": 100, "IOReadBandwidthMax": [],
    }  # fmt: skip
    assert birth_properties(limits, 1) == {"MemoryMax": 64 * MIB, "CPUShares": 512}
    assert run_properties(Limits(pids=5, cpu_quota_per_sec_usec=500_000), Limits(pids=5)) == {
        "CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": INFINITY,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [
        (32, 64, "memory.memsw.limit_in_bytes"),
        (64, 32, "memory.limit_in_bytes"),
        (64, 0, "memory.memsw.limit_in_bytes"),
    ],
)
def test_memory_is_never_above_memory_and_swap_while_both_change(before: int, after: int, first: str) -> None:
    old = Limits(memory=before * MIB, memory_swap=before * MIB)
    new = Limits(memory=after * MIB, memory_swap=after * MIB)
    assert next(birth_files(new, 1, old)).name == first


@pytest.mark.parametrize("text", ["", "x", "3-1", "1-", "1,,2", "0-99999999"])
def test_lists_of_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        numbers_of(text)


def test_lists_of_numbers_are_read_as_the_kernel_writes_them() -> None:
    assert numbers_of("0-2,5") == [0, 1, 2, 5]
    assert numbers_of("7\n".strip()) == [7]
