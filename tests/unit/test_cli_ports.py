"""Ports on the command line: the spellings of -p and --expose, the column of ps, `pydocker port`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import Daemon, failure, reply

from dockerd_py.cli.options import RUN_FLAGS, settings
from dockerd_py.cli.port_options import Published, column, parse_expose, parse_publish
from dockerd_py.flags import parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("80", [("", "", "80/tcp")]),
        ("80/UDP", [("", "", "80/udp")]),
        ("8080:80", [("", "8080", "80/tcp")]),
        (":80", [("", "", "80/tcp")]),
        ("0:80", [("", "", "80/tcp")]),
        ("10.0.0.1:8080:80", [("10.0.0.1", "8080", "80/tcp")]),
        ("10.0.0.1::80/sctp", [("10.0.0.1", "", "80/sctp")]),
        ("[::1]:8080:80", [("::1", "8080", "80/tcp")]),
        ("[fe80::1]::80", [("fe80::1", "", "80/tcp")]),
        ("80-82", [("", "", "80/tcp"), ("", "", "81/tcp"), ("", "", "82/tcp")]),
        ("8000-8001:80-81/udp", [("", "8000", "80/udp"), ("", "8001", "81/udp")]),
        ("8000-8010:80", [("", "8000-8010", "80/tcp")]),
        ("8000-8000:80", [("", "8000", "80/tcp")]),
        ("127.0.0.1:8000-8001:80-81", [("127.0.0.1", "8000", "80/tcp"), ("127.0.0.1", "8001", "81/tcp")]),
        ("[::1]:8000-8010:80", [("::1", "8000-8010", "80/tcp")]),
        ("published=8080,target=80", [("", "8080", "80/tcp")]),
        ("target=53,protocol=udp", [("", "", "53/udp")]),
    ],
)
def test_a_port_is_published_in_every_spelling(text: str, parts: list[tuple[str, str, str]]) -> None:
    assert parse_publish(text) == [Published(*each) for each in parts]


def test_a_range_is_exposed_port_by_port() -> None:
    assert parse_expose("80-82/udp") == ["80/udp", "81/udp", "82/udp"]
    assert parse_expose("65535") == ["65535/tcp"]


NO_PORTS = ["", "0", "65536", "80-79", "80-", "-80", "8e1", "80/", "80/ip", "80/a/b", "\u0668\u0660"]


@pytest.mark.parametrize("text", NO_PORTS)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it must be|is no"):
        parse_publish(text)
    with pytest.raises(ValueError, match=r"it must be|is no"):
        parse_expose(text)


def test_the_flags_become_settings_and_what_is_published_is_exposed() -> None:
    argv = "-p 8000-8001:80-81 -p 127.0.0.1::80 --expose 90-91 --expose 53/udp -P image".split()
    body = settings(parse(RUN_FLAGS, argv), detach=True).body
    assert body["ExposedPorts"].keys() == {"80/tcp", "81/tcp", "90/tcp", "91/tcp", "53/udp"}
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8000"}, {"HostIp": "127.0.0.1", "HostPort": ""}],
        "81/tcp": [{"HostIp": "", "HostPort": "8001"}],
    }
    assert body["HostConfig"]["PublishAllPorts"] is True


def entry(private: int, public: int = 0, ip: str = "0.0.0.0", kind: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "Type": kind} | ({"IP": ip, "PublicPort": public} if public else {})


@pytest.mark.parametrize(
    ("ports", "shown"),
    [
        ([], ""),
        ([entry(80)], "80/tcp"),
        ([entry(80, 8080), entry(80, 8080, "::")], "0.0.0.0:8080->80/tcp, :::8080->80/tcp"),
        ([entry(82), entry(80), entry(81), entry(90)], "80-82/tcp, 90/tcp"),
        ([entry(80), entry(81, kind="udp")], "80/tcp, 81/udp"),
        ([entry(80, 80), entry(81, 81), entry(80, 80, "::")], "0.0.0.0:80-81->80-81/tcp, :::80->80/tcp"),
        ([entry(80, 8080), entry(81, 8081), entry(53)], "53/tcp, 0.0.0.0:8080->80/tcp, 0.0.0.0:8081->81/tcp"),
        ([entry(80, 80), entry(81, 8081), entry(82, 82)],
         "0.0.0.0:80->80/tcp, 0.0.0.0:82->82/tcp, 0.0.0.0:8081->81/tcp"),
    ],
)  # fmt: skip
def test_neighbours_are_joined_in_the_column(ports: list[dict[str, Any]], shown: str) -> None:
    assert column(ports) == shown


PORTS = {
    "443/tcp": None,
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}],
}


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (["web"], ["53/udp -> 127.0.0.1:49153", "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]),
        (["web", "80"], ["0.0.0.0:8080", "[::]:8080"]),
        (["web", "53/udp"], ["127.0.0.1:49153"]),
        (["-q", "web", "80/tcp"], ["8080"]),
        (["--quiet", "web"], ["49153", "8080"]),
    ],
)
def test_port_says_where_a_containers_ports_are(tmp_path: Path, argv: list[str], lines: list[str]) -> None:
    answer = reply({"Id": "x", "NetworkSettings": {"Ports": PORTS}})
    with Daemon(tmp_path, {"GET /containers/web/json": answer}) as daemon:
        done = daemon.command("port", *argv)
    assert (done.stdout.splitlines(), done.returncode, done.stderr) == (lines, 0, "")


@pytest.mark.parametrize("asked", ["443", "80/udp", "nonsense"])
def test_port_names_what_is_not_published(tmp_path: Path, asked: str) -> None:
    answer = reply({"Id": "x", "NetworkSettings": {"Ports": PORTS}})
    with Daemon(tmp_path, {"GET /containers/web/json": answer}) as daemon:
        done = daemon.command("port", "web", asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"No public port '{asked}' published for web" in done.stderr


def test_port_of_a_container_that_is_not_there_fails(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/web/json": failure(404, "No such container: web")}) as daemon:
        done = daemon.command("port", "web")
    assert (done.returncode, "No such container: web" in done.stderr) == (1, True)


def test_what_run_sends_has_every_port(tmp_path: Path) -> None:
    answer = reply({"Id": "x" * 64, "Warnings": []}, "201 Created")
    with Daemon(tmp_path, {"POST /containers/create": answer}) as daemon:
        daemon.command("create", "-p", "80-81/udp", "bb")
    body = json.loads(daemon.bodies[0])
    assert body["HostConfig"]["PortBindings"] == {
        port: [{"HostIp": "", "HostPort": ""}] for port in ("80/udp", "81/udp")
    }
