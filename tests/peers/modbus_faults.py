"""Modbus units that misbehave, each in its own way, over raw bytes.

    modbus_faults.py mbap         Modbus TCP on a free port of 127.0.0.1
    modbus_faults.py rtu_tcp      RTU frames over TCP on a free port
    modbus_faults.py rtu_pty      RTU on a pseudo-terminal

Prints "ready PORT" or "ready DEVICE". Holding register A of unit U holds U * 1000 + A, so that an answer taken for another
one shows. Every other request of a unit is answered as it should be; the others so:
    1 well            5 from unit 55, then nothing      9 after a burst of noise
    2 late (0.3 s)    6 twice                           10 with another function code
    3 one too few     7 one too many                    21..31 exceptions 1..11, every time
    4 damaged         8 never                           40 byte count odd    41 byte count 0    42 byte count 255
    11 after an echo of the request, every time         12 the same, and the answer takes its time (0.1 s); serial only
    13 with one bit in 200 turned over, every time; serial only
    15 byte by byte, every time
    14 only when byte 8F stands before the request; serial only
A line that starts with "count" on standard input is answered with the number of requests so far.
"""

import asyncio
import os
import random
import struct
import sys
import tty

seen = {}
requests = 0
noise = random.Random(13)


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def registers(unit, address, count):
    return b"".join(struct.pack(">H", (unit * 1000 + address + n) & 0xFFFF) for n in range(count))


def answers(unit, function, address, count, serial):
    """What to send: a list of (delay in seconds, unit, function and data or nothing, damaged, noise before)."""
    data = registers(unit, address, count)
    sound = (0, unit, bytes([function, len(data)]) + data, False, b"")
    if 21 <= unit <= 31:
        return [(0, unit, bytes([function | 0x80, unit - 20]), False, b"")]
    turn = seen[unit] = seen.get(unit, 0) + 1
    if unit == 8:
        return []
    if turn % 2 == 0 and unit not in (11, 12, 13, 14, 15):
        return [sound]
    short, long = data[:-2], data + b"\x7f\x7f"
    foreign = registers(55, address, count)
    request = struct.pack(">BBHH", unit, function, address, count)
    echo = request + crc(request)
    return {
        2: [(0.3, *sound[1:])],
        3: [(0, unit, bytes([function, len(short)]) + short, False, b"")],
        4: [(0, *sound[1:3], True, b"")],
        5: [(0, 55, bytes([function, len(foreign)]) + foreign, False, b"")],
        6: [sound, (0.005, *sound[1:])],
        7: [(0, unit, bytes([function, len(long)]) + long, False, b"")],
        9: [(0, *sound[1:4], bytes(range(0xA0, 0xA9)))],
        10: [(0, unit, bytes([function + 1, len(data)]) + data, False, b"")],
        11: [(0, *sound[1:4], echo)] if serial else [sound],
        12: [(0, unit, b"", False, echo), (0.1, *sound[1:])] if serial else [sound],
        40: [(0, unit, bytes([function, len(data) - 1]) + data[:-1], False, b"")],
        41: [(0, unit, bytes([function, 0]), False, b"")],
        42: [(0, unit, bytes([function, 255]) + data, False, b"")],
    }.get(unit, [sound])


def turned_over(packet):
    return bytes(byte ^ sum((noise.random() < 1 / 200) << bit for bit in range(8)) for byte in packet)


class Slaves:
    def __init__(self, mbap):
        self.mbap = mbap
        self.buffer = b""
        self.woken = False

    def take(self, data, send):
        """Takes bytes of the line and sends what is due, now or later."""
        global requests
        self.buffer += data
        size = 12 if self.mbap else 8
        while len(self.buffer) >= size:
            frame = self.buffer[:size]
            if not self.mbap and crc(frame[:6]) != frame[6:]:
                self.woken = self.buffer[0] == 0x8F
                self.buffer = self.buffer[1:]
                continue
            is_awake, self.woken = self.woken, False
            self.buffer = self.buffer[size:]
            requests += 1
            transaction, body = (frame[:2], frame[6:]) if self.mbap else (b"", frame[:6])
            unit, function, address, count = struct.unpack(">BBHH", body)
            if unit == 14 and not self.mbap and not is_awake:
                continue
            for delay, source, pdu, damaged, before in answers(unit, function, address, count, not self.mbap):
                if self.mbap:
                    if damaged:
                        transaction = bytes([transaction[0] ^ 0xFF, transaction[1]])
                    # Noise on TCP is a stray answer to a transaction that was never asked.
                    stray = struct.pack(">HHHBBB", 0xFFFF, 0, 3, source, 0x83, 4) if before else b""
                    header = transaction + struct.pack(">HHB", 0, len(pdu) + 1, source)
                    packet = stray + header + pdu if pdu else stray
                else:
                    whole = bytes([source]) + pdu
                    check = crc(whole)
                    check = bytes([check[0] ^ 0x5A, check[1]]) if damaged else check
                    packet = before + whole + check if pdu else before
                    if unit == 13:
                        packet = turned_over(packet)
                if unit == 15:
                    for n in range(len(packet)):
                        asyncio.get_running_loop().call_later(n * 0.001, send, packet[n : n + 1])
                elif delay:
                    asyncio.get_running_loop().call_later(delay, send, packet)
                else:
                    send(packet)


async def serve_tcp(mbap):
    async def client(reader, writer):
        slaves = Slaves(mbap)

        def send(packet):
            if not writer.is_closing():
                writer.write(packet)

        try:
            while data := await reader.read(256):
                slaves.take(data, send)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)


async def serve_pty():
    master, slave = os.openpty()
    tty.setraw(slave)
    slaves = Slaves(False)
    asyncio.get_running_loop().add_reader(
        master, lambda: slaves.take(os.read(master, 256), lambda packet: os.write(master, packet))
    )
    print("ready", os.ttyname(slave), flush=True)


async def main(mode):
    loop = asyncio.get_running_loop()

    def command():
        line = sys.stdin.readline()
        if not line:
            loop.stop()
        elif line.startswith("count"):
            print("count", requests, flush=True)

    loop.add_reader(sys.stdin, command)
    await (serve_pty() if mode == "rtu_pty" else serve_tcp(mode == "mbap"))
    await asyncio.Event().wait()


try:
    asyncio.run(main(sys.argv[1]))
except RuntimeError:
    pass  # standard input was closed: the test is over
