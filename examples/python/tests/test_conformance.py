"""The tool runs on "allow" and in no other case. A counting executor stands for the tool."""

from __future__ import annotations

import asyncio
import json
import os
import unittest
from pathlib import Path
from typing import Any, Callable, Iterator, List
from unittest import mock

from gait import (
    GaitCommandError,
    GaitError,
    GateEnforcementError,
    IntentError,
    IntentRequest,
    Target,
    capture_intent,
    gate_tool,
    gated,
    parse_primitive,
)

from gait.normal import digests

from .sandbox import CASES, CONTEXT, Sandbox, cases, gait_bin

ALLOW = '{"ok":true,"verdict":"allow"}'


def request(tool_name: str, **args: Any) -> IntentRequest:
    return capture_intent(tool_name, args, CONTEXT, [Target("path", "/workspace/notes.txt", "read")])


class TheTableOfCases(Sandbox):
    def intent(self, name: str) -> IntentRequest:
        document = json.loads((CASES / "intents" / f"{name}.json").read_text())
        return IntentRequest(
            tool_name=document["tool_name"],
            args=document["args"],
            context=CONTEXT,
            targets=[Target(**target) for target in document["targets"]],
            created_at=document["created_at"],
        )

    def run_all(self, call: Callable[[IntentRequest], Any]) -> None:
        for case in cases():
            with self.subTest(case["name"]):
                before = self.executor.calls
                if case["executes"]:
                    call(self.intent(case["name"]))
                elif case["verdict"] is None:
                    with self.assertRaises(GaitCommandError) as failed:
                        call(self.intent(case["name"]))
                    self.assertEqual(failed.exception.exit_code, case["exit"])
                else:
                    with self.assertRaises(GateEnforcementError) as refused:
                        call(self.intent(case["name"]))
                    self.assertEqual(refused.exception.decision.verdict, case["verdict"])
                    self.assertTrue(refused.exception.decision.reason_codes)
                self.assertEqual(self.executor.calls - before, int(case["executes"]))

    def test_context_manager(self) -> None:
        adapter = self.adapter()

        def call(intent: IntentRequest) -> None:
            with gated(adapter, intent) as decision:
                self.assertTrue(decision.allowed)
                self.executor()

        self.run_all(call)

    def test_decorator(self) -> None:
        def call(intent: IntentRequest) -> None:
            @gate_tool(self.adapter(), intent.tool_name, CONTEXT, intent.targets)
            def tool(value: str) -> str:
                return self.executor(value)

            if not intent.tool_name.strip():
                # The decorator finds out before gait does, so gait is asked directly.
                with self.assertRaises(IntentError):
                    tool("x")
                self.adapter().require_allow(intent)
            tool(intent.args["value"])

        self.run_all(call)

    def test_every_decision_leaves_a_trace_that_can_be_read(self) -> None:
        adapter = self.adapter()
        for case in cases():
            if case["verdict"] is None:
                continue
            intent = self.intent(case["name"])
            decision = adapter.gate_intent(intent)
            request = parse_primitive(intent.to_json().encode(), "gait.gate.intent_request")
            self.assertEqual(decision.intent_digest, digests(request)[1], "the verdict is about another intent")
            trace = parse_primitive(Path(decision.trace_path).read_bytes(), "gait.gate.trace")
            self.assertEqual((trace["verdict"], trace["trace_id"]), (case["verdict"], decision.trace_id))
            self.assertEqual(trace["intent_digest"], decision.intent_digest)


