"""Health checks: what is run, when, what comes of it, who is told, and what outlives the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon, until

MS, S = 1_000_000, 1_000_000_000
QUICK = {"Interval": 100 * MS, "Timeout": 5 * S, "Retries": 2}
FLAG = "test -e /healthy"
OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]
PROGRAMS = [OURS, *DOCKERS]


@pytest.fixture(autouse=True)
def nobody_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Checks of other tests' containers would only take time."""
    yield
    if "daemon" in request.fixturenames:
        daemon: Daemon = request.getfixturevalue("daemon")
        for container in daemon.get("/containers/json?all=1").json:
            daemon.delete(f"/containers/{container['Id']}?force=1")


def environment(daemon: Daemon) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": f"unix://{daemon.socket}", "PYTHONPATH": str(Path(__file__).parents[2])}


def call(daemon: Daemon, program: list[str], *argv: str) -> str:
    done = subprocess.run(
        [*program, *argv], capture_output=True, text=True, timeout=60, env=environment(daemon), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(daemon: Daemon, *command: str, check: dict[str, Any], **config: Any) -> str:
    return daemon.run_detached(*(command or ("sleep", "1000")), Healthcheck=check, **config)


def health(daemon: Daemon, container: str) -> Any:
    return daemon.inspect(container)["State"]["Health"]


def becomes(daemon: Daemon, container: str, status: str) -> None:
    until(lambda: health(daemon, container)["Status"] == status)


def execute(daemon: Daemon, container: str, *command: str) -> None:
    made = daemon.post(f"/containers/{container}/exec", {"Cmd": list(command)}).json["Id"]
    assert daemon.post(f"/exec/{made}/start", {"Detach": True}).status == 200
    until(lambda: daemon.get(f"/exec/{made}/json").json["ExitCode"] == 0)


def listed(daemon: Daemon, container: str) -> str:
    (one,) = (each for each in daemon.get("/containers/json?all=1").json if each["Id"] == container)
    return str(one["Status"])


def actions(daemon: Daemon, container: str, since: float) -> list[str]:
    filters = quote(json.dumps({"container": [container]}))
    reply = daemon.get(f"/events?since={since:.9f}&until={time.time():.9f}&filters={filters}")
    return [json.loads(line)["Action"] for line in reply.data.splitlines()]


def test_a_container_is_starting_then_healthy_then_unhealthy_and_healthy_again(daemon: Daemon) -> None:
    check = {"Test": ["CMD-SHELL", f"echo looking; {FLAG}"], **QUICK, "StartPeriod": 60 * S, "StartInterval": 100 * MS}
    container = start(daemon, check=check)
    until(lambda: health(daemon, container)["Log"])
    seen = health(daemon, container)
    assert (seen["Status"], seen["FailingStreak"]) == ("starting", 0)
    assert (seen["Log"][0]["ExitCode"], seen["Log"][0]["Output"]) == (1, "looking\n")
    assert seen["Log"][0]["Start"] < seen["Log"][0]["End"]
    assert listed(daemon, container).endswith(" (health: starting)")
    execute(daemon, container, "touch", "/healthy")
    becomes(daemon, container, "healthy")
    assert listed(daemon, container).endswith(" (healthy)")
    execute(daemon, container, "rm", "/healthy")
    becomes(daemon, container, "unhealthy")
    assert health(daemon, container)["FailingStreak"] >= 2
    assert listed(daemon, container).endswith(" (unhealthy)")
    execute(daemon, container, "touch", "/healthy")
    becomes(daemon, container, "healthy")
    assert health(daemon, container)["FailingStreak"] == 0


def test_only_the_last_five_probes_are_kept(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD", "sh", "-c", "echo x >> /count; wc -l < /count"], **QUICK})
    until(lambda: health(daemon, container)["Log"] and int(health(daemon, container)["Log"][-1]["Output"]) > 6)
    numbers = [int(probe["Output"]) for probe in health(daemon, container)["Log"]]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_the_output_is_cut_after_4096_bytes(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD-SHELL", "yes | head -c 100000; yes no | head -c 5000 >&2"], **QUICK})
    becomes(daemon, container, "healthy")
    output = health(daemon, container)["Log"][0]["Output"]
    assert (len(output), output[-3:]) == (4096 + 3, "...")


def test_events_tell_of_each_change_and_of_the_probes(daemon: Daemon) -> None:
    begun = time.time()
    container = start(daemon, check={"Test": ["CMD", "true"], **QUICK, "Interval": 200 * MS})
    becomes(daemon, container, "healthy")
    until(lambda: len(health(daemon, container)["Log"]) > 1)
    seen = actions(daemon, container, begun)
    first = ["create", "start", "exec_create: true", "exec_start: true", "exec_die", "health_status: healthy"]
    assert seen[:7] == [*first, "exec_create: true"]
    assert seen.count("health_status: healthy") == 1


def test_a_probe_that_hangs_is_killed_at_its_timeout(daemon: Daemon) -> None:
    check = {"Test": ["CMD-SHELL", "echo begun; exec sleep 4321"], "Interval": 100 * MS, "Timeout": 300 * MS,
             "Retries": 1}  # fmt: skip
    container = start(daemon, check=check)
    becomes(daemon, container, "unhealthy")
    (probe, *_) = health(daemon, container)["Log"]
    assert (probe["ExitCode"], probe["Output"]) == (-1, "Health check exceeded timeout (300ms): begun\n")
    daemon.post(f"/containers/{container}/pause")
    until(lambda: b"sleep\x004321" not in b"".join(_command_lines()))
    daemon.post(f"/containers/{container}/unpause")


def test_a_command_that_is_not_there_is_a_failure_with_its_reason(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD", "/no/such/thing"], **QUICK, "Retries": 1})
    becomes(daemon, container, "unhealthy")
    (probe, *_) = health(daemon, container)["Log"]
    assert probe["ExitCode"] == -1
    assert "/no/such/thing" in probe["Output"]


def test_a_probe_runs_as_the_containers_user_with_its_environment_and_directory(daemon: Daemon) -> None:
    container = start(
        daemon, check={"Test": ["CMD-SHELL", "id -u; pwd; echo $GIVEN"], **QUICK},
        User="1234", WorkingDir="/tmp", Env=["GIVEN=this"],
    )  # fmt: skip
    becomes(daemon, container, "healthy")
    assert health(daemon, container)["Log"][0]["Output"] == "1234\n/tmp\nthis\n"


def test_the_shell_of_the_settings_runs_the_line(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD-SHELL", "hello"], **QUICK}, Shell=["/bin/echo", "-n"])
    becomes(daemon, container, "healthy")
    assert health(daemon, container)["Log"][0]["Output"] == "hello"
    assert daemon.inspect(container)["Config"]["Shell"] == ["/bin/echo", "-n"]


def test_a_paused_container_is_not_looked_at_and_keeps_its_status(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD", "true"], **QUICK})
    becomes(daemon, container, "healthy")
    assert daemon.post(f"/containers/{container}/pause").status == 204
    begun, before = time.time(), health(daemon, container)
    time.sleep(0.5)
    assert health(daemon, container) == before
    assert actions(daemon, container, begun) == []
    assert listed(daemon, container).endswith(" (Paused)")
    daemon.post(f"/containers/{container}/unpause")
    until(lambda: health(daemon, container)["Log"][-1] != before["Log"][-1])
    assert health(daemon, container)["Status"] == "healthy"


def test_what_has_ended_is_unhealthy_and_starts_anew(daemon: Daemon) -> None:
    container = start(daemon, check={"Test": ["CMD", "true"], **QUICK, "Interval": 300 * MS})
    becomes(daemon, container, "healthy")
    daemon.post(f"/containers/{container}/kill")
    daemon.wait(container)
    seen = health(daemon, container)
    assert (seen["Status"], seen["Log"][0]["ExitCode"]) == ("unhealthy", 0)
    assert "health" not in listed(daemon, container)
    daemon.post(f"/containers/{container}/start")
    assert health(daemon, container)["Status"] == "starting"
    becomes(daemon, container, "healthy")


def test_probes_are_not_kept_beside_the_execs_of_users(daemon: Daemon) -> None:
    begun = time.time()
    container = start(daemon, check={"Test": ["CMD", "true"], **QUICK})
    until(lambda: len(health(daemon, container)["Log"]) >= 3)
    filters = quote(json.dumps({"container": [container], "event": ["exec_die"]}))
    reply = daemon.get(f"/events?since={begun:.9f}&until={time.time():.9f}&filters={filters}")
    ended = [json.loads(line)["Actor"]["Attributes"]["execID"] for line in reply.data.splitlines()]
    assert len(ended) >= 3
    assert {daemon.get(f"/exec/{one}/json").status for one in ended[:3]} == {404}
    assert len(list((daemon.run / "containers" / container / "x").iterdir())) < 5


# Settings


def test_the_images_check_is_inherited_and_overridden_field_by_field(daemon: Daemon) -> None:
    line = 'HEALTHCHECK --interval=7s --timeout=2m --start-period=1m30s --start-interval=500ms --retries=9 CMD ["true"]'
    source = daemon.create("true")
    made = daemon.post(f"/commit?container={source}&repo=checked&changes={quote(line)}")
    assert made.status == 201, made.data
    whole = {"Test": ["CMD", "true"], "Interval": 7 * S, "Timeout": 120 * S, "StartPeriod": 90 * S,
             "StartInterval": 500 * MS, "Retries": 9}  # fmt: skip
    assert daemon.get("/images/checked/json").json["Config"]["Healthcheck"] == whole

    def merged(**config: Any) -> Any:
        return daemon.inspect(daemon.create("true", **{"Image": "checked", **config}))["Config"].get("Healthcheck")

    assert merged() == whole
    assert merged(Healthcheck={}) == whole
    assert merged(Healthcheck={"Interval": S}) == {**whole, "Interval": S}
    assert merged(Healthcheck={"Test": ["CMD-SHELL", "x"], "Retries": 1}) == {
        **whole, "Test": ["CMD-SHELL", "x"], "Retries": 1,
    }  # fmt: skip
    assert merged(Healthcheck={"Test": ["NONE"]})["Test"] == ["NONE"]
    again = daemon.create("true", Image="checked", Healthcheck={"Retries": 4})
    assert daemon.post(f"/commit?container={again}&repo=checked2").status == 201
    assert daemon.get("/images/checked2/json").json["Config"]["Healthcheck"] == {**whole, "Retries": 4}
    saved = daemon.get("/images/checked2/get").data
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")
    assert daemon.delete("/images/checked2").status == 200
    assert daemon.call("POST", "/images/load", saved).status == 200
    assert daemon.get("/images/checked2/json").json["Config"]["Healthcheck"]["Retries"] == 4
    daemon.delete("/images/checked2")
    daemon.delete("/images/checked")


@pytest.mark.parametrize("check", [None, {"Test": ["NONE"]}, {"Test": []}, {"Interval": S}])
def test_without_a_command_there_is_no_health(daemon: Daemon, check: Any) -> None:
    container = start(daemon, check=check)
    assert "Health" not in daemon.inspect(container)["State"]
    assert "health" not in listed(daemon, container)
    daemon.delete(f"/containers/{container}?force=1")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"Test": ["CMD", "x"], "Interval": 999_999}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "x"], "Timeout": -1}, None),
        ({"Test": ["CMD", "x"], "StartPeriod": 1}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "x"], "StartInterval": 1}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Test": ["CMD", "x"], "Retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"Test": ["SHELL", "x"]}, "Test in Healthcheck begins with NONE, CMD or CMD-SHELL, not with 'SHELL'"),
        ({"Test": ["CMD"]}, "Test in Healthcheck has no command after CMD"),
        ({"Test": [1]}, "Bad parameter: Healthcheck.Test must be a list of strings"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(daemon: Daemon, check: Any, message: str | None) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}, "Healthcheck": check}
    reply = daemon.post("/containers/create", body)
    assert reply.status == 400
    assert message is None or reply.message == message


