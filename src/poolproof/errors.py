"""The errors that a user can mend. The command line prints them as one line and exits with 2, with 1 for Stopped.

ValueError
├── InputError            a path, option or file that cannot be used: name, got, allowed, remedy
└── UnreliableEstimate    too little data for the asked figure; carries what could be computed
ImportError
└── MissingExtra          an optional package is needed; names the extra that installs it
RuntimeError
└── Stopped               the machine's fault, such as a full disk; the same command continues
"""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """A value the user gave cannot be used; the message names it, what is allowed, and the remedy."""


class UnreliableEstimate(ValueError):
    """The data do not carry the asked figure. `estimate` holds what could be computed, or None."""

    def __init__(self, message: str, estimate: Any = None) -> None:
        super().__init__(message)
        self.estimate = estimate


class Stopped(RuntimeError):
    """The work could not go on, for no fault of the input; what is finished stays, and the same command continues."""


class MissingExtra(ImportError):
    """An optional package is not installed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'poolproof[{extra}]'")
        self.package = package
        self.extra = extra
