#!/usr/bin/env python3
"""A gateway for short messages and calls by telephone, which anmin did not write.

Listens on a free port of loopback. Writes one JSON line to standard output when it listens,
{"listening": "http://127.0.0.1:PORT"}, and one for each request that it takes:
{"to": [...], "text": ..., "id": ..., "repeated": false, "path": ..., "authorization": ..., "kind": ...}.

It takes JSON {"to", "text", "id"} by POST /sms, and a form to=…&text=…&id=… by POST /voice; an answer is {"code": 0}. What has an id that
it has taken already is taken once more, and said to be "repeated". Told "COUNT HOW" on standard input, it does not take the next COUNT requests
and answers them so, and says {"answered": HOW, "to": ...}; HOW is a status, with seconds for Retry-After if it has two numbers, "refuse" for a
200 that says no, "half" for an answer that breaks off, and "none" for none.

Told "report URL JSON", it posts that JSON to the address as its delivery report, and says {"report": STATUS, "body": ...}.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

LOCK = threading.Lock()
INSTEAD = []
TAKEN = set()


def say(document):
    print(json.dumps(document, ensure_ascii=False), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.headers["Content-Type"]
        if kind.startswith("application/json"):
            fields = json.loads(body)
        else:
            fields = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
        with LOCK:
            how = INSTEAD.pop(0) if INSTEAD else None
            if how is not None:
                say({"answered": how, "to": fields["to"]})
            else:
                repeated = fields["id"] in TAKEN
                TAKEN.add(fields["id"])
                told = {"to": fields["to"], "text": fields["text"], "id": fields["id"], "repeated": repeated}
                say({**told, "path": self.path, "authorization": self.headers["Authorization"], "kind": kind})
        if how is None:
            self.answer(200, {"code": 0})
        elif how == "refuse":
            self.answer(200, {"code": 22, "msg": f"{fields['to']} is no number"})
        elif how == "half":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"code": ')
            self.close_connection = True
        elif how == "none":
            self.close_connection = True
        else:
            status, *wait = how.split()
            self.answer(int(status), {"code": 1, "msg": fields["to"]}, *wait)

    def answer(self, status, document, wait=None):
        data = json.dumps(document).encode()
        self.send_response(status)
        if wait:
            self.send_header("Retry-After", wait)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def report(url, body):
    try:
        with urlopen(Request(url, body.encode(), {"Content-Type": "application/json"}), timeout=10) as answer:
            say({"report": answer.status, "body": answer.read().decode()})
    except HTTPError as error:
        say({"report": error.code, "body": error.read().decode()})


def listen():
    for line in sys.stdin:
        count, how = line.strip().split(" ", 1)
        if count == "report":
            report(*how.split(" ", 1))
            continue
        with LOCK:
            INSTEAD.extend([how] * int(count))


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=listen, daemon=True).start()
say({"listening": f"http://127.0.0.1:{server.server_address[1]}"})
server.serve_forever()
