"""The journal reader against a real journald: what a monitor wrote comes back whole, in order, and nothing else."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dockerd_py.units.journal import JournalReader, JournalRecord
from dockerd_py.units.systemd import SystemdUnits

JOURNAL = "/run/systemd/journal/socket"

# The same, as a program: it runs in a service, where the journal's default rate limit can be lifted.
FLOOD = """
import socket, sys, time
container, epoch, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect("/run/systemd/journal/socket")
unit = "container-" + container
fixed = (
    f"PRIORITY=6\\nCONTAINER_ID={container[:12]}\\nCONTAINER_ID_FULL={container}\\nCONTAINER_NAME=flood\\n"
    f"CONTAINER_TAG={container[:12]}\\nIMAGE_NAME=busybox\\nSYSLOG_IDENTIFIER={container[:12]}\\n"
    f"OBJECT_SYSTEMD_UNIT={unit}.service\\nOBJECT_SYSTEMD_UNIT={unit}.scope\\n"
    f"OBJECT_SYSTEMD_UNIT=container-flood.service\\nCONTAINER_LOG_EPOCH={epoch}\\n"
)
for number in range(1, count + 1):
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + ".%09dZ" % (now % 10**9)
    text = "line %08d %s" % (number, "x" * 60)
    sock.send((fixed + f"SYSLOG_TIMESTAMP={stamp}\\nCONTAINER_LOG_ORDINAL={number}\\nMESSAGE={text}\\n").encode())
"""


def stamp(when: int) -> str:
    seconds, nanoseconds = divmod(when, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


class Log:
    """Writes one container's records as the monitor does."""

    def __init__(self) -> None:
        self.container = secrets.token_hex(32)
        self.epoch = secrets.token_hex(16)
        self.ordinal = 0
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.connect(JOURNAL)
        self.reader = JournalReader()

    def restart(self) -> None:
        self.epoch, self.ordinal = secrets.token_hex(16), 0

    def write(self, data: bytes, stream: int = 1, *, partial: bool = False, when: int = 0) -> int:
        self.ordinal += 1
        when = when or time.time_ns()
        fields = {
            "MESSAGE": data,
            "PRIORITY": "3" if stream == 2 else "6",
            "CONTAINER_ID": self.container[:12],
            "CONTAINER_ID_FULL": self.container,
            "CONTAINER_NAME": "wild_name",
            "CONTAINER_TAG": self.container[:12],
            "IMAGE_NAME": "busybox",
            "SYSLOG_IDENTIFIER": self.container[:12],
            "SYSLOG_TIMESTAMP": stamp(when),
            "CONTAINER_LOG_EPOCH": self.epoch,
            "CONTAINER_LOG_ORDINAL": str(self.ordinal),
        }
        if partial:
            fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
        self.sock.send(encode(fields))
        return when

    def read(self, **options: object) -> list[JournalRecord]:
        """Everything, once the journal holds the last record written."""
        if self.ordinal:
            assert self.reader.wait_for(self.container, self.epoch, self.ordinal, 10)
        return [r for batch in self.reader.read(self.container, **options) for r in batch]  # type: ignore[arg-type]

    def lines(self, **options: object) -> list[bytes]:
        return [r.data for r in self.read(**options)]


