"""Where things lie in a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolproof.audit.plan import Plan, read_plan
from poolproof.audit.references import Evidence
from poolproof.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """Where things lie in a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "run.json"

    @property
    def report(self) -> Path:
        """The report for machines."""
        return self.path / "report.json"

    @property
    def items(self) -> Path:
        """The answer per item."""
        return self.path / "items.parquet"

    @property
    def calibration(self) -> Path:
        """The scores of the references, and what else decisions rest on; not there for a sample."""
        return self.path / "calibration.parquet"

    def folder(self, role: str) -> Path:
        """Where the plan and evidence of the pool or of a reference lie."""
        return self.path if role == "pool" else self.path / "references" / role

    def plan(self, role: str = "pool") -> Plan:
        """The pinned plan of the pool or of a reference.

        Raises:
            InputError: there is none, or it is not the one that the run began with.
        """
        plan = read_plan(self.folder(role) / "plan.parquet")
        pinned = self.settings().get("plans", {}).get(role) if self.config.is_file() else None
        if pinned not in (None, plan.sha256):
            raise InputError(
                f"plan {str(plan.path)!r} is not the one that the run began with (hash differs); "
                "remove the run and start it again"
            )
        return plan

    def evidence(self, role: str = "pool") -> Evidence:
        """The evidence of the pool or of a reference."""
        return Evidence(self.plan(role), self.folder(role) / "evidence")

    def settings(self) -> dict[str, Any]:
        """The settings of an earlier call.

        Raises:
            InputError: the folder is not a run.
        """
        try:
            return json.loads(self.config.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{str(self.path)!r} is not a run; give a folder that `poolproof audit` wrote"
            ) from error
        except ValueError as error:
            raise InputError(
                f"{str(self.config)!r} is damaged ({error}); remove the run and start again"
            ) from error
