"""Hostile input through the API of a real daemon: a clear refusal, nothing left, and the daemon as small as before."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_archives as hostile
import pytest
from daemons import Daemon, Reply, until
from hostile_archives import COMPRESSED, FLOODS, MIB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_house import directory, member, needs_root, tar
from test_daemon_save_load import archive, docker_archive

pytestmark = needs_root

LIMIT = 24 * MIB
FUZZ = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that unpacks no more than LIMIT bytes of an archive."""
    one = Daemon(tmp_path_factory.mktemp("limited"), "--unpack-limit", f"{LIMIT >> 20}m")
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


@pytest.fixture
def container(limited: Daemon) -> Iterator[str]:
    one = limited.create("true")
    yield one
    assert limited.delete(f"/containers/{one}").status == 204


def state(daemon: Daemon) -> tuple[Any, ...]:
    trash = daemon.root / "overlay/trash"
    until(lambda: not list(trash.iterdir()))
    images = {image["Id"]: image["RepoTags"] for image in daemon.get("/images/json?all=1").json}
    temporary = daemon.root / "tmp"
    return images, sorted(path.name for path in (daemon.root / "overlay").iterdir()), (
        [path.name for path in temporary.iterdir()] if temporary.exists() else []
    )


def memory(daemon: Daemon) -> int:
    """The most that the daemon itself has ever had, in bytes."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def do_import(daemon: Daemon, data: bytes) -> Reply:
    return daemon.post("/images/create?fromSrc=-&repo=hostile", data)


def do_load(daemon: Daemon, data: bytes) -> Reply:
    return daemon.post("/images/load", data)


def error_in(reply: Reply) -> str:
    if reply.status == 200:
        lines = [json.loads(line) for line in reply.data.splitlines() if line]
        return str(lines[-1].get("error", "")) if lines else ""
    assert reply.status in (400, 404, 409), reply.data
    return reply.message


def refused(daemon: Daemon, send: Callable[[], Reply]) -> str:
    """The message; nothing of it stays, on the disk or in the daemon's memory."""
    before, peak = state(daemon), memory(daemon)
    message = error_in(send())
    assert message
    assert "Traceback" not in message
    assert len(message) < 1000
    assert state(daemon) == before
    assert memory(daemon) - peak < 24 * MIB
    return message


# Bombs


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_bomb_is_refused_by_import_load_and_cp(limited: Daemon, container: str, kind: str) -> None:
    bomb = COMPRESSED[kind](hostile.swelling(40 * MIB))
    words = "the daemon's --unpack-limit leaves for it"
    assert words in refused(limited, lambda: do_import(limited, bomb))
    assert words in refused(limited, lambda: do_load(limited, bomb))
    assert words in refused(limited, lambda: limited.call("PUT", f"/containers/{container}/archive?path=/tmp", bomb))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_inside_an_archive_of_images_is_refused(limited: Daemon, kind: str) -> None:
    plain = b"".join(hostile.swelling(40 * MIB))
    files, _ = docker_archive([plain], ["bomb:v1"])
    files["0/layer.tar"] = COMPRESSED[kind](iter([plain]))
    assert "--unpack-limit" in refused(limited, lambda: do_load(limited, archive(files)))


def test_layers_that_are_large_together_are_refused(limited: Daemon) -> None:
    layers = [tar(member(f"f{number}", data=bytes(7 * MIB))) for number in range(4)]
    files, _ = docker_archive(layers, ["bomb:v1"])
    for number, layer in enumerate(layers):
        files[f"{number}/layer.tar"] = gzip.compress(layer)
    assert "--unpack-limit" in refused(limited, lambda: do_load(limited, archive(files)))
    few, _ = docker_archive(layers[:3], ["fits:v1"])
    few.update({name: gzip.compress(few[name]) for name in few if name.endswith("layer.tar")})
    assert error_in(do_load(limited, archive(few))) == ""
    assert limited.delete("/images/fits:v1").status == 200


def test_a_url_that_has_no_end_is_given_up(limited: Daemon) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        import threading

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                try:
                    while True:
                        connection.sendall(bytes(MIB))
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        reply = limited.ask("POST", f"/v1.8/images/busybox/insert?url={url}&path=/f")
    assert b"--unpack-limit" in reply.data, reply.data[-500:]


