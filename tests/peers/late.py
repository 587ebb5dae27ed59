#!/usr/bin/env python3
"""Lets packets through late and in another order.

    late.py QUEUE [LEAST MOST]

Takes the packets that netfilter gives to the queue of this number (`-j NFQUEUE --queue-num QUEUE`), holds each for a time of
its own from LEAST to MOST milliseconds, 5 to 80 where nobody says, and lets it go. Writes {"listening": QUEUE} when it takes
them, and answers a line on standard input with the number of packets so far and of those that one before them was held longer
than. Speaks nfnetlink by itself: linux/netfilter/nfnetlink_queue.h.
"""

import heapq
import json
import random
import select
import socket
import struct
import sys
import time

QUEUE = int(sys.argv[1])
LEAST, MOST = (int(word) / 1000 for word in sys.argv[2:4] or ("5", "80"))

NETLINK_NETFILTER, SUBSYSTEM, REQUEST = 12, 3 << 8, 1
PACKET, VERDICT, CONFIG = range(3)
PACKET_HEADER, VERDICT_HEADER = 1, 2
COMMAND, PARAMETERS, LENGTH = 1, 2, 3
BIND, COPY_META, ACCEPT = 1, 1, 1


def attribute(kind, body):
    length = 4 + len(body)
    return struct.pack("=HH", length, kind) + body + bytes(-length % 4)


def send(kind, *attributes):
    body = struct.pack(">BBH", socket.AF_UNSPEC, 0, QUEUE) + b"".join(attributes)
    link.send(struct.pack("=IHHII", 16 + len(body), SUBSYSTEM | kind, REQUEST, 0, 0) + body)


def packets(data):
    """The numbers of the packets in what the kernel says."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        at = 20
        while kind == SUBSYSTEM | PACKET and at + 4 <= length:
            size, name = struct.unpack_from("=HH", data, at)
            if name & 0x3FFF == PACKET_HEADER:
                yield struct.unpack_from(">I", data, at + 4)[0]
            at += (size + 3) & ~3
        if kind == 2 and (error := struct.unpack_from("=i", data, 16)[0]):
            sys.exit(f"the kernel says error {-error}")
        data = data[(length + 3) & ~3 :]


link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
link.bind((0, 0))
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
send(CONFIG, attribute(COMMAND, struct.pack(">BxH", BIND, socket.AF_INET)))
send(CONFIG, attribute(PARAMETERS, struct.pack(">IB", 64, COPY_META)), attribute(LENGTH, struct.pack(">I", 65536)))
print(json.dumps({"listening": QUEUE}), flush=True)

held, count, turned, newest = [], 0, 0, -1
while True:
    wait = max(0, held[0][0] - time.monotonic()) if held else None
    ready, _, _ = select.select([link, sys.stdin], [], [], wait)
    if link in ready:
        for number in packets(link.recv(1 << 20)):
            heapq.heappush(held, (time.monotonic() + random.uniform(LEAST, MOST), number))
    if sys.stdin in ready:
        if not sys.stdin.readline():
            break
        print(json.dumps({"packets": count, "turned": turned}), flush=True)
    while held and held[0][0] <= time.monotonic():
        number = heapq.heappop(held)[1]
        count, turned, newest = count + 1, turned + (number < newest), max(newest, number)
        send(VERDICT, attribute(VERDICT_HEADER, struct.pack(">II", ACCEPT, number)))
