"""Decides who can reach the local server: only this machine, or, with a secret, others too. Nothing here imports Prefect."""

import ipaddress
from collections.abc import Mapping

from bonsai.profiles.errors import ConfigError, describe

LOOPBACK = "127.0.0.1"
EVERY = {"0.0.0.0": LOOPBACK, "::": "[::1]"}  # noqa: S104  # names them; `serve` listens there only where a secret is asked for
"""By host name that means all addresses of this machine, the address to reach it from this machine."""
SERVER_SECRET, CLIENT_SECRET = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def origin(host: str, port: int) -> str:
    """Return the address that this machine calls a server at, which listens on a host."""
    called = EVERY.get(host) or (f"[{host}]" if ":" in host else host)
    return f"http://{called}:{port}"


def secrets(host: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of Prefect's basic authentication, for the server and for the runs that call it; none where none is asked for.

    Args:
        host: Host that the server will listen on.
        environment: Environment variables of the user.

    Raises:
        ConfigError: Others can reach the host, and there is no secret; or client and server have different ones.
    """
    server, client = environment.get(SERVER_SECRET, ""), environment.get(CLIENT_SECRET, "")
    user, _, password = server.partition(":")
    if not is_loopback(host) and not (user and password):
        raise ConfigError(
            describe(
                "--host: others can reach the server there, and it asks for no password",
                given=f"--host {host}, {SERVER_SECRET} {'without a user and a password' if server else 'not set'}",
                allowed=f"{LOOPBACK}, or any host with {SERVER_SECRET}=USER:PASSWORD",
                fix=f"export {SERVER_SECRET}=USER:PASSWORD here, and {CLIENT_SECRET} with the same text where runs are started; or leave --host out",
            )
        )
    if server and client not in ("", server):
        raise ConfigError(
            describe(
                f"{CLIENT_SECRET} is not what the server asks for",
                given=f"another text than {SERVER_SECRET}",
                allowed="the same text in both",
                fix=f"unset {CLIENT_SECRET}, or set it to the text of {SERVER_SECRET}",
            )
        )
    return {SERVER_SECRET: server, CLIENT_SECRET: server} if server else {}
