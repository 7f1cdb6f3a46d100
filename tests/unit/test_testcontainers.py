"""testcontainers for Python, unmodified: a network, a server on it whose port is asked, and a second container."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from net_house import NetDaemon
from store_house import needs_root

pytestmark = needs_root

PROGRAM = """
import json, urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

found = {}
with Network() as network:
    server = (
        DockerContainer("busybox:latest")
        .with_command(["sh", "-c", "echo it is ready; exec httpd -f -h /etc -p 80"])
        .with_exposed_ports(80)
        .with_env("PURPOSE", "test")
        .with_volume_mapping("/etc", "/mapped", "ro")
        .with_network(network)
        .with_network_aliases("web")
        .waiting_for(LogMessageWaitStrategy("it is ready"))
    )
    with server:
        address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(80)}/hostname"
        with urllib.request.urlopen(address, timeout=10) as page:
            found["page"] = page.read().decode().strip()
        found["id"] = server.get_wrapped_container().short_id
        found["environment"] = server.exec("env").output.decode()
        found["mapped"] = server.exec(["test", "-f", "/mapped/passwd"]).exit_code
        asker = DockerContainer("busybox:latest").with_command("wget -qO- http://web/hostname").with_network(network)
        with asker:
            found["code"] = asker.get_wrapped_container().wait()["StatusCode"]
            found["heard"] = asker.get_logs()[0].decode().strip()
print(json.dumps(found))
"""


def test_testcontainers_runs_a_server_and_who_asks_it(net_daemon: NetDaemon) -> None:
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{net_daemon.socket}",
        "TESTCONTAINERS_RYUK_DISABLED": "true",  # a container of its own that cleans up, from a registry
    }
    done = net_daemon.host.inside(
        lambda: subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["page"] == found["heard"] == found["id"][:12]
    assert "PURPOSE=test\n" in found["environment"]
    assert (found["mapped"], found["code"]) == (0, 0)
    assert net_daemon.get("/containers/json?all=1").json == []
    assert [one["Name"] for one in net_daemon.get("/networks").json if one["Driver"] == "bridge"] == ["bridge"]
