"""The programs of docs/integrations.md, each over the table of cases: a tool ran if, and only if, the case says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Callable, List

from test_gate_sidecar import CASES, HERE, gait_bin

GUIDE = HERE.parents[1] / "docs" / "integrations.md"
NODE_MAIN = """
import { readFileSync, writeFileSync } from "node:fs";
import { gated } from "./gated.mjs";
gated(JSON.parse(readFileSync(process.argv[2], "utf8")), () => writeFileSync("ran", ""));
"""
GO_MAIN = """package main

import (
	"fmt"
	"os"

	"example.invalid/guide/gate"
)

func main() {
	intent, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = gate.Gated(intent, func() error { return os.WriteFile("ran", nil, 0o600) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


def program(heading: str) -> str:
    """The first program under a heading of the guide."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", GUIDE.read_text(), re.M | re.S)
    found = re.search(r"^```\w+\n(.*?)^```$", section[1] if section else "", re.M | re.S)
    if found is None:
        raise AssertionError(f"{GUIDE} has no program under {heading!r}")
    return found[1]


def without(tool: str, language: str) -> bool:
    if shutil.which(tool):
        return False
    print(f"{tool} is not installed: the guide's program in {language} was not run", file=sys.stderr)
    return True


class Guide(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="gait-guide-")
        self.addCleanup(scratch.cleanup)
        self.dir = Path(scratch.name)
        shutil.copy(HERE / "gate_sidecar.py", self.dir)
        shutil.copy(CASES / "policy.yaml", self.dir)
        (self.dir / "bin").mkdir()
        (self.dir / "bin" / "gait").symlink_to(gait_bin())

    def env(self) -> "dict[str, str]":
        path = f"{self.dir / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "GOFLAGS": "-mod=mod", "GOPROXY": "off"}

    def run_all(self, command: Callable[[str], List[str]]) -> None:
        ran = self.dir / "ran"

        def call(name: str) -> None:
            intent = str(CASES / "intents" / f"{name}.json")
            subprocess.run(command(intent), cwd=self.dir, env=self.env(), capture_output=True, timeout=60, check=False)

        for case in json.loads((CASES / "cases.json").read_text()):
            with self.subTest(case["name"]):
                call(case["name"])
                self.assertEqual(ran.exists(), case["executes"])
                ran.unlink(missing_ok=True)
        (self.dir / "bin" / "gait").unlink()
        (self.dir / "bin" / "gait").symlink_to(self.dir / "nothing")
        call("read_inside")
        self.assertFalse(ran.exists(), "it ran without gait")

    def test_shell(self) -> None:
        if without("jq", "shell"):
            return
        (self.dir / "gated.sh").write_text(program("Shell"))
        self.run_all(lambda intent: ["sh", "gated.sh", intent, "touch", "ran"])

    def test_node(self) -> None:
        if without("node", "JavaScript"):
            return
        (self.dir / "gated.mjs").write_text(program("Node"))
        (self.dir / "main.mjs").write_text(NODE_MAIN)
        self.run_all(lambda intent: ["node", "main.mjs", intent])

    def test_go(self) -> None:
        if without("go", "Go"):
            return
        (self.dir / "gate").mkdir()
        (self.dir / "gate" / "gate.go").write_text(program("Go"))
        (self.dir / "main.go").write_text(GO_MAIN)
        (self.dir / "go.mod").write_text("module example.invalid/guide\n\ngo 1.19\n")
        subprocess.run(["go", "build", "-o", "guide", "."], cwd=self.dir, env=self.env(), timeout=300, check=True)
        self.run_all(lambda intent: ["./guide", intent])


if __name__ == "__main__":
    unittest.main()
