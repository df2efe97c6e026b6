"""Addresses of Spark Connect servers: `sc://host:port/;name=value;…`, as Spark's own clients read them.

The parameters may hold credentials: `token` does, and names that Spark does not know become headers of each call, by
which some services let their users in.
"""

from __future__ import annotations

from urllib.parse import urlsplit


def checked(url: str) -> str:
    """The address, if Spark's client can read it.

    Raises:
        ValueError: it cannot; the message says why and holds nothing of the address.
    """
    address, parameters = _parts(url)
    try:
        split = urlsplit(address)
        good = split.scheme == "sc" and split.hostname and "@" not in split.netloc and split.path in ("", "/")
        _ = split.port  # of a port that is none, it raises ValueError
    except ValueError:
        good = None
    if not good or split.query or split.fragment:
        raise ValueError("the address of a Spark Connect server is sc://host:port/;name=value;…")
    if any(item.count("=") != 1 for item in parameters):
        raise ValueError("each parameter of a Spark Connect address is name=value; an = in a value is %3D, a ; is %3B")
    return url


def with_session(url: str, session_id: str) -> str:
    """The address for one session of the server, in place of any that it names; holds its credentials, too."""
    address, parameters = _parts(url)
    kept = [item for item in parameters if not item.startswith("session_id=")]
    return f"{address}/;" + ";".join([*kept, f"session_id={session_id}"])


def shown(url: str) -> str:
    """The address without its credentials: of its parameters, whether it is reached by TLS, as with a token it is."""
    address, parameters = _parts(url)
    by_tls = any(item.lower() == "use_ssl=true" or item.startswith("token=") for item in parameters)
    return f"{address}/;use_ssl=true" if by_tls else address


def host_and_port(url: str) -> tuple[str, int]:
    """Where the server listens; 15002 is Spark's default."""
    split = urlsplit(_parts(url)[0])
    return split.hostname or "", split.port or 15002


def _parts(url: str) -> tuple[str, list[str]]:
    address, _, parameters = url.partition(";")
    return address.rstrip("/"), [item for item in parameters.split(";") if item]
