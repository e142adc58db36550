"""The fixtures of docs/contracts/fixtures/v1: each document is read as its `expect.json` says."""

from __future__ import annotations

import json
import math
import struct
import unittest
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from gait import PrimitiveError, capture_intent, parse_primitive
from gait.canonical import canonical, digest
from gait.normal import digests as intent_digests
from gait.primitives import manifest_digest, signed_digest, trace_id

from .sandbox import CASES, CONTEXT, ROOT, cases

FIXTURES = ROOT / "docs" / "contracts" / "fixtures" / "v1"
PRIMITIVES = {
    "gate_result": "gait.gate.result",
    "intent_entry": "gait.runpack.intent",
    "intent_request": "gait.gate.intent_request",
    "refs": "gait.runpack.refs",
    "result_entry": "gait.runpack.result",
    "run": "gait.runpack.run",
    "runpack_manifest": "gait.runpack.manifest",
    "trace_record": "gait.gate.trace",
}


def computed(document: Dict[str, Any]) -> Dict[str, str]:
    """What this package computes of a document, by the names of `expect.json`."""
    found = {}
    if document["schema_id"] == "gait.gate.intent_request":
        found["args_digest"], found["intent_digest"] = intent_digests(document)
        return found
    for name in ("args", "result"):
        if name in document:
            found[f"{name}_digest"] = digest(document[name])
    if "trace_id" in document:
        found["trace_id"] = trace_id(document["policy_digest"], document["intent_digest"], document["verdict"])
        found["signed_digest"] = signed_digest(document)
    if "manifest_digest" in document:
        found["manifest_digest"] = manifest_digest(document)
    return found


class Fixtures(unittest.TestCase):
    def documents(self, kind: str) -> Iterator[Tuple[str, Path, Dict[str, Any]]]:
        for primitive in PRIMITIVES:
            expected = json.loads((FIXTURES / primitive / "expect.json").read_text())[kind]
            files = {path.name for path in (FIXTURES / primitive / kind).iterdir()}
            self.assertEqual(files, set(expected), f"{primitive}/{kind}")
            for name, facts in sorted(expected.items()):
                yield primitive, FIXTURES / primitive / kind / name, facts

    def test_every_primitive_has_a_reader_here(self) -> None:
        found = {path.parent.name for path in FIXTURES.glob("*/expect.json")}
        self.assertEqual(found, set(PRIMITIVES))

    def test_valid_documents_are_accepted_and_their_digests_are_the_same(self) -> None:
        compared = 0
        for primitive, path, facts in self.documents("valid"):
            with self.subTest(f"{primitive}/{path.name}"):
                document = parse_primitive(path.read_bytes(), PRIMITIVES[primitive])
                for name, value in facts.items():
                    self.assertEqual(computed(document)[name], value, name)
                    compared += 1
        self.assertGreater(compared, 25)

    def test_invalid_documents_are_refused(self) -> None:
        for primitive, path, facts in self.documents("invalid"):
            with self.subTest(f"{primitive}/{path.name}"):
                lenient = facts["reason"] in ("unknown_field", "unknown_word", "wrong_type")
                if facts["refused_by"] == ["schema"] and lenient:
                    # Producers must not write these; readers may take them, says `why`.
                    self.assertTrue(facts["why"])
                    continue
                with self.assertRaises(PrimitiveError) as refused:
                    parse_primitive(path.read_bytes(), PRIMITIVES[primitive])
                if facts["reason"] in ("missing_field", "unknown_word", "wrong_constant"):
                    self.assertIn(facts["at"], str(refused.exception))


class OwnIntents(unittest.TestCase):
    def test_what_the_wrapper_writes_is_an_intent(self) -> None:
        intent = capture_intent("tool.read", {"path": Path("/a"), "n": (1, 2.5, None)}, CONTEXT)
        document = parse_primitive(intent.to_json().encode())
        self.assertEqual(document["args"], {"path": "/a", "n": [1, 2.5, None]})

    def test_the_cases_are_intents(self) -> None:
        for case in cases():
            data = (CASES / "intents" / f"{case['name']}.json").read_bytes()
            if case["verdict"] is None:
                with self.assertRaises(PrimitiveError):
                    parse_primitive(data)
            else:
                parse_primitive(data)


class CanonicalNumbers(unittest.TestCase):
    def test_samples_of_the_rfc(self) -> None:
        """RFC 8785, appendix B: the double's bits and its text."""
        for bits, text in (
            ("0000000000000000", "0"),
            ("8000000000000000", "0"),
            ("0000000000000001", "5e-324"),
            ("8000000000000001", "-5e-324"),
            ("7fefffffffffffff", "1.7976931348623157e+308"),
            ("4340000000000000", "9007199254740992"),
            ("c340000000000000", "-9007199254740992"),
            ("4430000000000000", "295147905179352830000"),
            ("44b52d02c7e14af5", "9.999999999999997e+22"),
            ("44b52d02c7e14af6", "1e+23"),
            ("44b52d02c7e14af7", "1.0000000000000001e+23"),
            ("444b1ae4d6e2ef4e", "999999999999999700000"),
            ("444b1ae4d6e2ef4f", "999999999999999900000"),
            ("444b1ae4d6e2ef50", "1e+21"),
            ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
            ("3eb0c6f7a0b5ed8d", "0.000001"),
            ("41b3de4355555553", "333333333.3333332"),
            ("becbf647612f3696", "-0.0000033333333333333333"),
            ("43143ff3c1cb0959", "1424953923781206.2"),
        ):
            value = struct.unpack(">d", bytes.fromhex(bits))[0]
            self.assertEqual(canonical(value), text, bits)

    def test_the_text_is_the_same_number(self) -> None:
        for exponent in range(-320, 308):
            for digits in (1.0, 1.5, 9.999999999999998):
                value = math.ldexp(digits, int(exponent * 3.3219))
                self.assertEqual(float(canonical(value)), value)


if __name__ == "__main__":
    unittest.main()
