"""A container's settings become the OCI configuration that Docker would give it."""

from __future__ import annotations

import base64
import json
import resource
from dataclasses import replace

import pytest

from dockerd_py.runtime import rlimits, spec
from dockerd_py.runtime.capabilities import DEFAULT
from dockerd_py.runtime.seccomp import Profile
from dockerd_py.runtime.spec import Bind, Rlimit, SpecInput, Tmpfs, build_spec, default_environment

ID = "0123456789abcdef" * 4
PLAIN = SpecInput(
    id=ID, root="/r", args=("sh", "-c", "true"), environment=("PATH=/bin",), capabilities=DEFAULT, hostname="box"
)

DEFAULT_MOUNTS = ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]


def destinations(settings: SpecInput) -> list[str]:
    return [mount["destination"] for mount in build_spec(settings)["mounts"]]


def test_a_plain_container_has_dockers_mounts_namespaces_and_capabilities() -> None:
    made = build_spec(PLAIN)
    assert destinations(PLAIN) == DEFAULT_MOUNTS
    assert {one["type"] for one in made["linux"]["namespaces"]} == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert made["process"]["capabilities"] == {
        "bounding": list(DEFAULT),
        "effective": list(DEFAULT),
        "permitted": list(DEFAULT),
    }
    assert made["root"] == {"path": "/r", "readonly": False}
    assert made["process"]["noNewPrivileges"] is False
    json.dumps(made)


def test_control_groups_are_left_to_the_scope() -> None:
    made = build_spec(PLAIN)
    assert "resources" not in made["linux"]
    assert "cgroupsPath" not in made["linux"]
    assert not [path for path in made["linux"]["readonlyPaths"] if path.startswith("/sys/fs/cgroup")]


def test_sysfs_and_the_control_groups_are_read_only() -> None:
    options = {mount["destination"]: mount["options"] for mount in build_spec(PLAIN)["mounts"]}
    assert "ro" in options["/sys"]
    assert "ro" in options["/sys/fs/cgroup"]


def test_the_hosts_network_means_no_namespace_and_no_settings_of_it() -> None:
    made = build_spec(replace(PLAIN, network=spec.HOST))
    assert "network" not in {one["type"] for one in made["linux"]["namespaces"]}
    assert made["linux"]["sysctl"] == {}
    assert "net.ipv4.ip_unprivileged_port_start" in build_spec(PLAIN)["linux"]["sysctl"]


def test_the_name_is_the_short_id_unless_given() -> None:
    assert build_spec(replace(PLAIN, hostname=""))["hostname"] == "0123456789ab"
    made = build_spec(replace(PLAIN, domainname="example.org"))
    assert made["hostname"] == "box"
    assert made["linux"]["sysctl"]["kernel.domainname"] == "example.org"


def test_binds_follow_the_default_mounts_parents_first() -> None:
    settings = replace(
        PLAIN,
        binds=(Bind("/h/3", "/a/b/c", True), Bind("/h/1", "/a"), Bind("/h/2", "/a/b/"), Bind("/h/4", "/z")),
        hostname_path="/c/hostname",
        hosts_path="/c/hosts",
        resolv_conf_path="/c/resolv.conf",
    )
    assert destinations(settings) == [
        *DEFAULT_MOUNTS, "/a", "/z", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/a/b/", "/a/b/c",
    ]  # fmt: skip
    mounts = {mount["destination"]: mount for mount in build_spec(settings)["mounts"]}
    assert mounts["/a"] == {
        "destination": "/a",
        "type": "bind",
        "source": "/h/1",
        "options": ["rbind", "rprivate"],
    }
    assert mounts["/a/b/c"]["options"] == ["rbind", "rprivate", "ro"]


def test_tmpfs_and_binds_are_mounted_in_one_order() -> None:
    settings = replace(
        PLAIN,
        binds=(Bind("/h/2", "/a/b/c"), Bind("/h/1", "/a", propagation="rslave")),
        tmpfs=(Tmpfs("/a/b", ("noexec", "size=1m")),),
        root_propagation="rslave",
    )
    assert destinations(settings)[len(DEFAULT_MOUNTS) :] == ["/a", "/a/b", "/a/b/c"]
    made = build_spec(settings)
    mounts = {mount["destination"]: mount for mount in made["mounts"]}
    assert mounts["/a"]["options"] == ["rbind", "rslave"]
    assert mounts["/a/b"] == {
        "destination": "/a/b", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=1m"],
    }  # fmt: skip
    assert made["linux"]["rootfsPropagation"] == "rslave"
    assert "rootfsPropagation" not in build_spec(PLAIN)["linux"]


