"""Commands against a socket: what they ask, what they print, and how they end."""

from __future__ import annotations

import grp  # noqa: F401 - before a test becomes somebody who may not read it
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from cli_daemon import NO_CONTENT, NOT_MODIFIED, Daemon, Request, chunked, failure, reply

from dockerd_py.cli.errors import Unreachable
from dockerd_py.cli.transport import Host

ID = "0123456789abcdef" * 4


def container(**fields: object) -> dict[str, object]:
    return {
        "Id": ID,
        "Names": ["/web"],
        "Image": "bb",
        "Command": 'sh -c "while true; do date; done"',
        "Created": int(time.time()) - 7200,
        "Status": "Up 2 hours",
        "State": "running",
        "Ports": [],
        "Labels": {},
        **fields,
    }


def test_ps_is_a_table(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/json": reply([container()])}) as daemon:
        done = daemon.command("ps")
    heading, line = done.stdout.splitlines()
    assert heading.split("  ")[0] == "CONTAINER ID"
    assert line == '0123456789ab   bb        "sh -c \\"while true; …"   2 hours ago   Up 2 hours             web'
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.lines == ["GET /containers/json"]


def test_ps_passes_its_flags_on(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/json": reply([])}) as daemon:
        for argv in (["-a"], ["-l"], ["-n", "3"], ["-f", "status=exited", "--filter", "name=a"], ["-s"]):
            assert daemon.command("ps", *argv).returncode == 0
    assert daemon.lines[:3] == [
        "GET /containers/json?all=1", "GET /containers/json?limit=1", "GET /containers/json?limit=3",
    ]  # fmt: skip
    assert "filters=%7B%22status%22%3A+%5B%22exited%22%5D%2C+%22name%22%3A+%5B%22a%22%5D%7D" in daemon.lines[3]
    assert daemon.lines[4] == "GET /containers/json?size=1"


def test_names_and_commands_cannot_reach_the_terminal_as_controls(tmp_path: Path) -> None:
    nasty = container(Command="\x1b]0;owned\x07\n\u202e", Names=["/a\x1b[2J"], Image="i\rm", Status="\x9b5n")
    with Daemon(tmp_path, {"GET /containers/json": reply([nasty])}) as daemon:
        for argv in ([], ["--no-trunc"], ["--format", "{{.Command}}{{.Names}}{{json .}}"], ["--format", "json"]):
            out = daemon.command("ps", *argv).stdout
            assert all(line.isprintable() for line in out.splitlines()), out
            assert len(out.splitlines()) <= 2


def test_ports_are_shown_as_where_they_lead(tmp_path: Path) -> None:
    ports = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    with Daemon(tmp_path, {"GET /containers/json": reply([container(Ports=ports)])}) as daemon:
        assert daemon.command("ps", "--format", "{{.Ports}}").stdout == (
            "53/udp, 0.0.0.0:8080->80/tcp, :::8080->80/tcp\n"
        )


def test_ids_only(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/json": reply([container()])}) as daemon:
        assert daemon.command("ps", "-q").stdout == "0123456789ab\n"
        assert daemon.command("ps", "-q", "--no-trunc").stdout == ID + "\n"


def test_an_image_has_a_line_for_each_of_its_names(tmp_path: Path) -> None:
    image = {"Id": f"sha256:{ID}", "RepoTags": ["a:1", "host:5000/b:2"], "Created": 1, "Size": 1234}
    untagged = {**image, "RepoTags": None}
    with Daemon(tmp_path, {"GET /images/json": reply([image, untagged])}) as daemon:
        done = daemon.command("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}")
        assert daemon.command("images", "-q").stdout == "0123456789ab\n"
    assert done.stdout == (
        "a 1 0123456789ab 1.23kB\nhost:5000/b 2 0123456789ab 1.23kB\n<none> <none> 0123456789ab 1.23kB\n"
    )


def test_several_containers_are_stopped_and_each_failure_is_told(tmp_path: Path) -> None:
    answers = {
        "POST /containers/a/stop": NO_CONTENT,
        "POST /containers/b/stop": failure(404, "No such container: b"),
        "POST /containers/c/stop": NOT_MODIFIED,
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("stop", "-t", "3", "a", "b", "c")
    assert done.stdout == "a\nc\n"
    assert done.stderr == "pydocker: Error response from daemon: No such container: b\n"
    assert done.returncode == 1
    assert daemon.lines[0] == "POST /containers/a/stop?t=3"


def test_without_a_time_the_container_s_own_is_left_to_the_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"POST /containers/a/stop": NO_CONTENT}) as daemon:
        daemon.command("stop", "a")
    assert daemon.lines == ["POST /containers/a/stop"]


def test_flags_may_follow_the_names(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"DELETE /containers/a": NO_CONTENT}) as daemon:
        assert daemon.command("rm", "/a", "-f").returncode == 0
    assert daemon.lines == ["DELETE /containers/a?force=1"]


@pytest.mark.parametrize("ref", ["", ".", "..", "/"])
def test_what_can_be_no_name_never_becomes_a_path(tmp_path: Path, ref: str) -> None:
    with Daemon(tmp_path, {}) as daemon:
        assert "is no container's name" in daemon.command("rm", "-f", ref).stderr
        assert "is no image's name" in daemon.command("rmi", f"{ref}/x").stderr
    assert daemon.lines == []


def test_odd_names_are_escaped(tmp_path: Path) -> None:
    with Daemon(tmp_path, {}) as daemon:
        daemon.command("rm", "a/../b?x=1 #\n")
        daemon.command("rmi", "a/b:c@d?x")
    assert daemon.lines == ["DELETE /containers/a%2F..%2Fb%3Fx%3D1%20%23%0A", "DELETE /images/a/b:c@d%3Fx"]


def test_rmi_tells_what_became_of_each_image(tmp_path: Path) -> None:
    answers = {
        "DELETE /images/a:1": reply([{"Untagged": "a:1"}, {"Deleted": f"sha256:{ID}"}]),
        "DELETE /images/b": failure(409, "conflict: b is used by a container"),
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("rmi", "b", "a:1")
    assert done.stdout == f"Untagged: a:1\nDeleted: sha256:{ID}\n"
    assert done.stderr == "pydocker: Error response from daemon: conflict: b is used by a container\n"
    assert done.returncode == 1


def test_tag_names_repository_and_tag(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"POST /images/a/tag": reply(None, "201 Created")}) as daemon:
        assert daemon.command("tag", "a", "host:5000/b").returncode == 0
    assert daemon.lines == ["POST /images/a/tag?repo=host%3A5000%2Fb&tag=latest"]


def test_wait_prints_exit_codes(tmp_path: Path) -> None:
    answers = {"POST /containers/a/wait": reply({"StatusCode": 3}), "POST /containers/b/wait": reply({"StatusCode": 0})}
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("wait", "a", "b", "c")
    assert (done.stdout, done.returncode) == ("3\n0\n", 1)


def test_inspect_looks_for_a_container_and_then_for_an_image(tmp_path: Path) -> None:
    answers = {"GET /containers/c/json": reply({"Id": "1"}), "GET /images/i/json": reply({"Id": "2"})}
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("inspect", "c", "i", "none")
        assert daemon.command("inspect", "-f", "{{.Id}}", "c", "i").stdout == "1\n2\n"
        assert daemon.command("inspect", "--type", "image", "c").returncode == 1
    assert done.stdout == json.dumps([{"Id": "1"}, {"Id": "2"}], indent=4) + "\n"
    assert done.stderr == "pydocker: No such container, image, network or volume: none\n"
    assert done.returncode == 1


def test_inspect_gives_a_script_what_is_there_byte_for_byte(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/c/json": reply({"Label": "a\n\x1bb"})}) as daemon:
        assert daemon.command("inspect", "-f", "{{.Label}}", "c").stdout == "a\n\x1bb\n"


def test_a_bad_template_ends_with_64_before_anything_is_asked(tmp_path: Path) -> None:
    with Daemon(tmp_path, {}) as daemon:
        assert daemon.command("inspect", "-f", "{{.Id", "c").returncode == 64
    assert daemon.lines == []


def frames(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in pairs)


def test_logs_keep_both_streams_apart(tmp_path: Path) -> None:
    data = frames((1, b"out\n"), (2, b"err\n"), (1, b"more\n"))
    answers = {
        "GET /containers/c/json": reply({"Config": {"Tty": False}}),
        "GET /containers/c/logs": chunked(data[:5], data[5:17], data[17:]),
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("logs", "-f", "--tail", "5", "--since", "2023-11-14T22:13:20Z", "c")
    assert (done.stdout, done.stderr) == ("out\nmore\n", "err\n")
    assert daemon.lines[1] == "GET /containers/c/logs?stdout=1&stderr=1&follow=1&since=1700000000&tail=5"


def test_logs_that_break_off_are_an_error(tmp_path: Path) -> None:
    whole = chunked(frames((1, b"out\n")))
    answers = {
        "GET /containers/c/json": reply({"Config": {"Tty": False}}),
        "GET /containers/c/logs": whole.removesuffix(b"0\r\n\r\n"),
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("logs", "c")
    assert done.stdout == "out\n"
    assert "closed the connection in the middle" in done.stderr
    assert done.returncode == 1


def test_events_are_shown_as_they_come_whatever_separates_them(tmp_path: Path) -> None:
    event = {
        "Type": "container", "Action": "die", "Actor": {"ID": ID, "Attributes": {"exitCode": "3", "name": "w\x1b"}},
        "time": 1700000000, "timeNano": 1700000000000000042,
    }  # fmt: skip
    data = json.dumps(event).encode()
    with Daemon(tmp_path, {"GET /events": chunked(data[:10], data[10:] + data + b"\r\n", b" \n" + data)}) as daemon:
        done = daemon.command("events")
        assert daemon.command("events", "--format", "{{.Actor.Attributes.exitCode}}").stdout == "3\n3\n3\n"
    line = f"2023-11-14T22:13:20.000000042+00:00 container die {ID} (exitCode=3, name=w\\x1b)"
    assert done.stdout.splitlines() == [line] * 3


def test_import_sends_a_file_with_its_length(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(os.urandom(300_000))
    messages = chunked(b'{"status":"Importing"}\r\n', b'{"status":"sha256:abc"}')
    with Daemon(tmp_path, {"POST /images/create": messages}) as daemon:
        done = daemon.command("import", "-c", "CMD [a]", "-c", "USER b", "-m", "hi there", os.fspath(archive), "r/x:1")
    assert (done.stdout, done.stderr, done.returncode) == ("sha256:abc\n", "", 0)
    assert daemon.bodies == [archive.read_bytes()]
    assert daemon.asked[0].headers["content-length"] == "300000"
    assert daemon.lines == [
        "POST /images/create?fromSrc=-&repo=r%2Fx&tag=1&message=hi+there&changes=CMD+%5Ba%5D&changes=USER+b"
    ]


def test_import_sends_a_pipe_in_chunks(tmp_path: Path) -> None:
    payload = os.urandom(700_000)
    with (
        Daemon(tmp_path, {"POST /images/create": chunked(b'{"status":"sha256:abc"}')}) as daemon,
        daemon.start("import", "-", stdin=subprocess.PIPE, text=False) as process,
    ):
        out, _ = process.communicate(payload)
    assert out == b"sha256:abc\n"
    assert daemon.asked[0].headers["transfer-encoding"] == "chunked"
    assert daemon.bodies == [payload]


def test_import_stops_sending_when_the_daemon_has_answered(tmp_path: Path) -> None:
    def refuse(request: Request) -> None:
        request.connection.sendall(failure(400, "this is no tar"))
        request.connection.shutdown(1)

    with open("/dev/zero", "rb") as endless, Daemon(tmp_path, {"POST /images/create": refuse}) as daemon:
        done = daemon.command("import", "-", stdin=endless)
    assert done.stderr == "pydocker: Error response from daemon: this is no tar\n"
    assert done.returncode == 1


def test_import_goes_on_sending_while_the_daemon_tells_its_progress(tmp_path: Path) -> None:
    def tell(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        message = b'{"status":"Importing"}\r\n'
        received = len(request.data)
        while received < 2_000_000:
            request.connection.sendall(b"%x\r\n%b\r\n" % (len(message), message))
            received += len(request.connection.recv(100_000))
        message = json.dumps({"status": f"sha256:{received}"}).encode()
        request.connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(message), message))

    archive = tmp_path / "a.tar"
    archive.write_bytes(bytes(2_000_000))
    with Daemon(tmp_path, {"POST /images/create": tell}) as daemon:
        done = daemon.command("import", os.fspath(archive))
    assert (done.stdout, done.stderr, done.returncode) == ("sha256:2000000\n", "", 0)


def test_import_stops_sending_when_the_progress_ends_with_an_error(tmp_path: Path) -> None:
    def fail(request: Request) -> None:
        request.connection.sendall(chunked(b'{"status":"Importing"}', b'{"error":"this is no tar"}'))
        request.connection.recv(1)
        time.sleep(20)

    with open("/dev/zero", "rb") as endless, Daemon(tmp_path, {"POST /images/create": fail}) as daemon:
        done = daemon.command("import", "-", stdin=endless)
    assert (done.stderr, done.returncode) == ("pydocker: this is no tar\n", 1)


def test_an_error_in_a_stream_of_messages_is_an_error(tmp_path: Path) -> None:
    messages = chunked(b'{"status":"Importing"}', b'{"errorDetail":{"message":"disk full"},"error":"disk full"}')
    with Daemon(tmp_path, {"POST /images/create": messages}) as daemon:
        done = daemon.command("import", "http://example.org/a.tar")
    assert (done.stdout, done.stderr, done.returncode) == ("", "pydocker: disk full\n", 1)
    assert daemon.lines == ["POST /images/create?fromSrc=http%3A%2F%2Fexample.org%2Fa.tar"]


@pytest.mark.parametrize(
    ("source", "message"), [("nothing.tar", "nothing.tar: No such file or directory"), ("/tmp", "/tmp: a directory")]
)
def test_import_names_a_file_that_it_cannot_send(tmp_path: Path, source: str, message: str) -> None:
    with Daemon(tmp_path, {}) as daemon:
        done = daemon.command("import", source)
    assert message in done.stderr
    assert (done.returncode, daemon.lines) == (1, [])


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["pull", "x"], 2, "'pull' is not a pydocker command"),
        (["help", "pull"], 2, "'pull' is not a pydocker command"),
        (["--what"], 2, "flag provided but not defined: --what"),
        (["ps", "--what"], 2, "flag provided but not defined: --what"),
        (["ps", "extra"], 2, '"pydocker ps" takes no arguments, not 1'),
        (["rm"], 2, '"pydocker rm" takes at least 1 argument, not 0'),
        (["tag", "a"], 2, '"pydocker tag" takes exactly 2 arguments, not 1'),
        (["import", "a", "b", "c"], 2, '"pydocker import" takes at most 2 arguments, not 3'),
        (["-H", "a:1", "-H", "b:1", "ps"], 2, "more than one -H"),
        (["-H", "unix://relative", "ps"], 2, "the socket needs an absolute path"),
        (["-H", "fd://", "ps"], 2, "only a daemon can listen on inherited sockets"),
        (["-H", "http://a:1", "ps"], 2, "it must be unix:///path or tcp://address:port"),
        (["-H", "tcp://a", "ps"], 2, "it must be unix:///path or tcp://address:port"),
        (["-H", "::1:2375", "ps"], 2, "it must be unix:///path or tcp://address:port"),
        (["stop", "-t", "-2", "a"], 2, "it must be a number of seconds"),
        (["run"], 125, '"pydocker run" takes at least 1 argument'),
        (["run", "--what", "bb"], 125, "flag provided but not defined: --what"),
        (["logs", "--since", "never", "a"], 2, "a date such as"),
        (["logs", "--tail", "-1", "a"], 2, "it must be a number of lines, or all"),
        (["ps", "-f", "status"], 2, "a filter is key=value"),
    ],
)
def test_a_wrong_command_line_is_told_without_asking_the_daemon(
    tmp_path: Path, argv: list[str], code: int, message: str
) -> None:
    with Daemon(tmp_path, {}) as daemon:
        done = daemon.command(*argv)
    assert message in done.stderr
    assert "--help'" in done.stderr
    assert (done.returncode, done.stdout, daemon.lines) == (code, "", [])


def test_help_needs_no_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path, {}) as daemon:
        for argv in (["--help"], ["help"]):
            done = daemon.command(*argv)
            assert (done.returncode, done.stderr) == (0, "")
            assert re.search(r"^  images +List images$", done.stdout, re.MULTILINE)
        assert daemon.command("help", "ps").stdout == daemon.command("ps", "--help").stdout
        assert daemon.command().returncode == 2
    assert daemon.lines == []


