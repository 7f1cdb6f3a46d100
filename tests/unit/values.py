"""Containers and images as the engine gives them away, for tests of what is made of these values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dockerd_py.engine.model import Container, ContainerConfig, HostConfig, Image, State

IMAGE_ID = "1" * 64


def make_image(**changes: Any) -> Image:
    image = Image(
        id=IMAGE_ID,
        parent_id="",
        created=1_700_000_000_000_000_000,
        size=4711,
        tags=("busybox:latest",),
        digests=(),
        diff_ids=("sha256:" + "2" * 64,),
        config=ContainerConfig(cmd=("sh",), env=("PATH=/bin",), labels={"k": "v"}),
        author="",
        comment="Imported from -",
        architecture="amd64",
        os="linux",
        docker_version="",
        driver="overlay",
    )
    return replace(image, **changes)


def make_container(**changes: Any) -> Container:
    container = Container(
        id="a" * 64,
        name="nice_name",
        image_id=IMAGE_ID,
        created=1_700_000_000_000_000_000,
        config=ContainerConfig(image="busybox", cmd=("echo", "hi")),
        host=HostConfig(),
        state=State(),
        path="echo",
        args=("hi",),
        driver="overlay",
        log_driver="json-file",
        log_path="/log",
        runtime="crun",
        scope="container-" + "a" * 64 + ".scope",
        cgroup="",
        mounts=(),
        hostname_path="/hostname",
        hosts_path="/hosts",
        resolv_conf_path="/resolv.conf",
    )
    return replace(container, **changes)