@pytest.mark.parametrize(
    ("line", "test"),
    [
        ("HEALTHCHECK NONE", ["NONE"]),
        ("healthcheck cmd curl -f http://x || exit 1", ["CMD-SHELL", "curl -f http://x || exit 1"]),
        ('HEALTHCHECK --retries=3 CMD ["a", "b c"]', ["CMD", "a", "b c"]),
    ],
)
def test_commit_takes_a_healthcheck_instruction(daemon: Daemon, line: str, test: list[str]) -> None:
    source = daemon.create("true")
    assert daemon.post(f"/commit?container={source}&repo=made&changes={quote(line)}").status == 201
    assert daemon.get("/images/made/json").json["Config"]["Healthcheck"]["Test"] == test
    daemon.delete("/images/made")


@pytest.mark.parametrize(
    "line",
    ["HEALTHCHECK", "HEALTHCHECK curl x", "HEALTHCHECK CMD", "HEALTHCHECK CMD []", "HEALTHCHECK NONE now",
     "HEALTHCHECK --interval=1x CMD a", "HEALTHCHECK --interval=1us CMD a", "HEALTHCHECK --retries=-1 CMD a",
     "HEALTHCHECK --often=1s CMD a", "HEALTHCHECK --retries=1"],
)  # fmt: skip
def test_a_healthcheck_instruction_that_is_wrong_is_refused(daemon: Daemon, line: str) -> None:
    source = daemon.create("true")
    assert daemon.post(f"/commit?container={source}&repo=made&changes={quote(line)}").status == 400


