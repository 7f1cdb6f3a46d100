"""Every setting that docker-py can send for one Linux host is either accepted and shown again, or refused by its name.

That each has its effect is proved where the effect is: test_daemon_settings, _resources, _volumes, _health and others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from daemons import Daemon
from docker.models import containers as model
from docker.types import DeviceRequest, Healthcheck, LogConfig, Mount, Ulimit

from dockerd_py.runtime import init

DISK = next((str(path) for path in sorted(Path("/dev").iterdir()) if path.is_block_device()), "")
RATE = [{"Path": DISK, "Rate": 1048576}]
CHECK = Healthcheck(test=["CMD", "true"], interval=2_000_000_000, retries=2)
LOG = LogConfig(type="json-file", config={"max-size": "1m"})
DATA = Mount("/data", "some-volume")

# By docker-py's name: (value, where inspect shows it, what it shows there; ... for the value itself).
ACCEPTED: dict[str, tuple[Any, str, Any]] = {
    "command": (["echo", "hi"], "Config.Cmd", ...),
    "domainname": ("example.org", "Config.Domainname", ...),
    "entrypoint": (["sh", "-c"], "Config.Entrypoint", ...),
    "environment": ({"A": "1"}, "Config.Env.0", "A=1"),
    "healthcheck": (CHECK, "Config.Healthcheck", {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 2}),
    "hostname": ("box", "Config.Hostname", ...),
    "image": ("busybox", "Config.Image", ...),
    "labels": ({"k": "v"}, "Config.Labels", ...),
    "name": ("settings-test", "Name", "/settings-test"),
    "network_disabled": (True, "Config.NetworkDisabled", ...),
    "platform": ("linux", "Platform", ...),
    "stdin_open": (True, "Config.OpenStdin", ...),
    "stop_signal": ("SIGINT", "Config.StopSignal", ...),
    "tty": (True, "Config.Tty", ...),
    "user": ("1000:1000", "Config.User", ...),
    "volumes": ({"/srv": {"bind": "/in", "mode": "ro"}}, "HostConfig.Binds", ["/srv:/in:ro"]),
    "working_dir": ("/tmp", "Config.WorkingDir", ...),
    "auto_remove": (True, "HostConfig.AutoRemove", ...),
    "blkio_weight": (200, "HostConfig.BlkioWeight", ...),
    "blkio_weight_device": ([{"Path": DISK, "Weight": 200}], "HostConfig.BlkioWeightDevice", ...),
    "cap_add": (["NET_ADMIN"], "HostConfig.CapAdd", ...),
    "cap_drop": (["KILL"], "HostConfig.CapDrop", ...),
    "cgroupns": ("host", "HostConfig.CgroupnsMode", ...),
    "cpu_period": (50000, "HostConfig.CpuPeriod", ...),
    "cpu_quota": (20000, "HostConfig.CpuQuota", ...),
    "cpu_shares": (512, "HostConfig.CpuShares", ...),
    "cpuset_cpus": ("0", "HostConfig.CpusetCpus", ...),
    "cpuset_mems": ("0", "HostConfig.CpusetMems", ...),
    "device_cgroup_rules": (["c 10:200 rwm"], "HostConfig.DeviceCgroupRules", ...),
    "device_read_bps": (RATE, "HostConfig.BlkioDeviceReadBps", ...),
    "device_read_iops": (RATE, "HostConfig.BlkioDeviceReadIOps", ...),
    "device_write_bps": (RATE, "HostConfig.BlkioDeviceWriteBps", ...),
    "device_write_iops": (RATE, "HostConfig.BlkioDeviceWriteIOps", ...),
    "devices": (["/dev/net/tun:/dev/t:r"], "HostConfig.Devices.0.PathInContainer", "/dev/t"),
    "dns": (["192.0.2.1"], "HostConfig.Dns", ...),
    "dns_opt": (["ndots:2"], "HostConfig.DnsOptions", ...),
    "dns_search": (["x.example"], "HostConfig.DnsSearch", ...),
    "extra_hosts": ({"db": "10.0.0.9"}, "HostConfig.ExtraHosts", ["db:10.0.0.9"]),
    "group_add": (["29"], "HostConfig.GroupAdd", ...),
    "init": (any(os.access(path, os.X_OK) for path in init.PROGRAMS), "HostConfig.Init", ...),
    "ipc_mode": ("shareable", "HostConfig.IpcMode", ...),
    "isolation": ("default", "HostConfig.Isolation", ""),
    "log_config": (LOG, "HostConfig.LogConfig", {"Type": "json-file", "Config": {"max-size": "1m"}}),
    "mac_address": ("02:42:ac:11:00:02", "Config.MacAddress", ...),
    "mem_limit": ("64m", "HostConfig.Memory", 64 << 20),
    "mem_reservation": ("32m", "HostConfig.MemoryReservation", 32 << 20),
    "memswap_limit": ("128m", "HostConfig.MemorySwap", 128 << 20),
    "mounts": ([DATA], "HostConfig.Mounts.0.Target", "/data"),
    "nano_cpus": (500_000_000, "HostConfig.NanoCpus", ...),
    "network_mode": ("host", "HostConfig.NetworkMode", ...),
    "oom_score_adj": (500, "HostConfig.OomScoreAdj", ...),
    "pid_mode": ("host", "HostConfig.PidMode", ...),
    "pids_limit": (50, "HostConfig.PidsLimit", ...),
    "privileged": (True, "HostConfig.Privileged", ...),
    "read_only": (True, "HostConfig.ReadonlyRootfs", ...),
    "restart_policy": ({"Name": "on-failure", "MaximumRetryCount": 3}, "HostConfig.RestartPolicy", ...),
    "runtime": ("crun", "HostConfig.Runtime", ...),
    "security_opt": (["no-new-privileges"], "HostConfig.SecurityOpt", ...),
    "shm_size": ("32m", "HostConfig.ShmSize", 32 << 20),
    "sysctls": ({"net.ipv4.ip_forward": "1"}, "HostConfig.Sysctls", ...),
    "tmpfs": ({"/run": "size=1m"}, "HostConfig.Tmpfs", ...),
    "ulimits": ([Ulimit(name="nofile", soft=64, hard=128)], "HostConfig.Ulimits.0",
                {"Name": "nofile", "Soft": 64, "Hard": 128}),
    "userns_mode": ("host", "HostConfig.UsernsMode", ...),
    "uts_mode": ("host", "HostConfig.UTSMode", ...),
    "ports": ({"80/tcp": 8080, "53/udp": ("127.0.0.1", 5353)}, "HostConfig.PortBindings",
              {"80/tcp": [{"HostIp": "", "HostPort": "8080"}],
               "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}]}),
    "publish_all_ports": (True, "HostConfig.PublishAllPorts", ...),
    "volume_driver": ("local", "HostConfig.VolumeDriver", ...),
    "volumes_from": (["donor:ro"], "HostConfig.VolumesFrom", ...),
}  # fmt: skip

# By docker-py's name: (value, the name by which it is refused).
REFUSED: dict[str, tuple[Any, str]] = {
    "cpu_count": (2, "HostConfig.CpuCount"),  # of Windows
    "cpu_percent": (50, "HostConfig.CpuPercent"),  # of Windows
    "cpu_rt_period": (1_000_000, "HostConfig.CpuRealtimePeriod"),
    "cpu_rt_runtime": (900_000, "HostConfig.CpuRealtimeRuntime"),
    "device_requests": ([DeviceRequest(count=-1, capabilities=[["gpu"]])], "HostConfig.DeviceRequests"),
    "kernel_memory": ("64m", "HostConfig.KernelMemory"),
    "links": ({"other": "alias"}, "could not get container for other"),  # those that are there: test_daemon_links
    "network": ("some-network", "some-network"),  # which is not there; those that are: test_networks_clients
    "storage_opt": ({"size": "1g"}, "HostConfig.StorageOpt"),
}

# Accepted or refused as the machine's control groups are, which test_daemon_settings and _resources are about.
BY_MACHINE = {"cgroup_parent", "mem_swappiness", "oom_kill_disable"}

# How docker-py itself is to work; or what it does not send in any API version that it speaks.
NOT_SENT = {"detach", "use_config_proxy", "version", "init_path", "lxc_conf"}


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    donor = daemon.create("true", name="donor")
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    yield one
    one.close()
    daemon.delete(f"/containers/{donor}")


def test_the_table_is_about_every_setting_of_docker_py() -> None:
    known = {*model.RUN_CREATE_KWARGS, *model.RUN_HOST_CONFIG_KWARGS, "network", "ports", "volumes"}
    assert known == {*ACCEPTED, *REFUSED, *BY_MACHINE, *NOT_SENT}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_is_shown_as_it_was_given(client: docker.DockerClient, name: str) -> None:
    value, path, expected = ACCEPTED[name]
    if not DISK and ("device_" in name or name.endswith("_device")) and name != "device_cgroup_rules":
        pytest.skip("no block device here")
    settings: dict[str, Any] = {"image": "busybox", "command": ["true"], "network_mode": "none"}
    settings[name] = value
    if name == "memswap_limit":
        settings["mem_limit"] = "64m"
    if name == "mac_address":
        del settings["network_mode"]  # nobody has one there
    container = client.containers.create(**settings)
    try:
        shown: Any = container.attrs
        for step in path.split("."):
            shown = shown[int(step) if isinstance(shown, list) else step]
        assert shown == (value if expected is ... else expected)
    finally:
        container.remove(v=True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_name(client: docker.DockerClient, name: str) -> None:
    value, spelled = REFUSED[name]
    settings: dict[str, Any] = {"image": "busybox", "command": ["true"]}
    settings[name] = value
    before = client.containers.list(all=True)
    with pytest.raises(docker.errors.APIError) as caught:
        client.containers.create(**settings)
    assert caught.value.status_code in (400, 501)
    assert spelled in caught.value.explanation
    assert client.containers.list(all=True) == before
