"""Runs a tool only if gait allows it.

`gate_tool` is the decorator and `gated` the context manager. Both ask `gait gate eval` first and raise unless the
answer is a plain "allow"; the tool runs in no other case.
"""

from ._version import __version__
from .client import GateEvalResult, ToolAdapter, evaluate_gate
from .errors import GaitCommandError, GaitError, GateEnforcementError, IntentError, PrimitiveError
from .intent import ArgProvenance, Context, IntentRequest, SkillProvenance, Target, capture_intent
from .primitives import parse_primitive
from .tool import gate_tool, gated

__all__ = [
    "ArgProvenance",
    "Context",
    "GaitCommandError",
    "GaitError",
    "GateEnforcementError",
    "GateEvalResult",
    "IntentError",
    "IntentRequest",
    "PrimitiveError",
    "SkillProvenance",
    "Target",
    "ToolAdapter",
    "__version__",
    "capture_intent",
    "evaluate_gate",
    "gate_tool",
    "gated",
    "parse_primitive",
]
