#!/usr/bin/env python3
"""Calls the kernel on behalf of socket_options.c: socket_options.py PATH

Each connection to the socket at PATH is one question: the number of the option and the length of the room, together with
the socket that is meant. The answer is an error number, the length as the kernel gives it, and the bytes that it wrote.
Ends with the process that started it.
"""

import ctypes
import os
import signal
import socket
import struct
import sys

SO_GET_FILTER = 26
SO_DETACH_FILTER = 27
PR_SET_PDEATHSIG = 1
INSTRUCTION = 8

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def ask(fd, option, length):
    # The kernel counts instructions of a filter, and bytes of everything else.
    unit = INSTRUCTION if option == SO_GET_FILTER else 1
    room = ctypes.create_string_buffer(max(1, length * unit))
    given = ctypes.c_uint32(length)
    if option == SO_DETACH_FILTER:
        unused = ctypes.c_int(0)
        result = libc.setsockopt(fd, socket.SOL_SOCKET, option, ctypes.byref(unused), ctypes.sizeof(unused))
    else:
        result = libc.getsockopt(fd, socket.SOL_SOCKET, option, room, ctypes.byref(given))
    if result != 0:
        return struct.pack("=iI", ctypes.get_errno(), 0)
    return struct.pack("=iI", 0, given.value) + room.raw[: min(given.value, length) * unit]


path = sys.argv[1]
if os.path.exists(path):
    os.remove(path)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(64)
    while True:
        link, _ = listener.accept()
        sockets = []
        try:
            with link:
                data, sockets, _, _ = socket.recv_fds(link, 8, 1)
                if len(data) == 8 and len(sockets) == 1:
                    link.send(ask(sockets[0], *struct.unpack("=iI", data)))
        except ConnectionError:
            pass  # Tests kill whoever asks.
        finally:
            for fd in sockets:
                os.close(fd)
