"""Plays a dialogue with a program on a real pseudo-terminal.

Reads a JSON document from the first argument: {"argv": [...], "talk": [step, ...]}. Steps: {"expect": regex},
{"send": text}, {"resize": [rows, columns]}, {"pause": seconds}. Prints {"ok", "failed", "status", "transcript"}.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 20


def main():
    plan = json.loads(sys.argv[1])
    pid, master = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.environ["PS1"] = "$ "
        os.execvp(plan["argv"][0], plan["argv"])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = transcript = b""
    failed = None

    def read(limit):
        nonlocal seen, transcript
        ready, _, _ = select.select([master], [], [], limit)
        if not ready:
            return True
        try:
            data = os.read(master, 65536)
        except OSError:
            return False
        seen += data
        transcript += data
        return bool(data)

    for step in plan["talk"]:
        if "expect" in step:
            wanted = re.compile(step["expect"].encode(), re.S)
            deadline = time.monotonic() + PATIENCE
            alive = True
            while not (match := wanted.search(seen)) and alive and time.monotonic() < deadline:
                alive = read(0.1)
            if not match:
                failed = step["expect"]
                break
            seen = seen[match.end():]
        elif "send" in step:
            os.write(master, step["send"].encode())
        elif "resize" in step:
            rows, columns = step["resize"]
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        elif "pause" in step:
            deadline = time.monotonic() + step["pause"]
            while (left := deadline - time.monotonic()) > 0:
                read(left)
    deadline = time.monotonic() + PATIENCE
    status = None
    while status is None:
        read(0.05)
        done, raw = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.monotonic() > deadline or failed:
            failed = failed or "the end of the program"
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = -9
    while read(0.05) and select.select([master], [], [], 0)[0]:
        pass
    print(json.dumps({"ok": failed is None, "failed": failed, "status": status, "transcript": transcript.decode(errors="replace")}))


main()
