#!/usr/bin/env python3
"""A city's monitoring centre by the tables of GB/T 26875.3-2011, which anmin did not write.

  city.py PORT ADDRESS

Listens (port 0: any) and takes one command a line on standard input. Writes {"listening": PORT}, {"connected": N} when a device
dials in and {"closed": N} when it has gone, and one JSON line for each frame that comes, with what it says by the tables.

  confirm | deny | silent     how data frames are answered from here on
  deny TYPE                   data of this type alone
  request TYPE HEX            command 4; HEX are the objects
  control TYPE HEX            command 1
  clock SECONDS               type 90: our time and so many seconds
  wish COMMAND TYPE HEX ...   several frames in one write
  again                       the last frame once more
  damaged                     the last frame with its checksum off by one
  bytes HEX                   as they are
  slowly | quickly            from here on three bytes at a time, or not
  away | back                 hangs up and listens no more; listens again
"""

import datetime
import json
import socket
import struct
import sys
import threading
import time

PORT, ADDRESS = int(sys.argv[1]), int(sys.argv[2])
CHINA = datetime.timezone(datetime.timedelta(hours=8))
# Table 3: bytes of an object of fixed length, its time with it.
SIZES = {1: 10, 2: 46, 3: 16, 4: 10, 5: 4, 7: 38, 8: 8, 21: 7, 24: 8, 25: 2, 28: 6}


class Centre:
    def __init__(self):
        self.mode, self.denied, self.slow = "confirm", None, False
        self.serial, self.last, self.device, self.listener, self.count = 0, b"", 0, None, 0
        self.peer = None
        self.lock = threading.Lock()
        self.port = PORT
        self.back()

    def say(self, **line):
        print(json.dumps(line, ensure_ascii=False), flush=True)

    def back(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port, self.listener = listener.getsockname()[1], listener
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()
        self.say(listening=self.port)

    def away(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if self.peer:
            self.peer.shutdown(socket.SHUT_RDWR)
        self.say(away=True)

    def accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.count += 1
            self.peer = peer
            self.say(connected=self.count)
            threading.Thread(target=self.listen, args=(peer, self.count), daemon=True).start()

    def send(self, peer, data):
        with self.lock:
            step = 3 if self.slow else max(1, len(data))
            for at in range(0, len(data), step):
                peer.sendall(data[at:at + step])
                if self.slow:
                    time.sleep(0.002)

    def listen(self, peer, number):
        data = b""
        while True:
            try:
                more = peer.recv(65536)
            except OSError:
                more = b""
            if not more:
                self.say(closed=number)
                return
            data += more
            while len(data) >= 30 and data[:2] == b"@@":
                total = 30 + struct.unpack_from("<H", data, 24)[0]
                if len(data) < total:
                    break
                one, data = data[:total], data[total:]
                self.take(peer, one)

    def take(self, peer, one):
        serial, command, unit = struct.unpack_from("<H", one, 2)[0], one[26], one[27:-3]
        self.device = int.from_bytes(one[12:18], "little")
        sound = one[-2:] == b"##" and one[-3] == sum(one[2:-3]) % 256
        kind = unit[0] if unit else None
        try:
            objects = list(self.objects(unit))
        except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
            objects, sound = [str(error)], False
        self.say(command=command, type=kind, serial=serial, source=self.device,
                 destination=int.from_bytes(one[18:24], "little"), sound=sound, objects=objects)
        if command != 2 or self.mode == "silent":
            return
        denies = self.mode == "deny" and self.denied in (None, kind)
        self.send(peer, self.frame(serial, 6 if denies else 3, b""))

    def objects(self, unit):
        if not unit:
            return
        kind, count, at = unit[0], unit[1], 2
        for _ in range(count):
            if kind == 6:
                size = 3 + unit[at + 2]
            elif kind == 26:
                size = 1 + unit[at]
            else:
                size = SIZES[kind]
            one, at = unit[at:at + size], at + size
            if len(one) < size:
                raise ValueError("an object is cut off")
            yield self.read(kind, one)
        if at != len(unit):
            raise ValueError("bytes behind the last object")

    def read(self, kind, one):
        said = {}
        if kind in (1, 2, 3, 4, 21, 24):
            said["time"], one = self.time(one[-6:]), one[:-6]
        if kind in (1, 2, 3, 4, 5, 6, 7, 8):
            said["system"] = [one[0], one[1]]
        if kind in (2, 3, 7):
            said["part"] = [one[2], struct.unpack_from("<I", one, 3)[0]]
        if kind == 1:
            said["state"] = struct.unpack_from("<H", one, 2)[0]
        elif kind == 2:
            said["state"] = struct.unpack_from("<H", one, 7)[0]
            said["text"] = one[9:].rstrip(b"\0 ").decode("gb18030")
        elif kind == 3:
            said["analog"], said["raw"] = struct.unpack_from("<Bh", one, 7)
        elif kind == 4:
            said["did"], said["operator"] = one[2], one[3]
        elif kind in (5, 25):
            said["version"] = list(one[-2:])
        elif kind == 6:
            said["text"] = one[3:].decode("gb18030")
        elif kind == 7:
            said["text"] = one[7:].rstrip(b"\0 ").decode("gb18030")
        elif kind == 8:
            said["time"] = self.time(one[2:])
        elif kind == 21:
            said["state"] = one[0]
        elif kind == 24:
            said["did"], said["operator"] = one[0], one[1]
        elif kind == 26:
            said["text"] = one[1:].decode("gb18030")
        elif kind == 28:
            said["time"] = self.time(one)
        return said

    def time(self, tag):
        second, minute, hour, day, month, year = tag
        return datetime.datetime(2000 + year, month, day, hour, minute, second).isoformat()

    def tag(self, seconds=0):
        at = datetime.datetime.now(CHINA) + datetime.timedelta(seconds=seconds)
        return bytes([at.second, at.minute, at.hour, at.day, at.month, at.year - 2000])

    def frame(self, serial, command, unit):
        middle = struct.pack("<HBB", serial, 1, 1) + self.tag()
        middle += ADDRESS.to_bytes(6, "little") + self.device.to_bytes(6, "little")
        middle += struct.pack("<HB", len(unit), command) + unit
        return b"@@" + middle + bytes([sum(middle) % 256]) + b"##"

    def wish(self, command, kind, objects, count=1):
        self.serial += 1
        return self.frame(self.serial, command, bytes([kind, count]) + objects)

    def obey(self, word, rest):
        if word in ("confirm", "silent", "deny"):
            self.mode, self.denied = word, int(rest[0]) if rest else None
        elif word in ("slowly", "quickly"):
            self.slow = word == "slowly"
        elif word in ("away", "back"):
            getattr(self, word)()
        else:
            out = self.last
            if word in ("request", "control"):
                out = self.wish(4 if word == "request" else 1, int(rest[0]), bytes.fromhex(rest[1]))
            elif word == "clock":
                out = self.wish(1, 90, self.tag(int(rest[0])))
            elif word == "wish":
                threes = [rest[n:n + 3] for n in range(0, len(rest), 3)]
                out = b"".join(self.wish(int(c), int(kind), bytes.fromhex(objects)) for c, kind, objects in threes)
            elif word == "damaged":
                out = self.last[:-3] + bytes([(self.last[-3] + 1) % 256]) + self.last[-2:]
            elif word == "bytes":
                out = bytes.fromhex("".join(rest))
            if word in ("request", "control", "clock"):
                self.last = out
            self.send(self.peer, out)


centre = Centre()
for line in sys.stdin:
    word, *rest = line.split()
    centre.obey(word, rest)
