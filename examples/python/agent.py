#!/usr/bin/env python3
"""A tool behind the gate, and the same tool called around it.

    python3 agent.py decorator notes/today.txt      the tool, gated by the decorator
    python3 agent.py context notes/today.txt        the tool, gated by the context manager
    python3 agent.py around settings/app.ini        the tool without its gate: nobody is asked

The first two stop themselves where the policy says no. The third does not; only `gait exec` stops it:

    gait exec --policy agent_policy.yaml -- python3 agent.py around settings/app.ini
"""

import sys
from pathlib import Path

from gait import Context, GaitError, Target, ToolAdapter, capture_intent, gate_tool, gated

ADAPTER = ToolAdapter(policy_path=Path(__file__).with_name("agent_policy.yaml"))
CONTEXT = Context(identity="example-agent", workspace=str(Path.cwd()), risk_class="high")


def acts_on(path: str, text: str) -> "list[Target]":
    return [Target("path", str(Path(path).resolve()), "write")]


@gate_tool(ADAPTER, "tool.write", CONTEXT, acts_on)
def write_file(path: str, text: str) -> None:
    Path(path).write_text(text)


def main(how: str, path: str) -> int:
    text = "changed by the agent\n"
    try:
        if how == "decorator":
            write_file(path, text)
        elif how == "context":
            intent = capture_intent("tool.write", {"path": path, "text": text}, CONTEXT, acts_on(path, text))
            with gated(ADAPTER, intent):
                Path(path).write_text(text)
        else:
            write_file.__wrapped__(path, text)  # type: ignore[attr-defined]
    except (GaitError, OSError) as error:
        print(f"refused: {error}")
        return 1
    print("written")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("decorator", "context", "around"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
