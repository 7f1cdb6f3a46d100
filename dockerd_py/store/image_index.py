"""What images, names and layers there are, in memory: looked up by all that a user may call them.

``ImageStore`` changes it, after the database.  A layer is an image, too, for whoever names it by its id
(``layer_ids``): one without a name or settings, that is nowhere recorded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dockerd_py.errors import AmbiguousId, BadParameter, NoSuchImage
from dockerd_py.store import layer_ids, reference
from dockerd_py.store.layers import LayerStore

Name = tuple[str, str]
"""(repository, tag)"""

SHORT_ID = 12


@dataclass(frozen=True)
class StoredImage:
    """One image with its names.  ``raw`` is its whole configuration, parsed; treat it as constant."""

    id: str  # 64 hex digits
    parent_id: str  # of an image, or of a layer; "" for none
    created: int
    size: int  # bytes of all its layers
    tags: tuple[str, ...]  # "repo:tag", sorted
    chain_id: str | None  # the topmost layer; None for an image without layers
    raw: Mapping[str, Any]
    driver: str

    @property
    def short_id(self) -> str:
        return self.id[:SHORT_ID]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(self.raw["rootfs"]["diff_ids"])


class ImageIndex:
    def __init__(self, layers: LayerStore, driver: str) -> None:
        self.images: dict[str, StoredImage] = {}
        self.tags: dict[Name, str] = {}
        self._layers = layers
        self._driver = driver

    def load(self, images: Iterable[StoredImage], tags: dict[Name, str]) -> None:
        """Begin anew with these."""
        self.images = {image.id: image for image in images}
        self.tags = tags
        for image_id in set(tags.values()):
            self.refresh(image_id)

    # Looking up

    def get(self, ref: str) -> StoredImage:
        return self.resolve(ref)[0]

    def resolve(self, ref: str) -> tuple[StoredImage, Name | None]:
        """The image, and the name if it was found by one.  Raises NoSuchImage, AmbiguousId, BadParameter.

        The beginning of an id means an image before a layer, and a layer only if it is as long as a short id: a
        name that nothing has, and that happens to be of hex digits, is hardly ever mistaken for one then.
        """
        if reference.is_full_id(ref):
            image = self.by_id(ref.removeprefix("sha256:"))
            if image is None:
                raise NoSuchImage(ref)
            return image, None
        parsed: reference.Reference | None = None
        wrong: BadParameter | None = None
        try:
            parsed = reference.parse(ref)
        except BadParameter as error:
            wrong = error
        if parsed is not None and not parsed.digest:
            name = (parsed.repository, parsed.tag_or_default)
            if name in self.tags:
                return self.images[self.tags[name]], name
        prefix = reference.id_prefix(ref)
        if parsed is not None and not parsed.digest and prefix is None and (tag := reference.id_prefix(parsed.tag)):
            # "repository:beginning of an id", as the first year allowed: an image with a name in that repository.
            inside = {self.tags[name] for name in self.tags if name[0] == parsed.repository}
            found = _only([each for each in inside if each.startswith(tag)], ref)
            if found:
                return self.images[found], None
        if prefix:
            found = _only([each for each in self.images if each.startswith(prefix)], ref)
            if not found and len(prefix) >= SHORT_ID:
                found = _only(self._layers.ids.beginning(prefix), ref)
            if found and (image := self.by_id(found)):
                return image, None
        if wrong is not None:
            raise wrong
        assert parsed is not None
        raise NoSuchImage(str(parsed) if parsed.tag or parsed.digest else f"{parsed}:{reference.DEFAULT_TAG}")

    def resolve_repository(self, ref: str) -> tuple[StoredImage | None, str]:
        """(None, repository) for a bare name of one that has images, else an image and its name, "" for none."""
        with contextlib.suppress(BadParameter):
            parsed = reference.parse(ref)
            if not (parsed.tag or parsed.digest) and self._has_repository(parsed.repository):
                return None, parsed.repository
        image, name = self.resolve(ref)
        return image, ":".join(name) if name else ""

    def is_name(self, ref: str) -> bool:
        """Whether an image, or a whole repository, has this name."""
        try:
            parsed = reference.parse(ref)
        except BadParameter:
            return False
        known = (parsed.repository, parsed.tag_or_default) in self.tags
        return not parsed.digest and (known or (not parsed.tag and self._has_repository(parsed.repository)))

    def beginning(self, prefix: str) -> set[str]:
        """The ids of all images and layers that begin with some hex digits."""
        return {each for each in self.images if each.startswith(prefix)} | set(self._layers.ids.beginning(prefix))

    def by_id(self, image_id: str) -> StoredImage | None:
        """An image, or a layer, by its full id."""
        image = self.images.get(image_id)
        if image is None and (chain := self._layers.ids.chain(image_id)) is not None:
            return self._of_layer(image_id, chain)
        return image

    def is_layer(self, image: StoredImage) -> bool:
        """Whether it is a layer and nothing else, whether it has names or not."""
        return image.chain_id is not None and self._layers.ids.of_chain(image.chain_id) == image.id

    # Changing

    def retag(self, name: Name, image_id: str) -> None:
        before = self.tags.get(name)
        self.tags[name] = image_id
        self.refresh(image_id)
        if before is not None and before != image_id:
            self.refresh(before)

    def refresh(self, image_id: str) -> None:
        """Bring an image's tuple of names up to date."""
        tags = sorted(f"{repo}:{tag}" for (repo, tag), owner in self.tags.items() if owner == image_id)
        self.images[image_id] = replace(self.images[image_id], tags=tuple(tags))

    # Below

    def _has_repository(self, repository: str) -> bool:
        return any(repo == repository for repo, _ in self.tags)

    def _of_layer(self, image_id: str, chain: str) -> StoredImage:
        layers = self._layers.chain(chain)
        return StoredImage(
            id=image_id,
            parent_id="",
            created=0,
            size=sum(layer.size for layer in layers),
            tags=(),
            chain_id=chain,
            raw=layer_ids.settings([layer.diff_id for layer in reversed(layers)]),
            driver=self._driver,
        )


def _only(found: list[str], ref: str) -> str:
    """The one that was found; "" for none.  Raises AmbiguousId."""
    if len(found) > 1:
        raise AmbiguousId(ref)
    return found[0] if found else ""
