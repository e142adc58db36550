"""The two ways to put a gate before a tool: a decorator for functions, a context manager for everything else."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Sequence, TypeVar, Union, cast

from .client import GateEvalResult, ToolAdapter
from .errors import IntentError
from .intent import Context, IntentRequest, Target, capture_intent

Tool = TypeVar("Tool", bound=Callable[..., Any])
Targets = Union[Sequence[Target], Callable[..., Sequence[Target]]]


@contextmanager
def gated(adapter: ToolAdapter, intent: IntentRequest) -> Iterator[GateEvalResult]:
    """Runs its block only if the intent is allowed.

    Python has no way to skip a block, so every other verdict is raised as `GateEnforcementError`, dry_run included.
    """
    yield adapter.require_allow(intent)


def gate_tool(
    adapter: ToolAdapter, tool_name: str, context: Context, targets: Targets = ()
) -> Callable[[Tool], Tool]:
    """Makes a function a gated tool: each call is judged with its arguments, and made only if that is allowed.

    `targets` is what the tool acts on, or a function that takes the tool's arguments and returns it.
    """

    def decorate(function: Tool) -> Tool:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__name__} is a generator: it would run after the decision; gate what it does")
        signature = inspect.signature(function)

        def intent(args: Any, kwargs: Any) -> IntentRequest:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            named: Dict[str, Any] = dict(bound.arguments)
            try:
                acts_on = targets(*args, **kwargs) if callable(targets) else targets
            except Exception as error:
                raise IntentError(f"the targets of {tool_name} cannot be told: {error}") from error
            return capture_intent(tool_name, named, context, acts_on)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def gated_coroutine(*args: Any, **kwargs: Any) -> Any:
                await asyncio.get_running_loop().run_in_executor(None, adapter.require_allow, intent(args, kwargs))
                return await function(*args, **kwargs)

            return cast(Tool, gated_coroutine)

        @functools.wraps(function)
        def gated_function(*args: Any, **kwargs: Any) -> Any:
            adapter.require_allow(intent(args, kwargs))
            return function(*args, **kwargs)

        return cast(Tool, gated_function)

    return decorate
