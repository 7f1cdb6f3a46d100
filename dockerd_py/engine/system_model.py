"""What the engine says of itself and its host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SystemInfo:
    id: str
    name: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    driver: str
    driver_status: tuple[tuple[str, str], ...]
    log_driver: str
    cgroup_driver: str  # "systemd" or "cgroupfs"
    cgroup_version: str  # "1" or "2"
    root: str
    debug: bool
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    cpus: int
    memory: int
    memory_limit: bool
    swap_limit: bool
    cpu_limit: bool
    pids_limit: bool
    ipv4_forwarding: bool
    bridge_nf_iptables: bool  # what goes over a bridge passes the host's iptables, too
    bridge_nf_ip6tables: bool
    file_descriptors: int
    event_listeners: int
    runtime: str
    runtime_version: str
    init_system: str  # "systemd" or "none"
    warnings: tuple[str, ...]
    oom_kill_disable: bool
    runtimes: tuple[tuple[str, str], ...]  # name, path
    security_options: tuple[str, ...]  # as Docker spells them
