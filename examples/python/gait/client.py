"""Asks `gait gate eval` and believes its answer only if all of it fits."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from . import strict_json
from .errors import GaitCommandError, GateEnforcementError
from .intent import IntentRequest

StrPath = Union[str, "os.PathLike[str]"]
GaitBin = Union[str, Sequence[str]]

NOT_FOUND = 127
TIMED_OUT = 124

# Which exit codes go with a verdict. A block exits 0 where GAIT_GATE_EVAL_EXIT asks for the older convention.
EXITS: Dict[str, Tuple[int, ...]] = {"allow": (0,), "dry_run": (0,), "require_approval": (4,), "block": (3, 0)}


@dataclass(frozen=True)
class GateEvalResult:
    """The answer of `gait gate eval --json`."""

    tool_name: str
    ok: bool
    verdict: str
    reason_codes: List[str]
    violations: List[str]
    trace_id: str
    trace_path: str
    policy_digest: str
    intent_digest: str
    matched_rule: str
    approval_ref: str
    warnings: List[str]
    raw: Dict[str, Any]

    @property
    def allowed(self) -> bool:
        """True if the tool may run."""
        return self.verdict == "allow"


def evaluate_gate(
    policy_path: StrPath,
    intent: IntentRequest,
    *,
    gait_bin: Optional[GaitBin] = None,
    cwd: Optional[StrPath] = None,
    trace_out: Optional[StrPath] = None,
    approval_audit_out: Optional[StrPath] = None,
    approval_token: Optional[StrPath] = None,
    key_mode: str = "dev",
    private_key: Optional[StrPath] = None,
    private_key_env: Optional[str] = None,
    approval_public_key: Optional[StrPath] = None,
    approval_public_key_env: Optional[str] = None,
    timeout: float = 30.0,
) -> GateEvalResult:
    """Has an intent judged. Whatever is no clear verdict is a `GaitCommandError`."""
    text = intent.to_json()
    flags: List[Tuple[str, Optional[StrPath]]] = [
        ("--trace-out", trace_out),
        ("--approval-audit-out", approval_audit_out),
        ("--approval-token", approval_token),
        ("--private-key", private_key),
        ("--private-key-env", private_key_env),
        ("--approval-public-key", approval_public_key),
        ("--approval-public-key-env", approval_public_key_env),
    ]
    with tempfile.TemporaryDirectory(prefix="gait-intent-") as scratch:
        path = Path(scratch, "intent.json")
        path.write_text(text, encoding="utf-8")
        command = _program(gait_bin) + ["gate", "eval", "--policy", os.fspath(policy_path), "--intent", str(path)]
        command += ["--key-mode", key_mode, "--json"]
        for flag, value in flags:
            if value is not None:
                command += [flag, os.fspath(value)]
        exit_code, stdout, stderr = _run(command, cwd, timeout)
    return _answer(command, intent.tool_name, exit_code, stdout, stderr)


@dataclass(frozen=True)
class ToolAdapter:
    """How tools are gated: the policy, the binary, the key, and where traces go."""

    policy_path: StrPath
    gait_bin: Optional[GaitBin] = None
    key_mode: str = "dev"
    private_key: Optional[StrPath] = None
    private_key_env: Optional[str] = None
    approval_token: Optional[StrPath] = None
    approval_public_key: Optional[StrPath] = None
    approval_public_key_env: Optional[str] = None
    trace_dir: StrPath = "gait-traces"
    timeout: float = 30.0

    def gate_intent(self, intent: IntentRequest) -> GateEvalResult:
        """Returns the verdict, whatever it is; `trace_dir` keeps its trace, and the audit of approvals."""
        traces = Path(self.trace_dir)
        try:
            traces.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise GaitCommandError(f"no place for traces: {error}", [], 1) from error
        name = uuid.uuid4().hex
        return evaluate_gate(
            self.policy_path,
            intent,
            gait_bin=self.gait_bin,
            trace_out=traces / f"trace_{name}.json",
            approval_audit_out=traces / f"approval_audit_{name}.json",
            approval_token=self.approval_token,
            key_mode=self.key_mode,
            private_key=self.private_key,
            private_key_env=self.private_key_env,
            approval_public_key=self.approval_public_key,
            approval_public_key_env=self.approval_public_key_env,
            timeout=self.timeout,
        )

    def require_allow(self, intent: IntentRequest) -> GateEvalResult:
        """Returns only if the verdict is "allow"."""
        decision = self.gate_intent(intent)
        if not decision.allowed:
            raise GateEnforcementError(decision)
        return decision


def _program(gait_bin: Optional[GaitBin]) -> List[str]:
    if gait_bin is None:
        gait_bin = os.environ.get("GAIT_BIN") or "gait"
    return [gait_bin] if isinstance(gait_bin, str) else list(gait_bin)


def _run(command: List[str], cwd: Optional[StrPath], timeout: float) -> Tuple[int, str, str]:
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise GaitCommandError(f"gait did not answer within {timeout} s", command, TIMED_OUT) from error
    except OSError as error:
        raise GaitCommandError("gait cannot be run", command, NOT_FOUND, stderr=str(error)) from error
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _answer(command: List[str], tool_name: str, exit_code: int, stdout: str, stderr: str) -> GateEvalResult:
    def wrong(message: str) -> GaitCommandError:
        return GaitCommandError(message, command, exit_code, stdout, stderr)

    try:
        raw = strict_json.parse_object(stdout)
    except ValueError as error:
        raise wrong(f"failed to parse JSON from gait: {error}") from error
    if raw.get("ok") is not True:
        raise wrong(f"gait gave no verdict: {raw.get('error', 'the answer is not ok')}")
    verdict = raw.get("verdict")
    if not isinstance(verdict, str) or verdict not in EXITS:
        raise wrong(f"gait gave an unknown verdict: {verdict!r}")
    if exit_code not in EXITS[verdict]:
        raise wrong(f"the verdict {verdict} and the exit code contradict each other")
    if verdict == "allow" and raw.get("simulate_mode"):
        raise wrong("the answer is a simulation and permits nothing")

    def text(key: str) -> str:
        value = raw.get(key, "")
        if not isinstance(value, str):
            raise wrong(f"{key} is not text")
        return value

    def texts(key: str) -> List[str]:
        value = raw.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong(f"{key} is not a list of text")
        return value

    return GateEvalResult(
        tool_name=tool_name,
        ok=True,
        verdict=verdict,
        reason_codes=texts("reason_codes"),
        violations=texts("violations"),
        trace_id=text("trace_id"),
        trace_path=text("trace_path"),
        policy_digest=text("policy_digest"),
        intent_digest=text("intent_digest"),
        matched_rule=text("matched_rule"),
        approval_ref=text("approval_ref"),
        warnings=texts("warnings"),
        raw=raw,
    )
