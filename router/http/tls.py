"""TLS of the HTTP port: the context that uvicorn hands to each connection."""

import ssl

from core.errors import ConfigError
from rpc.certificates import fresh_pem
from rpc.security import TlsFiles


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that shows the certificate, and asks clients for theirs if there is a CA.

    Changed files hold for connections that are made afterwards: each handshake looks whether there are any.

    Raises:
        ConfigError: a certificate cannot be used; names the file.
    """
    fresh = fresh_pem(files)
    used = fresh.current()
    first = newest = _context(files)

    def renew(connection: ssl.SSLObject, _server_name: str | None, _context_before: ssl.SSLContext) -> None:
        nonlocal newest, used
        if (pem := fresh.current()) is not used:
            newest, used = _context(files), pem
        connection.context = newest

    first.sni_callback = renew  # called in every handshake, also of clients that name no server
    return first


def _context(files: TlsFiles) -> ssl.SSLContext:
    assert files.cert is not None, "a server has a certificate"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.cert, files.key)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS does not work with {files}: {error}") from error
    return context
