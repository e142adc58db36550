#!/usr/bin/env python3
"""Runs the shell steps of a GitHub workflow's job, or of a composite action, on this machine.

    workflow_steps.py FILE DIRECTORY [--job NAME] [--input NAME=VALUE]... [--output STEP.NAME=VALUE]...

Only what the files of this repository use is understood: `run` with `env`, `if` made of `always()`, comparisons with ''
and `&&`, and `${{ }}` over inputs, outputs of steps and `github.action_path`. Anything else is an error, so that a step
is never run as something that GitHub would not run. Steps with `uses` are named and left out; `--output` says what they
would have answered. The exit code is that of the first step that failed; later steps run only with `always()`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

from ruamel.yaml import YAML

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


class Job:
    def __init__(self, file: Path, job: str, inputs: Dict[str, str], outputs: Dict[str, str]) -> None:
        document: Dict[str, Any] = YAML(typ="safe").load(file.read_text())
        self.steps: List[Dict[str, Any]] = (document["jobs"][job] if job else document["runs"])["steps"]
        declared: Dict[str, Any] = document.get("inputs") or {}
        unknown = set(inputs) - set(declared)
        if unknown:
            raise SystemExit(f"{file} has no input {', '.join(sorted(unknown))}")
        self.values = {f"inputs.{name}": str(declared[name].get("default", "")) for name in declared}
        self.values.update({f"inputs.{name}": value for name, value in inputs.items()})
        self.values.update({f"steps.{step}": value for step, value in outputs.items()})
        self.values["github.action_path"] = str(file.resolve().parent)

    def value(self, name: str) -> str:
        if name.startswith("steps."):
            return self.values.get(name, "")
        if name not in self.values:
            raise SystemExit(f"cannot tell what {name} is")
        return self.values[name]

    def filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.value(found[1]), text)

    def wanted(self, condition: str, failed: bool) -> bool:
        always = False
        for term in condition.split("&&") if condition else []:
            if term.strip() == "always()":
                always = True
                continue
            compared = re.fullmatch(r"\s*([\w.-]+)\s*(==|!=)\s*''\s*", term)
            if not compared:
                raise SystemExit(f"cannot tell what `if: {condition}` means")
            if (self.value(compared[1]) == "") != (compared[2] == "=="):
                return False
        return always or not failed

    def run(self, directory: Path, runner_temp: Path) -> int:
        exit_code = 0
        for index, step in enumerate(self.steps):
            name = step.get("name", step.get("id", step.get("uses", f"step {index}")))
            if not self.wanted(str(step.get("if", "")), exit_code != 0):
                print(f"-- {name}: left out, by its condition", flush=True)
                continue
            if "uses" in step:
                print(f"-- {name}: left out, it uses {step['uses']}", flush=True)
                continue
            print(f"-- {name}", flush=True)
            status, outputs = self.step(step, directory, runner_temp)
            self.values.update({f"steps.{step.get('id', index)}.outputs.{key}": value for key, value in outputs.items()})
            exit_code = exit_code or status
        return exit_code

    def step(self, step: Dict[str, Any], directory: Path, runner_temp: Path) -> Tuple[int, Dict[str, str]]:
        files = {name: runner_temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        env = {**os.environ, "RUNNER_TEMP": str(runner_temp), **{name: str(file) for name, file in files.items()}}
        env.update({name: self.filled(str(value)) for name, value in (step.get("env") or {}).items()})
        if EXPRESSION.search(step["run"]):
            raise SystemExit("a script with an expression in it: hand it over in env")
        script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        status = subprocess.run(script, cwd=directory, env=env, stdin=subprocess.DEVNULL, check=False).returncode
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        return status, dict(line.split("=", 1) for line in lines)


def pair(text: str) -> Tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the shell steps of a workflow or an action.")
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--job", default="")
    parser.add_argument("--input", type=pair, action="append", default=[])
    parser.add_argument("--output", type=pair, action="append", default=[])
    args = parser.parse_args()
    outputs = {name.replace(".", ".outputs.", 1): value for name, value in args.output}
    job = Job(args.file, args.job, dict(args.input), outputs)
    with tempfile.TemporaryDirectory(prefix="gait-runner-") as runner_temp:
        return job.run(args.directory, Path(runner_temp))


if __name__ == "__main__":
    sys.exit(main())
