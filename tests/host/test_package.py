"""The Debian package: what it brings, how its units behave, what upgrade, removal and purge do."""

from __future__ import annotations

import grp
import os
import re
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hosttools import SOCKET, Api, Cli, journal, main_pid, rules, run, systemctl, unit_property, wait_until

DEB = Path("/opt/pydockerd-testhost/pydockerd.deb")
STATE = Path("/var/lib/pydockerd")
POLICY = Path("/usr/share/polkit-1/actions/org.pydockerd1.policy")


def apt(*args: str) -> str:
    done = run("apt-get", "-qq", "-y", *args, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)
    return done.stdout + done.stderr


def test_the_package_is_installed_and_complete() -> None:
    assert run("dpkg-query", "-W", "-f", "${Status}", "pydockerd").stdout == "install ok installed"
    assert run("dpkg", "--verify", "pydockerd").stdout == ""


def test_its_version_is_what_both_programs_say(daemon: None) -> None:
    version = run("dpkg-query", "-W", "-f", "${Version}", "pydockerd").stdout
    assert version in run("pydockerd", "--version").stdout
    assert Api().get("/version").json["Version"] == version
    assert f"Version: {version}" in run("pydocker", "version").stdout


def test_the_programs_ignore_the_callers_python_settings(tmp_path: Path) -> None:
    (tmp_path / "dockerd_py.py").write_text("raise SystemExit('the wrong module')")
    done = run("pydocker", "--help", env={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "/dev/null"})
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.parametrize("unit", ["pydockerd.service", "pydockerd.socket", "pydockerd-monitor.service"])
def test_the_units_are_enabled_and_run(daemon: None, unit: str) -> None:
    assert systemctl("is-enabled", unit) == "enabled"
    assert systemctl("is-active", unit) == "active"


def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    files = ["pydockerd.service", "pydockerd.socket", "pydockerd-monitor.service", "pydockerd-dns.service"]
    done = run("systemd-analyze", "verify", "--man=no", *files)
    assert "pydockerd" not in done.stdout + done.stderr


def test_the_service_is_ready_when_start_returns(daemon: None) -> None:
    systemctl("stop", "pydockerd.socket", "pydockerd.service")
    systemctl("start", "pydockerd.service")
    assert Api().get("/_ping").status == 200
    assert unit_property("pydockerd.service", "Type") == "notify"
    assert unit_property("pydockerd.service", "StatusText") != ""


def test_status_says_what_it_does(daemon: None) -> None:
    text = systemctl("status", "pydockerd.service")
    assert "Active: active (running)" in text
    assert "Status:" in text


def test_the_daemon_gives_signs_of_life_to_the_watchdog(daemon: None) -> None:
    assert unit_property("pydockerd.service", "WatchdogUSec") == "1min"
    assert int(unit_property("pydockerd.service", "WatchdogTimestampMonotonic")) > 0


def test_a_connection_starts_the_service(daemon: None) -> None:
    systemctl("stop", "pydockerd.service")
    assert systemctl("is-active", "pydockerd.service", check=False) == "inactive"
    assert Api().get("/_ping").status == 200
    wait_until(lambda: systemctl("is-active", "pydockerd.service", check=False) == "active", 5, "it is active")


def test_the_socket_is_for_root_and_its_group(daemon: None) -> None:
    found = SOCKET.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_uid == 0
    assert grp.getgrgid(found.st_gid).gr_name == "pydocker"


def test_members_of_the_group_may_use_the_socket_and_others_may_not(daemon: None) -> None:
    client = "import socket; socket.socket(socket.AF_UNIX).connect('/run/pydockerd/docker.sock')"
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup"]
    run(*as_nobody, "--groups=pydocker", "/usr/bin/python3", "-c", client)
    refused = run(*as_nobody, "--clear-groups", "/usr/bin/python3", "-c", client, check=False)
    assert "PermissionError" in refused.stderr


def test_nobody_else_can_look_into_the_state(daemon: None) -> None:
    assert stat.S_IMODE(STATE.stat().st_mode) == 0o700
    assert STATE.stat().st_uid == 0


def test_the_pidfile_names_the_daemon_and_goes_with_it(daemon: None) -> None:
    pidfile = Path("/run/pydockerd.pid")
    assert int(pidfile.read_text()) == main_pid()
    systemctl("stop", "pydockerd.service")
    assert not pidfile.exists()


def test_a_killed_daemon_comes_back(daemon: None) -> None:
    before = main_pid()
    os.kill(before, 9)
    wait_until(lambda: main_pid() not in (0, before), 10, "another main process")
    assert Api().get("/_ping").status == 200


def test_a_killed_fork_server_comes_back(daemon: None) -> None:
    unit = "pydockerd-monitor.service"
    before = main_pid(unit)
    os.kill(before, 9)
    wait_until(lambda: main_pid(unit) not in (0, before), 10, "another main process")
    wait_until(lambda: systemctl("is-active", unit, check=False) == "active", 10, "the unit is active")