class BrokenJudges(Sandbox):
    """Whatever stands where gait should be, the tool runs only on a whole and consistent "allow"."""

    def refuses(self, adapter: Any, exit_code: int, message: str) -> None:
        for call in (self.by_decorator, self.by_context):
            with self.assertRaises(GaitCommandError) as failed:
                call(adapter)
            self.assertEqual(failed.exception.exit_code, exit_code)
            self.assertIn(message, str(failed.exception))
        self.assertEqual(self.executor.calls, 0)

    def by_decorator(self, adapter: Any) -> None:
        gate_tool(adapter, "tool.read", CONTEXT)(self.executor)()

    def by_context(self, adapter: Any) -> None:
        with gated(adapter, request("tool.read")):
            self.executor()

    def test_a_missing_binary(self) -> None:
        self.refuses(self.adapter(gait_bin=str(self.dir / "nothing")), 127, "cannot be run")

    def test_a_binary_that_cannot_run(self) -> None:
        path = self.dir / "text"
        path.write_text("not a program")
        self.refuses(self.adapter(gait_bin=str(path)), 127, "cannot be run")

    def test_a_bad_policy(self) -> None:
        policy = self.dir / "bad.yaml"
        policy.write_text("rules:\n  - {name: a, effect: alow}\n")
        self.refuses(self.adapter(policy_path=policy), 6, "no verdict")
        self.refuses(self.adapter(policy_path=self.dir / "nothing.yaml"), 6, "no verdict")

    def test_no_place_for_traces(self) -> None:
        (self.dir / "file").write_text("")
        self.refuses(self.adapter(trace_dir=self.dir / "file" / "traces"), 1, "no place for traces")

    def test_answers_that_make_no_sense(self) -> None:
        for stdout, exit_code, message in (
            ("", 0, "failed to parse JSON"),
            ("allow", 0, "failed to parse JSON"),
            ('["allow"]', 0, "not a JSON object"),
            ('{"ok":true,"verdict":"allow"', 0, "failed to parse JSON"),
            (ALLOW + ALLOW, 0, "failed to parse JSON"),
            ('{"ok":true,"verdict":"block","verdict":"allow"}', 0, "twice"),
            ('{"ok":true,"verdict":"allow","latency_ms":NaN}', 0, "NaN"),
            ("[" * 100_000, 0, "failed to parse JSON"),
            ('{"verdict":"allow"}', 0, "no verdict"),
            ('{"ok":1,"verdict":"allow"}', 0, "no verdict"),
            ('{"ok":"true","verdict":"allow"}', 0, "no verdict"),
            ('{"ok":false,"error":"no such policy","verdict":"allow"}', 6, "no such policy"),
            ('{"ok":true}', 0, "unknown verdict"),
            ('{"ok":true,"verdict":"ALLOW"}', 0, "unknown verdict"),
            ('{"ok":true,"verdict":["allow"]}', 0, "unknown verdict"),
            ('{"ok":true,"verdict":"allow","reason_codes":"none"}', 0, "reason_codes"),
            ('{"ok":true,"verdict":"allow","simulate_mode":true}', 0, "simulation"),
            (ALLOW, 1, "contradict"),
            (ALLOW, 3, "contradict"),
            (ALLOW, 4, "contradict"),
            ('{"ok":true,"verdict":"block"}', 4, "contradict"),
            ('{"ok":true,"verdict":"require_approval"}', 0, "contradict"),
        ):
            with self.subTest(stdout[:60], exit=exit_code):
                self.refuses(self.adapter(gait_bin=self.fake_gait(stdout, exit_code)), exit_code, message)

    def test_the_fake_can_allow(self) -> None:
        """Or the tests above would prove nothing."""
        self.by_context(self.adapter(gait_bin=self.fake_gait(ALLOW, 0)))
        self.assertEqual(self.executor.calls, 1)

    def test_a_block_in_the_older_convention_is_a_block(self) -> None:
        with mock.patch.dict(os.environ, {"GAIT_GATE_EVAL_EXIT": "reference"}):
            with self.assertRaises(GateEnforcementError) as refused:
                self.adapter().require_allow(request("tool.frobnicate"))
        self.assertEqual(refused.exception.decision.verdict, "block")

    def test_a_judge_that_hangs(self) -> None:
        adapter = self.adapter(gait_bin=self.fake_gait(ALLOW, 0, sleep="20"), timeout=0.3)
        self.refuses(adapter, 124, "did not answer")

    def test_a_judge_that_dies(self) -> None:
        path = Path(self.fake_gait(ALLOW, 0))
        path.write_text(f"#!/bin/sh\ncat {self.dir}/answer\nkill -9 $$\n")
        self.refuses(self.adapter(gait_bin=str(path)), -9, "contradict")


