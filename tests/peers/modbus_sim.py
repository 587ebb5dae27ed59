"""Modbus units by pymodbus: a sound peer that anmin did not write.

    modbus_sim.py tcp [PORT]      listens on a free port of 127.0.0.1, or on this one
    modbus_sim.py ascii_tcp       the same with ASCII frames
    modbus_sim.py rtu DEVICE      serves RTU on a serial device, 19200 8N1
    modbus_sim.py ascii DEVICE    the same with ASCII frames

Prints "ready [PORT]" when it serves. Units 1 and 2 hold the same registers:
    holding 0..   uint16 126, int16 -55, float32 230.2 (2), int32 -70000 (2), float64 1234.5 (4), string "AN-7" (2)
    holding 100   uint16 65535, the maker's "no value"
    holding 200.. refused: nothing stands between 101 and 65535
    input 0..     float32 50.0 (2)
    coils 0..7    true at 0 and 3; discrete inputs 0..7: true at 1
"""

import asyncio
import sys

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def unit(number, first=126):
    coils = [SimData(0, values=[n in (0, 3) for n in range(16)], datatype=DataType.BITS)]
    discretes = [SimData(0, values=[n == 1 for n in range(16)], datatype=DataType.BITS)]
    holding = [
        SimData(0, values=first, datatype=DataType.UINT16),
        SimData(1, values=-55, datatype=DataType.INT16),
        SimData(2, values=230.2, datatype=DataType.FLOAT32),
        SimData(4, values=-70000, datatype=DataType.INT32),
        SimData(6, values=1234.5, datatype=DataType.FLOAT64),
        SimData(10, values="AN-7", datatype=DataType.STRING),
        SimData(100, values=65535, datatype=DataType.UINT16),
    ]
    inputs = [SimData(0, values=50.0, datatype=DataType.FLOAT32)]
    return SimDevice(number, simdata=(coils, discretes, holding, inputs))


FRAMERS = {"tcp": FramerType.SOCKET, "rtu": FramerType.RTU, "ascii": FramerType.ASCII}


async def serve_tcp(framing, first=126, port=0):
    """Serves units 1 and 2 on a free port, or on this one, and gives it."""
    units, address = [unit(1, first), unit(2, first)], ("127.0.0.1", port)
    server = ModbusTcpServer(units, address=address, framer=FRAMERS[framing], ignore_missing_devices=True)
    await server.serve_forever(background=True)
    return server.transport.sockets[0].getsockname()[1]


async def main(arguments):
    kind, *device = arguments
    if device and device[0].isdigit():
        print("ready", await serve_tcp(kind, port=int(device[0])), flush=True)
    elif device:
        server = ModbusSerialServer(
            [unit(1), unit(2)], port=device[0], baudrate=19200, framer=FRAMERS[kind], ignore_missing_devices=True
        )
        await server.serve_forever(background=True)
        print("ready", flush=True)
    else:
        print("ready", await serve_tcp(kind.removesuffix("_tcp")), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
