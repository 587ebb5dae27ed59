#!/usr/bin/env python3
"""The robots of three group chats, by what their makers' pages say of them, which anmin did not write.

Listens on a free port of loopback. Writes one JSON line to standard output when it listens,
{"listening": "http://127.0.0.1:PORT"}, and one for each POST:
{"robot": "wecom", "code": 0, "text": ..., "everybody": false, "at": SECONDS}.

  /cgi-bin/webhook/send?key=KEY                         WeCom: shape, 2,048 bytes, 20 messages in any minute
  /robot/send?access_token=T&timestamp=MS&sign=S        DingTalk: shape, signature, time
  /open-apis/bot/v2/hook/ID                             Feishu: shape, signature in the body, time

All of them answer 200 whatever they think: the code in the body tells. The signing secret is "demo-secret", the key "KEY".
"""

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SECRET = b"demo-secret"
LOCK = threading.Lock()
LATELY = deque()


def signed(key, message):
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def wecom(query, body):
    if query.get("key") != ["KEY"]:
        return 93000, "", False
    content = body["text"]["content"]
    if body["msgtype"] != "text" or not content or len(content.encode()) > 2048:
        return 40058, content, False
    now = time.monotonic()
    with LOCK:
        while LATELY and now - LATELY[0] >= 60:
            LATELY.popleft()
        if len(LATELY) >= 20:
            return 45009, content, False
        LATELY.append(now)
    return 0, content, "@all" in body["text"].get("mentioned_list", [])


def dingtalk(query, body):
    stamp = query["timestamp"][0]
    if abs(int(stamp) / 1000 - time.time()) > 3600 or query["sign"] != [signed(SECRET, stamp.encode() + b"\n" + SECRET)]:
        return 310000, "", False
    return 0, body["text"]["content"], body["at"]["isAtAll"]


def feishu(query, body):
    stamp = body["timestamp"]
    if abs(int(stamp) - time.time()) > 3600 or body["sign"] != signed(stamp.encode() + b"\n" + SECRET, b""):
        return 19021, "", False
    text = body["content"]["text"]
    return 0, text, text.startswith('<at user_id="all"></at>')


ROBOTS = {"/cgi-bin/webhook/send": ("wecom", wecom), "/robot/send": ("dingtalk", dingtalk)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        address = urlsplit(self.path)
        name, robot = ROBOTS.get(address.path, ("feishu", feishu))
        try:
            code, text, everybody = robot(parse_qs(address.query), body)
        except (KeyError, TypeError, ValueError) as error:
            code, text, everybody = 9499, f"{error!r} in {body}", False
        line = {"robot": name, "code": code, "text": text, "everybody": everybody, "at": time.monotonic()}
        with LOCK:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        answer = {"code": code, "msg": "x"} if name == "feishu" else {"errcode": code, "errmsg": "x"}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(json.dumps({"listening": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
sys.stdout.flush()
server.serve_forever()
