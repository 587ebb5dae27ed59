"""Modbus units as they hang on walls, by pymodbus: each maker has its own idea of where a value stands and in which order.

    modbus_wall.py                listens on a free port of 127.0.0.1

Prints "ready PORT" when it serves, and "WRITTEN CODE" for every request that is not a read. Units:
    3    a gas detector Yaoan YA-K300: holding 0-7
    5    a meter: float32 CDAB 231.7 V at holding 20, zeros around it
    7    a meter: float32 BADC 229.9 V at input 10
    9    a meter: int32 DCBA, thousandths, 230.5 V at holding 40
    11   a meter Eastron SDM120: float32 ABCD, input registers
"""

import asyncio
import struct
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def words(order, packed):
    a, b, c, d = packed
    out = {"ABCD": (a, b, c, d), "CDAB": (c, d, a, b), "BADC": (b, a, d, c), "DCBA": (d, c, b, a)}[order]
    return [out[0] << 8 | out[1], out[2] << 8 | out[3]]


def block(address, values):
    return SimData(address, values=values, datatype=DataType.REGISTERS)


def unit(number, holding=None, inputs=None):
    none = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    # Something must stand in each table; nobody looks there.
    holding = holding or [block(60_000, [0])]
    inputs = inputs or [block(60_000, [0])]
    return SimDevice(number, simdata=(none, none, holding, inputs))


UNITS = [
    unit(3, holding=[block(0, [0x7E, 0, 0, 231, 1, 100, 25, 50])]),
    unit(5, holding=[block(16, [0, 0, 0, 0] + words("CDAB", struct.pack(">f", 231.7)) + [0, 0])]),
    unit(7, inputs=[block(8, [0, 0] + words("BADC", struct.pack(">f", 229.9)))]),
    unit(9, holding=[block(40, words("DCBA", struct.pack(">i", 230_500)))]),
    unit(11, inputs=[
        block(at, words("ABCD", struct.pack(">f", value)))
        for at, value in [(0, 230.2), (6, 1.5), (12, 345.0), (0x46, 50.02), (0x48, 17.25)]
    ]),
]


def trace(sending, pdu):
    if not sending and pdu.function_code > 4:
        print("WRITTEN", pdu.function_code, flush=True)
    return pdu


async def main():
    server = ModbusTcpServer(UNITS, address=("127.0.0.1", 0), ignore_missing_devices=True, trace_pdu=trace)
    await server.serve_forever(background=True)
    print("ready", server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