def test_the_list_is_filtered_by_health(daemon: Daemon) -> None:
    good = start(daemon, check={"Test": ["CMD", "true"], **QUICK})
    bad = start(daemon, check={"Test": ["CMD", "false"], **QUICK, "Retries": 1})
    slow = start(daemon, check={"Test": ["CMD", "true"], "Interval": 1000 * S})
    none = daemon.run_detached("sleep", "1000")
    becomes(daemon, good, "healthy")
    becomes(daemon, bad, "unhealthy")

    def found(*values: str) -> set[str]:
        reply = daemon.get(f"/containers/json?filters={quote(json.dumps({'health': values}))}")
        assert reply.status == 200, reply.data
        return {one["Id"] for one in reply.json} & {good, bad, slow, none}

    assert found("healthy") == {good}
    assert found("unhealthy") == {bad}
    assert found("starting") == {slow}
    assert found("none") == {none}
    assert found("none", "healthy") == {none, good}
    reply = daemon.get('/containers/json?filters={"health":["well"]}')
    assert (reply.status, reply.message) == (400, "invalid filter 'health=well'")


# The daemon's end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_daemon_goes_on_with_status_streak_and_log(own_daemon: Daemon, number: int) -> None:
    daemon = own_daemon
    healthy = start(daemon, check={"Test": ["CMD", "true"], **QUICK, "Interval": 2 * S, "StartInterval": 100 * MS,
                                   "StartPeriod": 60 * S})  # fmt: skip
    failing = start(daemon, check={"Test": ["CMD", "false"], **QUICK, "Retries": 1000})
    hanging = start(daemon, check={"Test": ["CMD", "sleep", "4242"], **QUICK, "Timeout": 1000 * S})
    becomes(daemon, healthy, "healthy")
    until(lambda: health(daemon, failing)["FailingStreak"] > 5)
    until(lambda: any(b"sleep\x004242" in line for line in _command_lines()))
    before = health(daemon, healthy), health(daemon, failing)["FailingStreak"]
    daemon.stop(number)
    daemon.start()
    after = health(daemon, healthy)
    assert after["Status"] == "healthy"
    assert after["Log"][: len(before[0]["Log"])] == before[0]["Log"]
    assert health(daemon, failing)["FailingStreak"] >= before[1]
    until(lambda: health(daemon, healthy)["Log"][-1] not in before[0]["Log"])
    until(lambda: health(daemon, failing)["FailingStreak"] > before[1] + 3)
    assert health(daemon, hanging)["Status"] == "starting"
    until(lambda: sum(b"sleep\x004242" in line for line in _command_lines()) <= 1)