def test_the_daemons_address_comes_from_the_flag_then_the_environment(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/json": reply([])}) as daemon:
        here = f"unix://{daemon.path}"
        for argv, environment in (
            (["-H", here], {"PYDOCKER_HOST": "unix:///nowhere", "DOCKER_HOST": "unix:///nowhere"}),
            ([], {"PYDOCKER_HOST": here, "DOCKER_HOST": "unix:///nowhere"}),
            ([], {"PYDOCKER_HOST": "", "DOCKER_HOST": here}),
        ):
            assert daemon.command(*argv, "ps", env={**os.environ, **environment}).returncode == 0


def test_a_daemon_that_is_not_there_is_told(tmp_path: Path) -> None:
    with Daemon(tmp_path, {}) as daemon:
        done = daemon.command("-H", f"unix://{tmp_path}/other.sock", "ps")
    assert done.stderr == (
        f"pydocker: Cannot connect to the pydockerd daemon at unix://{tmp_path}/other.sock. Is it running?\n"
    )
    assert done.returncode == 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a socket that somebody else may not use")
@pytest.mark.parametrize(("gid", "told"), [(1, "the group 'daemon'"), (0, "Only root may use it"), (54321, "'54321'")])
def test_a_socket_that_we_may_not_use_is_told_with_its_group(gid: int, told: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(directory, 0o755)
        path = f"{directory}/docker.sock"
        listener.bind(path)
        os.chmod(path, 0o660)
        os.chown(path, 0, gid)
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:  # nobody, who may not even read our interpreter
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            try:
                Host(f"unix://{path}").connect()
            except Unreachable as error:
                os.write(write_fd, str(error).encode())
            os._exit(0)
        os.close(write_fd)
        message = os.read(read_fd, 4096).decode()
        os.close(read_fd)
        os.waitpid(child, 0)
    assert "Permission denied" in message
    assert told in message


def test_a_socket_path_may_be_long(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with Daemon(tmp_path, {"GET /containers/json": reply([])}) as daemon:
        os.rename(daemon.path, deep / "docker.sock")
        assert daemon.command("-H", f"unix://{deep}/docker.sock", "ps").returncode == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "is no HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[]", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n[]", "is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[]", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "is no JSON"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", "Error response from daemon: HTTP status 500"),
        (b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\nplain words\n", "daemon: plain words\n"),
        (b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\n\r\n[1]", "daemon: [1]\n"),
        (failure(500, "escapes \x1b[2J\nand lines"), "daemon: escapes \\x1b[2J\nand lines\n"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_sentence(tmp_path: Path, answer: bytes, message: str) -> None:
    with Daemon(tmp_path, {"GET /containers/json": answer}) as daemon:
        done = daemon.command("ps")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_a_reader_that_leaves_ends_us_quietly(tmp_path: Path) -> None:
    many = [container(Names=[f"/c{number}"]) for number in range(20_000)]
    with Daemon(tmp_path, {"GET /containers/json": reply(many)}) as daemon, daemon.start("ps") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /containers/json": reply([])}) as daemon, open("/dev/full", "w") as full:
        done = daemon.command("ps", stdout=full)
    assert done.stderr == "pydocker: standard output: No space left on device\n"
    assert done.returncode == 1


def test_an_interrupt_ends_a_waiting_command_with_130(tmp_path: Path) -> None:
    def forever(request: Request) -> None:
        request.connection.recv(1)

    with (
        Daemon(tmp_path, {"GET /events": forever}) as daemon,
        daemon.start("events", start_new_session=True) as process,
    ):
        while not daemon.asked:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
