#!/usr/bin/env python3
"""Judges one tool call for a program in any language: intent in, verdict out.

    gate_sidecar.py --policy POLICY [--intent-file FILE] < intent.json

Reads an intent (`gait.gate.intent_request` 1.0.0) from standard input or a file, has `gait gate eval` judge it, and
prints one line of JSON:

    {"ok": true, "exit_code": 0, "gate_result": {... "verdict": "allow" ...}, "trace_path": "..."}

The exit code is that of gait: 0 allow or dry_run, 3 block, 4 approval required, 6 bad input, others as in
docs/exit-codes.md; 2 if the input is no intent, 124 if gait hung, 127 if it could not be run. `ok` is true if there
is a verdict.

**Run the tool only if `ok` is true and `gate_result.verdict` is "allow".** The exit code alone does not say so: dry_run
exits 0, too.

One file, Python 3.9 or later, standard library only. It reads no environment variable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional, Tuple

SCHEMA_ID = "gait.gate.intent_request"
SCHEMA_VERSION = "1.0.0"
MAX_BYTES = 8 << 20
TIMEOUT_SECONDS = 30.0
EXIT_OF_VERDICT = {"allow": 0, "dry_run": 0, "block": 3, "require_approval": 4}
INVALID_INTENT, INVALID_INPUT, HUNG, NOT_FOUND = 2, 6, 124, 127
# Handed on to gait as they are.
PASSED_ON = ("key-mode", "profile", "private-key", "private-key-env", "trace-out")
APPROVALS = ("approval-token", "approval-public-key", "approval-public-key-env", "approval-audit-out")


class InvalidIntent(Exception):
    """The input is no intent."""


def main(argv: Optional[List[str]] = None) -> int:
    args = arguments().parse_args(argv)
    try:
        intent = read_intent(args.intent_file)
    except InvalidIntent as error:
        return say({"ok": False, "error": f"invalid intent request: {error}"}, INVALID_INTENT)
    command = [args.gait_bin, "gate", "eval", "--policy", args.policy, "--json"]
    for name in PASSED_ON + APPROVALS:
        value = getattr(args, name.replace("-", "_"))
        if value is not None:
            command += [f"--{name}", value]
    exit_code, stdout, stderr = judge(command, intent)
    return say(*envelope(exit_code, stdout, stderr))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Judges one tool call.", allow_abbrev=False)
    parser.add_argument("--policy", required=True, metavar="POLICY", help="a file, or the name of a shipped policy")
    parser.add_argument("--intent-file", default="-", metavar="FILE", help="the intent; - is standard input")
    parser.add_argument("--gait-bin", default="gait", metavar="PROGRAM", help="the gait binary")
    for name in PASSED_ON + APPROVALS:
        parser.add_argument(f"--{name}", metavar="VALUE", help="as of gait gate eval")
    return parser


def read_intent(path: str) -> bytes:
    """Returns the bytes of the intent, after a look at what they claim to be. gait checks the rest."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidIntent(str(error)) from error
    if len(data) > MAX_BYTES:
        raise InvalidIntent(f"longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidIntent(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidIntent("not an object")
    for name, expected in (("schema_id", SCHEMA_ID), ("schema_version", SCHEMA_VERSION)):
        if document.get(name) != expected:
            raise InvalidIntent(f"{name} is not {expected}")
    return data


def judge(command: List[str], intent: bytes) -> Tuple[int, str, str]:
    """Runs gait on exactly the bytes that were read."""
    # A variable of the older exit convention would make a block exit 0.
    environment = {name: value for name, value in os.environ.items() if name != "GAIT_GATE_EVAL_EXIT"}
    with tempfile.NamedTemporaryFile(prefix="gait-intent-", suffix=".json") as file:
        file.write(intent)
        file.flush()
        try:
            done = subprocess.run(
                [*command, "--intent", file.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return HUNG, "", f"gait did not answer within {TIMEOUT_SECONDS:.0f} s"
        except OSError as error:
            return NOT_FOUND, "", f"gait cannot be run: {error}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def envelope(exit_code: int, stdout: str, stderr: str) -> Tuple[Dict[str, Any], int]:
    """Returns the answer and the exit code. Without a whole answer of gait there is no `ok`, and no exit 0."""
    try:
        result = json.loads(stdout)
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict):
        failed = exit_code if 0 < exit_code < 256 and exit_code not in EXIT_OF_VERDICT.values() else INVALID_INPUT
        return {"ok": False, "exit_code": failed, "stdout": stdout, "stderr": stderr}, failed
    ok = result.get("ok") is True and EXIT_OF_VERDICT.get(str(result.get("verdict"))) == exit_code
    if not ok and exit_code in EXIT_OF_VERDICT.values():
        exit_code = INVALID_INPUT
    answer = {"ok": ok, "exit_code": exit_code, "gate_result": result, "trace_path": result.get("trace_path")}
    return answer, exit_code


def say(answer: Dict[str, Any], exit_code: int) -> int:
    print(json.dumps(answer, sort_keys=True))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
