"""Each setting of a HostConfig that shapes a container has its effect, and inspect shows it as it was given."""

from __future__ import annotations

import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, until

from dockerd_py.runtime import capabilities, init
from dockerd_py.units import hierarchy

MAY_RAISE_LIMITS = "CAP_SYS_RESOURCE" in capabilities.available()
VERSION_1 = hierarchy.version_of(hierarchy.current()) == 1


def sh(daemon: Daemon, script: str, **host: Any) -> str:
    """What ``sh -c script`` prints in a container with these settings."""
    return daemon.run_to_end("sh", "-c", script, host=host)[1].decode()


def refusal(daemon: Daemon, config: dict[str, Any] | None = None, **host: Any) -> tuple[int, str]:
    """(status, message) of creating a container with these settings."""
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", **host}, **(config or {})}
    reply = daemon.post("/containers/create", body)
    return reply.status, "" if reply.status == 201 else reply.message


def shown(daemon: Daemon, **host: Any) -> Any:
    return daemon.inspect(daemon.create("true", host=host))["HostConfig"]


# Capabilities


def effective(daemon: Daemon, **host: Any) -> set[str]:
    mask = int(sh(daemon, "grep CapEff /proc/self/status", **host).split()[1], 16)
    return {name for number, name in enumerate(capabilities.ALL) if mask >> number & 1}


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["SYS_TIME", "cap_net_admin"], [], {*capabilities.DEFAULT, "CAP_SYS_TIME", "CAP_NET_ADMIN"}),
        ([], ["CAP_CHOWN", "mknod"], set(capabilities.DEFAULT) - {"CAP_CHOWN", "CAP_MKNOD"}),
        (["KILL"], ["ALL"], {"CAP_KILL"}),
        ([], ["all"], set()),
        (["ALL"], ["SYS_ADMIN"], set(capabilities.available()) - {"CAP_SYS_ADMIN"}),
    ],
)
def test_capabilities_are_added_and_dropped(
    daemon: Daemon, add: list[str], drop: list[str], expected: set[str]
) -> None:
    assert effective(daemon, CapAdd=add, CapDrop=drop) == expected
    seen = shown(daemon, CapAdd=add, CapDrop=drop)
    assert (seen["CapAdd"], seen["CapDrop"]) == (add or None, drop or None)


def test_an_unknown_capability_is_refused(daemon: Daemon) -> None:
    status, message = refusal(daemon, CapDrop=["FLY"])
    assert (status, 'invalid capability: "FLY"' in message) == (400, True)


@pytest.mark.skipif(MAY_RAISE_LIMITS, reason="this daemon has all capabilities")
def test_a_capability_that_the_daemon_lacks_is_refused_by_name(daemon: Daemon) -> None:
    status, message = refusal(daemon, CapAdd=["SYS_RESOURCE"])
    assert (status, 'invalid capability: "CAP_SYS_RESOURCE": the daemon itself' in message) == (400, True)


# Devices


def test_a_device_is_there_under_its_name_and_can_be_opened_as_allowed(daemon: Daemon) -> None:
    device = {"PathOnHost": "/dev/net/tun", "PathInContainer": "/dev/in/tun", "CgroupPermissions": "r"}
    script = "stat -c '%t:%T %a' /dev/in/tun; head -c 0 /dev/in/tun && echo read; : > /dev/in/tun"
    output = sh(daemon, script, Devices=[device])
    status = os.stat("/dev/net/tun")
    numbers = f"{os.major(status.st_rdev):x}:{os.minor(status.st_rdev):x} {stat.S_IMODE(status.st_mode):o}"
    assert output.startswith(f"{numbers}\nread\n")
    if VERSION_1:
        assert "Operation not permitted" in output
    assert shown(daemon, Devices=[device])["Devices"] == [device]


def test_a_directory_of_devices_is_there_whole(daemon: Daemon) -> None:
    device = {"PathOnHost": "/dev/net", "PathInContainer": "/dev/inner", "CgroupPermissions": "rwm"}
    assert sh(daemon, "ls /dev/inner", Devices=[device]).split() == sorted(os.listdir("/dev/net"))


