"""Links end to end: what containers are told of each other, and what the firewall lets pass between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import execs
import pytest
import wire
from cli_daemon import PROGRAM, REPOSITORY
from clients import DOCKERS
from daemons import until
from net_house import NetDaemon, is_reached, tcp_answer, telling_who_asks, udp_answer
from store_house import needs_root

pytestmark = needs_root

SLEEP = ("sleep", "1000")


@contextmanager
def started(daemon: NetDaemon, *names: str) -> Iterator[None]:
    """Remove these containers afterwards, the last one first."""
    try:
        yield
    finally:
        for name in reversed(names):
            daemon.delete(f"/containers/{name}?force=1")


def db(daemon: NetDaemon, name: str = "db", **more: Any) -> str:
    exposed = {"5432/tcp": {}, "53/udp": {}}
    config = {"Hostname": "box", "Env": ["HOME=/x", "MODE=test"], "ExposedPorts": exposed, **more}
    return daemon.run_detached(*SLEEP, name=name, host={"NetworkMode": "default"}, **config)


def web(daemon: NetDaemon, *linked: str, name: str = "web", command: tuple[str, ...] = SLEEP, **host: Any) -> str:
    settings = {"NetworkMode": "default", "Links": list(linked), **host}
    return daemon.run_detached(*command, name=name, host=settings)


def hosts(daemon: NetDaemon, container: str = "web") -> list[str]:
    return execs.run(daemon, container, "cat", "/etc/hosts").text().splitlines()


def listed(daemon: NetDaemon, container: str) -> list[str]:
    names = [item["Names"] for item in daemon.get("/containers/json?all=1").json]
    return next(found for found in names if found[0] == f"/{container}")


def about(daemon: NetDaemon, alias: str) -> list[str]:
    """What the hosts file of "web" says of a link."""
    return [line for line in hosts(daemon) if line.partition("\t")[2].split(" ")[0] == alias]


def pydocker(daemon: NetDaemon, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", PROGRAM, "-H", f"unix://{daemon.socket}", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, cwd=REPOSITORY)


def test_a_link_gives_variables_a_line_of_hosts_and_a_name(net_daemon: NetDaemon) -> None:
    with started(net_daemon, "db", "web"):
        db(net_daemon)
        address = net_daemon.address("db")
        web(net_daemon, "db:my-db")
        variables = execs.run(net_daemon, "web", "env").text().splitlines()
        assert sorted(line for line in variables if line.startswith("MY_DB")) == sorted([
            f"MY_DB_PORT=udp://{address}:53", f"MY_DB_PORT_53_UDP=udp://{address}:53",
            f"MY_DB_PORT_53_UDP_ADDR={address}", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_PROTO=udp",
            f"MY_DB_PORT_5432_TCP=tcp://{address}:5432", f"MY_DB_PORT_5432_TCP_ADDR={address}",
            "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_MODE=test",
        ])  # fmt: skip
        assert f"{address}\tmy-db box db" in hosts(net_daemon)
        assert listed(net_daemon, "db") == ["/db", "/web/my-db"]
        assert listed(net_daemon, "web") == ["/web"]
        assert net_daemon.inspect("web")["HostConfig"]["Links"] == ["/db:/web/my-db"]
        assert net_daemon.inspect("web/my-db")["Name"] == "/db"
        found = net_daemon.get("/containers/json?filters=%7B%22name%22%3A%5B%22web/my%22%5D%7D").json
        assert [item["Names"][0] for item in found] == ["/db"]
        assert net_daemon.get("/containers/web/other/json").status == 404


def test_the_hosts_file_follows_a_target_to_its_new_address_and_name(own_net_daemon: NetDaemon) -> None:
    daemon = own_net_daemon
    with started(daemon, "db", "web"):
        db(daemon)
        web(daemon, "db")
        old = daemon.address("db")
        execs.run(daemon, "web", "sh", "-c", "echo '# mine' >>/etc/hosts")
        assert daemon.post("/containers/db/restart?t=0").status == 204
        assert daemon.address("db") == old
        assert hosts(daemon)[-1] == "# mine", "it was written again although nothing had changed"
        daemon.post("/containers/db/stop?t=0")
        for step in ("disconnect", "connect"):  # with another address, as addresses come round
            assert daemon.post(f"/networks/bridge/{step}", {"Container": "db"}).status == 200
        assert daemon.post("/containers/db/start").status == 204
        new = daemon.address("db")
        assert new != old
        assert about(daemon, "db") == [f"{new}\tdb box"]
        assert daemon.post("/networks/bridge/disconnect", {"Container": "db"}).status == 200
        assert about(daemon, "db") == []
        assert daemon.post("/networks/bridge/connect", {"Container": "db"}).status == 200
        assert daemon.address("db") not in (old, new)
        assert daemon.post("/containers/db/rename?name=base").status == 204
        assert about(daemon, "db") == [f"{daemon.address('base')}\tdb box base"]
        assert listed(daemon, "base") == ["/base", "/web/db"]
        daemon.post("/containers/base/rename?name=db")


def test_a_hosts_file_that_its_container_has_made_huge_is_not_read_but_written_anew(own_net_daemon: NetDaemon) -> None:
    daemon = own_net_daemon
    with started(daemon, "db", "web"):
        db(daemon)
        web(daemon, "db")
        before = hosts(daemon)
        execs.run(daemon, "web", "dd", "if=/dev/null", "of=/etc/hosts", "bs=1M", "seek=4M")  # 4 TiB, all of it a hole
        path = daemon.root / "containers" / daemon.inspect("web")["Id"] / "hosts"
        assert path.stat().st_size == 1 << 42
        assert daemon.post("/containers/db/restart?t=0").status == 204
        assert path.stat().st_size < 1000
        assert hosts(daemon) == before


def test_a_hosts_file_that_a_killed_daemon_left_behind_is_righted(own_net_daemon: NetDaemon) -> None:
    daemon = own_net_daemon
    with started(daemon, "db", "web"):
        db(daemon)
        web(daemon, "db")
        before = hosts(daemon)
        execs.run(daemon, "web", "sh", "-c", "echo '127.0.0.1 localhost' >/etc/hosts")
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert hosts(daemon) == before


def test_without_icc_a_link_is_the_only_way_between_containers(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "--icc=false")
    daemon.start()
    daemon.import_busybox()
    with ExitStack() as stack:
        stack.callback(daemon.vanish)
        stack.callback(daemon.close)
        db(daemon)
        web(daemon, "db:x")
        other = daemon.run_detached(*SLEEP, host={"NetworkMode": "default"})
        base, inside, stranger = (stack.enter_context(daemon.within(one)) for one in ("db", "web", other))
        address = daemon.address("db")
        for port in (5432, 53, 80):
            stack.enter_context(telling_who_asks(base, port))
        stack.enter_context(telling_who_asks(inside, 5432))

        def ways() -> list[bool]:
            """To the ports that the link is about, and to some that it is not."""
            return [
                is_reached(tcp_answer, inside, address, 5432),
                is_reached(udp_answer, inside, address, 53),
                is_reached(tcp_answer, inside, address, 80),
                is_reached(tcp_answer, stranger, address, 5432),
                is_reached(tcp_answer, base, daemon.address("web"), 5432),
            ]

        assert ways() == [True, True, False, False, False]
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert ways() == [True, True, False, False, False]
        assert daemon.delete("/containers/web/x?link=1").status == 204
        assert ways() == [False] * 5
        assert about(daemon, "x") == []
        assert daemon.inspect("web")["HostConfig"]["Links"] is None
        assert listed(daemon, "db") == ["/db"]
        assert daemon.delete("/containers/web/x?link=1").status == 404


def test_the_way_of_a_link_is_closed_while_the_target_does_not_run(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "--icc=false", "--bip", "172.17.42.1/29", "--fixed-cidr", "172.17.42.2/31")
    daemon.start()
    daemon.import_busybox()
    with ExitStack() as stack:
        stack.callback(daemon.vanish)
        stack.callback(daemon.close)
        db(daemon)
        address = daemon.address("db")
        web(daemon, "db")
        inside = stack.enter_context(daemon.within("web"))
        daemon.post("/containers/db/stop?t=0")
        heir = daemon.run_detached(*SLEEP, host={"NetworkMode": "default"})  # there is no other address left
        assert daemon.address(heir) == address
        with daemon.within(heir) as there, telling_who_asks(there, 5432):
            assert not is_reached(tcp_answer, inside, address, 5432)
        daemon.delete(f"/containers/{heir}?force=1")
        assert daemon.post("/containers/db/start").status == 204
        with daemon.within("db") as there, telling_who_asks(there, 5432):
            assert is_reached(tcp_answer, inside, address, 5432)


def test_a_link_outlives_the_daemon_and_not_its_target(own_net_daemon: NetDaemon) -> None:
    daemon = own_net_daemon
    with started(daemon, "db", "web"):
        db(daemon)
        web(daemon, "db:x")
        daemon.stop(signal.SIGKILL)
        daemon.start()
        assert listed(daemon, "db") == ["/db", "/web/x"]
        assert daemon.post("/containers/web/restart?t=0").status == 204
        assert f"{daemon.address('db')}\tx box db" in hosts(daemon)
        daemon.delete("/containers/db?force=1")
        assert daemon.inspect("web")["HostConfig"]["Links"] is None
        assert daemon.get("/containers/web/x/json").status == 404
        assert daemon.post("/containers/web/restart?t=0").status == 204
        assert about(daemon, "x") == []


def test_links_that_cannot_be_are_refused_and_leave_nothing(net_daemon: NetDaemon) -> None:
    def refused(link: str, **host: Any) -> tuple[int, str]:
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Links": [link], **host}}
        reply = net_daemon.post("/containers/create?name=web", body)
        return reply.status, reply.message

    with started(net_daemon, "db", "alone", "web"):
        assert refused("db:x") == (400, "could not get container for db: No such container: db")
        db(net_daemon)
        assert refused("db:a b")[0] == 400
        assert refused("db", NetworkMode="none")[0] == 400
        assert refused("db", NetworkMode="host")[0] == 400
        net_daemon.run_detached(*SLEEP, name="alone")
        assert net_daemon.get("/containers/web/json").status == 404
        net_daemon.post("/containers/db/stop?t=0")
        net_daemon.create("true", name="web", host={"NetworkMode": "default", "Links": ["db:x"]})
        reply = net_daemon.post("/containers/web/start")
        assert (reply.status, reply.message) == (409, "Cannot link to a non running container: /db AS /web/x")
        net_daemon.delete("/containers/web")
        net_daemon.create("true", name="web", host={"NetworkMode": "default", "Links": ["alone"]})
        reply = net_daemon.post("/containers/web/start")
        assert reply.message == "Cannot link to /alone, as it does not belong to the default network"


def test_on_a_network_of_its_own_a_link_is_a_name_for_one_containers_eyes(net_daemon: NetDaemon) -> None:
    assert net_daemon.post("/networks/create", {"Name": "front"}).status == 201
    with started(net_daemon, "db", "web", "other"):
        settings = {"NetworkMode": "front"}
        net_daemon.run_detached(*SLEEP, name="db", host=settings, ExposedPorts={"80/tcp": {}})
        net_daemon.run_detached(*SLEEP, name="web", host={**settings, "Links": ["db:store"]})
        net_daemon.run_detached(*SLEEP, name="other", host=settings)
        address = net_daemon.address("db", "front")
        found = execs.run(net_daemon, "web", "nslookup", "store", "127.0.0.11")
        assert address in found.text()
        assert address not in execs.run(net_daemon, "other", "nslookup", "store", "127.0.0.11").text()
        assert "STORE" not in execs.run(net_daemon, "web", "env").text()
        assert listed(net_daemon, "db") == ["/db"]


@pytest.mark.parametrize("version", ["1.6", "1.9"])
def test_the_first_years_client_links_at_start(net_daemon: NetDaemon, version: str) -> None:
    def post(path: str, body: object = None) -> wire.Reply:
        return net_daemon.post(path, body, version=version)

    with started(net_daemon, "db", "web"):
        body = {"Image": "busybox", "Cmd": list(SLEEP)}
        assert post("/containers/create?name=web", body).status == 201
        reply = post("/containers/web/start", {"Links": ["db:x"]})
        assert (reply.status, reply.data.decode().strip()) == (500, "Could not get container for db")
        reply = post("/containers/web/start", {"Links": ["web:x"]})
        assert (reply.status, "linked to itself" in reply.data.decode()) == (500, True)
        db(net_daemon)
        assert post("/containers/web/start", {"Links": ["db:x"]}).status == 204
        assert f"{net_daemon.address('db')}\tx box db" in hosts(net_daemon)
        post("/containers/web/stop?t=0")
        assert post("/containers/web/start", {"Binds": []}).status == 204, "the link stays"
        assert f"{net_daemon.address('db')}\tx box db" in hosts(net_daemon)
        found = net_daemon.get("/containers/json", version=version).json
        assert ["/db", "/web/x"] in [item["Names"] for item in found]
        shown = net_daemon.get("/containers/web/x/json", version=version).json
        assert shown["Name"] == "/db"


def test_the_command_line_links_lists_and_unlinks(net_daemon: NetDaemon) -> None:
    def run(*argv: str) -> str:
        done = pydocker(net_daemon, *argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with started(net_daemon, "db", "web"):
        run("run", "-d", "--name", "db", "--expose", "80", "busybox", *SLEEP)
        run("run", "-d", "--name", "web", "--link", "db:x", "busybox", *SLEEP)
        assert run("ps", "--filter", "name=db", "--format", "{{.Names}}") == "db\n"
        assert run("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}") == "db,web/x\n"
        assert f"X_PORT=tcp://{net_daemon.address('db')}:80" in run("exec", "web", "env")
        assert run("rm", "--link", "/web/x") == "/web/x\n"
        assert run("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}") == "db\n"
        done = pydocker(net_daemon, "rm", "--link", "web")
        assert (done.returncode, "cannot remove the default name of the container" in done.stderr) == (1, True)
        assert run("ps", "-q", "--filter", "name=web")


@pytest.mark.parametrize("docker", DOCKERS)
def test_the_docker_command_line_links_lists_and_unlinks(net_daemon: NetDaemon, docker: list[str]) -> None:
    def run(*argv: str, code: int = 0) -> str:
        command = [*docker, "-H", f"unix://{net_daemon.socket}", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    with started(net_daemon, "db", "web"):
        assert "could not get container for db" in run("run", "--link", "db", "busybox", "true", code=125)
        run("run", "-d", "--name", "db", "--expose", "80", "busybox", *SLEEP)
        run("run", "-d", "--name", "web", "--link", "db:x", "busybox", *SLEEP)
        assert run("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}") == "db,web/x\n"
        assert f"X_PORT=tcp://{net_daemon.address('db')}:80\n" in run("exec", "web", "env")
        assert run("inspect", "--format", "{{.Name}} {{.HostConfig.Links}}", "web") == "/web [/db:/web/x]\n"
        assert run("rm", "--link", "web/x") == "web/x\n"
        assert run("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}") == "db\n"


def test_containers_come_back_in_the_order_of_their_links(own_net_daemon: NetDaemon) -> None:
    daemon = own_net_daemon
    names = ["base", "middle", "front"]
    policy = {"RestartPolicy": {"Name": "always"}}
    with started(daemon, *names):
        daemon.run_detached(*SLEEP, name="base", host={"NetworkMode": "default", **policy})
        web(daemon, "base", name="middle", **policy)
        web(daemon, "middle", "base", name="front", **policy)
        pids = [daemon.inspect(name)["State"]["Pid"] for name in names]
        daemon.stop(signal.SIGKILL)
        for pid in pids:
            monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(monitor, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        daemon.start()
        until(lambda: all(daemon.inspect(name)["State"]["Running"] for name in names))
        started_at = {name: daemon.inspect(name)["State"]["StartedAt"] for name in names}
        assert sorted(started_at, key=lambda name: started_at[name]) == names
