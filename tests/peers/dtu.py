"""A 4G modem with a serial line behind it (DTU), which dials in; on its line hang the units of modbus_sim.py, by pymodbus.

    dtu.py PORT REGISTRATION [--framing rtu|ascii] [--first N] [--heartbeat TEXT [--every SECONDS] [--before]]
           [--pieces] [--one-in N] [--hang-up SECONDS] [--redial SECONDS]

Calls 127.0.0.1:PORT, says who it is in two pieces, then passes bytes through both ways. Says "called N" at each call and
"cut off" when the other end has closed. --first is what holding register 0 holds; --before puts a heartbeat into one piece with
each answer, before it; --pieces sends every byte alone; --one-in turns over a bit of one byte in so many; --hang-up ends
each call after so long.
"""

import argparse
import asyncio
import random

from modbus_sim import serve_tcp

noise = random.Random(7)


def turned_over(data, one_in):
    return bytes(byte ^ (1 << noise.randrange(8)) if one_in and noise.randrange(one_in) == 0 else byte for byte in data)


async def call(options, port):
    reader, writer = await asyncio.open_connection("127.0.0.1", options.port)
    line, to_line = await asyncio.open_connection("127.0.0.1", port)
    registration = options.registration.encode()
    for piece in (registration[:3], registration[3:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    heartbeat = (options.heartbeat or "").encode()

    async def down():
        while data := await reader.read(512):
            to_line.write(turned_over(data, options.one_in))

    async def up():
        while data := await line.read(512):
            data = (heartbeat if options.before else b"") + turned_over(data, options.one_in)
            if not options.pieces:
                writer.write(data)
                continue
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.0005)

    async def beat():
        while True:
            await asyncio.sleep(options.every)
            if heartbeat and not options.before:
                writer.write(heartbeat)

    tasks = [asyncio.create_task(job()) for job in (down, up, beat)]
    done, _ = await asyncio.wait(tasks, timeout=options.hang_up, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    writer.close()
    to_line.close()
    return bool(done)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("registration")
    parser.add_argument("--framing", default="rtu")
    parser.add_argument("--first", type=int, default=126)
    parser.add_argument("--heartbeat")
    parser.add_argument("--every", type=float, default=0.05)
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--one-in", type=int)
    parser.add_argument("--hang-up", type=float)
    parser.add_argument("--redial", type=float, default=0.1)
    options = parser.parse_args()
    port = await serve_tcp(options.framing, options.first)
    calls = 0
    while True:
        try:
            calls += 1
            print("called", calls, flush=True)
            if await call(options, port):
                print("cut off", flush=True)
        except OSError:
            print("cut off", flush=True)
        await asyncio.sleep(options.redial)


asyncio.run(main())