def test_no_unit_hides_mounts_from_another(daemon: None) -> None:
    host = os.readlink("/proc/1/ns/mnt")
    systemctl("start", "pydockerd-dns.service")
    for unit in ("pydockerd.service", "pydockerd-monitor.service", "pydockerd-dns.service"):
        assert os.readlink(f"/proc/{main_pid(unit)}/ns/mnt") == host


def test_polkit_knows_the_actions_that_the_daemon_asks_for() -> None:
    from dockerd_py.dbus import polkit

    described = {action.get("id") for action in ET.parse(POLICY).getroot().iter("action")}
    assert described == set(polkit.ACTIONS)
    known = run("pkaction", check=False).stdout.split()  # version 0.105 ends with 1
    assert described <= set(known)


def test_the_bus_can_start_the_service(daemon: None) -> None:
    systemctl("stop", "pydockerd.service")
    listed = run("busctl", "--system", "list", "--activatable", "--no-legend").stdout
    assert re.search(r"^org\.pydockerd1 ", listed, re.MULTILINE)
    run("busctl", "--system", "introspect", "org.pydockerd1", "/org/pydockerd1")
    wait_until(lambda: systemctl("is-active", "pydockerd.service", check=False) == "active", 5, "it is active")


@pytest.mark.last
def test_an_upgrade_leaves_containers_and_their_monitors_alone(docker: Cli, busybox: str) -> None:
    container = docker.out("run", "-d", busybox, "sleep", "600")
    monitors = main_pid("pydockerd-monitor.service")
    daemon = main_pid()
    pid = docker.out("inspect", "-f", "{{.State.Pid}}", container)

    apt("install", "--reinstall", str(DEB))

    assert main_pid("pydockerd-monitor.service") == monitors
    assert main_pid() not in (0, daemon)
    assert docker.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", container) == f"true {pid}"


@pytest.mark.last
def test_after_an_upgrade_the_fork_server_goes_on_as_the_new_program(docker: Cli, busybox: str) -> None:
    code = Path("/usr/lib/python3/dist-packages/dockerd_py/monitor/lines.py")
    container = docker.out("run", "-d", busybox, "sleep", "600")
    pid = docker.out("inspect", "-f", "{{.State.Pid}}", container)
    fork_server = main_pid("pydockerd-monitor.service")
    before = code.read_bytes()
    try:
        code.write_bytes(before + b"\n# another version\n")
        systemctl("restart", "pydockerd")
        wait_until(lambda: Api().get("/_ping").status == 200, 10, "the daemon answers")
        assert main_pid("pydockerd-monitor.service") == fork_server
        assert any("installed meanwhile" in line for line in journal("-u", "pydockerd-monitor", "-n", "50"))
        new = docker.out("run", "-d", busybox, "echo", "of the new version")
        assert docker.out("wait", new) == "0"
        run("journalctl", "--sync")
        assert journal("-u", f"container-{new}") == ["of the new version"]
    finally:
        code.write_bytes(before)
        systemctl("restart", "pydockerd")
    assert docker.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", container) == f"true {pid}"
    docker("rm", "-f", container)


@pytest.mark.last
def test_removal_stops_the_containers_and_keeps_them(docker: Cli, busybox: str) -> None:
    container = docker.out("run", "-d", "--stop-timeout", "1", busybox, "sleep", "600")
    said = apt("remove", "pydockerd")
    try:
        assert "Stopping 1 containers" in said
        assert systemctl("list-units", "--plain", "--no-legend", "container-*.scope", "pydockerd*") == ""
        assert not run("pgrep", "-f", "dockerd_py", check=False).stdout
        assert STATE.is_dir()
    finally:
        apt("install", str(DEB))
    state = Api().get(f"/containers/{container}/json").json["State"]
    assert (state["Running"], state["ExitCode"]) in ((False, 143), (False, 137))


@pytest.mark.last
def test_purge_leaves_nothing(docker: Cli, busybox: str) -> None:
    ours = ("pydocker", "br-", "veth")
    links = sorted(name for name in os.listdir("/sys/class/net") if not name.startswith(ours))
    docker("run", "-d", "--stop-timeout", "1", busybox, "sleep", "600")
    docker("run", busybox, "true")
    docker("network", "create", "somebodys")
    docker("run", "-d", "--stop-timeout", "1", "--network", "somebodys", "-p", "8080:80", busybox, "sleep", "600")
    said = apt("purge", "pydockerd")
    try:
        assert "Removing all images, containers and volumes" in said
        left = [
            *Path("/etc").rglob("*pydocker*"),
            *Path("/run").rglob("*pydocker*"),
            *Path("/usr").rglob("*pydocker*"),
            *Path("/usr/lib/python3").rglob("dockerd_py*"),
            *Path("/var/lib").rglob("*pydocker*"),
        ]
        assert [path for path in left if path != Path("/run/pydockerd-testhost")] == []
        assert "pydocker" not in run("findmnt", "-rno", "TARGET").stdout
        assert "pydocker" not in rules().lower()
        assert sorted(os.listdir("/sys/class/net")) == links
        assert "pydocker" not in Path("/etc/group").read_text()
        assert not run("pgrep", "-f", "dockerd_py", check=False).stdout
    finally:
        apt("install", str(DEB))
    assert Api().get("/images/json").json == []
