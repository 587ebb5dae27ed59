#!/usr/bin/env python3
"""A platform that pushes, by Python's requests and hmac: it signs as gateway/docs/http-in.md says, and misbehaves on command.

  poster.py URL KEY

Takes one command a line and answers one JSON line, {"status": 200, "body": {...}, "retry": "2"}:

  post PATH BODY           signed now
  again                    the last request once more, to the byte
  late SECONDS PATH BODY   signed so long ago
  forged PATH BODY         the body is another than was signed
  token TOKEN PATH BODY    Authorization: Bearer
  plain PATH BODY          nothing of the kind
  get PATH
  large PATH BYTES         a body of so many bytes, signed; in one piece, then in chunks that do not say how many there are
  slow PATH                a head that promises a body, and no body
  crowd N M PATH TOKEN     N such heads at once, with this token; answers with what M of them were refused before their time
  leave                    the crowd goes
"""

import hashlib
import hmac
import json
import select
import socket
import sys
import time
from urllib.parse import urlsplit

import requests

URL, KEY = sys.argv[1], sys.argv[2].encode()
session = requests.Session()
last = None
crowd = []


def signed(path, body, at):
    stamp = str(int(at))
    mac = hmac.new(KEY, f"{stamp}\n{path}\n".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Timestamp": stamp, "X-Signature": f"sha256={mac}"}


def say(answer):
    body = answer.json() if answer.content else None
    print(json.dumps({"status": answer.status_code, "body": body, "retry": answer.headers.get("Retry-After")}), flush=True)


def post(path, body, headers):
    global last
    last = (path, body, headers)
    say(session.post(URL + path, data=body, headers=headers, timeout=60))


for line in sys.stdin:
    word, _, rest = line.rstrip("\n").partition(" ")
    if word == "post":
        path, _, body = rest.partition(" ")
        post(path, body.encode(), signed(path, body.encode(), time.time()))
    elif word == "again":
        post(*last)
    elif word == "late":
        seconds, path, body = rest.split(" ", 2)
        post(path, body.encode(), signed(path, body.encode(), time.time() - float(seconds)))
    elif word == "forged":
        path, _, body = rest.partition(" ")
        post(path, body.encode(), signed(path, body.encode() + b" ", time.time()))
    elif word == "token":
        token, path, body = rest.split(" ", 2)
        post(path, body.encode(), {"Authorization": f"Bearer {token}"})
    elif word == "plain":
        path, _, body = rest.partition(" ")
        post(path, body.encode(), {})
    elif word == "get":
        say(session.get(URL + rest, timeout=60))
    elif word == "large":
        path, size = rest.split(" ")
        body = b" " * int(size)
        # An answer before the body's end may close the connection under it: each has one of its own.
        say(requests.post(URL + path, data=body, headers=signed(path, body, time.time()), timeout=60))
        pieces = (body[at:at + 8192] for at in range(0, len(body), 8192))
        say(requests.post(URL + path, data=pieces, headers=signed(path, body, time.time()), timeout=60))
    elif word == "crowd":
        count, refused, path, token = rest.split(" ")
        at = urlsplit(URL)
        for _ in range(int(count)):
            sock = socket.create_connection((at.hostname, at.port))
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 10\r\n\r\n12"
            sock.sendall(head.encode())
            crowd.append(sock)
        # Whoever is let in hears nothing for ten seconds.
        waiting, codes, end = set(crowd), [], time.time() + 9
        while len(codes) < int(refused) and time.time() < end:
            for sock in select.select(list(waiting), [], [], 1)[0]:
                waiting.remove(sock)
                codes.append(int(sock.recv(4096).split()[1]))
        print(json.dumps({"status": sorted(set(codes)), "refused": len(codes)}), flush=True)
    elif word == "leave":
        while crowd:
            crowd.pop().close()
        print(json.dumps({"status": 0}), flush=True)
    elif word == "slow":
        at = urlsplit(URL)
        with socket.create_connection((at.hostname, at.port)) as sock:
            proof = "".join(f"{name}: {value}\r\n" for name, value in signed(rest, b"", time.time()).items())
            sock.sendall(f"POST {rest} HTTP/1.1\r\nHost: x\r\n{proof}Content-Length: 10\r\n\r\n12".encode())
            print(json.dumps({"status": int(sock.recv(4096).split()[1])}), flush=True)
