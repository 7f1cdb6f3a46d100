"""What a container cannot do unless it was asked for, tried from inside; and that a privileged one can."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import confined_calls
import pytest
from daemons import Daemon

from dockerd_py.runtime import capabilities
from dockerd_py.runtime.seccomp import DEFAULT_PATH as SECCOMP_PROFILE
from dockerd_py.runtime.spec import MASKED_PATHS
from dockerd_py.units import hierarchy

SYSRQ = Path("/proc/sysrq-trigger")

DEVICES_ARE_LIMITED = hierarchy.version_of(hierarchy.current()) == 1
"""Without systemd; version 2 needs systemd's program for it."""


def try_in(daemon: Daemon, *names: str, host: dict[str, Any] | None = None, target: int = 0) -> dict[str, str]:
    settings = {**(host or {}), "Binds": confined_calls.BINDS}
    code, output = daemon.run_to_end(*confined_calls.command(*names, target=target), host=settings)
    assert code == 0, output
    return confined_calls.outcomes(output)


REFUSED = {
    "mount": "EPERM", "umount": "EPERM", "load_module": "EPERM", "reboot": "EPERM", "keyctl": "EPERM",
    "add_key": "EPERM", "unshare_user": "EPERM", "unshare_mount": "EPERM", "setns": "EPERM", "bpf": "EPERM",
    "settime": "EPERM", "swapon": "EPERM", "open_by_handle": "EPERM", "write_sysctl": "EROFS",
    "write_sysfs": "EROFS", "make_cgroup": "EROFS", "set_hostname": "EPERM",
}  # fmt: skip


@pytest.mark.skipif(not SECCOMP_PROFILE.exists(), reason="some of these are the seccomp profile's to refuse")
def test_by_default_the_hosts_levers_are_out_of_reach(daemon: Daemon) -> None:
    assert try_in(daemon, *REFUSED) == REFUSED


@pytest.mark.skipif(not SYSRQ.exists(), reason="this kernel has no sysrq-trigger")
def test_the_kernels_emergency_lever_is_read_only(daemon: Daemon) -> None:
    assert try_in(daemon, "sysrq") == {"sysrq": "EROFS"}


def test_what_the_kernel_tells_of_itself_is_masked(daemon: Daemon) -> None:
    there = [path for path in MASKED_PATHS if Path(path).exists()]
    assert there
    script = 'for p in "$@"; do find "$p" -type f -exec cat {} +; find "$p" -mindepth 1; done | wc -c'
    assert daemon.run_to_end("sh", "-c", script, "sh", *there)[1] == b"0\n"


@pytest.mark.skipif(not DEVICES_ARE_LIMITED, reason="device access is limited by systemd here")
def test_a_node_can_be_made_but_no_disk_and_no_memory_opened(daemon: Daemon) -> None:
    names = ("raw_disk", "tunnel", "physical_memory")
    assert set(try_in(daemon, *names).values()) == {"EPERM"}


def test_a_process_of_the_host_can_be_neither_seen_nor_traced_nor_signalled(daemon: Daemon) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            found = try_in(daemon, "trace_stranger", "signal_stranger", target=stranger.pid)
        finally:
            stranger.kill()
    # An older distribution's profile keeps ptrace from everybody.
    assert found in ({"trace_stranger": error, "signal_stranger": "ESRCH"} for error in ("ESRCH", "EPERM"))


def test_a_process_of_the_host_cannot_be_traced_though_it_is_seen(daemon: Daemon) -> None:
    with subprocess.Popen(["sleep", "60"], user=65534, group=65534, extra_groups=[]) as stranger:
        try:
            mine = try_in(daemon, "trace_stranger", host={"PidMode": "host"}, target=stranger.pid)
            free = {"PidMode": "host", "CapAdd": ["SYS_PTRACE"]}
            with_it = try_in(daemon, "trace_stranger", host=free, target=stranger.pid)
        finally:
            stranger.kill()
    assert mine == {"trace_stranger": "EPERM"}
    assert with_it == {"trace_stranger": "done"}


