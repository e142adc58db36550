"""Reads the primitives of docs/contracts: intent request, gate result, trace record, and the documents of a runpack.

A document is checked as every reader has to: form, required fields, types, words of closed lists, order, and the
digests and ids that can be computed from it. Fields that a reader does not know are ignored where the contract says so.
No signature is checked, for lack of Ed25519 in Python's library: `gait trace verify` and `gait verify` do that.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any, Callable, Dict, List, Mapping, NoReturn, Tuple

from . import strict_json
from .canonical import canonical, digest
from .errors import PrimitiveError

VERDICTS = ("allow", "dry_run", "require_approval", "block")
TARGET_KINDS = ("path", "url", "host", "repo", "bucket", "table", "queue", "topic", "other")
ENDPOINT_CLASSES = tuple(
    "fs.read fs.write fs.delete proc.exec net.http net.dns ui.click ui.type ui.navigate other".split()
)
MAX_DEPTH = 64

Check = Callable[[str, Any], None]
Shape = Mapping[str, Tuple[bool, Check]]


def parse_primitive(data: bytes, schema_id: str = "") -> Dict[str, Any]:
    """Reads a document of the kind `schema_id`, or of the kind that it says itself.

    A `PrimitiveError` names the first place that is wrong.
    """
    try:
        source = data.decode("utf-8")
        document = strict_json.parse_object(source)
        _depth(document)
    except ValueError as error:
        _wrong("", str(error))
    kind = document.get("schema_id")
    if not isinstance(kind, str) or kind not in SHAPES or schema_id not in ("", kind):
        _wrong("/schema_id", f"{kind!r} is not {schema_id or 'a kind that is known here'}")
    SHAPES[kind]("", document)
    try:
        if kind in FURTHER:
            FURTHER[kind](document)
        if kind == "gait.runpack.manifest" and canonical(document) != source:
            _wrong("", "is not in canonical form")
    except (OverflowError, UnicodeEncodeError) as error:
        _wrong("", str(error))
    return document


def _wrong(place: str, what: str) -> NoReturn:
    raise PrimitiveError(f"{place or 'document'}: {what}")


def _depth(value: Any, depth: int = 1) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _depth(child, depth + 1)


# Checks of values.


def text(place: str, value: Any) -> None:
    if not isinstance(value, str):
        _wrong(place, "is not text")


def filled(place: str, value: Any) -> None:
    text(place, value)
    if not value.strip():
        _wrong(place, "is empty")


def flag(place: str, value: Any) -> None:
    if not isinstance(value, bool):
        _wrong(place, "is not true or false")


def number(place: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _wrong(place, "is not a number")


def mapping(place: str, value: Any) -> None:
    if not isinstance(value, dict):
        _wrong(place, "is not an object")


def anything(_place: str, _value: Any) -> None:
    pass


def form(pattern: str) -> Check:
    compiled = re.compile(pattern, re.ASCII)

    def check(place: str, value: Any) -> None:
        text(place, value)
        if not compiled.fullmatch(value):
            _wrong(place, f"{value!r} is malformed")

    return check


def word(*words: str) -> Check:
    def check(place: str, value: Any) -> None:
        text(place, value)
        if value not in words:
            _wrong(place, f"{value!r} is none of {', '.join(words)}")

    return check


def time(place: str, value: Any) -> None:
    form(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")(place, value)
    try:
        datetime.datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        _wrong(place, f"{value!r} is no time")


def many(item: Check) -> Check:
    def check(place: str, value: Any) -> None:
        if not isinstance(value, list):
            _wrong(place, "is not a list")
        for index, element in enumerate(value):
            item(f"{place}/{index}", element)

    return check


def ordered(item: Check, key: Callable[[Any], str]) -> Check:
    def check(place: str, value: Any) -> None:
        many(item)(place, value)
        keys = [key(element).encode("utf-8", "surrogatepass") for element in value]
        if any(left >= right for left, right in zip(keys, keys[1:])):
            _wrong(place, "is not sorted, or has something twice")

    return check


def args(place: str, value: Any) -> None:
    """Arguments are compared without white space around names, so names must differ without it."""
    mapping(place, value)
    _argument_names(place, value)


def _argument_names(place: str, value: Any) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _argument_names(f"{place}/{index}", item)
    if isinstance(value, dict):
        names = [name.strip() for name in value]
        if "" in names:
            _wrong(place, "has an argument without a name")
        if len(set(names)) != len(names):
            _wrong(place, "has an argument twice")
        for name, item in value.items():
            _argument_names(f"{place}/{name}", item)


def record(fields: Shape, closed: bool = False) -> Check:
    """An object with these fields, each required or not; `closed` if no other may be there."""

    def check(place: str, value: Any) -> None:
        mapping(place, value)
        for name, (required, inner) in fields.items():
            if name in value:
                inner(f"{place}/{name}", value[name])
            elif required:
                _wrong(f"{place}/{name}", "is missing")
        for name in value:
            if closed and name not in fields:
                _wrong(f"{place}/{name}", "is unknown")

    return check


# The documents.

HEX64 = form("[0-9a-f]{64}")
TRACE_ID = form("[0-9a-f]{24}")
RUN_ID = form("run_[A-Za-z0-9_-]+")
CODES = ordered(text, str)


def _document(schema_id: str, fields: Shape, closed: bool = False) -> Check:
    common: Shape = {
        "schema_id": (True, word(schema_id)),
        "schema_version": (True, word("1.0.0")),
        "created_at": (True, time),
        "producer_version": (True, text),
    }
    return record({**common, **fields}, closed)


TARGET: Shape = {
    "kind": (True, word(*TARGET_KINDS)),
    "value": (True, filled),
    "operation": (False, text),
    "sensitivity": (False, text),
    "endpoint_class": (False, word(*ENDPOINT_CLASSES)),
    "endpoint_domain": (False, text),
    "destructive": (False, flag),
}
PROVENANCE: Shape = {
    "arg_path": (True, text),
    "source": (True, word("user", "tool_output", "external", "system")),
    "source_ref": (False, text),
    "integrity_digest": (False, HEX64),
}
SKILL: Shape = {
    "skill_name": (True, filled),
    "skill_version": (False, text),
    "source": (True, filled),
    "publisher": (True, filled),
    "digest": (False, HEX64),
    "signature_key_id": (False, text),
}
CONTEXT: Shape = {
    "identity": (True, filled),
    "workspace": (True, filled),
    "risk_class": (True, filled),
    "session_id": (False, text),
    "request_id": (False, text),
}
SIGNATURE: Shape = {
    "alg": (True, word("ed25519")),
    "key_id": (True, HEX64),
    "sig": (True, filled),
    "signed_digest": (False, HEX64),
}
RECEIPT: Shape = {
    "ref_id": (True, text),
    "source_type": (True, text),
    "source_locator": (True, text),
    "query_digest": (True, HEX64),
    "content_digest": (True, HEX64),
    "retrieved_at": (True, time),
    "redaction_mode": (True, text),
}


def _timeline(place: str, value: Any) -> None:
    if value is not None:
        many(record({"event": (True, text), "ts": (True, time), "ref": (False, text)}))(place, value)


SHAPES: Dict[str, Check] = {
    "gait.gate.intent_request": _document(
        "gait.gate.intent_request",
        {
            "tool_name": (True, filled),
            "args": (True, args),
            "args_digest": (False, HEX64),
            "intent_digest": (False, HEX64),
            "targets": (True, many(record(TARGET))),
            "arg_provenance": (False, many(record(PROVENANCE))),
            "skill_provenance": (False, record(SKILL)),
            "context": (True, record(CONTEXT)),
        },
    ),
    "gait.gate.result": _document(
        "gait.gate.result",
        {"verdict": (True, word(*VERDICTS)), "reason_codes": (True, CODES), "violations": (True, CODES)},
        closed=True,
    ),
    "gait.gate.trace": _document(
        "gait.gate.trace",
        {
            "trace_id": (True, TRACE_ID),
            "tool_name": (True, filled),
            "args": (False, mapping),
            "args_digest": (True, HEX64),
            "intent_digest": (True, HEX64),
            "policy_digest": (True, HEX64),
            "verdict": (True, word(*VERDICTS)),
            "violations": (False, CODES),
            "reason_codes": (False, CODES),
            "latency_ms": (False, number),
            "correlation_id": (False, text),
            "skill_provenance": (False, record(SKILL)),
            "enforced": (False, flag),
            "simulated_verdict": (False, word(*VERDICTS)),
            "run_id": (False, text),
            "matched_rule": (False, text),
            "target": (False, record(TARGET, closed=True)),
            "approval": (False, record({"answer": (True, word("allow", "block", "timed_out", "unavailable"))})),
            "signature": (False, record(SIGNATURE)),
        },
    ),
    "gait.runpack.manifest": _document(
        "gait.runpack.manifest",
        {
            "run_id": (True, RUN_ID),
            "capture_mode": (True, word("reference", "raw")),
            "files": (
                True,
                ordered(record({"path": (True, filled), "sha256": (True, HEX64)}), lambda file: str(file["path"])),
            ),
            "manifest_digest": (True, HEX64),
            "signatures": (False, many(record(SIGNATURE))),
        },
    ),
    "gait.runpack.run": _document(
        "gait.runpack.run",
        {
            "run_id": (True, RUN_ID),
            "env": (True, record({"os": (True, text), "arch": (True, text), "runtime": (True, text)})),
            "timeline": (True, _timeline),
        },
    ),
    "gait.runpack.intent": _document(
        "gait.runpack.intent",
        {
            "run_id": (True, text),
            "intent_id": (True, filled),
            "tool_name": (True, filled),
            "args_digest": (True, HEX64),
            "args": (False, mapping),
        },
    ),
    "gait.runpack.result": _document(
        "gait.runpack.result",
        {
            "run_id": (True, text),
            "intent_id": (True, filled),
            "status": (True, filled),
            "result_digest": (True, HEX64),
            "result": (False, anything),
        },
    ),
    "gait.runpack.refs": _document(
        "gait.runpack.refs", {"run_id": (True, text), "receipts": (True, many(record(RECEIPT)))}
    ),
}


# What a document says about itself.


def trace_id(policy_digest: str, intent_digest: str, verdict: str) -> str:
    """The id of a decision."""
    return hashlib.sha256(f"{policy_digest}:{intent_digest}:{verdict}".encode()).hexdigest()[:24]


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The digest that a manifest carries of itself."""
    return digest({**_without(manifest, "signatures"), "manifest_digest": ""})


