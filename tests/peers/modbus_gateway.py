"""A gateway between Modbus TCP and a slow line with the units of modbus_sim.py on it, as they hang in cupboards: it takes so many
connections and no more, and carries one request at a time, whoever it is from.

    modbus_gateway.py [--connections N] [--takes SECONDS]

Prints "ready PORT". Unit 1 holds 126 at holding register 0, unit 2 holds 500, so that an answer given to the wrong master shows.
A line that starts with "count" on standard input is answered with "count TURNED_AWAY MOST_CONNECTIONS MOST_ON_THE_LINE REQUESTS".
"""

import argparse
import asyncio
import struct
import sys

from modbus_sim import unit
from pymodbus.server import ModbusTcpServer


class Gateway:
    def __init__(self, options, port):
        self.options, self.port = options, port
        self.line = asyncio.Lock()
        self.connections = self.most = self.turned_away = self.on_the_line = self.most_on_the_line = self.requests = 0

    async def master(self, reader, writer):
        if self.connections >= self.options.connections:
            self.turned_away += 1
            writer.close()
            return
        self.connections += 1
        self.most = max(self.most, self.connections)
        line, to_line = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while True:
                request = await frame(reader)
                async with self.line:
                    self.on_the_line += 1
                    self.most_on_the_line = max(self.most_on_the_line, self.on_the_line)
                    self.requests += 1
                    await asyncio.sleep(self.options.takes)
                    to_line.write(request)
                    writer.write(await frame(line))
                    self.on_the_line -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.connections -= 1
        to_line.close()
        writer.close()


async def frame(reader):
    header = await reader.readexactly(6)
    return header + await reader.readexactly(struct.unpack(">H", header[4:])[0])


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--takes", type=float, default=0.005)
    options = parser.parse_args()
    units = ModbusTcpServer([unit(1, 126), unit(2, 500)], address=("127.0.0.1", 0), ignore_missing_devices=True)
    await units.serve_forever(background=True)
    gateway = Gateway(options, units.transport.sockets[0].getsockname()[1])

    def command():
        line = sys.stdin.readline()
        if line.startswith("count"):
            print("count", gateway.turned_away, gateway.most, gateway.most_on_the_line, gateway.requests, flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin, command)
    server = await asyncio.start_server(gateway.master, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
