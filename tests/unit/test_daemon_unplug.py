"""``pydockerd unplug``: what a stopped daemon leaves in its host's network goes, and the next start has it again."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import net_picture
import pytest
from net_house import CABLE, NetDaemon
from store_house import needs_root

pytestmark = needs_root

TOP = Path(__file__).parents[2]


@pytest.fixture(params=["nftables", "iptables"])
def stopped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[NetDaemon, net_picture.Picture]]:
    """A daemon that has stopped, with a network that somebody has made, and what it had in the host's network."""
    if request.param == "iptables":
        pytest.importorskip("iptc", reason="python3-iptables is not there")
    one = NetDaemon(tmp_path, "--firewall-backend", request.param)
    one.start()
    assert one.post("/networks/create", {"Name": "made"}).status == 201
    had = net_picture.of(one)
    assert "PYDOCKERD" in " ".join(had["rules"])
    one.stop()
    yield one, had
    one.vanish()


def unplug(daemon: NetDaemon, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dockerd_py.daemon.main", "unplug", *argv]
    run = functools.partial(subprocess.run, command, capture_output=True, text=True, cwd=TOP, check=False)
    done: subprocess.CompletedProcess[str] = daemon.host.inside(run)
    return done


def test_nothing_is_left_and_the_next_start_has_all_of_it(stopped: tuple[NetDaemon, net_picture.Picture]) -> None:
    daemon, had = stopped
    places = ("-g", str(daemon.root))
    assert len(daemon.host.interfaces()) == 4
    for _ in range(2):  # the second time there is nothing to do
        done = unplug(daemon, *places)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert daemon.host.interfaces().keys() == {"lo", CABLE}
        assert "pydocker" not in net_picture.rules_of(daemon.host).lower()
    daemon.start()
    assert net_picture.of(daemon) == had
    daemon.close()


def test_it_touches_nothing_while_the_daemon_runs_and_nobody_elses(
    stopped: tuple[NetDaemon, net_picture.Picture]
) -> None:
    daemon, had = stopped
    daemon.host.run("ip", "link", "add", "theirs", "type", "bridge")
    daemon.host.run("nft", "add", "table", "ip", "theirs")
    places = ("-g", str(daemon.root), "--exec-root", str(daemon.run))
    daemon.start()
    done = unplug(daemon, *places)
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert len(net_picture.of(daemon)["interfaces"]) == len(had["interfaces"]) + 1
    daemon.stop()
    assert unplug(daemon, *places).returncode == 0
    assert daemon.host.interfaces().keys() == {"lo", CABLE, "theirs"}
    assert "table ip theirs" in net_picture.rules_of(daemon.host)


def test_a_bridge_that_was_given_stays(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "-b", "given")
    for command in ("link add given type bridge", "address add 10.66.0.1/24 dev given", "link set given up"):
        daemon.host.run("ip", *command.split())
    daemon.start()
    daemon.stop()
    done = unplug(daemon, "-g", str(daemon.root), "--exec-root", str(daemon.run), "-b", "given")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.host.interfaces()["given"] == {"10.66.0.1/24"}
    daemon.vanish()


def test_other_settings_and_a_missing_directory_are_refused(tmp_path: Path) -> None:
    def refused(*argv: str) -> str:
        command = [sys.executable, "-m", "dockerd_py.daemon.main", "unplug", *argv]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "--mtu means nothing to unplug" in refused("--mtu", "1400")
    assert "is not a directory" in refused("-g", str(tmp_path / "none"))


def test_an_administrators_bridge_stays_though_nobody_says_that_it_is_one(
    stopped: tuple[NetDaemon, net_picture.Picture]
) -> None:
    daemon, _ = stopped
    daemon.host.run("sh", "-c", "ip link add br0 type bridge && ip address add 10.44.0.1/24 dev br0")
    daemon.start(*daemon.flags, "-b", "br0")
    daemon.stop()
    done = unplug(daemon, "-g", str(daemon.root), "--exec-root", str(daemon.run))
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.host.interfaces().keys() == {"lo", CABLE, "br0"}
