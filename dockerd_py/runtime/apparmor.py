"""AppArmor: our own profile for containers, and those that an administrator has loaded.

The profile's text is packaging/apparmor/pydockerd-default, installed to /etc/apparmor.d; the host loads it at boot, and
the daemon where it is missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.errors import BadParameter, RuntimeFailed
from dockerd_py.subprocesses import ProgramFailed

DEFAULT_PROFILE = "pydockerd-default"
UNCONFINED = "unconfined"
PROFILE_FILE = Path("/etc/apparmor.d") / DEFAULT_PROFILE
PARSER = "apparmor_parser"

_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")


class AppArmor:
    """AppArmor of this host, or its absence."""

    def __init__(
        self, enabled: Path = _ENABLED, loaded: Path = _LOADED, profile_file: Path = PROFILE_FILE, parser: str = PARSER
    ) -> None:
        self._enabled = enabled
        self._loaded = loaded
        self._profile_file = profile_file
        self._parser = parser

    @property
    def available(self) -> bool:
        """Whether the kernel has it switched on, and we can see it (in a container of another engine we cannot)."""
        try:
            return self._enabled.read_text().startswith("Y") and self._loaded.exists()
        except OSError:
            return False

    def is_loaded(self, profile: str) -> bool:
        """Whether the kernel knows the profile: its file has lines such as ``name (enforce)``."""
        lines = self._loaded.read_text(errors="surrogateescape").splitlines()
        return any(line.rpartition(" (")[0] == profile for line in lines)

    async def load_default(self) -> None:
        """Load our own profile, unless it is loaded.  Raises RuntimeFailed with what to do."""
        if self.is_loaded(DEFAULT_PROFILE):
            return
        parser = shutil.which(self._parser)
        if parser is None:
            raise RuntimeFailed(
                f"AppArmor is on, and the profile {DEFAULT_PROFILE} is not loaded: install apparmor_parser (package "
                "apparmor), or run the container with --security-opt apparmor=unconfined"
            )
        try:
            await subprocesses.run([parser, "--replace", "--write-cache", str(self._profile_file)])
        except ProgramFailed as error:
            raise RuntimeFailed(f"the AppArmor profile {DEFAULT_PROFILE} cannot be loaded: {error}") from error

    async def profile_for(self, asked: str, *, privileged: bool) -> str:
        """The profile that a container gets; "" for none.

        ``asked``: a profile's name, "unconfined", or "" for the default, which is none for a privileged container.
        Raises BadParameter for a profile that is not there; RuntimeFailed where our own cannot be loaded.
        """
        if not self.available:
            if asked not in ("", UNCONFINED):
                raise BadParameter(f"the AppArmor profile {asked} cannot be used: this host's kernel has no AppArmor")
            return ""
        if asked == UNCONFINED or (privileged and not asked):
            return UNCONFINED
        if asked in ("", DEFAULT_PROFILE):
            await self.load_default()
            return DEFAULT_PROFILE
        if not self.is_loaded(asked):
            raise BadParameter(f"the AppArmor profile {asked} is not loaded: load it with apparmor_parser first")
        return asked
