"""The kernel's table of listening Unix sockets (sock_diag(7)): how many were bound at one path of one file system."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP, netlink(7)
DONE: Final = 3  # NLMSG_DONE
LISTENING: Final = 1 << 10  # TCP_LISTEN, as a bit
SHOWN: Final = 1 | 2  # UDIAG_SHOW_NAME | UDIAG_SHOW_VFS
NAME: Final = 0  # UNIX_DIAG_NAME
VFS: Final = 1  # UNIX_DIAG_VFS: inode and device
HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, pid
REQUEST: Final = struct.Struct("=BBHIIIII")  # struct unix_diag_req
ENTRY: Final = 16  # bytes of struct unix_diag_msg, which we skip
ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
ROOM: Final = 1 << 16  # bytes; the kernel's pieces are 32 KiB at most
LIMIT: Final = 5.0  # seconds; the kernel answers at once


def listeners(path: str) -> int:
    """How many sockets listen at this path, in this network namespace; 0 where that cannot be known.

    Containers may share our network and so this table, but not our file systems: what is at their path is not at ours.
    """
    try:
        # The folder's device, since overlayfs gives a file that of the layer below (kernel: filesystems/overlayfs.rst).
        device = _as_the_kernel_counts(os.stat(os.path.dirname(path)).st_dev)
        return sum(1 for found in _listening() if found == (os.fsencode(path), device))
    except (OSError, struct.error):  # no such table in this kernel, or not for us
        return 0


def _as_the_kernel_counts(device: int) -> int:
    return os.major(device) << 20 | os.minor(device)


def _listening() -> Iterator[tuple[bytes, int]]:
    """The path and the device of each Unix socket that listens."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as table:
        table.settimeout(LIMIT)
        table.send(_question())
        while True:
            piece = memoryview(table.recv(ROOM))
            while piece:
                length, kind, _, _, _ = HEADER.unpack_from(piece)
                if kind == DONE:
                    return
                if kind != SOCK_DIAG_BY_FAMILY:
                    raise OSError(f"the kernel answers with a message of type {kind}")
                attributes = dict(_attributes(piece[HEADER.size + ENTRY : length]))
                if VFS in attributes:
                    yield attributes[NAME].rstrip(b"\0"), struct.unpack("=II", attributes[VFS])[1]
                piece = piece[_aligned(length) :]


def _question() -> bytes:
    request = REQUEST.pack(socket.AF_UNIX, 0, 0, LISTENING, 0, SHOWN, 0xFFFFFFFF, 0xFFFFFFFF)
    return HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, DUMP, 0, 0) + request


def _attributes(rest: memoryview) -> Iterator[tuple[int, bytes]]:
    while len(rest) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(rest)
        yield kind, bytes(rest[ATTRIBUTE.size : length])
        rest = rest[max(_aligned(length), ATTRIBUTE.size) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
