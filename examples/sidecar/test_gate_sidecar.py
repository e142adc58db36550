"""The sidecar: its envelope and exit codes over the table of cases, and what it makes of broken input and judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

HERE = Path(__file__).resolve().parent
CASES = HERE.parent / "gate_cases"
ALLOW = '{"ok":true,"verdict":"allow"}'


def gait_bin() -> str:
    path = os.environ.get("GAIT_BIN", "")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"GAIT_BIN={path!r} is no program: set it to a built gait")
    return os.path.abspath(path)


class Sidecar(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="gait-sidecar-")
        self.addCleanup(scratch.cleanup)
        self.dir = Path(scratch.name)

    def sidecar(
        self, *words: str, stdin: bytes = b"", gait: Optional[str] = None, env: Optional[Dict[str, str]] = None
    ) -> Tuple[int, Dict[str, Any]]:
        command: List[str] = [sys.executable, "-B", str(HERE / "gate_sidecar.py")]
        command += ["--policy", str(CASES / "policy.yaml"), "--gait-bin", gait or gait_bin(), *words]
        done = subprocess.run(
            command, cwd=self.dir, input=stdin, env={**os.environ, **(env or {})}, capture_output=True, check=False
        )
        self.assertEqual(done.stderr, b"")
        lines = done.stdout.decode().splitlines()
        self.assertEqual(len(lines), 1)
        answer: Dict[str, Any] = json.loads(lines[0])
        return done.returncode, answer

    def test_the_table_of_cases_from_both_inputs(self) -> None:
        for case in json.loads((CASES / "cases.json").read_text()):
            path = CASES / "intents" / f"{case['name']}.json"
            for words, stdin in (([], path.read_bytes()), (["--intent-file", str(path)], b"")):
                with self.subTest(case["name"], words=words):
                    exit_code, answer = self.sidecar(*words, stdin=stdin)
                    self.assertEqual((exit_code, answer["exit_code"]), (case["exit"], case["exit"]))
                    self.assertEqual(answer["ok"], case["verdict"] is not None)
                    self.assertEqual(answer["gate_result"].get("verdict"), case["verdict"])
                    self.assertEqual(set(answer), {"ok", "exit_code", "gate_result", "trace_path"})
                    executes = answer["ok"] and answer["gate_result"].get("verdict") == "allow"
                    self.assertEqual(executes, case["executes"])
                    if answer["ok"]:
                        trace = json.loads((self.dir / answer["trace_path"]).read_text())
                        self.assertEqual((trace["schema_id"], trace["verdict"]), ("gait.gate.trace", case["verdict"]))

    def test_what_is_no_intent_is_not_judged(self) -> None:
        good = (CASES / "intents" / "read_inside.json").read_bytes()
        for stdin in (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"\xff",
            b"{",
            b"[" * 200_000,
            good.replace(b"gait.gate.intent_request", b"gait.gate.result"),
            good.replace(b'"1.0.0"', b'"2.0.0"'),
            b'{"pad": "' + b"x" * (8 << 20) + b'"}',
        ):
            with self.subTest(stdin[:40]):
                exit_code, answer = self.sidecar(stdin=stdin)
                self.assertEqual((exit_code, answer["ok"]), (2, False))
                self.assertTrue(answer["error"].startswith("invalid intent request: "), answer)
        exit_code, answer = self.sidecar("--intent-file", str(self.dir / "nothing.json"))
        self.assertEqual((exit_code, answer["ok"]), (2, False))
        self.assertEqual(list(self.dir.iterdir()), [])

    def fake(self, script: str) -> str:
        path = self.dir / "fake"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return str(path)

    def test_broken_judges_never_come_out_as_ok(self) -> None:
        good = (CASES / "intents" / "read_inside.json").read_bytes()
        for script, exits in (
            ("exit 0", 6),
            ("echo allow", 6),
            ("echo '[]'", 6),
            (f"echo '{ALLOW}'; echo '{ALLOW}'", 6),
            (f"echo '{ALLOW}'; exit 1", 1),
            (f"echo '{ALLOW}'; exit 3", 6),
            (f"echo '{ALLOW}'; exit 4", 6),
            ("echo '{\"ok\":true,\"verdict\":\"block\"}'", 6),
            ("echo '{\"ok\":true,\"verdict\":\"ALLOW\"}'", 6),
            ("echo '{\"ok\":false,\"verdict\":\"allow\"}'", 6),
            ("echo '{\"verdict\":\"allow\"}'", 6),
            ("echo oops >&2; exit 9", 9),
            ("kill -9 $$", 6),
        ):
            with self.subTest(script):
                exit_code, answer = self.sidecar(stdin=good, gait=self.fake(script))
                self.assertEqual((exit_code, answer["ok"]), (exits, False))
        exit_code, answer = self.sidecar(stdin=good, gait=self.fake(f"echo '{ALLOW}'"))
        self.assertEqual((exit_code, answer["ok"]), (0, True), "the fake can allow, or this proves nothing")

    def test_a_missing_binary(self) -> None:
        good = (CASES / "intents" / "read_inside.json").read_bytes()
        exit_code, answer = self.sidecar(stdin=good, gait=str(self.dir / "nothing"))
        self.assertEqual((exit_code, answer["ok"]), (127, False))
        self.assertIn("cannot be run", answer["stderr"])

    def test_a_block_exits_3_whatever_the_environment_says(self) -> None:
        blocked = (CASES / "intents" / "read_outside.json").read_bytes()
        exit_code, _ = self.sidecar(stdin=blocked, env={"GAIT_GATE_EVAL_EXIT": "reference"})
        self.assertEqual(exit_code, 3)

    def test_the_flags_reach_gait(self) -> None:
        good = (CASES / "intents" / "read_inside.json").read_bytes()
        exit_code, answer = self.sidecar("--trace-out", "t.json", stdin=good)
        self.assertEqual((exit_code, answer["trace_path"]), (0, "t.json"))
        exit_code, answer = self.sidecar("--profile", "oss-prod", stdin=good)
        self.assertEqual(exit_code, 6)
        self.assertIn("oss-prod", answer["gate_result"]["error"])


if __name__ == "__main__":
    unittest.main()