def test_what_died_without_a_daemon_is_unhealthy(own_daemon: Daemon) -> None:
    container = start(own_daemon, check={"Test": ["CMD", "true"], **QUICK})
    becomes(own_daemon, container, "healthy")
    pid = own_daemon.inspect(container)["State"]["Pid"]
    own_daemon.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    own_daemon.start()
    assert health(own_daemon, container)["Status"] == "unhealthy"


def _command_lines() -> list[bytes]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found


# Clients


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_command_line_asks_for_checks_and_shows_them(daemon: Daemon, program: list[str]) -> None:
    flags = ["--health-cmd", "true", "--health-interval", "200ms", "--health-timeout", "1m30s", "--health-retries", "4",
             "--health-start-period", "1s"]  # fmt: skip
    (container,) = call(daemon, program, "run", "-d", "--network=none", *flags, "busybox", "sleep", "1000").split()
    asked = {"Test": ["CMD-SHELL", "true"], "Interval": 200 * MS, "Timeout": 90 * S, "StartPeriod": S, "Retries": 4}
    assert daemon.inspect(container)["Config"]["Healthcheck"] == asked
    becomes(daemon, container, "healthy")
    shown = call(daemon, program, "ps", "-f", f"id={container}", "-f", "health=healthy", "--format", "{{.Status}}")
    assert shown.rstrip().endswith("(healthy)")
    assert call(daemon, program, "inspect", "-f", "{{.State.Health.Status}}", container) == "healthy\n"
    (none,) = call(daemon, program, "create", "--network=none", "--no-healthcheck", "busybox", "true").split()
    assert daemon.inspect(none)["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    done = subprocess.run(
        [*program, "create", "--no-healthcheck", *flags, "busybox"],
        capture_output=True, env=environment(daemon), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"--no-healthcheck" in done.stderr


def test_our_command_line_has_the_start_interval(daemon: Daemon) -> None:
    flags = ["--health-cmd=true", "--health-start-interval=1.5s"]
    (container,) = call(daemon, OURS, "create", "--network=none", *flags, "busybox", "true").split()
    assert daemon.inspect(container)["Config"]["Healthcheck"]["StartInterval"] == 1500 * MS


def test_docker_py_asks_for_checks_and_shows_them(daemon: Daemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    check = {"test": ["CMD", "true"], "interval": 100 * MS, "timeout": S, "retries": 2, "start_period": S}
    container = client.containers.run(
        "busybox", ["sleep", "1000"], network_mode="none", detach=True, healthcheck=check
    )  # fmt: skip
    becomes(daemon, container.id, "healthy")
    container.reload()
    assert container.health == "healthy"
    assert client.containers.list(filters={"health": "healthy", "id": container.id}) == [container]
    client.close()


def test_many_checks_go_on_beside_each_other(daemon: Daemon) -> None:
    check = {"Test": ["CMD", "true"], "Interval": S, "Timeout": 30 * S, "Retries": 1}
    slow = start(daemon, check={**check, "Test": ["CMD", "sleep", "1000"]})
    containers = [start(daemon, check=check) for _ in range(20)]
    for container in containers:
        becomes(daemon, container, "healthy")
    until(lambda: all(len(health(daemon, one)["Log"]) > 2 for one in containers), 30)
    assert {health(daemon, one)["FailingStreak"] for one in containers} == {0}
    assert health(daemon, slow)["Log"] == []
