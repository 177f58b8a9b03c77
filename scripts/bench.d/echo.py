"""The floor for Python: echo.py PATH N answers every message with N bytes, by asyncio's own loop and transports."""

import asyncio
import sys
from typing import cast

path, size = sys.argv[1], int(sys.argv[2])
reply = b"x" * size


class Echo(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, _: bytes) -> None:
        """He says something."""
        self.transport.write(reply)


async def main() -> None:
    """Until killed."""
    await asyncio.get_running_loop().create_unix_server(Echo, path, backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