@pytest.mark.parametrize(
    ("path", "reason"), [("/dev/nothing", "No such file or directory"), ("/etc/passwd", "not a device node")]
)
def test_what_is_no_device_is_refused_by_the_start(daemon: Daemon, path: str, reason: str) -> None:
    container = daemon.create("true", host={"Devices": [{"PathOnHost": path, "PathInContainer": "/dev/x"}]})
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, f'custom device "{path}": {reason}' in reply.message) == (400, True)


@pytest.mark.skipif(not VERSION_1, reason="device access is systemd's to limit here")
def test_a_device_rule_opens_what_the_container_makes_itself(daemon: Daemon) -> None:
    script = "mknod /tun c 10 200; head -c 0 /tun && echo opened"
    assert "Operation not permitted" in sh(daemon, script)
    assert sh(daemon, script, DeviceCgroupRules=["c 10:200 r"]) == "opened\n"
    assert sh(daemon, script, DeviceCgroupRules=["c 10:* rwm"]) == "opened\n"
    assert sh(daemon, script, DeviceCgroupRules=["a *:* rwm"]) == "opened\n"
    assert "Operation not permitted" in sh(daemon, script, DeviceCgroupRules=["c 1:* rwm"])


@pytest.mark.parametrize(
    "rule", ["c 1:3", "x 1:3 r", "c 1:3 x", "c *:5 r", "c 1:3 rwm ", "c a:b r"]
)
def test_a_device_rule_that_makes_no_sense_is_refused(daemon: Daemon, rule: str) -> None:
    status, message = refusal(daemon, DeviceCgroupRules=[rule])
    assert (status, rule in message) == (400, True)


# Namespaces


def namespaces(daemon: Daemon, **host: Any) -> dict[str, str]:
    listed = sh(daemon, "cd /proc/self/ns && for n in *; do echo $n $(readlink $n); done", **host)
    return dict(line.split(" ", 1) for line in listed.splitlines())


@pytest.mark.parametrize(
    ("key", "kind"), [("PidMode", "pid"), ("IpcMode", "ipc"), ("UTSMode", "uts"), ("CgroupnsMode", "cgroup")]
)
def test_a_namespace_is_the_containers_own_or_the_hosts(daemon: Daemon, key: str, kind: str) -> None:
    mine = os.readlink(f"/proc/self/ns/{kind}")
    assert namespaces(daemon)[kind] != mine
    assert namespaces(daemon, **{key: "host"})[kind] == mine
    assert shown(daemon, **{key: "host"})[key] == "host"


def test_with_the_hosts_processes_its_own_end_with_its_first(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "sleep 4321 & echo $!; sleep 0.1", host={"PidMode": "host"})
    daemon.wait(container)
    pid = int(daemon.logs(container))
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_hosts_name_is_the_containers_with_its_uts_namespace(daemon: Daemon) -> None:
    assert sh(daemon, "hostname; cat /etc/hostname", UTSMode="host").split() == [os.uname().nodename] * 2
    status, message = refusal(daemon, {"Hostname": "x"}, UTSMode="host")
    assert (status, "hostname and the UTS mode" in message) == (400, True)


def test_processes_of_another_container_are_seen_and_end_with_it(daemon: Daemon) -> None:
    donor = daemon.run_detached("sleep", "1000", name="donor")
    mode = "container:donor"
    assert "sleep 1000" in sh(daemon, "ps", PidMode=mode)
    joined = daemon.run_detached("sleep", "2000", host={"PidMode": mode})
    assert daemon.inspect(joined)["HostConfig"]["PidMode"] == f"container:{donor}"
    assert daemon.delete(f"/containers/{donor}?force=1").status == 204
    assert daemon.wait(joined) == 137