def test_a_bind_without_recursion_has_no_recursive_option() -> None:
    settings = replace(PLAIN, binds=(Bind("/h", "/a", True, recursive=False, propagation="rslave"),))
    assert build_spec(settings)["mounts"][-1]["options"] == ["bind", "slave", "ro"]


def test_shm_has_its_size_and_gives_way_to_a_tmpfs() -> None:
    def shm(settings: SpecInput) -> list[str]:
        (options,) = (m["options"] for m in build_spec(settings)["mounts"] if m["destination"] == "/dev/shm")
        return [option for option in options if option.startswith("size=")]

    assert shm(PLAIN) == [f"size={64 << 20}"]
    assert shm(replace(PLAIN, shm_size=4096)) == ["size=4096"]
    assert shm(replace(PLAIN, tmpfs=(Tmpfs("/dev/shm", ("size=1m",)),))) == ["size=1m"]


def test_a_bind_takes_the_place_of_a_default_mount_or_of_a_made_file() -> None:
    settings = replace(PLAIN, binds=(Bind("/h", "/dev/shm/"), Bind("/x", "/etc/hosts")), hosts_path="/c/hosts")
    sources = {mount["destination"].rstrip("/"): mount["source"] for mount in build_spec(settings)["mounts"]}
    assert sources["/dev/shm"] == "/h"
    assert sources["/etc/hosts"] == "/x"
    assert len(destinations(settings)) == len(DEFAULT_MOUNTS) + 1


def test_the_hosts_dev_takes_the_place_of_all_below_dev() -> None:
    settings = replace(PLAIN, binds=(Bind("/dev", "/dev"),))
    assert destinations(settings) == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]


def test_the_process_gets_user_groups_umask_limits_and_console() -> None:
    settings = replace(
        PLAIN,
        uid=1,
        gid=2,
        groups=(2, 3),
        umask=0o027,
        terminal=True,
        console_size=(24, 80),
        cwd="",
        rlimits=(Rlimit("RLIMIT_CORE", 0, 1),),
        oom_score_adj=100,
    )
    process = build_spec(settings)["process"]
    assert process["user"] == {"uid": 1, "gid": 2, "umask": 0o027, "additionalGids": [2, 3]}
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert process["cwd"] == "/"
    assert process["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}]
    assert process["oomScoreAdj"] == 100


def test_a_size_without_a_terminal_means_nothing() -> None:
    assert "consoleSize" not in build_spec(replace(PLAIN, console_size=(24, 80)))["process"]


def test_the_filter_is_handed_over_compiled_and_as_a_profile() -> None:
    section = {"defaultAction": "SCMP_ACT_ALLOW"}
    made = build_spec(replace(PLAIN, seccomp=Profile(section, b"program"), annotations={"a": "b"}))
    assert made["linux"]["seccomp"] == section
    assert base64.b64decode(made["annotations"].pop("run.oci.seccomp_bpf_data")) == b"program"
    assert made["annotations"] == {"a": "b"}


def test_no_filter_and_no_program_stay_out_of_the_configuration() -> None:
    assert build_spec(replace(PLAIN, seccomp=Profile({"defaultAction": "x"}, None)))["annotations"] == {}
    made = build_spec(replace(PLAIN, seccomp=Profile(None, b"program")))
    assert "seccomp" not in made["linux"]
    assert made["annotations"] == {}


def test_open_files_are_limited_by_what_this_process_may_give() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    expected = min(1048576, hard) if hard != resource.RLIM_INFINITY else 1048576
    assert rlimits.effective(()) == (Rlimit("RLIMIT_NOFILE", expected, expected),)


@pytest.mark.parametrize(
    ("given", "terminal", "expected"),
    [
        ((), False, (f"PATH={spec.DEFAULT_PATH}", "HOSTNAME=box", "HOME=/root")),
        ((), True, (f"PATH={spec.DEFAULT_PATH}", "HOSTNAME=box", "TERM=xterm", "HOME=/root")),
        (("A=1", "PATH=/x", "A=2", "B="), False, ("PATH=/x", "HOSTNAME=box", "A=2", "B=", "HOME=/root")),
        (("TERM=dumb", "HOME=/h", "X=a=b"), True,
         (f"PATH={spec.DEFAULT_PATH}", "HOSTNAME=box", "TERM=dumb", "HOME=/h", "X=a=b")),
        (("A=1", "B=1", "A", "HOSTNAME", "NEVER"), False, (f"PATH={spec.DEFAULT_PATH}", "B=1", "HOME=/root")),
    ],
)  # fmt: skip
def test_the_environment_is_the_defaults_replaced_in_place_then_the_rest(
    given: tuple[str, ...], terminal: bool, expected: tuple[str, ...]
) -> None:
    assert default_environment(given, hostname="box", terminal=terminal, home="/root") == expected
