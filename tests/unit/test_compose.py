"""docker-compose 1.29, unmodified, brings up a project of three services, uses it and takes it down."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from clients import compose
from daemons import until
from net_house import HOST, OUTSIDE, NetDaemon, is_reached, tcp_answer
from store_house import needs_root

COMPOSE = compose()

pytestmark = [
    needs_root,
    pytest.mark.skipif(not COMPOSE, reason="this machine has no docker-compose 1.29: apt-get install docker-compose"),
]

WEB_ASKS_QUEUE = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nnc -w 5 queue 5000 </dev/null\n"

PROJECT = """
version: "3.8"
services:
  web:
    image: busybox
    command: sh -c 'hostname >/srv/name; exec httpd -f -v -p 80 -h /srv'
    ports: ["80"]
    networks: [front, back]
    depends_on: [queue, db]
    stop_grace_period: 1s
    volumes: ["./site/cgi-bin:/srv/cgi-bin:ro", "data:/srv/data:ro"]
  queue:
    image: busybox
    command: nc -ll -p 5000 -e sh -c 'echo "one job for you"'
    stop_grace_period: 1s
    networks:
      back:
        aliases: [jobs]
    depends_on: [db]
  db:
    image: busybox
    command:
      - sh
      - -c
      - |
        trap 'echo the database ends in order; exit 0' TERM
        echo start >>/data/log
        echo "ready, start number $$(wc -l </data/log)"
        while :; do sleep 1000 & wait; done
    environment: {PURPOSE: database}
    volumes: ["data:/data"]
    networks: [back]
    restart: unless-stopped
networks:
  front:
  back:
    internal: true
    ipam:
      config: [{subnet: 10.90.0.0/24}]
volumes:
  data:
    labels: {kept: between runs}
"""

GET = b"GET %s HTTP/1.0\r\n\r\n"

Compose = Callable[..., str]


@pytest.fixture(scope="module")
def project(net_daemon: NetDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The command in the directory of a project that is up."""
    directory = tmp_path_factory.mktemp("shop")
    (directory / "site/cgi-bin").mkdir(parents=True)
    (directory / "site/cgi-bin/job").write_text(WEB_ASKS_QUEUE)
    (directory / "site/cgi-bin/job").chmod(0o755)
    (directory / "docker-compose.yml").write_text(PROJECT)
    one = command_in(net_daemon, directory)
    one("up", "-d")
    yield one
    one("down", "-v")


