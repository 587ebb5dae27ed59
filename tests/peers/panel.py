#!/usr/bin/env python3
"""A user information transmission device by the tables of GB/T 26875.3-2011, which anmin did not write.

  panel.py HOST PORT ADDRESS

Dials in and takes one command a line on standard input; writes one JSON line to standard output for each frame that it gets,
{"command": 3, "serial": 1, "unit": "5a01..."}, and {"closed": true} when the centre ends the talk.

  heartbeat                            an empty data frame, as is practice
  part TYPE SYSTEM PART STATE          type 2: one part's state
  analog TYPE SYSTEM PART KIND RAW     type 3: one part's value
  device STATE                         type 21: its own state
  again                                the last frame once more, serial number and all
  damaged                              the last frame with its checksum off by one
  bytes HEX                            as they are
  slowly                               from here on three bytes at a time
"""

import datetime
import json
import socket
import struct
import sys
import threading
import time

HOST, PORT, ADDRESS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.create_connection((HOST, PORT))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def tag():
    now = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=8)))
    return bytes([now.second, now.minute, now.hour, now.day, now.month, now.year - 2000])


def frame(serial, command, unit):
    middle = struct.pack("<HBB", serial, 1, 1) + tag()
    middle += ADDRESS.to_bytes(6, "little") + (88888).to_bytes(6, "little")
    middle += struct.pack("<HB", len(unit), command) + unit
    return b"@@" + middle + bytes([sum(middle) % 256]) + b"##"


def say(line):
    print(json.dumps(line), flush=True)


def listen():
    data = b""
    while True:
        more = sock.recv(4096)
        if not more:
            say({"closed": True})
            return
        data += more
        while len(data) >= 30:
            length = struct.unpack_from("<H", data, 24)[0]
            total = 30 + length
            if len(data) < total:
                break
            one, data = data[:total], data[total:]
            sound = one[:2] == b"@@" and one[-2:] == b"##" and one[-3] == sum(one[2:-3]) % 256
            say({
                "command": one[26], "serial": struct.unpack_from("<H", one, 2)[0], "unit": one[27:-3].hex(),
                "to": int.from_bytes(one[18:24], "little"), "sound": sound,
            })


threading.Thread(target=listen, daemon=True).start()
say({"connected": True})
serial, last, slowly = 0, b"", False
for line in sys.stdin:
    word, *rest = line.split()
    numbers = [] if word == "bytes" else [int(number) for number in rest]
    unit = None
    if word == "heartbeat":
        unit = b""
    elif word == "part":
        kind, system, part, state = numbers
        text = "三楼走廊".encode("gb18030").ljust(31, b"\0")
        unit = bytes([2, 1, 1, system, kind]) + struct.pack("<IH", part, state) + text + tag()
    elif word == "analog":
        kind, system, part, analog, raw = numbers
        unit = bytes([3, 1, 1, system, kind]) + struct.pack("<IBh", part, analog, raw) + tag()
    elif word == "device":
        unit = bytes([21, 1, numbers[0]]) + tag()
    elif word == "slowly":
        slowly = True
        continue
    if unit is not None:
        serial += 1
        last = frame(serial, 2, unit)
    out = last
    if word == "damaged":
        out = last[:-3] + bytes([(last[-3] + 1) % 256]) + last[-2:]
    elif word == "bytes":
        out = bytes.fromhex("".join(rest))
    if slowly:
        for at in range(0, len(out), 3):
            sock.sendall(out[at:at + 3])
            time.sleep(0.002)
    else:
        sock.sendall(out)
