"""What an archive of images says about itself, in each of the layouts that there are, checked.

Docker's (``manifest.json``; moby, image/spec/spec.md), OCI's (``index.json``; OCI image-layout), and the first year's
(a directory for each layer, and ``repositories``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dockerd_py.errors import BadArchive, BadParameter
from dockerd_py.store import image_config, reference
from dockerd_py.store.archive.spooled import Spooled, parse

Names = tuple[tuple[str, str], ...]

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOB = re.compile(r"(?:.*/)?blobs/sha256/([0-9a-f]{64})")
_CONFIG_FILE = re.compile(r"([0-9a-f]{64})\.json")
_OLD_LAYER = re.compile(r"([0-9a-f]{64})/json")
_MAX_LAYERS = 1000
_MAX_IMAGES = 1000
_MAX_DEPTH = 4
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

# Keys of the first year's configurations that say where a layer stands, and not what it is.
_PLACE = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway", "rootfs", "history")


@dataclass(frozen=True)
class WantedLayer:
    file: str  # its name in the archive
    diff_id: str  # "" where only its contents tell
    digest: str  # of the file as it is, perhaps compressed; "" where nothing says


@dataclass(frozen=True)
class Wanted:
    names: Names
    layers: tuple[WantedLayer, ...]  # the lowest first
    configuration: Callable[[list[str]], bytes]
    """From the layers' diff ids to the bytes of the image's configuration."""


async def read(archive: Spooled) -> list[Wanted]:
    """The images in an archive.  Raises BadArchive."""
    try:
        if archive.has("manifest.json"):
            wanted = await _docker(archive)
        elif archive.has("index.json"):
            wanted = await _oci(archive)
        else:
            wanted = await _first_year(archive)
    except BadParameter as error:
        raise BadArchive(f"cannot load the archive: {error}") from None
    if not wanted:
        raise BadArchive("cannot load the archive: there is no image for this machine in it")
    if len(wanted) > _MAX_IMAGES:
        raise BadArchive(f"cannot load the archive: it has more than {_MAX_IMAGES} images")
    for image in wanted:
        for layer in image.layers:
            archive.size(layer.file)  # it is there
    return wanted


def check(config: Any, name: str) -> dict[str, Any]:
    """An image's configuration whose parts have the types that everybody relies on.  Raises BadArchive."""
    _need(isinstance(config, dict), f"{name} is no image's configuration")
    for key in _TEXTS:
        _need(isinstance(config.get(key, ""), str | None), f"{key} in {name} is no text")
    for part in ("config", "container_config"):
        inner = config.get(part)
        _need(inner is None or isinstance(inner, dict), f"{part} in {name} is no object")
        for key, kind in _CONFIG_TYPES.items():
            value = (inner or {}).get(key)
            _need(value is None or _is(value, kind), f"{part}.{key} in {name} is of the wrong type")
    history = config.get("history")
    _need(history is None or _is(history, "objects"), f"history in {name} is no list")
    for step in history or ():
        for key in ("created", "created_by", "author", "comment"):
            _need(isinstance(step.get(key, ""), str | None), f"{key} in the history of {name} is no text")
        _need(isinstance(step.get("empty_layer", False), bool), f"empty_layer in the history of {name} is no boolean")
    if config.get("os") not in ("linux", "", None):
        raise BadArchive(f'{name} is of an image for "{config["os"]}"; only those for linux can be loaded')
    result: dict[str, Any] = config
    return result


async def _docker(archive: Spooled) -> list[Wanted]:
    manifest = await archive.json("manifest.json")
    _need(_is(manifest, "objects"), "manifest.json is no list of objects")
    found = []
    for item in manifest:
        name, files, tags = item.get("Config"), item.get("Layers") or [], item.get("RepoTags") or []
        _need(isinstance(name, str) and name, "manifest.json names no configuration")
        _need(_is(files, "texts") and _is(tags, "texts"), "manifest.json has no list of names where one belongs")
        digest = _CONFIG_FILE.fullmatch(name) or _BLOB.fullmatch(name)
        raw = await archive.read(name)
        if digest:
            _check_digest(raw, f"sha256:{digest[1]}", name)
        layers = [(file, f"sha256:{blob[1]}" if (blob := _BLOB.fullmatch(file)) else "") for file in files]
        found.append(_with_configuration(raw, name, layers, _names(tags)))
    return found


async def _oci(archive: Spooled) -> list[Wanted]:
    found: list[Wanted] = []
    await _oci_index(archive, await archive.json("index.json"), "index.json", (), found, 0)
    return found


async def _oci_index(
    archive: Spooled, index: Any, name: str, names: Names, found: list[Wanted], depth: int
) -> None:
    _need(isinstance(index, dict) and _is(index.get("manifests"), "objects"), f"{name} has no list of manifests")
    _need(depth < _MAX_DEPTH, "its indexes are too deep")
    for descriptor in index["manifests"]:
        if not _for_us(descriptor.get("platform")) or len(found) > _MAX_IMAGES:
            continue
        raw, path = await _blob(archive, descriptor)
        value = parse(raw, path)
        _need(isinstance(value, dict), f"{path} is no manifest")
        own = names or _annotated(descriptor)
        if descriptor.get("mediaType") in _INDEXES or "manifests" in value:
            await _oci_index(archive, value, path, own, found, depth + 1)
            continue
        _need(_is(value.get("layers"), "objects"), f"{path} has no list of layers")
        config, config_path = await _blob(archive, value.get("config"))
        layers = [(_blob_path(layer), layer["digest"]) for layer in value["layers"]]
        found.append(_with_configuration(config, config_path, layers, own))


