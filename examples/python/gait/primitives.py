"""Reads the four primitives: intent request, gate result, trace record and a runpack's manifest.

Checks what every consumer has to: schema id and version, required fields, types, enum values and digests' form. Unknown
fields are kept and do not matter, since later 1.0.0 producers may add some. It checks no signature: `gait trace verify`
and `gait verify` do.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Union

from . import strict_json
from .errors import PrimitiveError
from .intent import ArgProvenance, Context, IntentRequest, SkillProvenance, Target

VERDICTS = ("allow", "dry_run", "require_approval", "block")
TARGET_KINDS = ("path", "url", "host", "repo", "bucket", "table", "queue", "topic", "other")
ENDPOINT_CLASSES = (
    "fs.read",
    "fs.write",
    "fs.delete",
    "proc.exec",
    "net.http",
    "net.dns",
    "ui.click",
    "ui.type",
    "ui.navigate",
    "other",
)
PROVENANCE_SOURCES = ("user", "tool_output", "external", "system")
CAPTURE_MODES = ("reference", "raw")
HEX64 = re.compile(r"[0-9a-f]{64}")
HEX24 = re.compile(r"[0-9a-f]{24}")
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class GateResult:
    """`gait.gate.result` 1.0.0."""

    verdict: str
    reason_codes: List[str]
    violations: List[str]
    created_at: str
    producer_version: str


@dataclass(frozen=True)
class TraceRecord:
    """`gait.gate.trace` 1.0.0."""

    trace_id: str
    tool_name: str
    verdict: str
    args_digest: str
    intent_digest: str
    policy_digest: str
    violations: List[str]
    created_at: str
    producer_version: str
    raw: Dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """`gait.runpack.manifest` 1.0.0; `files` maps a path to the sha256 of its content."""

    run_id: str
    capture_mode: str
    files: Dict[str, str]
    manifest_digest: str
    created_at: str
    producer_version: str
    raw: Dict[str, Any]


Primitive = Union[IntentRequest, GateResult, TraceRecord, Manifest]


def parse_primitive(text: str) -> Primitive:
    """Reads a document of any of the four kinds; its `schema_id` says which."""
    try:
        document = _Fields("document", strict_json.parse_object(text))
    except ValueError as error:
        raise PrimitiveError(f"document: {error}") from error
    schema_id = document.text("schema_id")
    parse = PARSERS.get(schema_id)
    if parse is None:
        raise PrimitiveError(f"document.schema_id: {schema_id!r} is none of {', '.join(sorted(PARSERS))}")
    if document.text("schema_version") != "1.0.0":
        raise PrimitiveError(f"document.schema_version: {document.text('schema_version')!r} is not 1.0.0")
    document.time("created_at")
    document.text("producer_version")
    return parse(document)


class _Fields:
    """An object, read field by field; every error names the field's place."""

    def __init__(self, place: str, fields: Mapping[str, Any]) -> None:
        self.place = place
        self.fields = dict(fields)

    def wrong(self, key: str, what: str) -> PrimitiveError:
        return PrimitiveError(f"{self.place}.{key}: {what}")

    def has(self, key: str) -> bool:
        return key in self.fields

    def get(self, key: str, kind: type, what: str) -> Any:
        if key not in self.fields:
            raise self.wrong(key, "is missing")
        value = self.fields[key]
        if not isinstance(value, kind):
            raise self.wrong(key, f"is not {what}")
        return value

    def text(self, key: str) -> str:
        value: str = self.get(key, str, "text")
        return value

    def filled(self, key: str) -> str:
        value = self.text(key)
        if not value.strip():
            raise self.wrong(key, "is empty")
        return value

    def optional_text(self, key: str) -> str:
        return self.text(key) if self.has(key) else ""

    def one_of(self, key: str, values: "tuple[str, ...]") -> str:
        value = self.text(key)
        if value not in values:
            raise self.wrong(key, f"{value!r} is none of {', '.join(values)}")
        return value

    def digest(self, key: str, form: "re.Pattern[str]" = HEX64) -> str:
        value = self.text(key)
        if not form.fullmatch(value):
            raise self.wrong(key, f"is no digest: {value!r}")
        return value

    def time(self, key: str) -> str:
        value = self.text(key)
        parts = TIME.fullmatch(value)
        try:
            if parts is None:
                raise ValueError
            datetime.datetime.strptime(parts[1], "%Y-%m-%dT%H:%M:%S")
        except ValueError:
            raise self.wrong(key, f"is no RFC 3339 time: {value!r}") from None
        return value

    def object(self, key: str) -> "_Fields":
        return _Fields(f"{self.place}.{key}", self.get(key, dict, "an object"))

    def objects(self, key: str) -> "List[_Fields]":
        found = []
        for index, item in enumerate(self.get(key, list, "a list")):
            if not isinstance(item, dict):
                raise self.wrong(f"{key}[{index}]", "is not an object")
            found.append(_Fields(f"{self.place}.{key}[{index}]", item))
        return found

    def texts(self, key: str) -> List[str]:
        value: List[str] = self.get(key, list, "a list")
        if not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "is not a list of text")
        return value