def test_ipc_is_shared_with_a_container_that_offers_it(daemon: Daemon) -> None:
    donor = daemon.run_detached("sh", "-c", "echo kept > /dev/shm/file; sleep 1000", host={"IpcMode": "shareable"})
    until(lambda: Path(daemon.run, "containers", donor, "shm/file").exists())
    assert sh(daemon, "cat /dev/shm/file; touch /dev/shm/back", IpcMode=f"container:{donor}") == "kept\n"
    pid = daemon.inspect(donor)["State"]["Pid"]
    there = namespaces(daemon, IpcMode=f"container:{donor}")
    assert there["ipc"] == os.readlink(f"/proc/{pid}/ns/ipc")
    assert Path(f"/proc/{pid}/root/dev/shm/back").exists()
    daemon.delete(f"/containers/{donor}?force=1")
    assert not [line for line in daemon.mounts() if "/shm " in line]


def test_ipc_is_not_taken_from_a_container_that_keeps_it(daemon: Daemon) -> None:
    donor = daemon.run_detached("sleep", "1000")
    container = daemon.create("true", host={"IpcMode": f"container:{donor}"})
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, "non-shareable IPC" in reply.message) == (400, True)
    daemon.delete(f"/containers/{donor}?force=1")
    reply = daemon.post(f"/containers/{container}/start")
    assert reply.status == 404


def test_a_container_to_join_must_be_there_and_run(daemon: Daemon) -> None:
    assert refusal(daemon, PidMode="container:nobody") == (400, "No such container: nobody")
    donor = daemon.create("true")
    container = daemon.create("true", host={"PidMode": f"container:{donor}"})
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, f"Container {donor} is not running" in reply.message) == (409, True)


def test_the_hosts_shared_memory_is_there_with_its_ipc_and_none_without_any(daemon: Daemon) -> None:
    mark = Path("/dev/shm/pydockerd-test-mark")
    mark.touch()
    try:
        assert sh(daemon, "ls /dev/shm", IpcMode="host").split().count(mark.name) == 1
    finally:
        mark.unlink()
    assert "/dev/shm" not in sh(daemon, "cat /proc/mounts", IpcMode="none")
    assert " /dev/shm " in sh(daemon, "cat /proc/mounts")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("PidMode", "mine", "invalid PID mode: mine"),
        ("IpcMode", "container:", "invalid IPC mode: container:"),
        ("UTSMode", "private", "invalid UTS mode: private"),
        ("CgroupnsMode", "container:x", "invalid cgroup namespace mode: container:x"),
        ("UsernsMode", "remap", 'the user namespace mode "remap" is not supported'),
    ],
)
def test_a_mode_that_there_is_not_is_refused(daemon: Daemon, key: str, value: str, text: str) -> None:
    status, message = refusal(daemon, **{key: value})
    assert (status, text in message) == (400, True), message


def test_the_hosts_user_namespace_is_what_every_container_has(daemon: Daemon) -> None:
    assert namespaces(daemon, UsernsMode="host")["user"] == os.readlink("/proc/self/ns/user")


# The root file system and what is shown of the kernel


def test_a_read_only_root_is_read_only_but_for_what_lies_over_it(daemon: Daemon) -> None:
    script = "touch /x; touch /etc/hosts; touch /dev/shm/y && echo shm; : > /dev/null && echo null"
    output = sh(daemon, script, ReadonlyRootfs=True)
    assert output.count("Read-only file system") == 2
    assert output.endswith("shm\nnull\n")
    assert shown(daemon, ReadonlyRootfs=True)["ReadonlyRootfs"] is True


def test_masked_and_read_only_paths_are_those_given(daemon: Daemon) -> None:
    given = {"MaskedPaths": ["/proc/meminfo", "/etc/passwd"], "ReadonlyPaths": ["/tmp"]}
    script = "cat /proc/meminfo /etc/passwd | wc -c; touch /tmp/x; grep -c ' /proc/sys ' /proc/mounts"
    output = sh(daemon, script + "; true", **given).splitlines()
    assert sorted(output) == ["0", "0", "touch: /tmp/x: Read-only file system"]
    seen = shown(daemon, **given)
    assert {key: seen[key] for key in given} == given


