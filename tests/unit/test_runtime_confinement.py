"""The small parts of a container's confinement: devices, limits, parameters, the init, AppArmor, names."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from dockerd_py.errors import BadParameter, NotSupported, RuntimeFailed
from dockerd_py.runtime import apparmor, capabilities, devices, files, init, rlimits, sysctls
from dockerd_py.runtime.apparmor import AppArmor

PROFILE = Path(__file__).parents[2] / "packaging/apparmor/pydockerd-default"

# Capabilities


def test_a_default_capability_that_the_daemon_lacks_is_left_out() -> None:
    mine = tuple(name for name in capabilities.ALL if name != "CAP_MKNOD")
    got = capabilities.effective((), (), privileged=False, mine=mine)
    assert set(got) == set(capabilities.DEFAULT) - {"CAP_MKNOD"}
    assert capabilities.effective((), ("ALL",), privileged=True, mine=mine) == mine


def test_a_capability_added_by_name_is_there_though_it_is_dropped() -> None:
    got = capabilities.effective(("CHOWN", "SYS_TIME"), ("CHOWN", "KILL"), privileged=False, mine=capabilities.ALL)
    assert "CAP_CHOWN" in got
    assert "CAP_SYS_TIME" in got
    assert "CAP_KILL" not in got


# Devices


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("c 1:3 mr", (("/dev/char/1:3", "rm"),)),
        ("b 8:* rwm", (("block-8", "rwm"),)),
        ("a *:* rwm", (("char-*", "rwm"), ("block-*", "rwm"))),
        ("a 7:1 r", (("/dev/char/7:1", "r"), ("/dev/block/7:1", "r"))),
    ],
)
def test_a_device_rule_becomes_what_a_scope_takes(rule: str, expected: tuple[devices.Rule, ...]) -> None:
    assert devices.parse_rule(rule) == expected


def test_a_minor_number_of_any_major_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match=r"'c \*:5 r' is not supported"):
        devices.parse_rule("c *:5 r")


@pytest.mark.parametrize("text", ["", "rr", "x", "rwmx"])
def test_a_device_mode_is_letters_of_rwm(text: str) -> None:
    with pytest.raises(BadParameter, match="invalid device mode"):
        devices.check_permissions(text)


def test_a_device_keeps_its_numbers_mode_and_owner_under_its_new_name(tmp_path: Path) -> None:
    os.mknod(tmp_path / "zero", 0o20640, os.makedev(1, 5))
    os.chmod(tmp_path / "zero", 0o640)
    os.chown(tmp_path / "zero", 0, 44)
    (tmp_path / "link").symlink_to("zero")
    (node,) = devices.nodes(str(tmp_path / "link"), "/dev/nil")
    assert node == devices.Node("/dev/nil", "c", 1, 5, 0o640, 0, 44)
    assert node.rule("rw") == ("/dev/char/1:5", "rw")


def test_the_devices_of_a_directory_are_those_below_it_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "snd/by").mkdir(parents=True)
    os.mknod(tmp_path / "snd/a", 0o20600, os.makedev(1, 3))
    os.mknod(tmp_path / "snd/by/b", 0o60600, os.makedev(7, 0))
    (tmp_path / "snd/by/c").symlink_to("b")
    (tmp_path / "snd/file").write_text("")
    found = devices.nodes(str(tmp_path / "snd"), "/dev/sound")
    assert [(node.path, node.kind) for node in found] == [("/dev/sound/a", "c"), ("/dev/sound/by/b", "b")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadParameter, match="there is no device in that directory"):
        devices.nodes(str(tmp_path / "empty"), "/dev/x")


def test_of_the_hosts_devices_the_containers_own_are_left_out(tmp_path: Path) -> None:
    for name in ("pts/0", "shm/x", "sub/null", "console"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mknod(tmp_path / name, 0o20600, os.makedev(1, 3))
    assert [node.path for node in devices.every_node(str(tmp_path))] == [str(tmp_path / "sub/null")]


def test_a_runtime_that_sets_rules_itself_is_told_the_same_ones() -> None:
    rules = (("/dev/char/1:3", "rwm"), ("char-pts", "rwm"), ("char-*", "m"), ("block-8", "r"))
    assert devices.oci_rules(rules) == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
    ]
    assert devices.oci_rules(()) == [{"allow": True, "access": "rwm"}]


# Limits and parameters


def test_a_limit_within_the_daemons_own_can_always_be_given(tmp_path: Path) -> None:
    (tmp_path / "nr_open").write_text("1000\n")
    rlimits.check_allowed("nofile", 1000, (), nr_open=tmp_path / "nr_open")
    for hard in (1001, -1):
        with pytest.raises(BadParameter, match="the kernel allows 1000 at most"):
            rlimits.check_allowed("nofile", hard, ("CAP_SYS_RESOURCE",), nr_open=tmp_path / "nr_open")


def test_a_limit_above_the_daemons_own_takes_a_capability() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    script = (
        "import resource; from dockerd_py.runtime import rlimits\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (5, 5))\n"
        "rlimits.check_allowed('core', -1, ('CAP_SYS_RESOURCE',)); rlimits.check_allowed('core', 5, ())\n"
        "try:\n    rlimits.check_allowed('core', 6, ())\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.stdout.startswith("ulimit core: this machine forbids more than 5 here")
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_no_limit_is_the_largest_number() -> None:
    limits = {limit.type: limit for limit in rlimits.effective([("core", -1, -1), ("nofile", 5, 6)])}
    assert limits["RLIMIT_CORE"] == ("RLIMIT_CORE", 2**64 - 1, 2**64 - 1)
    assert limits["RLIMIT_NOFILE"] == ("RLIMIT_NOFILE", 5, 6)


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("net.ipv4.conf.eth0/1.forwarding", "network"),
        ("net/ipv4/ip_forward", "network"),
        ("kernel.sem", "ipc"),
        ("kernel/sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.domainname", "uts"),
        ("kernel.sysrq", ""),
        ("fs.file-max", ""),
    ],
)
def test_a_parameter_belongs_to_a_namespace_or_to_the_host(name: str, namespace: str) -> None:
    assert sysctls.namespace_of(name) == namespace


# The init


def test_the_first_init_that_is_there_is_taken_and_a_missing_one_is_named(tmp_path: Path) -> None:
    tini, other = tmp_path / "tini-static", tmp_path / "catatonit"
    other.write_text("")
    other.chmod(0o755)
    programs = (str(tini), str(other))
    assert init.find(programs) == str(other)
    with pytest.raises(RuntimeFailed, match=r"install the package tini$"):
        init.find(programs, reaper=True)
    tini.write_text("")
    tini.chmod(0o755)
    assert init.find(programs, reaper=True) == str(tini)
    with pytest.raises(RuntimeFailed, match="install the package tini or catatonit"):
        init.find(())


# AppArmor


def host_with(tmp_path: Path, *profiles: str, parser: str = "false") -> AppArmor:
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "profiles").write_text("".join(f"{name} (enforce)\n" for name in profiles))
    return AppArmor(tmp_path / "enabled", tmp_path / "profiles", PROFILE, parser)


def profile_for(host: AppArmor, asked: str, *, privileged: bool = False) -> str:
    return asyncio.run(host.profile_for(asked, privileged=privileged))


def test_a_container_gets_our_profile_and_a_privileged_one_none(tmp_path: Path) -> None:
    host = host_with(tmp_path, apparmor.DEFAULT_PROFILE, "mine (x)")
    assert profile_for(host, "") == apparmor.DEFAULT_PROFILE
    assert profile_for(host, "", privileged=True) == "unconfined"
    assert profile_for(host, "unconfined") == "unconfined"
    assert profile_for(host, "mine (x)", privileged=True) == "mine (x)"
    with pytest.raises(BadParameter, match="the AppArmor profile other is not loaded"):
        profile_for(host, "other")


def test_our_profile_is_loaded_where_it_is_missing(tmp_path: Path) -> None:
    parser = tmp_path / "parser"
    parser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    parser.chmod(0o755)
    assert profile_for(host_with(tmp_path, parser=str(parser)), "") == apparmor.DEFAULT_PROFILE
    assert (tmp_path / "called").read_text() == f"--replace --write-cache {PROFILE}\n"


def test_a_profile_that_cannot_be_loaded_keeps_a_container_from_starting(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match="the AppArmor profile pydockerd-default cannot be loaded"):
        profile_for(host_with(tmp_path), "")
    with pytest.raises(RuntimeFailed, match="install apparmor_parser"):
        profile_for(host_with(tmp_path, parser="/nowhere/apparmor_parser"), "")


def test_without_apparmor_there_is_no_profile(tmp_path: Path) -> None:
    host = AppArmor(tmp_path / "none", tmp_path / "none")
    assert profile_for(host, "") == profile_for(host, "unconfined") == ""
    with pytest.raises(BadParameter, match="no AppArmor"):
        profile_for(host, "mine")


@pytest.mark.skipif(
    shutil.which("apparmor_parser") is None or not Path("/etc/apparmor.d/tunables/global").exists(),
    reason="the package apparmor is not installed",
)
def test_the_profile_is_one_that_the_parser_takes() -> None:
    features = Path("/etc/apparmor.d/abi/3.0")
    more = ["--features-file", os.fspath(features)] if features.exists() else []
    argv = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", *more, os.fspath(PROFILE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = subprocess.run(["apparmor_parser", "--names", PROFILE], capture_output=True, text=True, check=True)
    assert names.stdout.split() == [apparmor.DEFAULT_PROFILE]


# /etc/hosts and /etc/resolv.conf


def test_the_hosts_lines_of_a_kind_that_is_given_are_replaced() -> None:
    host = "# a\nnameserver 192.0.2.1\ndomain old.example\nsearch older.example\noptions ndots:1\nsortlist 1.2.3.4"
    assert files.resolv_conf(host, own_network=True, servers=["192.0.2.9"], search=["new.example"]) == (
        "# a\noptions ndots:1\nsortlist 1.2.3.4\nnameserver 192.0.2.9\nsearch new.example\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:1.2.3.4", ("a", "1.2.3.4")), ("a:[::1]", ("a", "::1")), ("a:fe80::1%eth0", ("a", "fe80::1%eth0"))],
)
def test_an_extra_host_is_a_name_and_an_address(text: str, expected: tuple[str, str]) -> None:
    assert files.split_host(text) == expected
