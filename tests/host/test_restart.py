"""The daemon stops, is killed, and comes back; nobody's container notices."""

from __future__ import annotations

import os
import signal
import time

import pytest
from hosttools import Api, Cli, journal, main_pid, run, systemctl, wait_until

COUNT = 'i=0; while [ $i -lt 150 ]; do echo "$0 $i"; i=$((i+1)); sleep 0.02; done; exit 7'


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_ten_containers_go_on_and_lose_no_line(api: Api, pydocker: Cli, busybox: str, how: str) -> None:
    containers = [
        pydocker.out("run", "-d", "--network", "none", busybox, "sh", "-c", COUNT, str(n)) for n in range(10)
    ]
    ended = pydocker.out("run", "-d", "--network", "none", busybox, "sh", "-c", "sleep 0.5; exit 5")
    pids = {c: api.get(f"/containers/{c}/json").json["State"]["Pid"] for c in containers}
    if how == "kill":
        os.kill(main_pid(), signal.SIGKILL)
    else:
        systemctl("restart", "pydockerd.service")
    wait_until(lambda: api.get("/_ping").status == 200, 30, "the daemon answers again")
    states = {c: api.get(f"/containers/{c}/json").json["State"] for c in containers}
    assert {c: state["Pid"] for c, state in states.items() if state["Running"]}.items() <= pids.items()
    for number, container in enumerate(containers):
        assert api.post(f"/containers/{container}/wait").json["StatusCode"] == 7
        run("journalctl", "--sync")
        expected = [f"{number} {i}" for i in range(150)]
        assert journal("-u", f"container-{container}") == expected
        assert pydocker.out("logs", container).splitlines() == expected
    assert api.post(f"/containers/{ended}/wait").json["StatusCode"] == 5


def test_the_daemon_is_back_by_itself_after_a_kill(api: Api) -> None:
    before = main_pid()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: main_pid() not in (0, before), 10, "systemd has started the daemon again")
    wait_until(lambda: api.get("/_ping").status == 200, 30, "the daemon answers again")


def test_a_client_that_comes_while_the_daemon_is_down_is_answered(api: Api) -> None:
    systemctl("stop", "pydockerd.service")
    assert api.get("/_ping").status == 200  # the socket starts it


def test_a_stop_of_the_daemon_leaves_the_containers_alone(api: Api, pydocker: Cli, busybox: str) -> None:
    container = pydocker.out("run", "-d", "--network", "none", busybox, "sleep", "600")
    scope = f"container-{container}.scope"
    systemctl("stop", "pydockerd.service", "pydockerd.socket")
    time.sleep(0.5)
    assert systemctl("is-active", scope) == "active"
    systemctl("start", "pydockerd.socket", "pydockerd.service")
    assert api.get(f"/containers/{container}/json").json["State"]["Running"]