@pytest.mark.parametrize(
    "settings", [{"MaskedPaths": [], "ReadonlyPaths": []}, {"SecurityOpt": ["systempaths=unconfined"]}]
)
def test_system_paths_can_be_left_bare(daemon: Daemon, settings: dict[str, Any]) -> None:
    assert sh(daemon, "cut -d' ' -f2 /proc/mounts | grep -c ^/proc/", **settings) == "0\n"
    assert int(sh(daemon, "cut -d' ' -f2 /proc/mounts | grep -c ^/proc/")) > 3


def test_inspect_shows_the_paths_that_are_masked_by_default_and_none_of_a_privileged_one(daemon: Daemon) -> None:
    seen = shown(daemon)
    assert "/proc/kcore" in seen["MaskedPaths"]
    assert "/proc/sys" in seen["ReadonlyPaths"]
    seen = shown(daemon, Privileged=True)
    assert (seen["Privileged"], seen["MaskedPaths"], seen["ReadonlyPaths"]) == (True, None, None)


# Security options

NO_CHMOD = (
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
    '[{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
)


def test_a_seccomp_profile_of_ones_own_is_in_force(daemon: Daemon) -> None:
    output = sh(daemon, "chmod 700 /tmp; mkdir /new && echo made", SecurityOpt=[f"seccomp={NO_CHMOD}"])
    assert output == "chmod: /tmp: Operation not supported\nmade\n"
    assert shown(daemon, SecurityOpt=[f"seccomp={NO_CHMOD}"])["SecurityOpt"] == [f"seccomp={NO_CHMOD}"]


def test_a_privileged_container_is_filtered_where_a_profile_is_given(daemon: Daemon) -> None:
    output = sh(daemon, "chmod 700 /tmp", SecurityOpt=[f"seccomp={NO_CHMOD}"], Privileged=True)
    assert "Operation not supported" in output


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("seccomp=/a/file.json", "decoding the seccomp profile failed"),
        ("seccomp={}", "defaultAction"),
        ("seccomp=", 'invalid --security-opt: "seccomp="'),
        ("no-new-privileges=perhaps", "it must be true or false"),
        ("label=nonsense", "label=nonsense"),
        ("credentialspec=file://x", "credentialspec is not supported"),
        ("systempaths=masked", "systempaths=masked"),
        ("fly", 'invalid --security-opt: "fly"'),
    ],
)
def test_a_security_option_that_cannot_have_its_effect_is_refused(daemon: Daemon, option: str, text: str) -> None:
    status, message = refusal(daemon, SecurityOpt=[option])
    assert (status, text in message) == (400, True), message


def test_a_seccomp_profile_that_cannot_be_compiled_is_refused_by_the_start(daemon: Daemon) -> None:
    profile = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_NOPE"}]}'
    container = daemon.create("true", host={"SecurityOpt": [f"seccomp={profile}"]})
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, "SCMP_ACT_NOPE" in reply.message) == (400, True)


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="SELinux is on")
def test_labels_are_accepted_where_selinux_is_off(daemon: Daemon) -> None:
    assert refusal(daemon, SecurityOpt=["label=disable", "label=type:svirt_t", "label:level:s0"]) == (201, "")


@pytest.mark.skipif(Path("/sys/kernel/security/apparmor").exists(), reason="the kernel has AppArmor")
def test_an_apparmor_profile_is_refused_where_there_is_no_apparmor(daemon: Daemon) -> None:
    status, message = refusal(daemon, SecurityOpt=["apparmor=mine"])
    assert (status, "this host's kernel has no AppArmor" in message) == (400, True)
    assert refusal(daemon, SecurityOpt=["apparmor=unconfined"]) == (201, "")


def test_control_groups_are_writable_where_asked(daemon: Daemon) -> None:
    script = "grep ' /sys/fs/cgroup[ /]' /proc/mounts | tail -1 | cut -d' ' -f4 | cut -d, -f1"
    assert sh(daemon, script, SecurityOpt=["writable-cgroups=true"]) == "rw\n"
    assert sh(daemon, script) == "ro\n"


