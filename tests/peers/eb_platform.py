#!/usr/bin/env python3
"""A platform of the emergency broadcast (应急广播) that anmin did not write: judges every package that it is sent.

Written after field lists of platforms in use (GD/J 082 practice), by the standard library alone. Listens on a free port of loopback
and writes one JSON line to standard output when it listens, {"listening": "http://127.0.0.1:PORT/ebd"}, and one for each POST:
what the package says, and "faults", a list that is empty where nothing is wrong.

A package is taken apart byte by byte: the form and its one field `file`, the tar and its names, the order of all elements, their
lengths and digits, that a drill says so in type, title and text, and, with --key, the signature over the bytes of the body.

Answers in an EBDResponse in a tar with ResultCode 1. Each line on standard input is a list of answers for the next posts instead:
  0 to 5   that ResultCode, in a tar         bare     1, as XML without a tar
  other    1, about another package          silent   200 without a body
  302 413 500   that status                  half     the first half of an answer
  none     the connection ends without one
"""

import argparse
import base64
import hashlib
import hmac
import io
import json
import re
import sys
import tarfile
import threading
import xml.etree.ElementTree as ElementTree
from collections import deque
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARK = "【演练】"
HEAD = ["EBDVersion", "EBDID", "EBDType", "SRC", "DEST", "EBDTime"]
BASIC = ["MsgType", "SenderName", "SenderCode", "SendTime", "EventType", "Severity", "StartTime", "EndTime"]
CONTENT = ["LanguageCode", "MsgTitle", "MsgDesc", "AreaCode"]
SIGNATURE = ["Version", "RelatedEBD", "CertSN", "SignatureAlgorithm", "SignatureValue"]
LOCK = threading.Lock()
ANSWERS = deque()
SEEN = {}
DRILLS = set()


def names(element):
    return [child.tag for child in element]


def tree(data, faults):
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        faults.append("a document type")
    if not data.startswith(b'<?xml version="1.0" encoding="UTF-8"?>'):
        faults.append("no declaration")
    root = ElementTree.fromstring(data)
    for element in root.iter():
        if element.attrib:
            faults.append(f"attributes in {element.tag}")
        if len(element) and (element.text or "").strip():
            faults.append(f"text between the elements of {element.tag}")
    return root


def field(headers, body):
    """The name and content of the one file of a form."""
    kind = re.fullmatch(r"multipart/form-data; boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})", headers["Content-Type"])
    edge = b"--" + kind[1].encode()
    if not (body.startswith(edge + b"\r\n") and body.endswith(b"\r\n" + edge + b"--\r\n")) or body.count(edge) != 2:
        raise ValueError("the form is not of one field")
    head, content = body[len(edge) + 2 : -len(edge) - 6].split(b"\r\n\r\n", 1)
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    named = re.fullmatch(r'form-data; name="file"; filename="([^"]+)"', lines["Content-Disposition"])
    return named[1], content


def read(headers, body, key, faults):
    name, content = field(headers, body)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = tar.getmembers()
        files = {member.name: tar.extractfile(member).read() for member in members if member.isreg()}
    ebdid = name.removeprefix("EBDT_").removesuffix(".tar")
    if name != f"EBDT_{ebdid}.tar" or not re.fullmatch(r"\d{41}", ebdid):
        faults.append(f"the file is called {name}")
    wanted = [f"EBDB_{ebdid}.xml"]
    root = tree(files[wanted[0]], faults)
    found = {"ebdid": ebdid, "type": root.findtext("EBDType")}
    if key and found["type"] == "EBM":
        wanted.append(f"EBDS_EBDB_{ebdid}.xml")
    if [member.name for member in members] != wanted:
        faults.append(f"the package holds {[member.name for member in members]}")
    if root.tag != "EBD" or names(root) != [*HEAD, found["type"]]:
        faults.append(f"the order is {names(root)}")
    source, dest = root.findtext("SRC/EBRID"), root.findtext("DEST/EBRID")
    if names(root.find("SRC")) != ["EBRID"] or names(root.find("DEST")) != ["EBRID"]:
        faults.append("SRC or DEST")
    for code in source, dest:
        if not re.fullmatch(r"[1-6]\d{22}", code):
            faults.append(f"EBRID {code}")
    if root.findtext("EBDID") != ebdid or headers["Idempotency-Key"] != ebdid or ebdid[2:25] != source:
        faults.append("the EBDID differs")
    datetime.strptime(root.findtext("EBDTime"), "%Y-%m-%d %H:%M:%S")
    if found["type"] == "ConnectionCheck":
        if ebdid != f"01{source}{'0' * 16}" or names(root.find("ConnectionCheck")) != ["RptTime"]:
            faults.append("the heartbeat")
        return found
    if root.findtext("EBDVersion") != "1" or not ebdid.startswith("10"):
        faults.append("EBDVersion or the kind of the EBDID")
    message(root.find("EBM"), source, ebdid, found, faults)
    if key:
        signature = tree(files[wanted[1]], faults)
        if signature.tag != "Signature" or names(signature) != SIGNATURE:
            faults.append(f"the signature has {names(signature)}")
        value = base64.b64encode(hmac.new(key.encode(), files[wanted[0]], hashlib.sha256).digest()).decode()
        found["signed"] = signature.findtext("SignatureValue") == value
        if signature.findtext("RelatedEBD/EBDID") != ebdid or not found["signed"]:
            faults.append("the signature is not of this package")
        if (signature.findtext("Version"), signature.findtext("SignatureAlgorithm")) != ("1", "SM2-SM3"):
            faults.append("the signature's kind")
        found["cert"] = signature.findtext("CertSN")
    return found


