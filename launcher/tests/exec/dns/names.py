"""A name server and a web server for one test, in a network of their own: every name is 203.0.113.9."""

import http.server
import socket
import socketserver
import threading

ADDRESS = "203.0.113.9"


def answer(query):
    at = 12
    while query[at]:
        at += query[at] + 1
    question, kind = query[12 : at + 5], query[at + 1 : at + 3]
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(ADDRESS)
    found = kind == b"\x00\x01"
    counts = b"\x00\x01" + (b"\x00\x01" if found else b"\x00\x00") + b"\x00\x00\x00\x00"
    return query[:2] + b"\x81\x80" + counts + question + (record if found else b"")


def serve_names(names, log):
    while True:
        query, peer = names.recvfrom(512)
        log.write(query.hex() + "\n")
        log.flush()
        names.sendto(answer(query), peer)


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.9", 53))
# Not HTTPServer, which asks for its own name first.
web = socketserver.TCPServer((ADDRESS, 8443), Quiet)
threading.Thread(target=serve_names, args=(names, open("queries", "w")), daemon=True).start()
print("ready", flush=True)
web.serve_forever()