def encode(fields: dict[str, str | bytes]) -> bytes:
    parts = []
    for key, value in fields.items():
        raw = value if isinstance(value, bytes) else value.encode()
        parts.append(key.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
    return b"".join(parts)


@pytest.fixture
def log() -> Log:
    return Log()


def test_lines_come_back_with_stream_time_newline_and_number(log: Log) -> None:
    first = log.write(b"to stdout")
    second = log.write(b"to stderr", 2)
    assert log.read() == [
        JournalRecord(1, first, b"to stdout\n", False, log.epoch, 1),
        JournalRecord(2, second, b"to stderr\n", False, log.epoch, 2),
    ]


def test_empty_binary_and_very_long_messages_are_whole(log: Log) -> None:
    messages = [b"", bytes(range(256)), b"\xff\x00=\nMESSAGE=x\n", b"y" * 150_000, "grüße".encode()]
    for message in messages:
        log.write(message)
    assert log.lines() == [message + b"\n" for message in messages]


def test_pieces_of_a_long_line_are_marked_and_have_no_newline(log: Log) -> None:
    log.write(b"begin ", partial=True)
    log.write(b"end")
    log.write(b"no newline", partial=True)
    assert [(r.data, r.partial) for r in log.read()] == [(b"begin ", True), (b"end\n", False), (b"no newline", True)]


def test_an_unknown_container_has_no_records(log: Log) -> None:
    assert log.lines() == []
    assert log.lines(tail=5) == []


def test_one_stream_alone_can_be_read(log: Log) -> None:
    for number in range(6):
        log.write(b"%d" % number, 1 + number % 2)
    assert log.lines(streams={1}) == [b"0\n", b"2\n", b"4\n"]
    assert log.lines(streams={2}, tail=2) == [b"3\n", b"5\n"]
    assert log.lines(streams=()) == []


def test_a_forged_record_of_another_user_is_not_in_the_log(log: Log) -> None:
    log.write(b"true")
    forge = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('/run/systemd/journal/socket')\n"
        "fields = 'PRIORITY=6\\nMESSAGE=forged\\n_UID=0\\nCONTAINER_ID_FULL=%s\\nCONTAINER_LOG_EPOCH=%s\\n'\n"
        "fields += 'CONTAINER_LOG_ORDINAL=2\\nSYSLOG_TIMESTAMP=2030-01-01T00:00:00Z\\n'\n"
        "s.send((fields % tuple(sys.argv[1:])).encode())"
    )
    subprocess.run([sys.executable, "-I", "-c", forge, log.container, log.epoch], check=True)
    time.sleep(0.5)
    assert f"CONTAINER_ID_FULL={log.container}" in _journalctl(log.container), "the forged record did arrive"
    assert log.lines() == [b"true\n"]
    assert not log.reader.wait_for(log.container, log.epoch, 2, 0.3)


def _journalctl(container: str) -> str:
    found = subprocess.check_output(["journalctl", "-o", "export", f"CONTAINER_ID_FULL={container}", "_UID=65534"])
    return found.decode(errors="replace")


def test_a_message_about_the_container_that_is_no_log_line_is_left_out(log: Log) -> None:
    log.write(b"line")
    log.sock.send(encode({"MESSAGE": "container started", "CONTAINER_ID_FULL": log.container, "PRIORITY": "6"}))
    log.write(b"another")
    assert log.lines() == [b"line\n", b"another\n"]


def test_since_and_until_include_their_own_instant(log: Log) -> None:
    times = [log.write(b"%d" % number) for number in range(10)]
    assert log.lines(since=times[4]) == [b"%d\n" % n for n in range(4, 10)]
    assert log.lines(until=times[4]) == [b"%d\n" % n for n in range(5)]
    assert log.lines(since=times[2], until=times[3]) == [b"2\n", b"3\n"]
    assert log.lines(since=times[9] + 1) == []
    assert log.lines(until=times[0] - 1) == []


def test_a_record_that_reached_the_journal_late_is_found_by_its_own_time(log: Log) -> None:
    past = time.time_ns() - 3 * 10**9
    log.write(b"late", when=past)
    assert log.lines(since=past) == [b"late\n"]
    assert log.lines(until=past) == [b"late\n"]
    assert log.lines(since=past + 1) == []


@pytest.mark.parametrize("tail", [0, 1, 2, 5, 9, 10, 11, 1000])
def test_tail_gives_the_last_lines_in_order(log: Log, tail: int) -> None:
    for number in range(10):
        log.write(b"%d" % number)
    assert log.lines(tail=tail) == [b"%d\n" % n for n in range(10)][max(0, 10 - tail) :]


def test_tail_counts_a_long_line_once_with_all_its_pieces(log: Log) -> None:
    log.write(b"before")
    for _ in range(3):
        log.write(b"piece ", partial=True)
    log.write(b"end")
    log.write(b"after")
    log.write(b"unfinished", partial=True)
    assert log.lines(tail=1) == [b"unfinished"]
    assert log.lines(tail=2) == [b"after\n", b"unfinished"]
    assert log.lines(tail=3) == [b"piece "] * 3 + [b"end\n", b"after\n", b"unfinished"]
    assert log.lines(tail=4)[0] == b"before\n"


def test_tail_does_not_join_what_two_runs_left_unfinished(log: Log) -> None:
    log.write(b"first run ", partial=True)
    log.restart()
    log.write(b"second run")
    assert log.lines(tail=1) == [b"second run\n"]
    assert log.lines(tail=2) == [b"first run ", b"second run\n"]