def test_a_body_that_says_it_is_compressed_is_not_unpacked_in_the_daemon(limited: Daemon) -> None:
    bomb = gzip.compress(b'{"Image": "' + bytes(200 * MIB) + b'"}', 1)
    peak = memory(limited)
    for path in ("containers/create", "commit?container=x", "images/create?fromSrc=-"):
        head = f"POST /v1.43/{path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n"
        answer = limited.exchange(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
        assert b" 400 " in answer.split(b"\r\n")[0] or b'"error"' in answer, answer[:500]
    assert memory(limited) - peak < 24 * MIB


@pytest.mark.parametrize("make", [hostile.xz_with_a_dictionary_of_4_gib, hostile.zstd_with_a_window_of_2_gib])
def test_a_compression_that_asks_for_gigabytes_is_refused(limited: Daemon, make: Callable[[], bytes]) -> None:
    if make is hostile.zstd_with_a_window_of_2_gib:
        pytest.importorskip("zstandard")
    for send in (do_import, do_load):
        assert "too much memory to decompress" in refused(limited, lambda: send(limited, make()))  # noqa: B023


@pytest.mark.parametrize("name", [name for name, (_, said) in FLOODS.items() if said])
def test_a_flood_is_refused(limited: Daemon, name: str) -> None:
    """By load; what import makes of it is proved of its helper alone."""
    data = b"".join(FLOODS[name][0]())
    refused(limited, lambda: do_load(limited, data))


# Descriptions of images


def test_a_description_of_too_many_values_is_refused(limited: Daemon) -> None:
    files, _ = docker_archive([tar(directory("d"))], ["x:v1"], labels=[[] for _ in range(110_000)])
    assert "too many values" in refused(limited, lambda: do_load(limited, archive(files)))


def test_a_description_that_is_nested_deeply_is_refused(limited: Daemon) -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    files, _ = docker_archive([tar(directory("d"))], ["x:v1"], more=deep)
    assert "nested too deeply" in refused(limited, lambda: do_load(limited, archive(files)))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.sampled_from(["", "a", "a=b", "/", "80/tcp", "\0", "\ud800", "é", "x" * 300, "TERM", "2020-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "", "80/tcp", "é\0"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
IN_CONFIG = (
    "Cmd", "Entrypoint", "Env", "OnBuild", "Shell", "Labels", "ExposedPorts", "Volumes", "Healthcheck", "WorkingDir",
    "User", "StopSignal", "StopTimeout", "Hostname", "Domainname", "Image", "Tty", "OpenStdin", "AttachStdout",
    "Memory", "MacAddress", "NetworkDisabled", "ArgsEscaped", "Unknown",
)  # fmt: skip
IN_IMAGE = (
    "config", "container_config", "history", "rootfs", "created", "author", "comment", "os", "architecture", "variant",
    "docker_version", "container", "parent", "id", "Size", "os.features",
)  # fmt: skip


def likely(key: str) -> st.SearchStrategy[Any]:
    """Values of about the right type, more often than not."""
    texts = st.sampled_from(["", "sh", "A=b", "root", "/x", "\0", "\ud800", "99999999999", "é"])
    shapes = {
        "history": st.lists(st.fixed_dictionaries({}, optional={"created": ANY, "empty_layer": ANY, "comment": ANY})),
        "Healthcheck": st.fixed_dictionaries({}, optional={"Test": ANY, "Interval": ANY, "Retries": ANY}),
        "Labels": st.dictionaries(texts, texts, max_size=2),
        "ExposedPorts": st.dictionaries(texts, ANY, max_size=2),
        "Volumes": st.dictionaries(texts, ANY, max_size=2),
    }
    return st.one_of(shapes.get(key, st.lists(texts, max_size=2)), texts, ANY)


@settings(FUZZ, max_examples=30)
@given(
    config=st.dictionaries(st.sampled_from(IN_CONFIG), st.none(), max_size=3),
    image=st.dictionaries(st.sampled_from(IN_IMAGE), st.none(), max_size=2),
    data=st.data(),
)
def test_whatever_a_description_says_it_is_refused_or_can_be_looked_at(
    limited: Daemon, config: dict[str, Any], image: dict[str, Any], data: st.DataObject
) -> None:
    more: dict[str, Any] = {"config": {key: data.draw(likely(key)) for key in config}}
    more.update({key: data.draw(likely(key)) for key in image if key != "rootfs"})
    files, identity = docker_archive([tar(directory("d"), member("d/f", data=b"x"))], ["odd:v1"], **more)
    if error_in(do_load(limited, archive(files))):
        return
    for path in (f"/images/{identity}/json", "/images/json?all=1", f"/images/{identity}/history", "/system/df"):
        reply = limited.get(path)
        assert reply.status == 200, (path, reply.data, more)
        json.loads(reply.data)
        assert limited.get(path, version="1.9").status in (200, 404)
    body = {"Image": "odd:v1", "Cmd": ["/d/f"], "HostConfig": {"NetworkMode": "none"}}
    made = limited.post("/containers/create", body)
    assert made.status in (201, 400), (made.data, more)
    if made.status == 201:
        one = made.json["Id"]
        assert limited.get(f"/containers/{one}/json").status == 200, more
        assert limited.post(f"/containers/{one}/start").status in (400, 500), more  # nothing there can be run
        committed = limited.post(f"/commit?container={one}&repo=odd&tag=v2")
        assert committed.status in (201, 400), (committed.data, more)
        if committed.status == 201:
            assert limited.get("/images/odd:v2/json").status == 200, more
            assert limited.delete("/images/odd:v2").status == 200
        assert limited.delete(f"/containers/{one}").status == 204
    assert limited.get("/images/odd:v1/get").status == 200, more
    assert limited.delete("/images/odd:v1?force=1").status == 200


# Whatever comes


@FUZZ
@given(data=st.data())
def test_whatever_archive_comes_the_daemon_takes_it_or_refuses_it(
    limited: Daemon, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    outside = tmp_path_factory.getbasetemp() / "outside"
    if not outside.exists():
        outside.mkdir()
        (outside / "secret").write_text("secret")
    content = data.draw(hostile.archives(str(outside)))
    before = state(limited)
    if not error_in(do_import(limited, content)):
        saved = limited.get("/images/hostile/get")
        assert saved.status == 200
        assert limited.delete("/images/hostile").status == 200
    one = limited.create("true")
    place = data.draw(st.sampled_from(["/", "/tmp", "/bin/sh"]))
    reply = limited.call("PUT", f"/containers/{one}/archive?path={place}", content)
    assert reply.status in (200, 400, 404), reply.data
    for path in (f"/containers/{one}/changes", f"/containers/{one}/archive?path=/tmp", f"/containers/{one}/export"):
        assert limited.get(path).status == 200
    assert limited.delete(f"/containers/{one}").status == 204
    assert state(limited) == before
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").stat().st_nlink == 1


# What a container makes of its own files


def test_a_tree_that_is_deeper_than_paths_are_long_is_the_business_of_its_container_alone(limited: Daemon) -> None:
    # The shell gives up the way down when its own name for the place becomes too long; mv makes it deeper from above.
    script = '''
        cd /tmp; d=dddddddddddddddddddddddddddddddd; path=$d; for i in 1 2 3 4 5 6; do path=$path/$path; done
        mkdir -p a/$path b/$path; mv b a/$path/; echo x > a/f; stat a/$path/b/$path 2>&1
    '''
    deep = limited.run_detached("sh", "-c", script)
    assert limited.wait(deep) == 1
    assert b"File name too long" in limited.logs(deep)
    for path in (f"/containers/{deep}/json?size=1", "/containers/json?all=1&size=1", "/system/df"):
        assert limited.get(path).status == 200, path
    assert limited.get(f"/containers/{deep}/changes").status == 200
    reply = limited.post(f"/commit?container={deep}&repo=deep")
    assert "File name too long" in reply.message
    assert len(reply.message) < 1000
    assert limited.get("/images/deep/json").status == 404
    assert limited.delete(f"/containers/{deep}").status == 204