async def _blob(archive: Spooled, descriptor: Any) -> tuple[bytes, str]:
    path = _blob_path(descriptor)
    raw = await archive.read(path)
    _check_digest(raw, descriptor["digest"], path)
    return raw, path


def _blob_path(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise BadArchive(f"cannot load the archive: {str(digest)[:100]!r} is no sha256 digest")
    return f"blobs/sha256/{match[1]}"


def _annotated(descriptor: dict[str, Any]) -> Names:
    annotations = descriptor.get("annotations")
    for key in _NAME_ANNOTATIONS:
        text = annotations.get(key) if isinstance(annotations, dict) else None
        # A bare tag, as the specification means it, names no repository.
        if isinstance(text, str) and (":" in text or "/" in text):
            return _names([text])
    return ()


def _for_us(wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return True
    architecture, _ = image_config.architecture()
    return wanted.get("os") in ("linux", None) and wanted.get("architecture") in (architecture, None)


def _with_configuration(raw: bytes, name: str, files: list[tuple[str, str]], names: Names) -> Wanted:
    config = check(parse(raw, name), name)
    rootfs: Any = config.get("rootfs")
    _need(isinstance(rootfs, dict) and rootfs.get("type") == "layers", f"{name} has no list of layers")
    diff_ids: Any = rootfs.get("diff_ids") or []
    _need(_is(diff_ids, "texts"), f"{name} has no list of layers")
    _need(all(_DIGEST.fullmatch(diff_id) for diff_id in diff_ids), f"{name} has a diff id that is no sha256 digest")
    _need(len(diff_ids) <= _MAX_LAYERS, f"{name} has too many layers")
    _need(
        len(diff_ids) == len(files), f"{name} is of an image with {len(diff_ids)} layers, and {len(files)} are there"
    )
    layers = tuple(
        WantedLayer(file, diff_id, "" if digest == diff_id else digest)
        for diff_id, (file, digest) in zip(diff_ids, files, strict=True)
    )
    return Wanted(names, layers, lambda _: raw)


async def _first_year(archive: Spooled) -> list[Wanted]:
    configs = {}
    for name in archive.names():
        if match := _OLD_LAYER.fullmatch(name):
            configs[match[1]] = check(await archive.json(name), name)
    if not configs:
        raise BadArchive("this is no archive of images: it has neither manifest.json, index.json nor layers")
    tagged: dict[str, list[str]] = {}
    if archive.has("repositories"):
        repositories = await archive.json("repositories")
        _need(_is(repositories, "object of objects"), "repositories is no object of objects")
        for repository, tags in repositories.items():
            for tag, identity in tags.items():
                known = isinstance(identity, str) and identity in configs
                _need(known, f"repositories names {str(identity)[:80]!r}, which is not there")
                tagged.setdefault(identity, []).append(f"{repository}:{tag}")
    parents = {config.get("parent") for config in configs.values()}
    heads = [identity for identity in configs if identity not in parents and identity not in tagged]
    return [_old_image(identity, configs, _names(tagged.get(identity, []))) for identity in (*tagged, *heads)]


def _old_image(identity: str, configs: dict[str, dict[str, Any]], names: Names) -> Wanted:
    lineage: list[str] = []
    current: str | None = identity
    while current:
        _need(current in configs, f"the layer {current[:80]}, a parent, is not there")
        _need(current not in lineage and len(lineage) <= _MAX_LAYERS, "its layers are each other's parents")
        lineage.insert(0, current)
        current = configs[current].get("parent")
    top = configs[identity]

    def configuration(diff_ids: list[str]) -> bytes:
        image = {key: value for key, value in top.items() if key not in _PLACE}
        image.setdefault("architecture", image_config.architecture()[0])
        image["os"] = image.get("os") or "linux"
        image["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        image["history"] = [_old_step(configs[layer]) for layer in lineage]
        return image_config.encode(image)

    layers = tuple(WantedLayer(f"{layer}/layer.tar", "", "") for layer in lineage)
    return Wanted(names, layers, configuration)


def _old_step(config: dict[str, Any]) -> dict[str, Any]:
    step = {key: config[key] for key in ("created", "author", "comment") if config.get(key)}
    made_by = config.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    if _is(command, "texts") and command:
        step["created_by"] = " ".join(command)
    return step


def _names(texts: list[str]) -> Names:
    found = []
    for text in texts:
        if text == "<none>:<none>":
            continue
        parsed = reference.parse(text)
        _need(not parsed.digest, f'"{text}" is no name for an image')
        found.append((parsed.repository, parsed.tag_or_default))
    return tuple(found)


def _check_digest(raw: bytes, digest: str, name: str) -> None:
    found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    _need(found == digest, f"{name} has the digest {found}")


def _need(condition: object, otherwise: str) -> None:
    if not condition:
        raise BadArchive(f"cannot load the archive: {otherwise}")


_TEXTS = (
    "architecture", "author", "comment", "created", "os", "variant", "docker_version", "parent", "container", "id",
)  # fmt: skip
_CONFIG_TYPES = {
    "Cmd": "texts", "Entrypoint": "texts", "Env": "texts", "OnBuild": "texts", "Shell": "texts",
    "Labels": "object of texts", "ExposedPorts": "object", "Volumes": "object", "Healthcheck": "object",
    "WorkingDir": "text", "User": "text", "StopSignal": "text", "Hostname": "text", "Domainname": "text",
    "Image": "text",
}  # fmt: skip


def _is(value: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind in ("texts", "objects"):
        return isinstance(value, list) and all(isinstance(each, str if kind == "texts" else dict) for each in value)
    if not isinstance(value, dict):
        return False
    inner = {"object of texts": str, "object of objects": dict}.get(kind, object)
    return all(isinstance(each, inner) for each in value.values())