def _intent(document: _Fields) -> IntentRequest:
    context = document.object("context")
    sources = document.objects("arg_provenance") if document.has("arg_provenance") else []
    for key in ("args_digest", "intent_digest"):
        if document.has(key):
            document.digest(key)
    return IntentRequest(
        tool_name=document.filled("tool_name"),
        args=document.object("args").fields,
        context=Context(
            identity=context.filled("identity"),
            workspace=context.filled("workspace"),
            risk_class=context.filled("risk_class"),
            session_id=context.optional_text("session_id"),
            request_id=context.optional_text("request_id"),
        ),
        targets=[_target(target) for target in document.objects("targets")],
        arg_provenance=[_provenance(source) for source in sources],
        skill_provenance=_skill(document.object("skill_provenance")) if document.has("skill_provenance") else None,
        created_at=document.time("created_at"),
        producer_version=document.text("producer_version"),
    )


def _target(target: _Fields) -> Target:
    return Target(
        kind=target.one_of("kind", TARGET_KINDS),
        value=target.text("value"),
        operation=target.optional_text("operation"),
        sensitivity=target.optional_text("sensitivity"),
        endpoint_class=target.one_of("endpoint_class", ENDPOINT_CLASSES) if target.has("endpoint_class") else "",
        endpoint_domain=target.optional_text("endpoint_domain"),
        destructive=target.get("destructive", bool, "true or false") if target.has("destructive") else False,
    )


def _provenance(source: _Fields) -> ArgProvenance:
    return ArgProvenance(
        arg_path=source.text("arg_path"),
        source=source.one_of("source", PROVENANCE_SOURCES),
        source_ref=source.optional_text("source_ref"),
        integrity_digest=source.digest("integrity_digest") if source.has("integrity_digest") else "",
    )


def _skill(skill: _Fields) -> SkillProvenance:
    return SkillProvenance(
        skill_name=skill.filled("skill_name"),
        source=skill.filled("source"),
        publisher=skill.filled("publisher"),
        skill_version=skill.optional_text("skill_version"),
        digest=skill.digest("digest") if skill.has("digest") else "",
        signature_key_id=skill.optional_text("signature_key_id"),
    )


def _gate_result(document: _Fields) -> GateResult:
    return GateResult(
        verdict=document.one_of("verdict", VERDICTS),
        reason_codes=document.texts("reason_codes"),
        violations=document.texts("violations"),
        created_at=document.time("created_at"),
        producer_version=document.text("producer_version"),
    )


def _trace(document: _Fields) -> TraceRecord:
    return TraceRecord(
        trace_id=document.digest("trace_id", HEX24),
        tool_name=document.filled("tool_name"),
        verdict=document.one_of("verdict", VERDICTS),
        args_digest=document.digest("args_digest"),
        intent_digest=document.digest("intent_digest"),
        policy_digest=document.digest("policy_digest"),
        violations=document.texts("violations") if document.has("violations") else [],
        created_at=document.time("created_at"),
        producer_version=document.text("producer_version"),
        raw=document.fields,
    )


def _manifest(document: _Fields) -> Manifest:
    files: Dict[str, str] = {}
    for entry in document.objects("files"):
        path = entry.filled("path")
        if path in files:
            raise entry.wrong("path", f"{path!r} is listed twice")
        files[path] = entry.digest("sha256")
    return Manifest(
        run_id=document.filled("run_id"),
        capture_mode=document.one_of("capture_mode", CAPTURE_MODES),
        files=files,
        manifest_digest=document.digest("manifest_digest"),
        created_at=document.time("created_at"),
        producer_version=document.text("producer_version"),
        raw=document.fields,
    )


PARSERS: Dict[str, Callable[[_Fields], Primitive]] = {
    "gait.gate.intent_request": _intent,
    "gait.gate.result": _gate_result,
    "gait.gate.trace": _trace,
    "gait.runpack.manifest": _manifest,
}
