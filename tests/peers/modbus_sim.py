"""Modbus units by pymodbus: a sound peer that anmin did not write.

    modbus_sim.py tcp             listens on a free port of 127.0.0.1
    modbus_sim.py rtu DEVICE      serves RTU on a serial device, 19200 8N1

Prints "ready [PORT]" when it serves. Units 1 and 2 hold the same registers:
    holding 0..   uint16 126, int16 -55, float32 230.2 (2), int32 -70000 (2), float64 1234.5 (4), string "AN-7" (2)
    holding 100   uint16 65535, the maker's "no value"
    holding 200.. refused: nothing stands between 101 and 65535
    input 0..     float32 50.0 (2)
    coils 0..7    true at 0 and 3; discrete inputs 0..7: true at 1
"""

import asyncio
import sys

from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def unit(number):
    coils = [SimData(0, values=[n in (0, 3) for n in range(16)], datatype=DataType.BITS)]
    discretes = [SimData(0, values=[n == 1 for n in range(16)], datatype=DataType.BITS)]
    holding = [
        SimData(0, values=126, datatype=DataType.UINT16),
        SimData(1, values=-55, datatype=DataType.INT16),
        SimData(2, values=230.2, datatype=DataType.FLOAT32),
        SimData(4, values=-70000, datatype=DataType.INT32),
        SimData(6, values=1234.5, datatype=DataType.FLOAT64),
        SimData(10, values="AN-7", datatype=DataType.STRING),
        SimData(100, values=65535, datatype=DataType.UINT16),
    ]
    inputs = [SimData(0, values=50.0, datatype=DataType.FLOAT32)]
    return SimDevice(number, simdata=(coils, discretes, holding, inputs))


async def main(arguments):
    units = [unit(1), unit(2)]
    if arguments[0] == "tcp":
        server = ModbusTcpServer(units, address=("127.0.0.1", 0), ignore_missing_devices=True)
    else:
        server = ModbusSerialServer(units, port=arguments[1], baudrate=19200, ignore_missing_devices=True)
    await server.serve_forever(background=True)
    if arguments[0] == "tcp":
        print("ready", server.transport.sockets[0].getsockname()[1], flush=True)
    else:
        print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1:]))
