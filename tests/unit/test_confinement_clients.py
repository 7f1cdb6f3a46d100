"""The settings that confine a container, as each command line and docker-py send them: unmodified, to a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from clients import DOCKERS, is_older
from daemons import Daemon
from docker.types import Ulimit

from dockerd_py.runtime import init

REPOSITORY = Path(__file__).parents[2]
PYDOCKER = [sys.executable, "-m", "dockerd_py.cli.main"]
PROGRAMS = {"pydocker": PYDOCKER, **{argv[-1]: argv for argv in DOCKERS}}


@pytest.fixture(params=PROGRAMS)
def program(daemon: Daemon, request: pytest.FixtureRequest) -> list[str]:
    return [*PROGRAMS[request.param], "-H", f"unix://{daemon.socket}"]


def run(program: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, "run", "--rm", "--network", "none", *words],
        check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=REPOSITORY,
    )  # fmt: skip


def sh(program: list[str], script: str, *options: str) -> str:
    done = run(program, *options, "busybox", "sh", "-c", script)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [
        (["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status", "CapEff:\t0000000000001000"),
        (["--device", "/dev/net/tun:/dev/t:rw"], "stat -c %t:%T /dev/t", "a:c8"),
        (["--device-cgroup-rule", "c 10:200 rwm"], "mknod /t c 10 200; head -c 0 /t; echo $?", "0"),
        (["--privileged"], "mount -t tmpfs x /tmp && echo mounted", "mounted"),
        (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        (["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
        (["--security-opt", "systempaths=unconfined"], "cut -d' ' -f2 /proc/mounts | grep -c ^/proc/", "0"),
        (["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], "echo ok", "ok"),
        (["--read-only"], "touch /x 2>&1", "touch: /x: Read-only file system"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
        (["--group-add", "29"], "id -G | tr ' ' '\\n' | grep -c 29", "1"),
        (["--oom-score-adj", "77"], "cat /proc/self/oom_score_adj", "77"),
        (["--ulimit", "nofile=64:128"], "ulimit -Sn; ulimit -Hn", "64\n128"),
        (["--add-host", "db:10.0.0.9"], "tail -n 1 /etc/hosts", "10.0.0.9\tdb"),
        (["--dns", "192.0.2.3", "--dns-search", "x.example", "--dns-option", "ndots:2"],
         "tail -n 3 /etc/resolv.conf", "nameserver 192.0.2.3\nsearch x.example\noptions ndots:2"),
        (["--hostname", "box", "--domainname", "example.org"], "hostname; cat /proc/sys/kernel/domainname",
         "box\nexample.org"),
        (["--uts", "host"], "hostname", os.uname().nodename),
        (["--ipc", "none"], "grep -c /dev/shm /proc/mounts", "0"),
        (["--cgroupns", "host"], "readlink /proc/self/ns/cgroup", os.readlink("/proc/self/ns/cgroup")),
        (["--pid", "host"], "readlink /proc/self/ns/pid", os.readlink("/proc/self/ns/pid")),
        (["--userns", "host"], "readlink /proc/self/ns/user", os.readlink("/proc/self/ns/user")),
        (["--annotation", "a.b=c", "--runtime", "crun"], "echo ok", "ok"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_an_option_has_its_effect(program: list[str], options: list[str], script: str, expected: str) -> None:
    if options[0] == "--annotation" and is_older(program, 24):
        pytest.skip("older command lines have no such option")
    assert sh(program, script, *options).strip() == expected


@pytest.mark.skipif(not os.access(init.PROGRAMS[0], os.X_OK), reason="there is no init program")
def test_an_init_is_put_before_the_command(program: list[str]) -> None:
    assert sh(program, "tr '\\0' ' ' < /proc/1/cmdline", "--init").startswith("/sbin/docker-init -- sh -c")


def test_a_seccomp_profile_is_read_from_a_file(program: list[str], tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    assert "No space left on device" in sh(program, "mkdir /x", "--security-opt", f"seccomp={path}")


def test_another_containers_processes_are_joined_by_its_name(program: list[str], daemon: Daemon) -> None:
    donor = daemon.run_detached("sleep", "1234")
    name = daemon.inspect(donor)["Name"].removeprefix("/")
    assert "sleep 1234" in sh(program, "ps", "--pid", f"container:{name}")
    daemon.delete(f"/containers/{donor}?force=1")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--cap-add", "FLY"], "FLY"),
        (["--sysctl", "kernel.pid_max=5"], "kernel.pid_max"),
        (["--storage-opt", "size=1G"], "StorageOpt"),
        (["--runtime", "kata"], "unknown or invalid runtime name: kata"),
        (["--add-host", "x:host-gateway"], "host-gateway"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_by_name(program: list[str], options: list[str], text: str) -> None:
    done = run(program, *options, "busybox", "true")
    assert done.returncode == 125
    assert text in done.stderr


def test_stop_sends_the_signal_that_is_given(program: list[str], daemon: Daemon) -> None:
    if is_older(program, 23):
        pytest.skip("older command lines have no such option")
    script = "trap 'exit 5' USR2; while :; do sleep 0.05; done"
    container = daemon.run_detached("sh", "-c", script)
    subprocess.run([*program, "stop", "--signal", "USR2", container], check=True, capture_output=True, cwd=REPOSITORY)
    assert daemon.inspect(container)["State"]["ExitCode"] == 5


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    yield one
    one.close()


def test_docker_py_sets_all_at_once_and_sees_it_again(client: docker.DockerClient) -> None:
    given: dict[str, Any] = {
        "cap_add": ["SYS_TIME"], "cap_drop": ["MKNOD"], "devices": ["/dev/net/tun:/dev/t:r"],
        "device_cgroup_rules": ["c 1:3 r"], "dns": ["192.0.2.1"], "dns_opt": ["ndots:1"], "dns_search": ["a.example"],
        "extra_hosts": {"db": "10.0.0.1"}, "group_add": [29], "hostname": "box", "domainname": "example.org",
        "ipc_mode": "shareable", "oom_score_adj": 9, "pid_mode": "host", "read_only": True,
        "security_opt": ["no-new-privileges:true"], "sysctls": {"kernel.shmmax": "4096"},
        "ulimits": [Ulimit(name="core", soft=0, hard=0)], "userns_mode": "host", "cgroupns": "private",
        "runtime": "crun",
    }  # fmt: skip
    container = client.containers.run("busybox", ["sh", "-c", "hostname; id -G; cat /proc/sys/kernel/shmmax"],
                                      network_mode="none", detach=True, **given)  # fmt: skip
    try:
        assert container.wait()["StatusCode"] == 0
        assert container.logs() == b"box\n0 29 44\n4096\n"
        host = container.attrs["HostConfig"]
        container.reload()
        host = container.attrs["HostConfig"]
        assert (host["CapAdd"], host["CapDrop"], host["GroupAdd"]) == (["SYS_TIME"], ["MKNOD"], ["29"])
        assert host["Devices"] == [
            {"PathOnHost": "/dev/net/tun", "PathInContainer": "/dev/t", "CgroupPermissions": "r"}
        ]
        assert (host["Ulimits"], host["Sysctls"]) == ([{"Name": "core", "Soft": 0, "Hard": 0}], given["sysctls"])
        assert (host["ExtraHosts"], host["Dns"], host["DnsOptions"], host["DnsSearch"]) == (
            ["db:10.0.0.1"], ["192.0.2.1"], ["ndots:1"], ["a.example"],
        )  # fmt: skip
        assert (host["IpcMode"], host["PidMode"], host["ReadonlyRootfs"]) == ("shareable", "host", True)
    finally:
        container.remove(force=True)
