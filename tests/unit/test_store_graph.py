"""Layers' ids and the graph of images and layers, without a disk."""

from __future__ import annotations

import hashlib
import random

import pytest

from dockerd_py.store.layer_ids import Layer, LayerIds, chain_id, configuration


def stack(*names: str, below: Layer | None = None) -> dict[str, Layer]:
    """Layers on each other by chain id; what is in them goes by their names."""
    layers: dict[str, Layer] = {}
    for name in names:
        diff_id = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        parent = below.chain_id if below else None
        below = Layer(f"cache-{name}", chain_id(parent, diff_id), diff_id, parent, 1)
        layers[below.chain_id] = below
    return layers


def test_the_id_is_the_digest_of_an_image_of_nothing_but_the_layers() -> None:
    layers = stack("a", "b", "c")
    ids = LayerIds()
    ids.add(list(layers.values())[-1], layers)
    diff_ids = [layer.diff_id for layer in layers.values()]
    for number, chain in enumerate(layers, start=1):
        identity = ids.of_chain(chain)
        assert identity == hashlib.sha256(configuration(diff_ids[:number])).hexdigest()
        assert ids.chain(identity) == chain


def test_the_order_in_which_layers_come_makes_no_difference() -> None:
    layers = stack(*map(str, range(50)))
    shuffled = list(layers.values())
    random.Random(1).shuffle(shuffled)
    one, other = LayerIds(), LayerIds()
    for layer in layers.values():
        one.add(layer, layers)
    for layer in shuffled:
        other.add(layer, layers)
    assert [one.of_chain(chain) for chain in layers] == [other.of_chain(chain) for chain in layers]


def test_ids_are_found_by_their_beginnings() -> None:
    layers = stack(*map(str, range(500)))
    ids = LayerIds()
    for layer in layers.values():
        ids.add(layer, layers)
    all_ids = sorted(str(ids.of_chain(chain)) for chain in layers)
    for prefix in ("", "0", "f", "ab", "fff", all_ids[0], all_ids[250][:12], all_ids[-1][:2]):
        assert ids.beginning(prefix) == [each for each in all_ids if each.startswith(prefix)]


def test_a_layer_that_goes_takes_its_id_with_it() -> None:
    layers = stack("a", "b")
    ids = LayerIds()
    top = list(layers.values())[-1]
    ids.add(top, layers)
    identity = str(ids.of_chain(top.chain_id))
    ids.remove(top.chain_id)
    ids.remove(top.chain_id)
    assert (ids.of_chain(top.chain_id), ids.chain(identity), ids.beginning(identity)) == (None, None, [])
    ids.add(top, layers)
    assert ids.beginning(identity[:12]) == [identity]


def test_a_layer_whose_parent_is_lost_has_no_id() -> None:
    layers = stack("a", "b", "c")
    lost = next(iter(layers))
    known = {chain: layer for chain, layer in layers.items() if chain != lost}
    ids = LayerIds()
    for layer in known.values():
        ids.add(layer, known)
    assert ids.beginning("") == []


def test_the_least_configuration_is_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockerd_py.store.image_config.platform.machine", lambda: "x86_64")
    expected = (
        b'{"architecture":"amd64","config":{},"created":"1970-01-01T00:00:00Z","os":"linux",'
        b'"rootfs":{"diff_ids":["sha256:1","sha256:2"],"type":"layers"}}'
    )
    assert configuration(["sha256:1", "sha256:2"]) == expected
