#!/usr/bin/env python3
"""An emergency office that anmin did not write: takes what it is told by signed webhook, and reads Atom feeds of CAP.

    office.py serve [--port N] [--refuse TEXT] [--half]
    office.py feed URL [TOKEN]

`serve` listens on loopback. Writes one JSON line to standard output when it listens, {"listening": "http://127.0.0.1:PORT/in"},
and one for each POST: {"id": ..., "type": "events", "orders": [...], "levels": [...], "repeated": [...], "more": ...}.
Signatures are checked by the `standardwebhooks` library with the secret "office-secret-0123456789"; a wrong one is 401.
  --refuse TEXT   answer 400 to what holds TEXT
  --half          break off the answer of every second POST, though the events were taken

`feed` reads the feed by `feedparser`, fetches each entry's message and judges it as `cap_receiver.py` does; one JSON line.
"""

import argparse
import base64
import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64encode(b"office-secret-0123456789").decode()


def serve(options):
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    checker = Webhook(SECRET)
    seen = set()
    posts = 0
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            nonlocal posts
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            try:
                checker.verify(body, {name.lower(): value for name, value in self.headers.items()})
            except WebhookVerificationError as error:
                return self.answer(401, str(error))
            if options.refuse and options.refuse in body:
                return self.answer(400, "not this one")
            with lock:
                posts += 1
                self.say(json.loads(body))
            if options.half and posts % 2 == 0:
                self.close_connection = True
                self.wfile.write(b"HTTP/1.1 200")
                return None
            return self.answer(204, "")

        def say(self, document):
            events = [event["event"] for event in document.get("events", [])]
            orders = [event["order"] for event in events]
            line = {
                "id": self.headers["webhook-id"],
                "type": document["type"],
                "orders": orders,
                "levels": [event.get("level") for event in events],
                "repeated": [order for order in orders if order in seen],
                "more": document.get("more"),
                "last": document.get("last"),
                "message": document.get("message"),
            }
            seen.update(orders)
            print(json.dumps(line, ensure_ascii=False), flush=True)

        def answer(self, status, words):
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(words.encode())))
            self.end_headers()
            if status != 204:
                self.wfile.write(words.encode())

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            # A sender that is gone is no news; anything else is a fault of this script.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", options.port), Handler)
    print(json.dumps({"listening": f"http://127.0.0.1:{server.server_port}/in"}), flush=True)
    server.serve_forever()


def feed(options):
    import feedparser
    from cap_receiver import judge

    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    found = feedparser.parse(options.url, request_headers=headers)
    entries, seen = [], {}
    for entry in found.entries:
        link = next(link.href for link in entry.links if link.type == "application/cap+xml")
        request = urllib.request.Request(link, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            kind, body = answer.headers["Content-Type"], answer.read()
        facts, faults = judge(body, seen)
        if not kind.startswith("application/cap+xml"):
            faults.append(f"content type {kind}")
        if entry.id != f"urn:anmin:cap:{facts.get('identifier')}":
            faults.append(f"the entry is {entry.id}")
        entries.append({**facts, "title": entry.title, "faults": faults, "tags": [tag.term for tag in entry.tags]})
    again = feedparser.parse(options.url, etag=found.get("etag"), request_headers=headers)
    if again.get("status") == 200:
        # An alarm has changed in between.
        again = feedparser.parse(options.url, etag=again.get("etag"), request_headers=headers)
    line = {"bozo": bool(found.bozo), "version": found.version, "entries": entries, "again": again.get("status")}
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = arguments.add_subparsers(required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, default=0)
    serving.add_argument("--refuse")
    serving.add_argument("--half", action="store_true")
    serving.set_defaults(run=serve)
    reading = commands.add_parser("feed")
    reading.add_argument("url")
    reading.add_argument("token", nargs="?")
    reading.set_defaults(run=feed)
    options = arguments.parse_args()
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
