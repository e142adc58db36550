"""What the tests share: the real binary, a directory of their own, an executor that counts its calls."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List

from gait import Context, ToolAdapter

EXAMPLES = Path(__file__).resolve().parents[2]
ROOT = EXAMPLES.parent
CASES = EXAMPLES / "gate_cases"
CONTEXT = Context(identity="ann", workspace="/workspace", risk_class="high")


def gait_bin() -> str:
    """The binary under test. Without one nothing here means anything, so its absence is a failure, not a skip."""
    path = os.environ.get("GAIT_BIN", "")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"GAIT_BIN={path!r} is no program: set it to a built gait, such as target/release/gait")
    return os.path.abspath(path)


def cases() -> List[Dict[str, Any]]:
    """The table that every way to integrate gait has to pass."""
    table: List[Dict[str, Any]] = json.loads((CASES / "cases.json").read_text())
    return table


class Executor:
    """A tool that only counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_args: Any, **_kwargs: Any) -> str:
        self.calls += 1
        return "done"


class Sandbox(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="gait-python-")
        self.addCleanup(scratch.cleanup)
        self.dir = Path(scratch.name).resolve()
        self.traces = self.dir / "traces"
        self.executor = Executor()
        before = set(Path.cwd().iterdir())
        self.addCleanup(lambda: self.assertEqual(set(Path.cwd().iterdir()), before, "left in the working directory"))

    def adapter(self, **changes: Any) -> ToolAdapter:
        settings: Dict[str, Any] = {
            "policy_path": CASES / "policy.yaml",
            "gait_bin": gait_bin(),
            "trace_dir": self.traces,
        }
        settings.update(changes)
        return ToolAdapter(**settings)

    def fake_gait(self, stdout: str, exit_code: int, sleep: str = "0") -> str:
        """A program that answers like a broken gait."""
        answer = self.dir / "answer"
        answer.write_text(stdout)
        path = self.dir / "fake-gait"
        path.write_text(f"#!/bin/sh\ncat {answer}\nsleep {sleep}\nexit {exit_code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    def gait(self, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        home = self.dir / "home"
        home.mkdir(exist_ok=True)
        return subprocess.run(
            [gait_bin(), *words],
            cwd=cwd,
            env={**os.environ, "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
