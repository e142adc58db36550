"""The normal form of an intent, and its digests: what gait makes of a request before it judges.

An intent has one digest however it was spelled, so a record can be held against the call that it is about. Addresses
that are no plain URLs are read here as Python reads them; gait's own reading decides.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple
from urllib.parse import urlsplit

from .canonical import digest

READ = "read get list open cat head download stat".split()
WRITE = "write append put create update save copy move rename".split()
DELETE = "delete remove rm unlink rmdir drop truncate".split()
EXEC = "exec spawn run shell command".split()
HINTS = (
    ("fs.read", "read list fetch search".split()),
    ("fs.write", "write update save create".split()),
    ("fs.delete", "delete remove rm drop".split()),
)
TARGET_TEXTS = ("kind", "operation", "sensitivity", "endpoint_class", "endpoint_domain")


def digests(request: Mapping[str, Any]) -> Tuple[str, str]:
    """The args_digest and the intent_digest of an intent request that `parse_primitive` accepted."""
    tool_name = request["tool_name"].strip().lower()
    args = _trimmed(request["args"])
    normal: Dict[str, Any] = {
        "tool_name": tool_name,
        "args": args,
        "targets": _unique([_target(target, tool_name) for target in request["targets"]], _target_order),
        "context": _context(request["context"]),
    }
    if request.get("arg_provenance"):
        sources = [_texts(source, ("source", "integrity_digest")) for source in request["arg_provenance"]]
        normal["arg_provenance"] = _unique(sources, _provenance_order)
    if request.get("skill_provenance"):
        normal["skill_provenance"] = _texts(request["skill_provenance"], ("source", "digest"))
    return digest(args), digest(normal)


def _trimmed(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_trimmed(item) for item in value]
    if isinstance(value, dict):
        return {key.strip(): _trimmed(item) for key, item in value.items()}
    return value


def _texts(record: Mapping[str, Any], lowered: Tuple[str, ...]) -> Dict[str, Any]:
    """Texts without white space around them, some in lower case; what is empty is left out."""
    found = {name: value.strip() for name, value in record.items() if isinstance(value, str)}
    return {name: value.lower() if name in lowered else value for name, value in found.items() if value}


def _context(context: Mapping[str, Any]) -> Dict[str, Any]:
    known = ("identity", "workspace", "risk_class", "session_id", "request_id")
    found = _texts({name: context[name] for name in known if name in context}, ("risk_class",))
    found["workspace"] = found["workspace"].replace("\\", "/")
    return found


def _target(target: Mapping[str, Any], tool_name: str) -> Dict[str, Any]:
    found = _texts(target, TARGET_TEXTS)
    kind, operation = found["kind"], found.get("operation", "")
    found.setdefault("endpoint_class", _class(kind, operation, tool_name.rpartition("/")[2]))
    domain = found.get("endpoint_domain") or _domain(kind, found["value"])
    if domain:
        found["endpoint_domain"] = domain
    destroys = found["endpoint_class"] in ("fs.delete", "proc.exec") or operation in DELETE + ["exec", "spawn"]
    if target.get("destructive") or destroys:
        found["destructive"] = True
    return found


def _class(kind: str, operation: str, hint: str) -> str:
    if kind == "path":
        for name, operations in (("fs.read", READ), ("fs.write", WRITE), ("fs.delete", DELETE)):
            if operation in operations:
                return name
        return next((name for name, words in HINTS if any(word in hint for word in words)), "other")
    if kind in ("host", "url"):
        return "net.dns" if operation in ("dns", "resolve", "lookup") else "net.http"
    if kind == "other" and (operation in EXEC or any(word in hint for word in EXEC)):
        return "proc.exec"
    return "other"


def _domain(kind: str, value: str) -> str:
    try:
        if kind == "url":
            return urlsplit(value).hostname or ""
        if kind == "host":
            scheme, _, rest = value.lower().rpartition("://")
            return urlsplit(f"//{rest if scheme in ('', 'http', 'https') else value}").hostname or ""
    except ValueError:
        pass
    return ""


def _unique(records: List[Dict[str, Any]], order: Any) -> List[Dict[str, Any]]:
    found = sorted(records, key=order)
    return [record for index, record in enumerate(found) if index == 0 or record != found[index - 1]]


def _order(record: Mapping[str, Any], names: Tuple[str, ...]) -> List[bytes]:
    return [str(record.get(name, "")).encode("utf-8") for name in names]


def _target_order(target: Mapping[str, Any]) -> Any:
    names = ("kind", "value", "operation", "sensitivity", "endpoint_class", "endpoint_domain")
    return _order(target, names), target.get("destructive", False)


def _provenance_order(source: Mapping[str, Any]) -> Any:
    return _order(source, ("arg_path", "source", "source_ref", "integrity_digest"))
