"""Modbus units by libmodbus, the C library that most gateways and panels are built on: it comes with Debian's mbpoll.

    modbus_lib.py tcp             listens on a free port of 127.0.0.1, one master at a time
    modbus_lib.py rtu DEVICE      serves RTU on a serial device, 19200 8N1

Prints "ready [PORT]" when it serves. Over TCP units 1 and 2, on a serial line unit 1 (libmodbus listens to one only) hold what the
units of modbus_sim.py hold, with zeros between holding 12 and 99. On a serial line libmodbus 3.1.6 takes what follows a request to
another unit for that unit's answer, and reads out of step for some requests when it was none: ask it for unit 1 alone there.
"""

import ctypes
import os
import socket
import struct
import sys

C_INT, C_VOID = ctypes.c_int, ctypes.c_void_p
LONGEST = 260


class Mapping(ctypes.Structure):
    _fields_ = [(name, C_INT) for name in (
        "nb_bits", "start_bits", "nb_input_bits", "start_input_bits", "nb_input_registers", "start_input_registers",
        "nb_registers", "start_registers",
    )] + [
        ("bits", ctypes.POINTER(ctypes.c_uint8)), ("input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("input_registers", ctypes.POINTER(ctypes.c_uint16)), ("registers", ctypes.POINTER(ctypes.c_uint16)),
    ]


def library():
    modbus = ctypes.CDLL("libmodbus.so.5", use_errno=True)
    for name, answer, arguments in [
        ("modbus_new_tcp", C_VOID, [ctypes.c_char_p, C_INT]),
        ("modbus_new_rtu", C_VOID, [ctypes.c_char_p, C_INT, ctypes.c_char, C_INT, C_INT]),
        ("modbus_set_slave", C_INT, [C_VOID, C_INT]),
        ("modbus_connect", C_INT, [C_VOID]),
        ("modbus_tcp_listen", C_INT, [C_VOID, C_INT]),
        ("modbus_tcp_accept", C_INT, [C_VOID, ctypes.POINTER(C_INT)]),
        ("modbus_receive", C_INT, [C_VOID, ctypes.c_char_p]),
        ("modbus_reply", C_INT, [C_VOID, ctypes.c_char_p, C_INT, ctypes.POINTER(Mapping)]),
        ("modbus_mapping_new", ctypes.POINTER(Mapping), [C_INT] * 4),
    ]:
        function = getattr(modbus, name)
        function.restype, function.argtypes = answer, arguments
    return modbus


def words(form, value):
    packed = struct.pack(form, value)
    return struct.unpack(f">{len(packed) // 2}H", packed)


def registers(modbus):
    mapping = modbus.modbus_mapping_new(16, 16, 101, 2)
    held = mapping.contents
    holding = [126, 0xFFC9, *words(">f", 230.2), *words(">i", -70000), *words(">d", 1234.5), *struct.unpack(">2H", b"AN-7")]
    for address, word in [*enumerate(holding), (100, 0xFFFF)]:
        held.registers[address] = word
    for address, word in enumerate(words(">f", 50.0)):
        held.input_registers[address] = word
    for address in (0, 3):
        held.bits[address] = 1
    held.input_bits[1] = 1
    return mapping


def main(kind, device=None):
    modbus = library()
    mapping, frame = registers(modbus), ctypes.create_string_buffer(LONGEST)
    if kind == "rtu":
        context = modbus.modbus_new_rtu(device.encode(), 19200, b"N", 8, 1)
        modbus.modbus_set_slave(context, 1)
        if modbus.modbus_connect(context) == -1:
            sys.exit(f"libmodbus cannot open {device}: {os.strerror(ctypes.get_errno())}")
        print("ready", flush=True)
        while True:
            length = modbus.modbus_receive(context, frame)
            if length > 0:
                modbus.modbus_reply(context, frame, length, mapping)
    context = modbus.modbus_new_tcp(b"127.0.0.1", 0)
    listener = C_INT(modbus.modbus_tcp_listen(context, 1))
    with socket.socket(fileno=os.dup(listener.value)) as bound:
        print("ready", bound.getsockname()[1], flush=True)
    while modbus.modbus_tcp_accept(context, ctypes.byref(listener)) != -1:
        while (length := modbus.modbus_receive(context, frame)) != -1:
            # libmodbus answers for every unit over TCP; behind a gateway there are not so many.
            if length > 0 and frame.raw[6] in (1, 2):
                modbus.modbus_reply(context, frame, length, mapping)


main(*sys.argv[1:])
