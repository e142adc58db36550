"""What can go wrong. Each of these means that the tool did not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from .client import GateEvalResult


class GaitError(Exception):
    """Everything that this package raises."""


class IntentError(GaitError):
    """A call cannot be written down as an intent, so nobody can judge it."""


class PrimitiveError(GaitError):
    """A document is not the primitive that it claims to be."""


class GaitCommandError(GaitError):
    """`gait` gave no verdict: it is missing, failed, hung, or its answer makes no sense."""

    def __init__(
        self, message: str, command: Sequence[str], exit_code: int, stdout: str = "", stderr: str = ""
    ) -> None:
        detail = stderr.strip().splitlines()
        super().__init__(f"{message} (exit {exit_code})" + (f": {detail[0]}" if detail else ""))
        self.command = list(command)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


class GateEnforcementError(GaitError):
    """The verdict is not "allow". `decision` says which it is, and why."""

    def __init__(self, decision: GateEvalResult) -> None:
        reasons = ", ".join(decision.reason_codes) or "no reason given"
        super().__init__(f"{decision.tool_name}: {decision.verdict} ({reasons})")
        self.decision = decision