# What processes are born with


def test_sysctls_of_the_containers_own_namespaces_are_set(daemon: Daemon) -> None:
    given = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "fs.mqueue.msg_max": "33"}
    script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax fs/mqueue/msg_max"
    assert sh(daemon, script, Sysctls=given).split() == ["1", "12345678", "33"]
    assert shown(daemon, Sysctls=given)["Sysctls"] == given


@pytest.mark.parametrize(
    ("name", "more", "text"),
    [
        ("kernel.pid_max", {}, "is not in a separate kernel namespace"),
        ("vm.swappiness", {}, "is not in a separate kernel namespace"),
        ("kernel.hostname", {}, "give the container a hostname"),
        ("net.ipv4.ip_forward", {"NetworkMode": "host"}, "shares the network namespace"),
        ("kernel.msgmax", {"IpcMode": "host"}, "shares the ipc namespace"),
        ("net/../../kernel/pid_max", {}, "invalid sysctl"),
        ("x", {}, "invalid sysctl"),
    ],
)
def test_a_sysctl_of_the_hosts_is_refused(daemon: Daemon, name: str, more: dict[str, str], text: str) -> None:
    status, message = refusal(daemon, Sysctls={name: "1"}, **more)
    assert (status, name in message, text in message) == (400, True, True), message


def test_ulimits_are_set(daemon: Daemon) -> None:
    given = [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": 0, "Hard": 0}]
    assert sh(daemon, "ulimit -Sn; ulimit -Hn; ulimit -c", Ulimits=given).split() == ["100", "200", "0"]
    assert shown(daemon, Ulimits=given)["Ulimits"] == given


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"Name": "fish", "Soft": 1, "Hard": 1}, "invalid ulimit type: fish"),
        ({"Name": "nofile", "Soft": 5, "Hard": 4}, "nofile: 5 > 4"),
        ({"Name": "nofile", "Soft": -1, "Hard": -1}, "nofile"),
        ({"Name": "nofile", "Soft": 1, "Hard": 1 << 40}, "nofile"),
    ],
)
def test_a_ulimit_that_cannot_be_is_refused(daemon: Daemon, limit: dict[str, Any], text: str) -> None:
    status, message = refusal(daemon, Ulimits=[limit])
    assert (status, text in message) == (400, True), message


@pytest.mark.skipif(MAY_RAISE_LIMITS, reason="this daemon may raise limits")
def test_a_ulimit_above_what_the_machine_allows_is_refused_with_the_reason(daemon: Daemon) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert most != resource.RLIM_INFINITY
    status, message = refusal(daemon, Ulimits=[{"Name": "memlock", "Soft": -1, "Hard": -1}])
    assert (status, f"forbids more than {most} here" in message) == (400, True), message


def test_the_oom_score_is_set(daemon: Daemon) -> None:
    assert sh(daemon, "cat /proc/self/oom_score_adj", OomScoreAdj=321) == "321\n"
    assert shown(daemon, OomScoreAdj=321)["OomScoreAdj"] == 321
    status, message = refusal(daemon, OomScoreAdj=1001)
    assert (status, "[-1000, 1000]" in message) == (400, True)


@pytest.mark.skipif(MAY_RAISE_LIMITS, reason="this daemon may lower the score")
def test_an_oom_score_that_the_machine_forbids_is_refused_with_the_reason(daemon: Daemon) -> None:
    status, message = refusal(daemon, OomScoreAdj=-5)
    assert (status, "CAP_SYS_RESOURCE" in message) == (400, True)


def test_the_oom_killer_is_switched_off_where_control_groups_can_do_that(daemon: Daemon) -> None:
    host = {"NetworkMode": "none", "OomKillDisable": True}
    reply = daemon.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": host})
    assert reply.json["Warnings"]
    if VERSION_1:
        container = daemon.run_detached("sleep", "100", host={**host, "Memory": 64 << 20})
        group = hierarchy.of_controller(hierarchy.current(daemon.inspect(container)["State"]["Pid"]), "memory")
        assert group is not None
        assert "oom_kill_disable 1" in (group.own / "memory.oom_control").read_text()
        daemon.delete(f"/containers/{container}?force=1")


