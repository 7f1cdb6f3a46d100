"""The D-Bus interface as an administrator meets it: busctl, polkit, activation, on the installed package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosttools import Api, journal, main_pid, run, systemctl, unit_property, wait_until

NAME = "org.pydockerd1"
ROOT = "/org/pydockerd1"
MANAGER = "org.pydockerd1.Manager"
CONTAINER = "org.pydockerd1.Container"
USER = "dbus-test-user"
RULES = Path("/etc/polkit-1/rules.d/10-pydockerd-test.rules")


class Busctl:
    """busctl as one user."""

    def __init__(self, user: str = "") -> None:
        self._prefix = ("runuser", "-u", user, "--") if user else ()

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return run(*self._prefix, "busctl", *arguments, check=check, timeout=timeout)

    def call(self, path: str, member: str, *arguments: str) -> Any:
        """The values of the answer."""
        interface = MANAGER if path == ROOT else CONTAINER
        out = self("--json=short", "call", "--", NAME, path, interface, member, *arguments).stdout
        return json.loads(out)["data"] if out else []

    def refusal(self, path: str, member: str, *arguments: str) -> str:
        interface = MANAGER if path == ROOT else CONTAINER
        done = self("call", "--", NAME, path, interface, member, *arguments, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr.strip()

    def get(self, path: str, name: str) -> str:
        return self("get-property", NAME, path, CONTAINER, name).stdout.strip()


busctl = Busctl()


@pytest.fixture
def container(busybox: str) -> Callable[..., str]:
    """Makes a container that runs a command; returns its path."""

    def make(*command: str, name: str = "") -> str:
        options = ("1", "Name", "s", name) if name else ("0",)
        (path,) = busctl.call(ROOT, "RunContainer", "sasa{sv}", busybox, str(len(command)), *command, *options)
        assert isinstance(path, str)
        return path

    return make


def _restart_polkit() -> None:
    systemctl("reset-failed", "polkit.service", check=False)
    systemctl("restart", "polkit.service")


@pytest.fixture
def user(daemon: None) -> Iterator[Busctl]:
    """Somebody who is in no group that matters."""
    run("useradd", "--no-create-home", USER)
    yield Busctl(USER)
    run("userdel", USER)


@pytest.fixture
def rule(daemon: None) -> Iterator[Callable[[str], None]]:
    """Lets the user do what the JavaScript condition says, by a rule of polkit."""

    if not RULES.parent.is_dir():
        pytest.skip("this polkit is from before 0.106 and knows no rules")

    def allow(condition: str) -> None:
        RULES.write_text(
            "polkit.addRule(function(action, subject) {\n"
            f"    if (subject.user == '{USER}' && {condition}) return polkit.Result.YES;\n"
            "});\n"
        )
        _restart_polkit()

    yield allow
    RULES.unlink(missing_ok=True)
    _restart_polkit()


def test_a_container_is_run_waited_for_and_removed_with_busctl(container: Callable[..., str]) -> None:
    path = container("sh", "-c", "echo from the bus; exit 4", name="by-bus")
    assert busctl.call(path, "Wait") == [4]
    assert busctl.get(path, "State") == 's "exited"'
    assert busctl.get(path, "ExitCode") == "i 4"
    assert "from the bus" in journal("-u", "container-by-bus")
    busctl.call(path, "Remove", "a{sv}", "0")
    assert "any more" in busctl.refusal(path, "Start")


def test_busctl_tree_and_introspect_show_containers(container: Callable[..., str]) -> None:
    path = container("sleep", "600")
    assert path in busctl("--list", "tree", NAME).stdout.split()
    shown = {line.split()[0]: line.split()[1:] for line in busctl("introspect", NAME, path).stdout.splitlines()[1:]}
    assert shown[".Wait"][:3] == ["method", "-", "i"]
    assert shown[".State"][:3] == ["property", "s", '"running"']
    assert shown[".Id"][-1] == "const"
    assert shown[".State"][-1] == "emits-change"


def test_the_scope_of_a_container_is_the_one_that_systemd_knows(container: Callable[..., str]) -> None:
    path = container("sleep", "600")
    scope = json.loads(busctl.get(path, "Scope").partition(" ")[2])
    assert unit_property(scope, "ActiveState") == "active"
    assert json.loads(busctl.get(path, "ControlGroup").partition(" ")[2]) == unit_property(scope, "ControlGroup")


def test_what_http_does_is_seen_on_the_bus_and_the_other_way_round(api: Api, container: Callable[..., str]) -> None:
    path = container("sleep", "600", name="both")
    assert api.get("/containers/both/json").json["Id"] == path.rpartition("/")[2]
    api.post("/containers/both/stop?t=0").check()
    assert busctl.get(path, "State") == 's "exited"'


def test_busctl_monitor_sees_the_life_of_a_container(container: Callable[..., str], tmp_path: Path) -> None:
    seen = tmp_path / "monitor"
    with seen.open("wb") as out:
        monitor = subprocess.Popen(["busctl", "--json=short", "monitor", NAME], stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: "Monitoring" in seen.read_text(), 10, "busctl monitors")
            path = container("true")
            busctl.call(path, "Wait")
            busctl.call(path, "Remove", "a{sv}", "0")
            wait_until(lambda: "ContainerRemoved" in seen.read_text(), 10, "the removal is seen")
        finally:
            monitor.kill()
            monitor.wait()
    messages = [json.loads(line) for line in seen.read_text().splitlines() if line.startswith("{")]
    signals = [each for each in messages if each["type"] == "signal" and each["path"].startswith(ROOT)]
    assert [(each["path"], each["member"]) for each in signals if each["path"] == ROOT] == [
        (ROOT, "InterfacesAdded"), (ROOT, "ContainerAdded"), (ROOT, "InterfacesRemoved"), (ROOT, "ContainerRemoved"),
    ]  # fmt: skip
    changes = [each["payload"]["data"][1] for each in signals if each["path"] == path]
    assert "exited" in [each["State"]["data"] for each in changes if "State" in each]


def test_everybody_may_look_and_only_the_authorised_may_change(user: Busctl, container: Callable[..., str]) -> None:
    path = container("sleep", "600", name="looked-at")
    assert [row[1] for row in user.call(ROOT, "ListContainers", "a{sv}", "0")[0] if row[4] == path] == ["looked-at"]
    assert user.get(path, "State") == 's "running"'
    for target, member, *arguments in (
        (ROOT, "CreateContainer", "sasa{sv}", "busybox", "1", "true", "0"),
        (ROOT, "RunContainer", "sasa{sv}", "busybox", "1", "true", "0"),
        (ROOT, "RemoveImage", "sa{sv}", "busybox", "0"),
        (path, "Start"),
        (path, "Stop", "a{sv}", "0"),
        (path, "Restart", "a{sv}", "0"),
        (path, "Kill", "s", "TERM"),
        (path, "Remove", "a{sv}", "1", "Force", "b", "true"),
        (path, "Logs", "a{sv}", "0"),
    ):
        assert user.refusal(target, member, *arguments) == "Call failed: Access denied"
    assert busctl.get(path, "State") == 's "running"'


def test_without_a_prompt_the_refusal_says_which_action_would_need_one(user: Busctl, busybox: str) -> None:
    done = user(
        "--allow-interactive-authorization=no", "call", NAME, ROOT, MANAGER,
        "CreateContainer", "sasa{sv}", busybox, "1", "true", "0", check=False,
    )  # fmt: skip
    assert "org.pydockerd1.containers.create needs a password" in done.stderr


def test_a_rule_of_polkit_allows_an_action_and_no_other(
    user: Busctl, rule: Callable[[str], None], container: Callable[..., str]
) -> None:
    path = container("sleep", "600")
    rule("action.id == 'org.pydockerd1.containers.stop'")
    assert user.refusal(path, "Kill", "s", "KILL") == "Call failed: Access denied"
    user.call(path, "Stop", "a{sv}", "1", "Timeout", "u", "0")
    assert busctl.get(path, "State") == 's "exited"'
    assert user.refusal(path, "Start") == "Call failed: Access denied"


def test_a_rule_of_polkit_may_look_at_the_container(
    user: Busctl, rule: Callable[[str], None], container: Callable[..., str]
) -> None:
    mine, other = container("sleep", "600", name="mine"), container("sleep", "600", name="other")
    rule("action.id == 'org.pydockerd1.containers.kill' && action.lookup('name') == 'mine'")
    user.call(mine, "Kill", "s", "KILL")
    assert user.refusal(other, "Kill", "s", "KILL") == "Call failed: Access denied"


def test_running_a_container_takes_the_right_to_create_and_to_start(
    user: Busctl, rule: Callable[[str], None], busybox: str
) -> None:
    arguments = ("RunContainer", "sasa{sv}", busybox, "1", "true", "1", "AutoRemove", "b", "true")
    rule("action.id == 'org.pydockerd1.containers.create'")
    assert user.refusal(ROOT, *arguments) == "Call failed: Access denied"
    rule("/^org.pydockerd1.containers.(create|start)$/.test(action.id)")
    assert user.call(ROOT, *arguments)[0].startswith(ROOT)


def test_without_polkit_only_root_changes_anything(user: Busctl, container: Callable[..., str]) -> None:
    path = container("sleep", "600")
    systemctl("mask", "--runtime", "--now", "polkit.service")
    try:
        said = run("runuser", "-u", USER, "--", "dbus-send", "--system", "--print-reply", f"--dest={NAME}", path,
                   f"{CONTAINER}.Start", check=False).stderr  # fmt: skip
        assert "AccessDenied: only root may do this, as polkit is not there" in said
        busctl.call(path, "Kill", "s", "KILL")
    finally:
        systemctl("unmask", "--runtime", "polkit.service")


def test_the_first_call_starts_the_daemon(daemon: None) -> None:
    systemctl("stop", "pydockerd.service")
    assert main_pid() == 0
    started = time.monotonic()
    assert busctl.call(ROOT, "ListContainers", "a{sv}", "0") is not None
    assert time.monotonic() - started < 10
    assert main_pid() > 0


def test_a_call_that_waits_is_told_when_the_daemon_stops(container: Callable[..., str]) -> None:
    path = container("sleep", "600")
    waiting = subprocess.Popen(
        ["busctl", "call", "--timeout=60", NAME, path, CONTAINER, "Wait"], stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.5)
    systemctl("restart", "pydockerd.service")
    assert "is stopping" in waiting.communicate(timeout=20)[1]
    assert busctl.get(path, "State") == 's "running"'


def test_the_daemon_outlives_the_bus_and_comes_back_to_it(container: Callable[..., str]) -> None:
    path = container("sleep", "600")
    pid = main_pid()
    os.kill(main_pid("dbus.service"), signal.SIGKILL)
    wait_until(lambda: busctl("status", NAME, check=False).returncode == 0, 30, "pydockerd is on the bus again")
    assert main_pid() == pid
    assert busctl.get(path, "State") == 's "running"'
    assert busctl.call(path, "Kill", "s", "KILL") == []


def test_the_interface_files_are_where_tools_look_for_them(daemon: None) -> None:
    for name in (MANAGER, CONTAINER):
        assert f'<interface name="{name}">' in Path(f"/usr/share/dbus-1/interfaces/{name}.xml").read_text()
