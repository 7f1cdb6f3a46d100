"""What every test in the test host may ask for.

These tests run inside a booted systemd, as root, against the installed package: ``make test-host`` makes that
host, copies this folder into it and runs pytest there.  Nothing here touches the machine outside.

- ``daemon``: pydockerd.service is up (again, if the test before this one took it down).
- ``docker``, ``pydocker``: the two command lines, as functions.  ``docker`` is one client; a test that takes
  ``any_docker`` runs once for each client that the host holds.
- ``busybox``: the name of an image, imported once.
- ``api``: raw HTTP on the daemon's socket.

Containers that a test leaves behind are removed after it, by force.  When a test fails, its report ends with what
the daemon and the fork server logged meanwhile.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosttools import SOCKET, Api, Cli, docker_clients, run, systemctl, wait_until

MARK = Path("/run/pydockerd-testhost")
"""Made by the test host when it boots."""

SCRIPTS = Path(__file__).resolve().parents[2] / "contrib"

OUR_UNITS = ("pydockerd.service", "pydockerd.socket", "pydockerd-monitor.service")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: runs after all others, because it takes the package apart")
    if not MARK.exists():
        raise pytest.UsageError(
            "tests/host runs inside the test host, never on your machine: make test-host T='tests/host/…'"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        units = [word for unit in (*OUR_UNITS, "pydockerd-dns.service") for word in ("-u", unit)]
        lines = run("journalctl", "-q", "-o", "short-precise", f"--since=@{call.start - 1:.3f}", "-n", "200", *units)
        report.sections.append(("journal of pydockerd", lines.stdout))


@pytest.fixture
def daemon() -> None:
    """The package's daemon, up and answering."""
    systemctl("reset-failed", *OUR_UNITS, check=False)
    systemctl("start", *OUR_UNITS)
    api = Api(SOCKET)
    wait_until(lambda: api.get("/_ping").status == 200, 30, "the daemon answers /_ping")


@pytest.fixture
def api(daemon: None) -> Iterator[Api]:
    client = Api(SOCKET)
    before = {container["Id"] for container in client.get("/containers/json?all=1").json}
    yield client
    if not SOCKET.exists():
        return
    for container in client.get("/containers/json?all=1").json:
        if container["Id"] not in before:
            client.delete(f"/containers/{container['Id']}?force=1&v=1")


@pytest.fixture
def docker(api: Api) -> Cli:
    """The docker command line of the distribution, unmodified."""
    return docker_clients()[0]


@pytest.fixture(params=docker_clients(), ids=lambda cli: cli.name)
def any_docker(api: Api, request: pytest.FixtureRequest) -> Cli:
    """Each docker command line that the test host holds, one after the other."""
    client: Cli = request.param
    return client


@pytest.fixture
def pydocker(api: Api) -> Cli:
    return Cli("pydocker", ("pydocker",))


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem with busybox in it, as a tar."""
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    subprocess.run([SCRIPTS / "mkimage", "busybox", "--output", path], check=True)
    return path


@pytest.fixture
def busybox(api: Api, busybox_tar: Path) -> str:
    """The name of an image with busybox in it."""
    name = "busybox:latest"
    if api.get(f"/images/{name}/json").status == 404:
        with busybox_tar.open("rb") as body:
            api.post("/images/create?fromSrc=-&repo=busybox&tag=latest", body=body).check()
    return name


@pytest.fixture
def no_leftovers(api: Api) -> Iterator[None]:
    """The test leaves no mount, scope, monitor or container directory that was not there before it."""
    before = run("findmnt", "-rno", "TARGET").stdout
    yield
    wait_until(
        lambda: run("findmnt", "-rno", "TARGET").stdout == before, 10, "the mounts are what they were before"
    )
