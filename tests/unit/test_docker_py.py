"""docker-py, unmodified, against a real daemon."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest
from daemons import Daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    yield one
    one.close()


def test_run_returns_the_output(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", network_mode="none", remove=True) == b"hello\n"


def test_run_raises_with_the_exit_code_and_standard_error(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], network_mode="none", remove=True)
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_a_detached_container_can_be_watched_and_ended(client: docker.DockerClient) -> None:
    command = ["sh", "-c", "echo one; sleep 0.3; echo two; sleep 100"]
    container = client.containers.run("busybox", command, network_mode="none", detach=True)
    lines = container.logs(stream=True, follow=True)
    assert b"".join(next(lines) for _ in range(2)) == b"one\ntwo\n"
    container.reload()
    assert container.status == "running"
    container.kill()
    assert container.wait()["StatusCode"] == 137
    assert container in client.containers.list(all=True)
    container.remove()


def test_images_are_listed_and_missing_ones_are_named(client: docker.DockerClient) -> None:
    assert "busybox:latest" in [tag for image in client.images.list() for tag in image.tags]
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch")


def test_events_tell_the_life_of_a_container(client: docker.DockerClient) -> None:
    events = client.events(decode=True)
    container = client.containers.run("busybox", "true", network_mode="none", detach=True)
    seen: list[str] = []
    for event in events:
        if event["Type"] == "container" and event["Actor"]["ID"] == container.id:
            seen.append(event["Action"])
        if seen[-1:] == ["die"]:
            break
    events.close()
    assert seen == ["create", "start", "die"]
    container.remove()


def test_an_attached_socket_carries_input_and_output(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True, network_mode="none")
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    socket._sock.sendall(b"hello\n")
    assert socket.read(14)[8:] == b"hello\n"
    container.kill()
    socket.close()
    container.remove()
