"""Answers that wait for their client to read."""

import socket
from _socket import socket as plain_socket
from collections import deque
from typing import Final

DONT_WAIT: Final = socket.MSG_DONTWAIT


class Unsent:
    """Made when a socket takes no more, and dropped when all is sent."""

    __slots__ = ("_frames", "_since", "size")

    def __init__(self, frame: memoryview, now: float) -> None:
        self._frames = deque([frame])
        self._since = now  # boot instant at which the client last took something
        self.size = len(frame)

    def add(self, frame: bytes) -> None:
        """Put a frame behind the others."""
        self._frames.append(memoryview(frame))
        self.size += len(frame)

    def flush(self, sock: plain_socket, now: float) -> bool:
        """Send what the socket takes; whether that was all. Raises OSError when the peer is gone."""
        frames = self._frames
        while frames:
            try:
                count = sock.send(frames[0], DONT_WAIT)
            except BlockingIOError:
                return False
            self._since = now
            self.size -= count
            if count < len(frames[0]):
                frames[0] = frames[0][count:]
            else:
                frames.popleft()
        return True

    def waited(self, now: float) -> float:
        """Seconds for which the client has taken nothing."""
        return now - self._since
