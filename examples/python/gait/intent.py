"""Intents: a tool call written down so that it can be judged (`gait.gate.intent_request` 1.0.0)."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

from . import strict_json
from ._version import __version__
from .errors import IntentError

SCHEMA_ID = "gait.gate.intent_request"
SCHEMA_VERSION = "1.0.0"


@dataclass(frozen=True)
class Target:
    """What a call acts on. An empty `endpoint_class` is inferred by gait from kind and operation."""

    kind: str
    value: str
    operation: str = ""
    sensitivity: str = ""
    endpoint_class: str = ""
    endpoint_domain: str = ""
    destructive: bool = False


@dataclass(frozen=True)
class ArgProvenance:
    """Where an argument comes from: user, tool_output, external or system."""

    arg_path: str
    source: str
    source_ref: str = ""
    integrity_digest: str = ""


@dataclass(frozen=True)
class SkillProvenance:
    """Which skill makes the call."""

    skill_name: str
    source: str
    publisher: str
    skill_version: str = ""
    digest: str = ""
    signature_key_id: str = ""


@dataclass(frozen=True)
class Context:
    """Who calls, where, and how risky the call is."""

    identity: str
    workspace: str
    risk_class: str
    session_id: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class IntentRequest:
    """One tool call, before it happens."""

    tool_name: str
    args: Mapping[str, Any]
    context: Context
    targets: Sequence[Target] = ()
    arg_provenance: Sequence[ArgProvenance] = ()
    skill_provenance: Optional[SkillProvenance] = None
    created_at: str = ""
    producer_version: str = field(default=__version__)

    def to_dict(self) -> Dict[str, Any]:
        """Returns the document. What is empty and optional is left out."""
        document: Dict[str, Any] = {
            "schema_id": SCHEMA_ID,
            "schema_version": SCHEMA_VERSION,
            "created_at": self.created_at or _now(),
            "producer_version": self.producer_version,
            "tool_name": self.tool_name,
            "args": dict(self.args),
            "targets": [_filled(target) for target in self.targets],
            "context": _filled(self.context),
        }
        if self.arg_provenance:
            document["arg_provenance"] = [_filled(source) for source in self.arg_provenance]
        if self.skill_provenance is not None:
            document["skill_provenance"] = _filled(self.skill_provenance)
        return document

    def to_json(self) -> str:
        """Returns the document as text."""
        try:
            return strict_json.write_object(self.to_dict())
        except (TypeError, ValueError, RecursionError) as error:
            raise IntentError(f"the arguments of {self.tool_name} cannot be written as JSON: {error}") from error


def capture_intent(
    tool_name: str,
    args: Mapping[str, Any],
    context: Context,
    targets: Sequence[Target] = (),
    arg_provenance: Sequence[ArgProvenance] = (),
    skill_provenance: Optional[SkillProvenance] = None,
    created_at: str = "",
    producer_version: str = __version__,
) -> IntentRequest:
    """Writes a tool call down. What gait would refuse to read is an `IntentError` here."""
    for what, value in (
        ("tool_name", tool_name),
        ("identity", context.identity),
        ("workspace", context.workspace),
        ("risk_class", context.risk_class),
    ):
        if not value.strip():
            raise IntentError(f"{what} is empty")
    provenance: List[ArgProvenance] = list(arg_provenance)
    return IntentRequest(
        tool_name=tool_name,
        args=dict(args),
        context=context,
        targets=list(targets),
        arg_provenance=provenance,
        skill_provenance=skill_provenance,
        created_at=created_at or _now(),
        producer_version=producer_version,
    )


def _filled(record: Any) -> Dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if value not in ("", False)}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
