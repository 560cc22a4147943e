"""Processes that leave nothing behind."""

from __future__ import annotations

import os
import signal


def die_with_parent(parent: int) -> None:
    """Asks Linux to end this process with its parent, so that a killed run leaves nothing behind.

    Args:
        parent: its process number, as the parent itself knew it.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