def test_groups_are_added_by_name_and_number(daemon: Daemon) -> None:
    assert set(sh(daemon, "id -G", GroupAdd=["audio", 4711]).split()) == {"0", "29", "44", "4711"}
    assert shown(daemon, GroupAdd=["audio"])["GroupAdd"] == ["audio"]
    container = daemon.create("true", host={"GroupAdd": ["nosuch"]})
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, "unable to find group nosuch" in reply.message) == (400, True)


@pytest.mark.skipif(not os.access(init.PROGRAMS[0], os.X_OK), reason="there is no init program")
@pytest.mark.parametrize("mode", ["", "host"])
def test_an_init_goes_before_the_command_and_reaps(daemon: Daemon, mode: str) -> None:
    script = "cat /proc/$PPID/cmdline | tr '\\0' ' '; (sleep 0.05 &); sleep 0.2; ps -o stat,args | grep -c '^Z'"
    output = sh(daemon, script, Init=True, PidMode=mode)
    assert output.startswith("/sbin/docker-init " + ("-s " if mode else "") + "-- sh -c")
    if not mode:
        assert output.split()[-1] == "0"
    assert daemon.run_to_end("sh", "-c", "exit 7", host={"Init": True})[0] == 7
    assert shown(daemon, Init=True)["Init"] is True
    assert "Init" not in shown(daemon)


# Names


def test_hosts_are_added(daemon: Daemon) -> None:
    given = ["db:10.1.2.3", "six:[fd00::7]", "seven:fd00::8"]
    output = sh(daemon, "cat /etc/hosts", ExtraHosts=given)
    assert output.endswith("10.1.2.3\tdb\nfd00::7\tsix\nfd00::8\tseven\n")
    assert sh(daemon, "tail -1 /etc/hosts", ExtraHosts=given, NetworkMode="host") == "fd00::8\tseven\n"
    assert shown(daemon, ExtraHosts=given)["ExtraHosts"] == given


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("db", 'bad format for add-host: "db"'),
        ("db:here", 'invalid IP address in add-host: "here"'),
        ("db:host-gateway", "host-gateway needs a bridge"),
        ("a b:1.2.3.4", "bad format"),
        ("db:fe80::1%e\n192.0.2.66 evil", "invalid IP address in add-host"),
    ],
)
def test_an_extra_host_that_cannot_be_is_refused(daemon: Daemon, entry: str, text: str) -> None:
    status, message = refusal(daemon, ExtraHosts=[entry])
    assert (status, text in message) == (400, True), message


def test_a_hostname_is_as_long_as_the_kernel_takes_it_in_bytes(daemon: Daemon) -> None:
    status, message = refusal(daemon, {"Hostname": "é" * 32})
    assert (status, message) == (400, "invalid hostname format: " + "é" * 32)
    assert refusal(daemon, {"Hostname": "é" * 31}) == (201, "")


def test_an_address_of_one_link_keeps_its_zone(daemon: Daemon) -> None:
    given: dict[str, Any] = {"Dns": ["fe80::1%eth0"], "ExtraHosts": ["db:fe80::2%eth0"]}
    assert sh(daemon, "tail -n1 /etc/resolv.conf /etc/hosts -q", **given).split() == [
        "nameserver", "fe80::1%eth0", "fe80::2%eth0", "db",
    ]  # fmt: skip


