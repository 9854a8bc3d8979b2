"""The server's side of TLS: its certificate, and TLS under each accepted connection."""

import ssl
from collections.abc import Sequence
from typing import Any

import trio
from attrs import define

from ...errors import SettingsError


def server_context(cert_file: str, key_file: str) -> ssl.SSLContext:
    """The context for a PEM certificate (with its chain) and its key.  Raises SettingsError.

    TLS 1.2 or newer, no compression, no renegotiation; ALPN offers HTTP/1.1 only.
    """
    for name, file in (("tls_cert_file", cert_file), ("tls_key_file", key_file)):
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            problem = error.strerror or "cannot be read"
            raise SettingsError(f"server.{name}", f"{file}: {problem}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a callback OpenSSL would ask for an encrypted key's passphrase on the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not a certificate and its key"
        problem = f"{cert_file} and {key_file}: {reason}; wanted: PEM, key without passphrase"
        raise SettingsError("server.tls_cert_file", problem) from None
    return context


@define(eq=False)
class Certificate:
    """The context that new connections get; another one takes its place when the files change.
    None: no TLS, for the life of the process."""

    context: ssl.SSLContext | None

    def replace(self, context: ssl.SSLContext | None) -> None:
        """TLS does not come or go with it."""
        if self.context is not None and context is not None:
            self.context = context


class TlsListener(trio.abc.Listener[trio.SSLStream[Any]]):
    """Puts TLS under what ``listener`` accepts; the handshake is the first thing each does."""

    def __init__(self, listener: trio.abc.Listener[Any], certificate: Certificate) -> None:
        self.under = listener
        self._certificate = certificate

    async def accept(self) -> trio.SSLStream[Any]:
        stream = await self.under.accept()
        context = self._certificate.context
        assert context is not None, "with_tls looked"
        return trio.SSLStream(stream, context, server_side=True, https_compatible=True)

    async def aclose(self) -> None:
        await self.under.aclose()


def with_tls(
    listeners: Sequence[trio.abc.Listener[Any]], certificate: Certificate
) -> Sequence[trio.abc.Listener[Any]]:
    """The listeners as they are, or each with TLS."""
    if certificate.context is None:
        return listeners
    return [TlsListener(listener, certificate) for listener in listeners]