def test_tail_keeps_streams_apart_where_pieces_interleave(log: Log) -> None:
    log.write(b"out 1")
    log.write(b"err a ", 2, partial=True)
    log.write(b"out 2")
    log.write(b"err b", 2)
    log.write(b"out 3")
    assert log.lines(tail=1) == [b"out 3\n"]
    assert log.lines(tail=2) == [b"err a ", b"err b\n", b"out 3\n"]
    assert log.lines(tail=3) == [b"err a ", b"out 2\n", b"err b\n", b"out 3\n"]


def test_tail_with_since_and_until_stays_between_them(log: Log) -> None:
    times = [log.write(b"%d" % number) for number in range(10)]
    assert log.lines(tail=3, until=times[6]) == [b"4\n", b"5\n", b"6\n"]
    assert log.lines(tail=100, since=times[7]) == [b"7\n", b"8\n", b"9\n"]
    assert log.lines(tail=2, since=times[1], until=times[5]) == [b"4\n", b"5\n"]
    assert log.lines(tail=5, until=times[0] - 1) == []


def test_rotated_files_are_read_in_order_with_the_new_one(log: Log) -> None:
    for number in range(30):
        if number % 10 == 9:
            assert log.reader.wait_for(log.container, log.epoch, log.ordinal, 10)
            subprocess.run(["journalctl", "--rotate"], check=True, stderr=subprocess.DEVNULL)
        log.write(b"%d" % number)
    assert log.lines() == [b"%d\n" % n for n in range(30)]
    assert log.lines(tail=25) == [b"%d\n" % n for n in range(5, 30)]


def test_wait_for_sees_a_record_that_comes_later_also_after_a_rotation(log: Log) -> None:
    log.write(b"one")
    assert not log.reader.wait_for(log.container, log.epoch, 2, 0.1)

    async def scenario() -> bool:
        waiting = asyncio.create_task(asyncio.to_thread(log.reader.wait_for, log.container, log.epoch, 2, 10))
        await asyncio.sleep(0.1)
        rotate = await asyncio.create_subprocess_exec("journalctl", "--rotate", stderr=subprocess.DEVNULL)
        await rotate.wait()
        log.write(b"two")
        return await waiting

    assert asyncio.run(scenario())


def test_records_is_the_same_off_the_event_loop_and_may_be_left_early(log: Log) -> None:
    for number in range(2000):
        log.write(b"%d" % number)
        if number % 100 == 99:  # stay below the journal's queue
            assert log.reader.wait_for(log.container, log.epoch, log.ordinal, 10)

    async def scenario() -> None:
        whole = [r.data async for batch in log.reader.records(log.container) for r in batch]
        assert whole == [b"%d\n" % n for n in range(2000)]
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            batches = log.reader.records(log.container)
            async for batch in batches:
                assert batch[0].data == b"0\n"
                break
            await batches.aclose()  # type: ignore[attr-defined]
        task = asyncio.create_task(_drain(log))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())


async def _drain(log: Log) -> None:
    async for _batch in log.reader.records(log.container):
        await asyncio.sleep(0)


def test_a_hundred_thousand_lines_are_complete_and_in_order(tmp_path: Path) -> None:
    container, epoch, count = secrets.token_hex(32), secrets.token_hex(16), 100_000
    program = tmp_path / "flood.py"  # not as an argument: journald keeps the command line with every record
    program.write_text(FLOOD)

    async def flood() -> None:
        units = SystemdUnits()
        properties = {
            "Type": "oneshot",
            "CollectMode": "inactive-or-failed",
            "LogRateLimitIntervalUSec": 1_000_000,
            "LogRateLimitBurst": 10_000_000,
            "TimeoutStartUSec": 60_000_000,
        }
        argv = ["/usr/bin/python3", "-I", os.fspath(program), container, epoch, str(count)]
        await units.start_service(f"pydockerd-test-{secrets.token_hex(4)}.service", argv, properties)
        await units.close()

    asyncio.run(flood())
    reader = JournalReader()
    assert reader.wait_for(container, epoch, count, 30)
    number = 0
    for batch in reader.read(container):
        for record in batch:
            number += 1
            if record.ordinal != number:
                pytest.fail(f"record {record.ordinal} came where {number} was due")
    assert number == count
    assert len([r for batch in reader.read(container, tail=10) for r in batch]) == 10
