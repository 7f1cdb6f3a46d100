"""Saving images as one archive, which is written as it is read: nothing is kept in memory or on the disk for it.

It can be read as Docker's (``manifest.json``), as an OCI image layout (``index.json``), and as the first year's (a
directory for each layer, and ``repositories``).  Configurations and layers are what came in, byte for byte, each
once; the first year's names for the layers are symbolic links to them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from dockerd_py.store.archive import header
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.images import ImageStore
from dockerd_py.store.layer_ids import CREATED, Layer
from dockerd_py.store.layers import LayerStore

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"

# In the configurations of the first year's layout, what is the image's own and what every layer has.
_OF_LAYER = ("created", "os", "architecture")
_OF_IMAGE = ("author", "comment", "config", "container", "container_config", "docker_version")

Named = tuple[StoredImage, tuple[str, ...]]


class Saver:
    def __init__(self, layers: LayerStore, images: ImageStore) -> None:
        self._layers = layers
        self._images = images

    async def save(self, chosen: Sequence[Named]) -> AsyncGenerator[bytes, None]:
        """The archive of some images, each with the names that it is to have there; to be closed.

        The layers are held until the end.  Raises StoreError, Conflict.
        """
        async with self._layers.holding() as holds:
            for chain in dict.fromkeys(image.chain_id for image, _ in chosen):
                if chain is not None:
                    await self._layers.hold(holds, chain)
            small, layers = await self._plan(chosen)
            for name, data in small.items():
                yield _file(name, data) if isinstance(data, bytes) else _link(name, data)
            async with aclosing(self._write(layers)) as written:
                async for piece in written:
                    yield piece
            yield header.END

    async def _write(self, layers: Sequence[tuple[Layer, int]]) -> AsyncGenerator[bytes, None]:
        """The layers' entries.  While one is read, the helper of the next one gets ready."""
        upcoming: _Begun | None = None
        try:
            for number, (layer, size) in enumerate(layers):
                current = upcoming or _Begun(self._layers.tar(layer))
                following = layers[number + 1 : number + 2]
                upcoming = _Begun(self._layers.tar(following[0][0])) if following else None
                yield header.header(_blob(layer.diff_id).encode(), size=size)
                async with aclosing(current):
                    async for piece in current:
                        yield piece
                yield header.padding(size)
        finally:
            if upcoming is not None:
                await upcoming.aclose()

    async def _plan(self, chosen: Sequence[Named]) -> tuple[dict[str, bytes | str], list[tuple[Layer, int]]]:
        """(small files and links by their names, the layers with their sizes)."""
        small: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        layers: dict[str, tuple[Layer, int]] = {}
        manifest: list[dict[str, Any]] = []
        index: list[dict[str, Any]] = []
        repositories: dict[str, dict[str, str]] = {}
        for image, names in _merged(chosen):
            raw = await self._images.configuration(image.id)
            chain = self._layers.chain(image.chain_id)[::-1]
            for layer in chain:
                if layer.diff_id not in layers:
                    layers[layer.diff_id] = (layer, await self._layers.tar_size(layer))
            small[f"{image.id}.json"] = small[_blob(f"sha256:{image.id}")] = raw
            manifest.append({
                "Config": f"{image.id}.json",
                "RepoTags": list(names) or None,
                "Layers": [_blob(layer.diff_id) for layer in chain],
            })  # fmt: skip
            described = _dump({
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {"mediaType": _CONFIG, "digest": f"sha256:{image.id}", "size": len(raw)},
                "layers": [
                    {"mediaType": _LAYER, "digest": layer.diff_id, "size": layers[layer.diff_id][1]} for layer in chain
                ],
            })  # fmt: skip
            digest = f"sha256:{hashlib.sha256(described).hexdigest()}"
            small[_blob(digest)] = described
            entry: dict[str, Any] = {"mediaType": _MANIFEST, "digest": digest, "size": len(described)}
            for name in names:
                annotations = {
                    "io.containerd.image.name": _full(name),
                    "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                }
                index.append({**entry, "annotations": annotations})
            if not names:
                index.append(entry)
            if chain:
                ids = [self._layers.ids.of_chain(layer.chain_id) or "" for layer in chain]
                small.update(_first_year(image, chain, ids))
                for name in names:
                    repository, _, tag = name.rpartition(":")
                    repositories.setdefault(repository, {})[tag] = image.id
        small["index.json"] = _dump({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index})
        small["manifest.json"] = _dump(manifest)
        if repositories:
            small["repositories"] = _dump(repositories)
        return small, list(layers.values())


class _Begun:
    """A generator whose first item is being made already."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._first = asyncio.ensure_future(anext(pieces, b""))

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        yield await asyncio.shield(self._first)
        async for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._pieces.aclose()


def _first_year(image: StoredImage, chain: Sequence[Layer], ids: Sequence[str]) -> dict[str, bytes | str]:
    """A directory for each layer, the lowest first; ``ids`` are theirs, and the topmost one has the image's."""
    found: dict[str, bytes | str] = {}
    parent = ""
    for layer, identity in zip(chain, [*ids[:-1], image.id], strict=True):
        top = layer is chain[-1]
        config: dict[str, Any] = {"id": identity, "Size": layer.size}
        if parent:
            config["parent"] = parent
        # A layer below belongs to many images: nothing may stand there that differs between them.
        config.update({key: image.raw[key] for key in _OF_LAYER if top and image.raw.get(key)})
        config.update({key: image.raw[key] for key in _OF_IMAGE if top and image.raw.get(key)})
        if not top:
            config["created"] = CREATED
        found[f"{identity}/VERSION"] = b"1.0"
        found[f"{identity}/json"] = _dump(config)
        found[f"{identity}/layer.tar"] = f"../{_blob(layer.diff_id)}"
        parent = identity
    return found


def _merged(chosen: Sequence[Named]) -> list[Named]:
    """Each image once, with all names that were asked for."""
    images: dict[str, StoredImage] = {}
    names: dict[str, dict[str, None]] = {}
    for image, its in chosen:
        images[image.id] = image
        names.setdefault(image.id, {}).update(dict.fromkeys(its))
    return [(image, tuple(names[identity])) for identity, image in images.items()]


def _file(name: str, data: bytes) -> bytes:
    return header.header(name.encode(), size=len(data)) + data + header.padding(len(data))


def _link(name: str, target: str) -> bytes:
    return header.header(name.encode(), header.SYMBOLIC_LINK, mode=0o777, link=target.encode())


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _full(name: str) -> str:
    """A name with its registry."""
    host = name.partition("/")[0]
    if "/" in name and ("." in host or ":" in host or host == "localhost"):
        return name
    return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
