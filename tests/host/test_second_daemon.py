"""A daemon that is started by hand lives beside the host's own, with everything of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from hosttools import Api, Cli, journal, rules, run, systemctl, wait_until


@pytest.fixture
def second(daemon: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Cli]:
    """The command line of another daemon."""
    socket = tmp_path / "sock"
    places = ["-g", f"{tmp_path}/root", "--exec-root", f"{tmp_path}/run"]
    links, before = bridges(), rules()
    process = subprocess.Popen(["pydockerd", "-H", f"unix://{socket}", "-p", "", *places])
    wait_until(lambda: Api(socket).get("/_ping").status == 200, 30, "the second daemon answers")
    cli = Cli("pydocker", ("pydocker", "-H", f"unix://{socket}"))
    cli("import", str(busybox_tar), "second")
    yield cli
    for container in cli.out("ps", "-aq").split():
        cli("rm", "-f", container)
    process.terminate()
    assert process.wait(30) == 0
    assert monitor_services() == []
    run("pydockerd", "unplug", *places)
    assert (bridges(), rules()) == (links, before)


def bridges() -> set[str]:
    return {each["ifname"] for each in json.loads(run("ip", "-json", "link", "show", "type", "bridge").stdout or "[]")}


def monitor_services() -> list[str]:
    """The transient services of daemons that were started by hand."""
    lines = systemctl("list-units", "--plain", "--no-legend", "pydockerd-monitor-*.service").splitlines()
    return [line.split()[0] for line in lines]


def test_it_has_images_containers_and_a_fork_server_of_its_own(second: Cli, pydocker: Cli) -> None:
    container = second.out("run", "-di", "--name", "apart", "--network", "none", "second", "sh", "-c", "echo x; cat")
    assert systemctl("is-active", f"container-{container}.scope") == "active"
    assert len(monitor_services()) == 1
    assert container[:12] in second.out("ps")
    assert container[:12] not in pydocker.out("ps", "-a")
    run("journalctl", "--sync")
    assert journal("-u", "container-apart") == ["x"]


def test_it_has_a_bridge_and_rules_of_its_own(second: Cli, docker: Cli, busybox: str) -> None:
    """Containers of both reach their own, and neither those of the other."""
    assert len(bridges()) == 2
    served = second.out("run", "-d", "-p", "8090:80", "second", "httpd", "-f", "-p", "80", "-h", "/etc")
    other = docker.out("run", "-d", "-p", "8091:80", busybox, "httpd", "-f", "-p", "80", "-h", "/etc")
    for port, container in ((8090, served), (8091, other)):
        url = f"http://127.0.0.1:{port}/hostname"
        wait_until(lambda url=url: urlopen(url, timeout=5).read(), 10, "the page")
        assert urlopen(url, timeout=5).read().decode().strip() == container[:12]
    address = docker.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", other)
    alone = second("run", "--rm", "second", "wget", "-T", "2", "-q", "-O-", f"http://{address}/hostname", check=False)
    assert (alone.returncode != 0, alone.stdout) == (True, "")


def test_its_flags_and_the_hosts_own_daemon_do_not_meet(second: Cli, api: Api) -> None:
    assert second.out("info") != ""
    assert api.get("/info").json["DockerRootDir"] == "/var/lib/pydockerd"
