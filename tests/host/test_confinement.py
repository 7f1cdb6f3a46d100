"""What separates a container from its host where systemd keeps it: device rules, slices, the default confinement."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hosttools import Api, Cli, run, systemctl, unit_property, wait_until

TUN = Path("/dev/pydockerd-test-tun")
"""A device node of our own: a booted test host need not have those of real hardware."""


@pytest.fixture
def tun(api: Api) -> str:
    if not TUN.exists():
        os.mknod(TUN, 0o20600, os.makedev(10, 200))
    return str(TUN)


def sh(pydocker: Cli, image: str, script: str, *options: str) -> str:
    done = pydocker("run", "--rm", "--network", "none", *options, image, "sh", "-c", script, check=False)
    return done.stdout + done.stderr


OPEN = "mknod /t c 10 200; head -c 0 /t && echo opened"


def test_a_container_can_make_a_node_and_not_open_it(pydocker: Cli, busybox: str) -> None:
    assert "Operation not permitted" in sh(pydocker, busybox, OPEN)
    disk = "mknod /disk b 7 0 && head -c 0 /disk; mknod /mem c 1 1 && head -c 0 /mem"
    assert sh(pydocker, busybox, disk).count("Operation not permitted") == 2


@pytest.mark.parametrize("rule", ["c 10:200 rwm", "c 10:* rwm", "a *:* rwm"])
def test_a_device_rule_is_one_of_the_scope(pydocker: Cli, busybox: str, rule: str) -> None:
    assert sh(pydocker, busybox, OPEN, "--device-cgroup-rule", rule) == "opened\n"


def test_a_device_rule_of_others_changes_nothing(pydocker: Cli, busybox: str) -> None:
    assert "Operation not permitted" in sh(pydocker, busybox, OPEN, "--device-cgroup-rule", "c 1:* rwm")


def test_a_device_is_allowed_by_the_scope_as_far_as_it_was_given(pydocker: Cli, busybox: str, tun: str) -> None:
    script = "head -c 0 /dev/t && echo read; : > /dev/t"
    output = sh(pydocker, busybox, script, "--device", f"{tun}:/dev/t:r")
    assert output.startswith("read\n")
    assert "Operation not permitted" in output
    container = pydocker.out("run", "-d", "--network", "none", "--device", f"{tun}:/dev/t:rw", busybox, "sleep", "600")
    scope = f"container-{container}.scope"
    assert unit_property(scope, "DevicePolicy") == "strict"
    assert "/dev/char/10:200 rw" in unit_property(scope, "DeviceAllow")


def test_a_privileged_container_may_open_every_device(pydocker: Cli, busybox: str, tun: str) -> None:
    output = sh(pydocker, busybox, f"head -c 0 {tun} && echo opened; grep CapEff /proc/self/status", "--privileged")
    mine = next(line for line in Path("/proc/1/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert output.split() == ["opened", "CapEff:", mine.split()[1]]
    assert sh(pydocker, busybox, OPEN, "--privileged") == "opened\n"


def test_a_privileged_container_may_change_its_control_groups_and_mount(pydocker: Cli, busybox: str) -> None:
    script = "mount -t tmpfs x /tmp && echo mounted; d=$(find /sys/fs/cgroup -name cgroup.procs | head -n 1);"
    script += " mkdir ${d%/*}/sub && rmdir ${d%/*}/sub && echo made"
    assert sh(pydocker, busybox, script, "--privileged") == "mounted\nmade\n"
    assert "made" not in sh(pydocker, busybox, script)


def test_a_containers_scope_is_in_the_slice_that_was_asked_for(pydocker: Cli, busybox: str) -> None:
    container = pydocker.out(
        "run", "-d", "--network", "none", "--cgroup-parent", "web-front.slice", busybox, "sleep", "600"
    )
    scope = f"container-{container}.scope"
    assert unit_property(scope, "Slice") == "web-front.slice"
    assert f"/web.slice/web-front.slice/{scope}" in unit_property(scope, "ControlGroup")
    assert pydocker.out("inspect", "-f", "{{.HostConfig.CgroupParent}}", container) == "web-front.slice"
    pydocker("rm", "-f", container)
    wait_until(lambda: systemctl("is-active", scope, check=False) != "active", 10, "the scope is gone")


@pytest.mark.parametrize("parent", ["/docker", "web", "a--b.slice", ".slice"])
def test_what_is_no_slice_is_refused(pydocker: Cli, busybox: str, parent: str) -> None:
    done = pydocker("create", "--cgroup-parent", parent, busybox, "true", check=False)
    assert done.returncode != 0
    assert 'a valid slice named as "xxx.slice"' in done.stderr


def test_with_the_hosts_processes_all_of_the_container_ends_with_its_first(pydocker: Cli, busybox: str) -> None:
    pid = sh(pydocker, busybox, "sleep 4444 & echo $!", "--pid", "host").strip()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "what the container left behind is gone")


def test_a_shareable_containers_memory_goes_with_it(pydocker: Cli, busybox: str, no_leftovers: None) -> None:
    donor = pydocker.out("run", "-d", "--network", "none", "--ipc", "shareable", busybox, "sh", "-c",
                         "echo kept > /dev/shm/file; sleep 600")  # fmt: skip
    wait_until(lambda: "kept" in sh(pydocker, busybox, "cat /dev/shm/file", "--ipc", f"container:{donor}"), 10, "it")
    pydocker("rm", "-f", donor)


def test_an_init_of_the_host_is_put_before_the_command(pydocker: Cli, busybox: str) -> None:
    if not any(Path("/usr/bin", name).exists() for name in ("tini-static", "catatonit")):
        pytest.skip("the host has neither tini nor catatonit")
    assert sh(pydocker, busybox, "cat /proc/1/cmdline | tr '\\0' ' '", "--init").startswith("/sbin/docker-init --")


def test_runc_keeps_to_the_scope(api: Api, pydocker: Cli, busybox: str) -> None:
    if not run("sh", "-c", "command -v runc", check=False).stdout:
        pytest.skip("the host has no runc")
    container = pydocker.out("run", "-d", "--network", "none", "--runtime", "runc", "--pids-limit", "77",
                             "--device-cgroup-rule", "c 10:200 rwm", busybox, "sleep", "600")  # fmt: skip
    pid = api.get(f"/containers/{container}/json").json["State"]["Pid"]
    scope = f"container-{container}.scope"
    group = unit_property(scope, "ControlGroup")
    assert {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            if "pids" in line or "devices" in line or "memory" in line} <= {group}  # fmt: skip
    assert unit_property(scope, "TasksMax") == "77"
    pydocker("stop", "-t", "1", container)
    assert api.get(f"/containers/{container}/json").json["State"]["ExitCode"] == 137
    wait_until(lambda: systemctl("is-active", scope, check=False) != "active", 10, "the scope is gone")
    assert sh(pydocker, busybox, OPEN, "--runtime", "runc", "--device-cgroup-rule", "c 10:200 rwm") == "opened\n"


def test_the_profile_for_apparmor_is_installed(api: Api) -> None:
    assert "profile pydockerd-default " in Path("/etc/apparmor.d/pydockerd-default").read_text()
