"""JSON without the liberties of the `json` module: no key twice, no NaN, an object at the top, keys that are text."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, Tuple


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def parse_object(text: str) -> Dict[str, Any]:
    """Parses one JSON object; a ValueError says what is wrong."""
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def write_object(document: Mapping[str, Any]) -> str:
    """Writes JSON; what JSON cannot express is a TypeError or a ValueError, and is never turned into something else."""
    text = json.dumps(_plain(document), allow_nan=False, ensure_ascii=False, sort_keys=True)
    text.encode("utf-8")  # a lone surrogate fails here
    return text


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key that is not text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        if isinstance(path, str):
            return path
    raise TypeError(f"a value of type {type(value).__name__}")
