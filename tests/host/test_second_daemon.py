"""A daemon that is started by hand lives beside the host's own, with everything of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosttools import Api, Cli, journal, run, systemctl, wait_until


@pytest.fixture
def second(daemon: None, tmp_path: Path, busybox_tar: Path) -> Iterator[Cli]:
    """The command line of another daemon."""
    socket = tmp_path / "sock"
    own = ["-H", f"unix://{socket}", "-g", f"{tmp_path}/root", "-p", "", "--exec-root", f"{tmp_path}/run"]
    argv = ["pydockerd", *own, "-b", "none"]  # the bridge is the host's own daemon's
    process = subprocess.Popen(argv)
    wait_until(lambda: Api(socket).get("/_ping").status == 200, 30, "the second daemon answers")
    cli = Cli("pydocker", ("pydocker", "-H", f"unix://{socket}"))
    cli("import", str(busybox_tar), "second")
    yield cli
    for container in cli.out("ps", "-aq").split():
        cli("rm", "-f", container)
    process.terminate()
    assert process.wait(30) == 0
    assert monitor_services() == []


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


def test_its_flags_and_the_hosts_own_daemon_do_not_meet(second: Cli, api: Api) -> None:
    assert second.out("info") != ""
    assert api.get("/info").json["DockerRootDir"] == "/var/lib/pydockerd"
