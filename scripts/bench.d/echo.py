"""The floor for Python: python echo.py PATH N answers every message with N bytes, with asyncio's own loop and transports."""

import asyncio
import sys

path, size = sys.argv[1], int(sys.argv[2])
reply = b"x" * size


class Echo(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """He says something."""
        self.transport.write(reply)


async def main() -> None:
    """Until killed."""
    await asyncio.get_running_loop().create_unix_server(Echo, path, backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