def message(ebm, source, ebdid, found, faults):
    related = ["RelatedInfo"] if ebm.find("RelatedInfo") is not None else []
    if names(ebm) != ["EBMVersion", "EBMID", *related, "MsgBasicInfo", "MsgContent"]:
        faults.append(f"EBM has {names(ebm)}")
    basic, content = ebm.find("MsgBasicInfo"), ebm.find("MsgContent")
    if names(basic) != BASIC or names(content) != CONTENT or (related and names(ebm.find("RelatedInfo")) != ["EBMID"]):
        faults.append(f"the order is {names(basic)}, {names(content)}")
    ebmid, before = ebm.findtext("EBMID"), ebm.findtext("RelatedInfo/EBMID")
    kind, title, text = basic.findtext("MsgType"), content.findtext("MsgTitle"), content.findtext("MsgDesc")
    if not re.fullmatch(r"\d{35}", ebmid) or ebmid[:23] != source or ebmid[23:31] != ebdid[25:33]:
        faults.append(f"EBMID {ebmid}")
    if ebm.findtext("EBMVersion") != "1" or basic.findtext("SenderCode") != source or not basic.findtext("SenderName"):
        faults.append("EBMVersion, SenderCode or SenderName")
    if not re.fullmatch(r"[0-9A-Z]{5}(\d\d)?", basic.findtext("EventType")) or basic.findtext("Severity") not in ("1", "2", "3", "4"):
        faults.append("EventType or Severity")
    begin, end = (datetime.strptime(basic.findtext(name), "%Y-%m-%d %H:%M:%S") for name in ("StartTime", "EndTime"))
    if end <= begin or basic.findtext("SendTime") != basic.findtext("StartTime"):
        faults.append("the times")
    if content.findtext("LanguageCode") != "zho" or not re.fullmatch(r"\d{12}", content.findtext("AreaCode")):
        faults.append("LanguageCode or AreaCode")
    drill = kind in ("3", "4", "5") or (kind == "2" and before in DRILLS)
    if kind not in ("1", "2", "3", "4", "5") or [one.startswith(MARK) for one in (title, text)] != [drill, drill]:
        faults.append(f"MsgType {kind} and the texts differ: {title} {text}")
    if drill:
        DRILLS.add(ebmid)
    if kind == "2" and before is None or before is not None and before not in SEEN:
        faults.append(f"it is related to {before}, which never came")
    found["repeated"] = ebmid in SEEN
    if SEEN.setdefault(ebmid, ebdid) != ebdid:
        faults.append("an EBMID comes in two packages")
    found.update(ebmid=ebmid, related=before, msg_type=kind, severity=basic.findtext("Severity"), title=title, text=text)
    found.update(event=basic.findtext("EventType"))


def response(ebdid, source, dest, code):
    own = f"10{dest}20260301{len(SEEN):08}"
    words = {"1": "接收解析及数据校验成功", "4": "签名验证失败：证书未登记"}.get(code, "其他")
    text = (
        f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<EBD xmlns:xs="http://www.w3.org/2001/XMLSchema">'
        f"<EBDVersion>1</EBDVersion><EBDID>{own}</EBDID><EBDType>EBDResponse</EBDType><SRC><EBRID>{dest}</EBRID></SRC>"
        f"<DEST><EBRID>{source}</EBRID></DEST><EBDTime>2026-03-01 09:30:03</EBDTime>"
        f"<RelatedEBD><EBDID>{ebdid}</EBDID></RelatedEBD><EBDResponse><ResultCode>{code}</ResultCode>"
        f"<ResultDesc>{words}</ResultDesc></EBDResponse></EBD>"
    ).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo(f"EBDB_{own}.xml")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return own, text, packed.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        faults = []
        with LOCK:
            try:
                found = read(self.headers, body, ARGUMENTS.key, faults)
            except (AttributeError, ElementTree.ParseError, KeyError, TypeError, ValueError, tarfile.TarError) as error:
                found = {"ebdid": "0" * 41}
                faults.append(repr(error))
            answer = ANSWERS.popleft() if ANSWERS and found.get("type") == "EBM" else "1"
            print(json.dumps({**found, "answer": answer, "faults": faults}), flush=True)
            ebdid = found["ebdid"][:-1] + "x" if answer == "other" else found["ebdid"]
            code = "2" if faults else answer if answer in "012345" else "1"
            own, text, packed = response(ebdid, "6" * 23, "4" * 23, code)
        if answer == "none":
            self.close_connection = True
            return
        if answer in ("302", "413", "500"):
            self.send_response(int(answer))
            if answer == "302":
                self.send_header("Location", "/elsewhere")
            packed = b""
        else:
            self.send_response(200)
            if answer == "bare":
                packed = text
            elif answer == "silent":
                packed = b""
            else:
                self.send_header("Content-Disposition", f'attachment; filename="EBDT_{own}.tar"')
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        if answer == "half":
            packed, self.close_connection = packed[: len(packed) // 2], True
        self.wfile.write(packed)

    def log_message(self, *_):
        pass


def listen_to_commands():
    for line in sys.stdin:
        with LOCK:
            ANSWERS.clear()
            ANSWERS.extend(line.split())


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--key", help="packages are signed with it")
ARGUMENTS = parser.parse_args()
threading.Thread(target=listen_to_commands, daemon=True).start()
server = ThreadingHTTPServer(("127.0.0.1", ARGUMENTS.port), Handler)
print(json.dumps({"listening": f"http://127.0.0.1:{server.server_address[1]}/ebd"}), flush=True)
server.serve_forever()