def command_in(daemon: NetDaemon, directory: Path) -> Compose:
    environment = {
        "DOCKER_HOST": f"unix://{daemon.socket}",
        "HOME": str(directory),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "COMPOSE_PROJECT_NAME": "shop",
    }
    if shutil.which("docker") is None:  # which it leaves execs to, otherwise
        environment["COMPOSE_INTERACTIVE_NO_CLI"] = "1"

    def call(*argv: str, code: int = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [COMPOSE, *argv], cwd=directory, env=environment, input=stdin, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    return call


@pytest.fixture
def three_webs(project: Compose) -> Iterator[None]:
    project("up", "-d", "--scale", "web=3")
    yield
    project("up", "-d", "--scale", "web=1")


def containers(daemon: NetDaemon, service: str) -> list[Any]:
    labels = ["com.docker.compose.project=shop", f"com.docker.compose.service={service}"]
    filters = quote(json.dumps({"label": labels}))
    found = daemon.get(f"/containers/json?all=1&filters={filters}").json
    return [daemon.inspect(one["Id"]) for one in found]


def port_of(project: Compose, index: int = 1) -> int:
    said = project("port", f"--index={index}", "web", "80")
    match = re.fullmatch(r"0\.0\.0\.0:(\d+)\n", said)
    assert match, said
    return int(match[1])


def page(daemon: NetDaemon, port: int, path: bytes) -> bytes:
    """From outside."""
    head, _, body = tcp_answer(daemon.outside, HOST, port, GET % path, half_close=False).partition(b"\r\n\r\n")
    assert b" 200 OK" in head, head
    return body


def test_all_three_are_up_and_each_runs_what_it_should(project: Compose) -> None:
    shown = project("ps")
    rows = [line for line in shown.splitlines() if line.startswith("shop_")]
    assert sorted(line.split()[0] for line in rows) == ["shop_db_1", "shop_queue_1", "shop_web_1"]
    assert all(" Up " in line for line in rows)
    assert re.search(r"0\.0\.0\.0:\d+->80/tcp", shown)
    assert project("ps", "--services").split() == ["db", "queue", "web"]


def test_what_is_depended_on_was_started_before(project: Compose, net_daemon: NetDaemon) -> None:
    fresh = {name: containers(net_daemon, name)[0]["Created"] for name in ("db", "queue", "web")}
    assert sorted(fresh, key=fresh.__getitem__) == ["db", "queue", "web"]


def test_the_web_is_reached_from_outside_and_reaches_the_queue_by_its_name(
    project: Compose, net_daemon: NetDaemon
) -> None:
    port = port_of(project)
    until(lambda: is_reached(tcp_answer, net_daemon.outside, HOST, port, GET % b"/name"))
    (web,) = containers(net_daemon, "web")
    assert page(net_daemon, port, b"/name").decode().strip() == web["Config"]["Hostname"]
    assert page(net_daemon, port, b"/cgi-bin/job") == b"one job for you\n"
    assert b"start" in page(net_daemon, port, b"/data/log")


def test_services_know_each_other_by_service_container_and_alias(project: Compose, net_daemon: NetDaemon) -> None:
    (queue,) = containers(net_daemon, "queue")
    address = queue["NetworkSettings"]["Networks"]["shop_back"]["IPAddress"]
    assert address.startswith("10.90.0.")
    for name in ("queue", "jobs", "shop_queue_1", queue["Id"][:12]):
        assert project("exec", "-T", "db", "nc", "-w", "5", name, "5000") == "one job for you\n"
        assert address in project("exec", "-T", "web", "nslookup", name)


def test_who_is_on_the_internal_network_alone_gets_nowhere_else(project: Compose) -> None:
    project("exec", "-T", "web", "ping", "-c1", "-w5", OUTSIDE)
    project("exec", "-T", "db", "ping", "-c1", "-w1", OUTSIDE, code=1)


def test_exec_has_its_streams_its_code_and_the_services_environment(project: Compose) -> None:
    if shutil.which("docker"):  # compose's own way tells nobody that its input has ended
        assert project("exec", "-T", "db", "cat", stdin="what it is given\n") == "what it is given\n"
    assert project("exec", "-T", "-e", "MORE=1", "db", "sh", "-c", "echo $PURPOSE $MORE; exit 3", code=3) == (
        "database 1\n"
    )


def test_logs_are_each_services_own(project: Compose, net_daemon: NetDaemon) -> None:
    port = port_of(project)
    page(net_daemon, port, b"/name")
    until(lambda: "response:200" in project("logs", "--no-color", "web"))
    shown = project("logs", "--no-color", "db")
    assert re.search(r"^db_1 +\| ready, start number 1$", shown, re.MULTILINE)
    assert "response:" not in shown
    assert project("logs", "--no-color", "--tail=1", "db").splitlines()[-1].startswith("db_1 ")
    everything = project("logs", "--no-color")
    assert {"web_1", "db_1"} <= {line.split()[0] for line in everything.splitlines() if " | " in line}


@pytest.mark.usefixtures("three_webs")
def test_three_of_a_service_have_a_port_each_and_one_name(project: Compose, net_daemon: NetDaemon) -> None:
    names = set()
    for index in (1, 2, 3):
        port = port_of(project, index)
        until(lambda port=port: is_reached(tcp_answer, net_daemon.outside, HOST, port, GET % b"/name"))
        names.add(page(net_daemon, port, b"/name").decode().strip())
    webs = containers(net_daemon, "web")
    assert names == {web["Config"]["Hostname"] for web in webs}
    assert len(names) == 3
    told = project("exec", "-T", "db", "nslookup", "web")
    for web in webs:
        assert web["NetworkSettings"]["Networks"]["shop_back"]["IPAddress"] in told


def test_scaled_down_there_is_one_again(project: Compose, net_daemon: NetDaemon) -> None:
    project("up", "-d", "--scale", "web=2")
    assert len(containers(net_daemon, "web")) == 2
    project("up", "-d", "--scale", "web=1")
    assert len(containers(net_daemon, "web")) == 1


def test_up_again_changes_nothing_that_is_as_it_should_be(project: Compose, net_daemon: NetDaemon) -> None:
    before = {name: [one["Id"] for one in containers(net_daemon, name)] for name in ("web", "queue", "db")}
    assert "up-to-date" in project("up", "-d")
    assert {name: [one["Id"] for one in containers(net_daemon, name)] for name in before} == before


def test_a_restart_ends_in_order_and_keeps_volume_address_and_name(project: Compose, net_daemon: NetDaemon) -> None:
    (before,) = containers(net_daemon, "db")
    started = project("logs", "--no-color", "db").count("ready, start number")
    project("restart", "db")
    until(lambda: project("logs", "--no-color", "db").count("ready, start number") == started + 1)
    shown = project("logs", "--no-color", "db")
    assert "the database ends in order" in shown
    assert f"ready, start number {started + 1}" in shown
    (after,) = containers(net_daemon, "db")
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    where = "NetworkSettings", "Networks", "shop_back", "IPAddress"
    assert _at(after, *where) == _at(before, *where)
    assert project("exec", "-T", "web", "nslookup", "db").count(_at(after, *where)) >= 1


def test_stop_and_start_keep_everything(project: Compose, net_daemon: NetDaemon) -> None:
    project("stop", "-t", "1")
    assert not net_daemon.get("/containers/json").json
    project("start")
    until(lambda: is_reached(tcp_answer, net_daemon.outside, HOST, port_of(project), GET % b"/cgi-bin/job"))
    assert page(net_daemon, port_of(project), b"/cgi-bin/job") == b"one job for you\n"


def test_a_one_off_command_runs_beside_the_services(project: Compose, net_daemon: NetDaemon) -> None:
    assert project("run", "--rm", "-T", "--no-deps", "db", "cat", "/data/log").splitlines()[-1] == "start"
    assert len(containers(net_daemon, "db")) == 1


def test_down_takes_containers_and_networks_and_with_v_the_volume(net_daemon: NetDaemon, tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(PROJECT.replace("10.90.0", "10.91.0").replace("./site", "/tmp/site"))
    (tmp_path / "site").mkdir()
    one = command_in(net_daemon, tmp_path)

    def there() -> tuple[set[str], set[str], int]:
        networks = {each["Name"] for each in net_daemon.get("/networks").json if each["Name"].startswith("gone_")}
        volumes = {each["Name"] for each in net_daemon.get("/volumes").json["Volumes"]}
        running = [each for each in net_daemon.get("/containers/json?all=1").json if each["Names"][0][1:5] == "gone"]
        return networks, {each for each in volumes if each.startswith("gone_")}, len(running)

    one("-p", "gone", "up", "-d", "db", "queue")
    assert there() == ({"gone_back", "gone_front"}, {"gone_data"}, 2)
    one("-p", "gone", "down")
    assert there() == (set(), {"gone_data"}, 0)
    one("-p", "gone", "up", "-d", "db", "queue")
    until(lambda: "ready, start number 2" in one("-p", "gone", "logs", "--no-color", "db"))
    one("-p", "gone", "down", "-v")
    assert there() == (set(), set(), 0)


def _at(value: Any, *keys: str) -> str:
    for key in keys:
        value = value[key]
    return str(value)
