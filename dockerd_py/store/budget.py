"""What the limit on unpacking leaves to the archives of one request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """What archives may still unpack to, in bytes, headers included; None: what there is room for."""

    left: int | None = None

    @classmethod
    def of(cls, limit: int) -> Budget:
        """limit: bytes; 0 for none."""
        return cls(limit or None)

    @property
    def limit(self) -> int:
        """For a helper: bytes, 0 for none."""
        return 0 if self.left is None else max(1, self.left)

    def spend(self, size: int) -> None:
        if self.left is not None:
            self.left -= size
