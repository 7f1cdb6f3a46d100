"""The capability sets of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_py.runtime import capabilities


def test_the_numbers_are_the_kernels() -> None:
    assert capabilities.ALL.index("CAP_CHOWN") == 0
    assert capabilities.ALL.index("CAP_SYS_ADMIN") == 21
    assert capabilities.ALL.index("CAP_CHECKPOINT_RESTORE") == 40
    assert len(set(capabilities.ALL)) == 41


def test_the_default_is_dockers_fourteen() -> None:
    mask = sum(1 << capabilities.ALL.index(name) for name in capabilities.DEFAULT)
    assert mask == 0xA80425FB


def test_an_older_kernel_knows_fewer(tmp_path: Path) -> None:
    (tmp_path / "last").write_text("37\n")
    known = capabilities.known(tmp_path / "last")
    assert known[-1] == "CAP_AUDIT_READ"
    assert capabilities.known()[: len(known)] == known


def test_what_is_available_is_the_bounding_set(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("CapEff:\t000001ffffffffff\nCapBnd:\t000001fffeffffff\n")
    assert set(capabilities.ALL) - set(capabilities.available(status)) == {"CAP_SYS_RESOURCE"}
    status.write_text("CapBnd:\tffffffffffffffff\n")
    assert capabilities.available(status) == capabilities.ALL
    status.write_text("Name:\tx\n")
    with pytest.raises(ValueError, match="CapBnd"):
        capabilities.available(status)
