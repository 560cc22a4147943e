"""The errors that a user can mend. The command line prints them as one line and exits with 2, with 1 for Halted.

ValueError
├── InputError            a path, option or file that cannot be used: name, got, allowed, remedy
└── UnreliableEstimate    too little data for the asked figure; carries what could be computed
ImportError
└── MissingExtra          an optional package is needed; names the extra that installs it
RuntimeError
└── Halted                a full disk or dying processes; the same command goes on later
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


class Halted(RuntimeError):
    """The work cannot go on for now; what is finished stays. The command line exits with 1 and one line."""


class MissingExtra(ImportError):
    """An optional package is not installed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'poolproof[{extra}]'")
        self.package = package
        self.extra = extra
