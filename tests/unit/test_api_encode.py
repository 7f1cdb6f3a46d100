"""Containers, images and log lines as Docker's clients read them."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from typing import Any

import pytest
from values import IMAGE_ID, make_container, make_image

from dockerd_py.api import encode, encode_state, ports
from dockerd_py.api.logframes import encoder
from dockerd_py.api.ports import Port
from dockerd_py.api.times import SECOND, duration, parse_time, rfc3339
from dockerd_py.engine.isolation import Namespaces, Security
from dockerd_py.engine.model import (
    STDERR,
    STDOUT,
    ContainerConfig,
    HostConfig,
    LogRecord,
    State,
    Status,
)
from dockerd_py.engine.mount_model import Bind, Mount, MountRequest
from dockerd_py.engine.network_model import Attachment, EndpointRequest
from dockerd_py.errors import BadParameter

NOW = (1, 43)
DAY = 24 * 3600


# Times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"), (5400, "2 hours"),
        (47 * 3600, "47 hours"), (2 * DAY, "2 days"), (14 * DAY, "2 weeks"), (60 * DAY, "2 months"),
        (729 * DAY, "24 months"), (731 * DAY, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_durations_read_as_docker_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds * SECOND) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0), ("0", 0), ("0.000000000", 0), ("1700000000", 1_700_000_000 * SECOND),
        ("1700000000.5", 1_700_000_000_500_000_000), ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND), ("2023-11-14T22:13:20.25Z", 1_700_000_000_250_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000 * SECOND),
        ("2023-11-14T20:43:20.1-01:30", 1_700_000_000_100_000_000),
        ("2023-11-14", 1_699_920_000 * SECOND), ("2023-11-14T22:13", 1_699_999_980 * SECOND),
    ],
)  # fmt: skip
def test_moments_are_unix_seconds_or_dates(text: str, expected: int) -> None:
    assert parse_time(text, "since") == expected


@pytest.mark.parametrize("text", ["x", "10m", "-5", "1e9", "2023-13-01", "2023-11-14T25:00:00Z", "1" * 40, "1.", "٣"])
def test_other_moments_are_refused_by_name(text: str) -> None:
    with pytest.raises(BadParameter, match="since must be"):
        parse_time(text, "since")


def test_times_are_printed_as_go_prints_them() -> None:
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(1_700_000_000 * SECOND) == "2023-11-14T22:13:20Z"
    assert rfc3339(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"


# Containers


@pytest.mark.parametrize(
    ("state", "today", "first_year"),
    [
        (State(), "Created", "Exit 0"),
        (State(Status.RUNNING, started_at=-3), "Up 3 seconds", "Up 3 seconds"),
        (State(Status.PAUSED, started_at=-3), "Up 3 seconds (Paused)", "Up 3 seconds"),
        (State(Status.EXITED, exit_code=2, finished_at=-120), "Exited (2) 2 minutes ago", "Exit 2"),
        (State(Status.REMOVING), "Removal In Progress", "Exit 0"),
        (State(Status.DEAD), "Dead", "Exit 0"),
    ],
)
def test_the_status_says_what_it_does_and_since_when(state: State, today: str, first_year: str) -> None:
    now = time.time_ns()
    if state.started_at:
        state = replace(state, started_at=now + state.started_at * SECOND)
    if state.finished_at:
        state = replace(state, finished_at=now + state.finished_at * SECOND)
    assert encode_state.status_text(state, NOW) == today
    assert encode_state.status_text(state, (1, 9)) == first_year


def test_the_command_quotes_arguments_with_blanks_since_the_first_year() -> None:
    container = make_container(path="sh", args=("-c", "echo hi"))
    assert encode.container_summary(container, NOW, "busybox")["Command"] == "sh -c 'echo hi'"
    assert encode.container_summary(container, (1, 9), "busybox")["Command"] == "sh -c echo hi"
    assert encode.container_summary(replace(container, args=()), NOW, "busybox")["Command"] == "sh"


def test_inspect_shows_the_settings_as_they_were_given() -> None:
    container = make_container(
        config=ContainerConfig(
            image="busybox", cmd=("a",), entrypoint=(), env=("A=b",), exposed_ports=("80/tcp",), stop_signal="INT",
            stop_timeout=0, tty=True,
        ),
        host=HostConfig(
            binds=(Bind("/a", "/b"), Bind("/c", "/d", True)), memory=1 << 23, memory_swap=-1, pids_limit=5,
            network_mode="none", auto_remove=True, log_options={"tag": "x"},
        ),
        mounts=(Mount("bind", "/c", "/d", True, mode="ro", propagation="rprivate"),),
        state=State(Status.RUNNING, pid=5, started_at=1_700_000_000_000_000_000),
        attachments=(Attachment("none", "e" * 64, EndpointRequest("none"), driver="null"),),
    )  # fmt: skip
    result = encode.container_inspect(container, NOW)
    assert (result["Name"], result["Image"]) == ("/nice_name", "sha256:" + IMAGE_ID)
    assert result["State"] == {
        "Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
        "Pid": 5, "ExitCode": 0, "Error": "", "StartedAt": "2023-11-14T22:13:20Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }  # fmt: skip
    config, host = result["Config"], result["HostConfig"]
    assert (config["Entrypoint"], config["Cmd"], config["Tty"]) == ([], ["a"], True)
    assert (config["ExposedPorts"], config["StopSignal"], config["StopTimeout"]) == ({"80/tcp": {}}, "INT", 0)
    assert host["Binds"] == ["/a:/b", "/c:/d:ro"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NetworkMode"]) == (1 << 23, -1, 5, "none")
    assert (host["LogConfig"], host["Runtime"]) == ({"Type": "json-file", "Config": {"tag": "x"}}, "crun")
    assert result["Mounts"] == [
        {"Type": "bind", "Source": "/c", "Destination": "/d", "Mode": "ro", "RW": False, "Propagation": "rprivate"}
    ]
    assert list(result["NetworkSettings"]["Networks"]) == ["none"]
    assert encode.container_inspect(container, (1, 10))["ID"] == container.id


def test_what_inspect_shows_can_be_sent_back_to_create() -> None:
    from dockerd_py.api.decode import decode_create

    container = make_container(
        config=ContainerConfig(image="i", cmd=("a",), labels={"k": "v"}, exposed_ports=("80/tcp",), stop_timeout=4,
                               mac_address="02:42:ac:11:00:02"),
        host=HostConfig(
            binds=(Bind("/c", "/d", True, "ro,rslave", "rslave"), Bind("data", "/e", mode="nocopy", no_copy=True)),
            mounts=(
                MountRequest("bind", "/f", "/g", True, propagation="shared", non_recursive=True, create_source=True),
                MountRequest("volume", "/h", "name", no_copy=True, labels={"a": "b"}, driver_options={"type": "nfs"}),
                MountRequest("volume", "/i"),
                MountRequest("tmpfs", "/j", size=1 << 20, mode=0o1700),
            ),
            volumes_from=("other:ro",),
            tmpfs={"/k": "size=1m"},
            shm_size=1 << 20,
            memory=1 << 23,
            log_driver="json-file",
            nano_cpus=7,
        ),
    )  # fmt: skip
    result = json.loads(json.dumps(encode.container_inspect(container, NOW)))
    request = decode_create({**result["Config"], "HostConfig": result["HostConfig"]})
    assert request.config == container.config
    again = encode.container_inspect(replace(container, host=request.host), NOW)
    assert json.loads(json.dumps(again)) == result
    # some defaults are shown as such, and come back given
    assert replace(request.host, namespaces=Namespaces(), security=Security(), runtime="") == container.host


# Images


def test_images_are_digests_since_1_22() -> None:
    assert encode.image_inspect(make_image(), (1, 22))["Id"] == "sha256:" + IMAGE_ID
    assert encode.image_summary(make_image(), (1, 21))["Id"] == IMAGE_ID
    assert encode.image_summary(make_image(), NOW)["ParentId"] == ""


def test_an_image_shows_its_layers_and_settings() -> None:
    result = encode.image_inspect(make_image(), NOW)
    assert result["RootFS"] == {"Type": "layers", "Layers": ["sha256:" + "2" * 64]}
    assert (result["Config"]["Cmd"], result["Config"]["Labels"]) == (["sh"], {"k": "v"})
    assert (result["Created"], result["Size"], result["RepoTags"]) == ("2023-11-14T22:13:20Z", 4711, ["busybox:latest"])


# Logs


LINES = [
    LogRecord(STDOUT, 1_700_000_000_000_000_001, b"one\n"),
    LogRecord(STDERR, 1_700_000_001_500_000_000, b"two\n"),
    LogRecord(STDOUT, 1_700_000_002_000_000_000, b"par", partial=True),
    LogRecord(STDOUT, 1_700_000_003_000_000_000, b"tial\n"),
    LogRecord(STDOUT, 1_700_000_004_000_000_000, b"no end"),
]


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


def test_each_record_is_a_frame() -> None:
    expected = b"".join(frame(record.stream, record.data) for record in LINES)
    assert encoder(framed=True, timestamps=False)(LINES) == expected
    assert encoder(framed=False, timestamps=False)(LINES) == b"one\ntwo\npartial\nno end"


def test_a_line_has_its_time_once_and_with_nine_digits() -> None:
    encode_ = encoder(framed=False, timestamps=True)
    assert encode_(LINES[:3]) + encode_(LINES[3:]) == (
        b"2023-11-14T22:13:20.000000001Z one\n"
        b"2023-11-14T22:13:21.500000000Z two\n"
        b"2023-11-14T22:13:22.000000000Z partial\n"
        b"2023-11-14T22:13:24.000000000Z no end"
    )
    framed = encoder(framed=True, timestamps=True, details=b" ")(LINES[:1])
    assert framed == frame(STDOUT, b"2023-11-14T22:13:20.000000001Z  one\n")


# The first year's ports

PORTS = [
    Port(53, "udp"), Port(80, "tcp", "0.0.0.0", 49153), Port(80, "tcp", "::", 49154), Port(81, "udp", "10.0.0.1", 5)
]  # fmt: skip


@pytest.mark.parametrize("version", [(1, 0), (1, 4)])
def test_ports_were_a_text_and_a_mapping(version: tuple[int, int]) -> None:
    assert ports.first_year_list(PORTS, version) == (
        "53/udp, 0.0.0.0:49153->80/tcp, :::49154->80/tcp, 10.0.0.1:5->81/udp"
    )
    shown = ports.first_year_settings(PORTS, version)
    assert shown["PortMapping"] == {"Tcp": {"80": "49154"}, "Udp": {"81": "5"}}
    assert ports.first_year_list([], version) == ""


@pytest.mark.parametrize("version", [(1, 5), (1, 10)])
def test_ports_became_a_list_and_bindings(version: tuple[int, int]) -> None:
    assert ports.first_year_list(PORTS, version) == [
        {"PublicPort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 49153, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 49154, "Type": "tcp"},
        {"IP": "10.0.0.1", "PrivatePort": 81, "PublicPort": 5, "Type": "udp"},
    ]
    assert ports.first_year_settings(PORTS, version) == {
        "Ports": {
            "53/udp": None,
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49154"}],
            "81/udp": [{"HostIp": "10.0.0.1", "HostPort": "5"}],
        },
        "PortMapping": None,
    }
    assert ports.first_year_list([], version) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [Port(80), Port(81, "udp")]),
        ({"state": State(Status.EXITED)}, []),
        ({"host": HostConfig(network_mode="host")}, []),
        ({"config": ContainerConfig(exposed_ports=("80/tcp",), network_disabled=True)}, []),
    ],
)
def test_ports_are_those_of_a_running_container_with_a_network(changes: dict[str, Any], expected: list[Port]) -> None:
    container = make_container(
        state=State(Status.RUNNING), config=ContainerConfig(exposed_ports=("81/udp", "80/tcp"))
    )
    assert ports.ports_of(replace(container, **changes)) == expected