def signed_digest(document: Mapping[str, Any]) -> str:
    """What a signature of the document covers."""
    return digest(_without(document, "signature", "signatures"))


def _without(document: Mapping[str, Any], *names: str) -> Dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _same(place: str, said: Any, computed: str) -> None:
    if said != computed:
        _wrong(place, f"is {said}, and {computed} by the document's own content")


def _trace(document: Dict[str, Any]) -> None:
    computed = trace_id(document["policy_digest"], document["intent_digest"], document["verdict"])
    _same("/trace_id", document["trace_id"], computed)
    if "args" in document:
        _same("/args_digest", document["args_digest"], digest(document["args"]))
    signatures: List[Dict[str, Any]] = [document["signature"]] if "signature" in document else []
    _signatures(document, signatures)


def _manifest(document: Dict[str, Any]) -> None:
    _same("/manifest_digest", document["manifest_digest"], manifest_digest(document))
    _signatures(document, document.get("signatures", []))


def _signatures(document: Dict[str, Any], signatures: List[Dict[str, Any]]) -> None:
    for signature in signatures:
        if "signed_digest" in signature:
            _same("/signature/signed_digest", signature["signed_digest"], signed_digest(document))


def _covered(name: str) -> Callable[[Dict[str, Any]], None]:
    def check(document: Dict[str, Any]) -> None:
        if name in document:
            _same(f"/{name}_digest", document[f"{name}_digest"], digest(document[name]))

    return check


FURTHER: Dict[str, Callable[[Dict[str, Any]], None]] = {
    "gait.gate.trace": _trace,
    "gait.runpack.manifest": _manifest,
    "gait.runpack.intent": _covered("args"),
    "gait.runpack.result": _covered("result"),
}
