"""A device that is far away, on this machine: an environment without torch behind a real sshd, 50 ms of round trip from here.

with far_device(folder) as far:
    device = device_of(far.target)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from light_environment import link
from ssh_proxy import Proxy
from ssh_server import SshServer

from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import Target

DELAY = 0.025
"""Seconds in one direction."""


class Far(NamedTuple):
    """The device.

    Attributes:
        python: Its Python.
        address: Where it is, behind the proxy.
    """

    server: SshServer
    proxy: Proxy
    python: Path
    address: str

    @property
    def target(self) -> Target:
        """Its CPU, in FP32."""
        return load_profile("local-cpu", {**self.overrides("target."), "target.precision": "fp32"}).target

    def overrides(self, prefix: str = "profile.target.") -> dict[str, str]:
        """Return what a profile needs to mean this device."""
        return {f"{prefix}device.address": self.address, f"{prefix}device.python": str(self.python)}


@contextmanager
def far_device(folder: Path, *, delay: float = DELAY, rate: float | None = None) -> Iterator[Far]:
    """Let there be such a device while the block runs."""
    python = link(folder / "environment")
    with SshServer(folder) as server, Proxy(server.port, delay=delay, rate=rate) as proxy:
        before = os.environ.get("BONSAI_SSH")
        os.environ["BONSAI_SSH"] = server.ssh
        try:
            yield Far(server, proxy, python, server.address_at(proxy.port))
        finally:
            os.environ.pop("BONSAI_SSH") if before is None else os.environ.update(BONSAI_SSH=before)