def test_the_default_capabilities_are_dockers_fourteen_and_no_more(daemon: Daemon) -> None:
    _, output = daemon.run_to_end("sh", "-c", "grep Cap /proc/self/status; grep -c . /proc/self/status")
    sets = {line.split()[0]: int(line.split()[1], 16) for line in output.decode().splitlines() if ":" in line}
    expected = sum(1 << capabilities.ALL.index(name) for name in capabilities.DEFAULT)
    assert sets == {"CapInh:": 0, "CapPrm:": expected, "CapEff:": expected, "CapBnd:": expected, "CapAmb:": 0}


@pytest.mark.skipif(not SECCOMP_PROFILE.exists(), reason="there is no seccomp profile")
def test_the_seccomp_filter_is_on_by_default_and_off_where_asked(daemon: Daemon) -> None:
    script = ("grep", "Seccomp:", "/proc/self/status")
    assert daemon.run_to_end(*script)[1].split() == [b"Seccomp:", b"2"]
    off = {"SecurityOpt": ["seccomp=unconfined"]}
    assert daemon.run_to_end(*script, host=off)[1].split() == [b"Seccomp:", b"0"]
    assert daemon.run_to_end(*script, host={"Privileged": True})[1].split() == [b"Seccomp:", b"0"]


def test_a_privileged_container_has_every_capability_that_the_daemon_has(daemon: Daemon) -> None:
    _, output = daemon.run_to_end("grep", "CapEff", "/proc/self/status", host={"Privileged": True})
    expected = sum(1 << capabilities.ALL.index(name) for name in capabilities.available())
    assert int(output.split()[1], 16) == expected


def test_a_privileged_container_reaches_what_others_do_not(daemon: Daemon) -> None:
    names = ("mount", "keyctl", "unshare_mount", "setns", "write_sysctl", "make_cgroup",
             "kernel_messages", "set_hostname", "umount")  # fmt: skip
    found = try_in(daemon, *names, host={"Privileged": True})
    assert found == dict.fromkeys(names, "done")
    # past the filter and the capability, it is the arguments that are refused
    reached = try_in(daemon, "load_module", "reboot", "bpf", "swapon", "open_by_handle", host={"Privileged": True})
    assert "EPERM" not in reached.values()


def test_a_privileged_container_has_all_devices_of_the_host_and_can_open_them(daemon: Daemon) -> None:
    _, output = daemon.run_to_end("sh", "-c", "ls -1 /dev; echo; head -c 0 /dev/kmsg && echo opened",
                                  host={"Privileged": True})  # fmt: skip
    listed, _, said = output.decode().partition("\n\n")
    on_host = {path.name for path in Path("/dev").iterdir() if path.is_char_device() or path.is_block_device()}
    missing = {name for name in on_host if not Path("/dev", name).is_symlink()} - set(listed.split()) - {"console"}
    assert not missing
    assert said == "opened\n"


def test_nothing_is_masked_in_a_privileged_container(daemon: Daemon) -> None:
    plain = daemon.run_to_end("sh", "-c", "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l")[1].split()
    assert plain == [b"0", b"0"]
    script = "cat /proc/timer_list | wc -c; grep -c '/proc/sys\\|/sys/firmware' /proc/self/mountinfo"
    size, mounts = daemon.run_to_end("sh", "-c", script, host={"Privileged": True})[1].split()
    assert int(size) > 0
    assert mounts == b"0"


def test_no_new_privileges_is_the_processes_own(daemon: Daemon) -> None:
    script = ("grep", "NoNewPrivs", "/proc/self/status")
    for option, expected in (("no-new-privileges", b"1"), ("no-new-privileges:true", b"1"),
                             ("no-new-privileges=false", b"0")):  # fmt: skip
        assert daemon.run_to_end(*script, host={"SecurityOpt": [option]})[1].split()[1] == expected
    assert daemon.run_to_end(*script)[1].split()[1] == b"0"