class Decorated(Sandbox):
    def tool(self, function: Callable[..., Any], targets: Any = ()) -> Callable[..., Any]:
        return gate_tool(self.adapter(), "tool.read", CONTEXT, targets)(function)

    def test_the_result_and_the_arguments_are_the_tools(self) -> None:
        def read(path: str, limit: int = 3) -> str:
            return f"{path}:{limit}"

        tool = self.tool(read, lambda path, limit=3: [Target("path", path, "read")])
        self.assertEqual(tool("/workspace/a"), "/workspace/a:3")
        self.assertEqual((tool.__name__, tool(path="/workspace/a", limit=5)), ("read", "/workspace/a:5"))
        with self.assertRaises(GateEnforcementError):
            tool("/etc/shadow")

    def test_what_the_tool_raises_is_not_touched(self) -> None:
        def fail() -> None:
            raise KeyError("x")

        with self.assertRaises(KeyError):
            self.tool(fail)()

    def test_calls_that_cannot_be_written_down_do_not_happen(self) -> None:
        ring: List[Any] = []
        ring.append(ring)
        for value in (object(), b"bytes", {1: "a"}, float("nan"), "\ud800", {1, 2}, ring):
            with self.subTest(repr(value)), self.assertRaises(IntentError):
                self.tool(lambda value: self.executor())(value)
        with self.assertRaises(TypeError):
            self.tool(lambda value: self.executor())()
        self.assertEqual(self.executor.calls, 0)

    def test_targets_that_cannot_be_told(self) -> None:
        with self.assertRaises(IntentError):
            self.tool(self.executor, lambda *_args: [][0])("x")
        self.assertEqual(self.executor.calls, 0)

    def test_a_coroutine_is_judged_when_it_runs(self) -> None:
        async def read(path: str) -> str:
            return str(self.executor(path))

        tool = self.tool(read, lambda path: [Target("path", path, "read")])
        self.assertEqual(asyncio.run(tool("/workspace/a")), "done")
        with self.assertRaises(GateEnforcementError):
            asyncio.run(tool("/etc/shadow"))
        self.assertEqual(self.executor.calls, 1)

    def test_generators_are_refused(self) -> None:
        def lines() -> Iterator[str]:
            yield "a"

        with self.assertRaises(TypeError):
            self.tool(lines)

    def test_all_errors_are_one_family(self) -> None:
        for error in (GateEnforcementError, GaitCommandError, IntentError):
            self.assertTrue(issubclass(error, GaitError))

    def test_the_binary_can_be_a_command_and_comes_from_the_environment(self) -> None:
        tool = gate_tool(self.adapter(gait_bin=["/usr/bin/env", gait_bin()]), "tool.read", CONTEXT)(self.executor)
        tool()
        tool = gate_tool(self.adapter(gait_bin=None), "tool.read", CONTEXT)(self.executor)
        with mock.patch.dict(os.environ, {"GAIT_BIN": str(self.dir / "nothing")}):
            with self.assertRaises(GaitCommandError):
                tool()
        self.assertEqual(self.executor.calls, 1)


class Approvals(Sandbox):
    def test_a_token_lets_one_intent_through(self) -> None:
        self.gait("keys", "init", "--out-dir", str(self.dir / "keys"), "--prefix", "ann", cwd=self.dir)
        private, public = sorted((self.dir / "keys").iterdir())
        intent = capture_intent("tool.delete", {}, CONTEXT, [Target("path", "/workspace/old.txt", "delete")])
        asked = self.adapter().gate_intent(intent)
        self.assertEqual(asked.verdict, "require_approval")
        token = self.dir / "token.json"
        digests = ["--intent-digest", asked.intent_digest, "--policy-digest", asked.policy_digest]
        words = ["--ttl", "1h", "--scope", "tool:tool.delete", "--approver", "ann", "--reason-code", "ok"]
        key = ["--key-mode", "prod", "--private-key", str(private)]
        approved = self.gait("approve", *digests, *words, *key, "--out", str(token), cwd=self.dir)
        self.assertEqual(approved.returncode, 0, approved.stderr)
        adapter = self.adapter(approval_token=token, approval_public_key=public)
        with gated(adapter, intent):
            self.executor()
        other = capture_intent("tool.delete", {}, CONTEXT, [Target("path", "/workspace/new.txt", "delete")])
        with self.assertRaises(GateEnforcementError), gated(adapter, other):
            self.executor()
        self.assertEqual(self.executor.calls, 1)


if __name__ == "__main__":
    unittest.main()
