"""TLS before the Spark Connect server, which has none: a listener in the same container that passes the bytes on.

It starts the server as its child on the loopback address, and ends when that ends, so that neither is there alone.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from contracts.settings import HOST

CERTIFICATE = "server.pem"
"""Name of the file with the key and the certificate, among the secrets of the part."""
CHUNK = 256 * 1024
HANDSHAKE_SECONDS = 10.0


def run(
    argv: Sequence[str], environment: Mapping[str, str], certificate: Path, listen: str, port: int, behind: int
) -> int:
    """Run a server with TLS before it.

    Args:
        argv: what to execute; it serves gRPC at `behind` on the loopback address.
        certificate: PEM file with the key and the certificate.

    Returns:
        The exit code of the server.

    Raises:
        OSError: the port is taken, the certificate cannot be read, or there is no such program.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # gRPC's clients refuse a server that does not agree to speak HTTP/2.
    context.set_alpn_protocols(["h2"])
    return asyncio.run(_run(argv, environment, context, listen, port, behind))


async def _run(
    argv: Sequence[str], environment: Mapping[str, str], context: ssl.SSLContext, listen: str, port: int, behind: int
) -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, behind)
        except OSError:  # It is not up yet, or going down; the client tries again.
            writer.close()
            return
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))

    listener = await asyncio.start_server(
        serve, listen, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, limit=CHUNK
    )
    async with listener:
        child = await asyncio.create_subprocess_exec(*argv, env=dict(environment))
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, child.send_signal, name)
        return await child.wait()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes until one side ends, then close the other: HTTP/2 says goodbye in its own frames."""
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()