def test_name_servers_search_list_and_options_are_as_given(daemon: Daemon) -> None:
    given = {"Dns": ["192.0.2.1", "2001:db8::1"], "DnsSearch": ["a.example", "b.example"], "DnsOptions": ["ndots:3"]}
    assert sh(daemon, "cat /etc/resolv.conf", **given).splitlines()[-4:] == [
        "nameserver 192.0.2.1", "nameserver 2001:db8::1", "search a.example b.example", "options ndots:3",
    ]  # fmt: skip
    seen = shown(daemon, **given)
    assert {key: seen[key] for key in given} == given
    assert "search" not in sh(daemon, "cat /etc/resolv.conf", DnsSearch=["."])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"Dns": ["nowhere"]}, "nowhere is not an ip address"),
        ({"Dns": ["fe80::1%e\nnameserver 1.2.3.4"]}, "is not an ip address"),
        ({"DnsSearch": ["a\nnameserver 1.2.3.4"]}, "invalid dns search domain"),
        ({"DnsOptions": ["a b"]}, "invalid dns option"),
    ],
)
def test_a_resolver_setting_that_cannot_be_is_refused(daemon: Daemon, settings: dict[str, Any], text: str) -> None:
    status, message = refusal(daemon, **settings)
    assert (status, text in message) == (400, True), message


def test_the_first_year_gives_name_servers_beside_the_command(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["cat", "/etc/resolv.conf"], "Dns": ["192.0.2.9"]}
    reply = daemon.post("/containers/create", body, version="1.9")
    assert reply.status == 201, reply.data
    container = reply.json["Id"]
    daemon.post(f"/containers/{container}/start", version="1.9")
    daemon.wait(container)
    assert b"nameserver 192.0.2.9\n" in daemon.logs(container)


# The runtime, its control group, and the rest


def test_annotations_are_handed_on_and_shown(daemon: Daemon) -> None:
    given = {"org.example.note": "yes"}
    container = daemon.run_detached("sleep", "100", host={"Annotations": given})
    config = (daemon.run / "containers" / container / "config.json").read_text()
    assert '"org.example.note": "yes"' in config
    assert daemon.inspect(container)["HostConfig"]["Annotations"] == given
    daemon.delete(f"/containers/{container}?force=1")
    assert refusal(daemon, Annotations={"run.oci.seccomp_bpf_data": "AAAA"})[0] == 400


def test_a_runtime_is_known_by_its_name(daemon: Daemon) -> None:
    assert shown(daemon, Runtime="crun")["Runtime"] == "crun"
    status, message = refusal(daemon, Runtime="kata")
    assert (status, "unknown or invalid runtime name: kata" in message) == (400, True)


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_a_cgroup_parent_is_refused_without_systemd(daemon: Daemon) -> None:
    status, message = refusal(daemon, CgroupParent="x.slice")
    assert (status, "'x.slice' is not supported" in message) == (400, True)


def test_a_storage_option_is_refused(daemon: Daemon) -> None:
    status, message = refusal(daemon, StorageOpt={"size": "1G"})
    assert (status, "HostConfig.StorageOpt" in message) == (400, True)


def test_lxc_keys_that_have_a_setting_become_it(daemon: Daemon) -> None:
    given = [{"Key": "lxc.cgroup.cpu.shares", "Value": "512"}, {"Key": "lxc.cgroup.memory.limit_in_bytes",
                                                               "Value": "64M"}]  # fmt: skip
    seen = shown(daemon, LxcConf=given)
    assert (seen["CpuShares"], seen["Memory"], seen["LxcConf"]) == (512, 64 << 20, given)
    status, message = refusal(daemon, LxcConf={"lxc.utsname": "x"})
    assert (status, "lxc-conf key lxc.utsname is not supported" in message) == (400, True)


def test_stop_and_restart_take_a_signal(daemon: Daemon) -> None:
    script = "trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.05; done"
    container = daemon.run_detached("sh", "-c", script)
    until(lambda: daemon.logs(container) == b"up\n")
    assert daemon.post(f"/containers/{container}/restart?signal=SIGUSR1&t=10").status == 204
    until(lambda: daemon.logs(container) == b"up\nusr1\nup\n")
    assert daemon.post(f"/containers/{container}/stop?signal=10&t=10").status == 204
    assert daemon.inspect(container)["State"]["ExitCode"] == 3
    assert daemon.post(f"/containers/{container}/stop?signal=NOPE").status == 400


