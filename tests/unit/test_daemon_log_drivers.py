"""Log drivers and their options, against a real daemon; a syslog daemon is a socket of the test's own."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, until

from dockerd_py.monitor.syslogwriter import SyslogWriter

LINES = 'i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done'
ALL = [f"line {i}" for i in range(3000)]


def logging(driver: str, **options: str) -> dict[str, Any]:
    return {"LogConfig": {"Type": driver, "Config": {name.replace("_", "-"): value for name, value in options.items()}}}


def files(daemon: Daemon, container: str) -> dict[str, int]:
    directory = daemon.root / "containers" / container
    return {path.name.rpartition("-")[2]: path.stat().st_size for path in directory.glob(f"{container}-*")}


def lines(data: bytes) -> list[str]:
    return data.decode().splitlines()


def test_full_files_are_put_aside_and_the_oldest_go(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", LINES, host=logging("json-file", max_size="20k", max_file="3"))
    daemon.wait(container)
    found = files(daemon, container)
    assert set(found) == {"json.log", "json.log.1", "json.log.2"}
    assert all(20 << 10 <= size < 21 << 10 for name, size in found.items() if name != "json.log")
    kept = lines(daemon.logs(container))
    assert kept == ALL[-len(kept) :]
    assert 400 < len(kept) < 900
    assert lines(daemon.logs(container, "stdout=1&tail=350")) == ALL[-350:]  # over the border of two files
    assert daemon.inspect(container)["HostConfig"]["LogConfig"]["Config"] == {"max-size": "20k", "max-file": "3"}
    daemon.delete(f"/containers/{container}")
    assert not (daemon.root / "containers" / container).exists()


def test_a_single_file_begins_anew(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", LINES, host=logging("json-file", max_size="20k"))
    daemon.wait(container)
    assert set(files(daemon, container)) == {"json.log"}
    kept = lines(daemon.logs(container))
    assert kept == ALL[-len(kept) :]
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_following_goes_on_over_rotations_and_restarts_of_the_daemon(own_daemon: Daemon, how: int) -> None:
    script = 'i=0; while [ $i -lt 400 ]; do echo "line $i"; i=$((i+1)); sleep 0.005; done'
    container = own_daemon.run_detached("sh", "-c", script, host=logging("json-file", max_size="4k", max_file="100"))
    time.sleep(0.4)
    own_daemon.stop(how)
    time.sleep(0.4)
    own_daemon.start()
    assert lines(own_daemon.logs(container, "stdout=1&follow=1")) == ALL[:400]
    assert lines(own_daemon.logs(container)) == ALL[:400]
    assert len(files(own_daemon, container)) > 5


def test_following_through_rotations_gives_each_line_once(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", LINES, host=logging("json-file", max_size="4k", max_file="1000"))
    daemon.post(f"/containers/{container}/start")
    assert lines(daemon.logs(container, "stdout=1&follow=1")) == ALL
    daemon.delete(f"/containers/{container}")


def test_local_keeps_its_lines_in_files_of_its_own(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo out; echo err >&2", host=logging("local"))
    daemon.wait(container)
    assert set(files(daemon, container)) == {"local.log"}
    assert sorted(lines(daemon.logs(container))) == ["err", "out"]
    assert daemon.inspect(container)["LogPath"] == ""
    daemon.delete(f"/containers/{container}")


def test_none_keeps_nothing_and_says_so(daemon: Daemon) -> None:
    container = daemon.run_detached("echo", "gone", host=logging("none"))
    daemon.wait(container)
    assert files(daemon, container) == {}
    reply = daemon.get(f"/containers/{container}/logs?stdout=1")
    assert (reply.status, "does not support reading" in reply.json["message"]) == (501, True)
    daemon.delete(f"/containers/{container}")


def test_labels_and_variables_come_with_each_line_where_they_are_asked_for(daemon: Daemon) -> None:
    host = logging("json-file", labels="app,none", env_regex="^TI", tag="{{.Name}}/{{.ID}}")
    labels = {"app": "web server", "other": "x"}
    container = daemon.run_detached("echo", "hello", name="tagged", host=host, Labels=labels, Env=["TIER=1", "X=2"])
    daemon.wait(container)
    path = daemon.root / "containers" / container / f"{container}-json.log"
    entry = json.loads(path.read_text())
    assert entry["attrs"] == {"app": "web server", "TIER": "1", "tag": f"tagged/{container[:12]}"}
    assert daemon.logs(container, "stdout=1&details=1") == b"TIER=1,app=web+server hello\n"
    daemon.delete(f"/containers/{container}")


class Syslog:
    """A socket that keeps what it is sent."""

    def __init__(self, family: int, kind: int, address: Any) -> None:
        self.received = b""
        self._socket = socket.socket(family, kind)
        self._socket.bind(address)
        self.address = self._socket.getsockname()
        threading.Thread(target=self._run, args=(kind,), daemon=True).start()

    def _run(self, kind: int) -> None:
        if kind == socket.SOCK_STREAM:
            self._socket.listen()
            connection, _ = self._socket.accept()
            while data := connection.recv(65536):
                self.received += data
        with suppress(OSError):  # the socket goes with its test
            while kind == socket.SOCK_DGRAM:
                self.received += self._socket.recv(65536) + b"\n"


def test_syslog_over_udp_in_the_usual_form_and_read_back(daemon: Daemon) -> None:
    server = Syslog(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    host = logging("syslog", syslog_address=f"udp://127.0.0.1:{server.address[1]}", tag="web", syslog_facility="local3")
    container = daemon.run_detached("sh", "-c", "echo out; sleep 0.1; echo err >&2", host=host)
    daemon.wait(container)
    until(lambda: server.received.count(b"\n") == 2)
    form = rb"<158>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ web\[\d+\]: out\n<155>.* web\[\d+\]: err\n"
    assert re.fullmatch(form, server.received), server.received
    assert lines(daemon.logs(container)) == ["out", "err"]
    daemon.delete(f"/containers/{container}")


def test_syslog_over_tcp_and_over_a_socket_of_the_host(daemon: Daemon, tmp_path: Path) -> None:
    tcp = Syslog(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    local = Syslog(socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "log"))
    made = []
    for address, form in ((f"tcp://127.0.0.1:{tcp.address[1]}", "rfc5424micro"), (f"unixgram://{tmp_path}/log", "")):
        host = logging("syslog", syslog_address=address, syslog_format=form, cache_disabled="true")
        made.append(daemon.run_detached("echo", "hello", host=host))
        daemon.wait(made[-1])
    until(lambda: tcp.received and local.received)
    assert re.fullmatch(rb"<30>1 \d{4}-\d\d-\d\dT[\d:.]{15}Z \S+ \w{12} \d+ - - hello\n", tcp.received), tcp.received
    assert local.received.startswith(b"<30>")
    assert daemon.get(f"/containers/{made[0]}/logs?stdout=1").status == 501
    for container in made:
        daemon.delete(f"/containers/{container}")


def test_a_syslog_that_is_away_holds_the_lines_until_it_is_back(daemon: Daemon, tmp_path: Path) -> None:
    first = Syslog(socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "log"))
    host = logging("syslog", syslog_address=f"unixgram://{tmp_path}/log")
    container = daemon.run_detached("sh", "-c", "echo one; sleep 1; echo two", host=host)
    until(lambda: first.received)
    (tmp_path / "log").unlink()
    first._socket.shutdown(socket.SHUT_RDWR)
    first._socket.close()
    time.sleep(1.5)
    second = Syslog(socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "log"))
    until(lambda: second.received)
    assert b"two" in second.received
    daemon.wait(container)
    daemon.delete(f"/containers/{container}")


def test_a_record_that_was_cut_by_the_end_of_a_connection_comes_whole_over_the_next(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "log"))
    listener.listen()
    settings = {"address": f"unix://{tmp_path}/log", "format": "", "facility": "daemon", "tag": "t", "hostname": "h"}
    writer = SyslogWriter(settings)
    lines = [b"%d" % number + b"x" * 40_000 for number in range(20)]
    writer.add(1, time.time_ns(), 1, [(line, True) for line in lines])
    assert not writer.flush()  # more than the socket holds
    first, _ = listener.accept()
    first.close()
    assert not writer.flush()
    assert writer.retry_at() is not None
    received = b""
    deadline = time.monotonic() + 10
    second: socket.socket | None = None
    while not writer.flush() or received.count(b"\n") == 0:
        assert time.monotonic() < deadline
        if second is None:
            second, _ = listener.accept()
        received += second.recv(1 << 20)
    writer.close()
    assert second is not None
    while data := second.recv(1 << 20):
        received += data
    assert all(re.match(rb"<30>[^\n]* t\[\d+\]: \d+x{40000}\Z", line) for line in received.splitlines())
    assert received.splitlines()[-1].endswith(lines[-1])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (logging("smoke"), "no log driver named 'smoke'"),
        (logging("json-file", color="red"), "unknown log opt 'color' for json-file"),
        (logging("json-file", max_size="big"), "max-size=big"),
        (logging("json-file", max_size="1m", max_file="0"), "max-file=0"),
        (logging("json-file", max_file="3"), "needs 'max-size'"),
        (logging("json-file", compress="true"), "compress=true"),
        (logging("json-file", mode="non-blocking"), "non-blocking"),
        (logging("json-file", tag="{{.Nope}}"), "{{.Nope}}"),
        (logging("json-file", tag="{{join .Name}}"), "more of a template"),
        (logging("json-file", labels_regex="("), "labels-regex=("),
        (logging("syslog", syslog_address="http://x"), "udp://"),
        (logging("syslog", syslog_address="unix:///nowhere/log"), "/nowhere/log does not exist"),
        (logging("syslog", syslog_facility="kitchen"), "syslog-facility=kitchen"),
        (logging("none", tag="x"), "unknown log opt 'tag' for none"),
    ],
)
def test_a_driver_or_an_option_that_is_none_is_named(daemon: Daemon, config: dict[str, Any], words: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", **config}}
    reply = daemon.post("/containers/create", body)
    assert (reply.status, words in reply.json["message"]) == (400, True), reply.data


def test_the_daemon_s_options_are_for_containers_without_a_driver_of_their_own(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.start("--log-driver", "json-file", "--log-opt", "max-size=10k", "--log-opt", "max-file=2")
    try:
        daemon.import_busybox()
        plain, other = daemon.create("true"), daemon.create("true", host=logging("local"))
        assert daemon.inspect(plain)["HostConfig"]["LogConfig"] == {
            "Type": "json-file", "Config": {"max-size": "10k", "max-file": "2"},
        }  # fmt: skip
        assert daemon.inspect(other)["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {}}
    finally:
        daemon.close()
