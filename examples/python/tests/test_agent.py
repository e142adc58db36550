"""The example agent: its gates hold, and where it goes around them, `gait exec` holds. All seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

from .sandbox import EXAMPLES, Sandbox, gait_bin

AGENT = EXAMPLES / "python" / "agent.py"
POLICY = EXAMPLES / "python" / "agent_policy.yaml"


class Agent(Sandbox):
    def setUp(self) -> None:
        super().setUp()
        for name in ("notes", "settings"):
            (self.dir / name).mkdir()

    def alone(self, how: str, path: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-B", str(AGENT), how, path]
        env = {**os.environ, "GAIT_BIN": gait_bin()}
        return subprocess.run(command, cwd=self.dir, env=env, capture_output=True, text=True, timeout=60, check=False)

    def under_exec(self, how: str, path: str) -> "subprocess.CompletedProcess[str]":
        words = ["exec", "--policy", str(POLICY), "--run-id", f"run_{how}", "--fail-on", "block"]
        return self.gait(*words, "--", sys.executable, "-B", str(AGENT), how, path, cwd=self.dir)

    def test_the_gates_let_through_and_stop(self) -> None:
        for how in ("decorator", "context"):
            with self.subTest(how):
                self.assertEqual(self.alone(how, f"notes/{how}.txt").stdout, "written\n")
                self.assertTrue((self.dir / "notes" / f"{how}.txt").exists())
                stopped = self.alone(how, "settings/app.ini")
                self.assertEqual(stopped.returncode, 1, stopped.stderr)
                self.assertIn("matched_rule_settings_are_for_people", stopped.stdout)
                self.assertFalse((self.dir / "settings" / "app.ini").exists())

    def test_around_the_gate_nothing_stops_it(self) -> None:
        """Or the next test would prove nothing."""
        self.assertEqual(self.alone("around", "settings/app.ini").stdout, "written\n")
        self.assertTrue((self.dir / "settings" / "app.ini").exists())

    def test_around_the_gate_exec_stops_it(self) -> None:
        stopped = self.under_exec("around", "settings/app.ini")
        self.assertEqual(stopped.returncode, 3, stopped.stderr)
        self.assertIn("refused: [Errno 13]", stopped.stdout)
        self.assertIn("by rule settings-are-for-people", stopped.stderr)
        self.assertEqual(list((self.dir / "settings").iterdir()), [])
        verified = self.gait("verify", "run_around", "--json", cwd=self.dir)
        self.assertEqual((verified.returncode, json.loads(verified.stdout)["ok"]), (0, True))
        blocked = self.gait("run", "inspect", "--from", "run_around", cwd=self.dir).stdout
        self.assertRegex(blocked, r"block +fs\.write .*settings/app\.ini")

    def test_with_the_gate_exec_lets_the_same_script_work(self) -> None:
        done = self.under_exec("decorator", "notes/today.txt")
        self.assertEqual((done.returncode, done.stdout), (0, "written\n"), done.stderr)
        self.assertEqual(Path(self.dir, "notes", "today.txt").read_text(), "changed by the agent\n")


if __name__ == "__main__":
    unittest.main()