def test_every_key_of_a_host_config_that_clients_read_is_shown(daemon: Daemon) -> None:
    keys = {
        "Binds", "ContainerIDFile", "LogConfig", "NetworkMode", "PortBindings", "RestartPolicy", "AutoRemove",
        "VolumeDriver", "VolumesFrom", "ConsoleSize", "CapAdd", "CapDrop", "CgroupnsMode", "Dns", "DnsOptions",
        "DnsSearch", "ExtraHosts", "GroupAdd", "IpcMode", "Cgroup", "Links", "OomScoreAdj", "PidMode", "Privileged",
        "PublishAllPorts", "ReadonlyRootfs", "SecurityOpt", "UTSMode", "UsernsMode", "ShmSize", "Runtime",
        "Isolation", "CpuShares", "Memory", "NanoCpus", "CgroupParent", "BlkioWeight", "BlkioWeightDevice",
        "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "CpuPeriod",
        "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpusetCpus", "CpusetMems", "Devices",
        "DeviceCgroupRules", "DeviceRequests", "MemoryReservation", "MemorySwap", "MemorySwappiness",
        "OomKillDisable", "PidsLimit", "Ulimits", "CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth",
        "MaskedPaths", "ReadonlyPaths",
    }  # fmt: skip
    assert not keys - set(shown(daemon))


def test_settings_outlive_the_daemon(own_daemon: Daemon) -> None:
    host = {
        "CapAdd": ["SYS_TIME"], "Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/k",
                                            "CgroupPermissions": "r"}],
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}], "MaskedPaths": [], "IpcMode": "shareable", "Init": False,
        "Sysctls": {"kernel.shmmax": "12345"}, "Dns": ["192.0.2.1"], "Annotations": {"a": "b"},
        "LxcConf": [{"Key": "lxc.cgroup.cpu.shares", "Value": "10"}],
    }  # fmt: skip
    container = own_daemon.run_detached("sleep", "100", host=host)
    before = own_daemon.inspect(container)["HostConfig"]
    own_daemon.stop(9)
    own_daemon.start()
    assert own_daemon.inspect(container)["HostConfig"] == before
    assert own_daemon.post(f"/containers/{container}/restart?t=0").status == 204


@pytest.mark.skipif(Path("/run/systemd/system").exists() or not VERSION_1, reason="runc can work here")
def test_runc_is_refused_where_it_would_leave_the_containers_control_group(daemon: Daemon) -> None:
    status, message = refusal(daemon, Runtime="runc")
    assert (status, "runc is not supported here" in message or "runc is not installed" in message) == (400, True)


def test_shared_memory_that_a_killed_daemon_left_mounted_is_taken_away(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "1000", host={"IpcMode": "shareable"})
    assert [line for line in own_daemon.mounts() if "/shm " in line]
    pid = own_daemon.inspect(container)["State"]["Pid"]
    own_daemon.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    own_daemon.start()
    assert own_daemon.inspect(container)["State"]["Running"] is False
    assert not [line for line in own_daemon.mounts() if "/shm " in line]


def test_a_start_that_fails_leaves_no_shared_memory(daemon: Daemon) -> None:
    container = daemon.create("nosuch", host={"IpcMode": "shareable"})
    assert daemon.post(f"/containers/{container}/start").status == 400
    assert not [line for line in daemon.mounts() if "/shm " in line]


def test_joining_leaves_no_descriptor_open(daemon: Daemon) -> None:
    donor = daemon.run_detached("sleep", "1000")
    host = {"PidMode": f"container:{donor}"}
    sh(daemon, "true", **host)
    before = daemon.resting()
    for command in ("true", "nosuch"):
        container = daemon.create(command, host=host)
        daemon.post(f"/containers/{container}/start")
        daemon.delete(f"/containers/{container}?force=1")
    assert daemon.resting() == before
    daemon.delete(f"/containers/{donor}?force=1")
