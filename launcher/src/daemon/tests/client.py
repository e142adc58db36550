"""A client of the daemon, honest or not: client.py SOCKET DEED [PID]. Prints what came back."""
import array, fcntl, os, signal, socket, struct, sys, threading, time

NONE = 0xFFFFFFFF
PROC = int(sys.argv[3]) if len(sys.argv) > 3 else 0
STARTED = []

# Names: state 0, on 'a' state 2 (class 1). Paths: state 4 (region 0), on class 1 state 6 (region 1). Images: state 8.
# Edges of state 0 begin at 10, so that 'a' is cell 107; edges of state 4 begin at 200.
CELLS = 330


def cell(low, high):
    return low | high << 32


def tables():
    cells = [cell(NONE, 0)] * CELLS
    for state, base, fallback, value in ((0, 10, 0, 0), (2, NONE, 0, 1), (4, 200, 4, 0), (6, NONE, 4, 1), (8, NONE, 8, 0)):
        cells[state], cells[state + 1] = cell(base, fallback), cell(value, 0)
    cells[10 + 97], cells[201] = cell(0, 2), cell(4, 6)
    return cells


def memory(data, seals=True):
    fd = os.memfd_create("tables", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seals:
        fcntl.fcntl(fd, 1033, 15)
    return fd


def pack(cells, words, places):
    data = b"".join(struct.pack("<Q", one) for one in cells + words)
    return data + b"".join(struct.pack("<III", *place) for place in places)


def opening(layout=2, flags=2, names=0, paths=4, images=8, classes=1, cells=CELLS, words=2, places=1):
    return struct.pack("<11I", 1, 1, layout, flags, names, paths, images, classes, cells, words, places)


class Line:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(sys.argv[1])
        self.gift = None

    def ask(self, packet, fds=()):
        luggage = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.socket.sendmsg([packet], luggage)
        except BrokenPipeError:
            pass
        try:
            reply, fds, _, _ = socket.recv_fds(self.socket, 8192, 4)
        except ConnectionResetError:  # it hung up before it read; what it had said is behind the error
            reply, fds, _, _ = socket.recv_fds(self.socket, 8192, 4)
        if not reply:
            return "hung up"
        self.gift = fds[0] if fds else None
        kind = struct.unpack_from("<I", reply, 4)[0]
        if kind in (4, 5):
            length = struct.unpack_from("<I", reply, 8)[0]
            return ("failed: ", "refused: ")[kind - 4] + reply[12 : 12 + length].decode()
        if kind == 3:
            return "counters %d %d %d" % struct.unpack_from("<3Q", reply, 8)
        return {1: "opened", 2: "done"}[kind] + (" with a descriptor" if fds else "")

    def open(self, fd=None, automata=None, **fields):
        given = fd if fd is not None else memory(pack(automata or tables(), [0, 0], [(2, 6, 0)]))
        return self.ask(opening(**fields), [given])

    def seed(self, pid):
        fd = os.pidfd_open(pid)
        return self.ask(struct.pack("<2I", 1, 2), [fd])

    def grant(self, tid, verdict=0, thing=7):
        return self.ask(struct.pack("<5I3Q", 1, 3, tid, verdict, 1, thing, 0, 99))

    def counters(self):
        return self.ask(struct.pack("<2I", 1, 4))

    def close(self):
        return self.ask(struct.pack("<2I", 1, 5))


def child(threads=1):
    """A process that waits, with so many threads."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Above all the connection: a process in the session that had it would stand for the guard.
        for fd in range(3, 256):
            if fd != writing:
                try:
                    os.close(fd)
                except OSError:
                    pass
        for _ in range(threads - 1):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        os.write(writing, b"x")
        os.close(writing)
        time.sleep(60)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    STARTED.append(pid)
    return pid


def opened():
    line = Line()
    assert line.open() == "opened with a descriptor"
    return line


def spoiled(at, value):
    cells = tables()
    cells[at] = value
    return Line().open(automata=cells)


def two_lines(pid):
    first, second = opened(), opened()
    return first.seed(pid), second.seed(pid), second.counters()


def session():
    line, pid = Line(), child()
    said = [line.open()]
    # Its one record, behind the pages of reader and writer and a header.
    said.append(os.pread(line.gift, 6, 2 * 4096 + 8).decode())
    return said + [line.seed(pid), line.grant(pid), line.grant(pid, 3, 0), line.counters(), line.close(), line.counters()]


def ended():
    pid = child()
    fd = os.pidfd_open(pid)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    first = opened().ask(struct.pack("<2I", 1, 2), [fd])
    os.waitpid(pid, 0)
    STARTED.remove(pid)
    return first, opened().ask(struct.pack("<2I", 1, 2), [fd])


def orphan():
    """A process whose parent is gone, as that of a daemon."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.write(writing, str(child()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    STARTED.append(int(os.read(reading, 99)))
    return STARTED[-1]


def flood(first, many):
    lines = [opened() if first else Line() for _ in range(many)]
    time.sleep(0.2)
    last = Line()
    return last.open() if first else last.counters(), len(lines)


def megabytes():
    shape = dict(cells=1 << 22, words=1 << 20, places=0)
    size = ((1 << 22) + (1 << 20)) * 8
    data = memory(pack(tables(), [], []) + bytes(size - CELLS * 8))
    first, second = Line(), Line()
    return first.open(fd=data, **shape), second.open(fd=data, **shape)


def luggage(count):
    pipe = os.pipe()[0]
    return Line().ask(struct.pack("<2I", 1, 4), [pipe] * count)


def hold():
    line, pid = opened(), child()
    assert line.seed(pid) == "done"
    print("holds", pid, flush=True)
    sys.stdin.read()
    return line.grant(pid)


DEEDS = {
    "session": session,
    "hold": hold,
    "short": lambda: Line().ask(b"\1\0\0\0\5\0\0"),
    "empty": lambda: Line().ask(b""),
    "behind": lambda: Line().ask(struct.pack("<3I", 1, 4, 0)),
    "kind": lambda: Line().ask(struct.pack("<2I", 1, 77)),
    "version": lambda: Line().ask(struct.pack("<2I", 2, 4)),
    "large": lambda: Line().ask(struct.pack("<2I", 1, 4) + bytes(60000)),
    "early": lambda: (Line().grant(1), Line().counters(), Line().close(), Line().seed(child())),
    "twice": lambda: opened().open(),
    "verdict": lambda: opened().grant(1, 2),
    "bare": lambda: Line().ask(opening()),
    "luggage": lambda: (luggage(1), luggage(2), luggage(253)),
    "unsealed": lambda: Line().open(fd=memory(pack(tables(), [0, 0], [(2, 6, 0)]), seals=False)),
    "pipe": lambda: Line().open(fd=os.pipe()[0]),
    "length": lambda: (Line().open(cells=CELLS + 1), Line().open(places=0)),
    "layout": lambda: Line().open(layout=99),
    "flags": lambda: Line().open(flags=64),
    "many": lambda: (Line().open(cells=NONE), Line().open(words=NONE), Line().open(places=16385)),
    "state": lambda: (Line().open(names=CELLS), Line().open(paths=NONE), Line().open(images=CELLS - 1)),
    "edges": lambda: (spoiled(0, cell(CELLS - 50, 0)), spoiled(107, cell(0, CELLS)), spoiled(201, cell(4, NONE))),
    "region": lambda: (spoiled(7, cell(2, 0)), spoiled(9, cell(1, 0)), Line().open(classes=0)),
    "places": lambda: Line().open(fd=memory(pack(tables(), [0, 0], [(2, CELLS, 0)]))),
    "other": lambda: opened().seed(PROC),
    "self": lambda: opened().seed(os.getpid()),
    "orphan": lambda: opened().seed(orphan()),
    "threads": lambda: opened().seed(child(3)),
    "again": lambda: two_lines(child()),
    "second": lambda: (line := opened()).seed(child()) + ", " + line.seed(child()),
    "ended": ended,
    "nothing": lambda: opened().ask(struct.pack("<2I", 1, 2), [os.pipe()[0]]),
    "register": lambda: opened().seed(child()),
    "sessions": lambda: flood(True, 8),
    "connections": lambda: flood(False, 16),
    "megabytes": megabytes,
}
try:
    said = DEEDS[sys.argv[2]]()
    print("\n".join(map(str, said if isinstance(said, (list, tuple)) else [said])), flush=True)
finally:
    for started in STARTED:
        os.kill(started, 9)
