"""Whether who orders something over HTTP is an operator. Keys come in a header only, so no page can borrow one."""

import hmac

from starlette.datastructures import Headers

from core.errors import AuthenticationError, PermissionDeniedError

_SCHEME = "bearer"


class OperatorKey:
    """Checks requests against the operator's key.

    Args:
        key: what an operator must show; None when orders over HTTP are off.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def check(self, headers: Headers) -> None:
        """Compares in a time that does not depend on how much of the key is right.

        Raises:
            PermissionDeniedError: no key is configured.
            AuthenticationError: the request shows none, or another one.
        """
        if self._key is None:
            raise PermissionDeniedError(
                "orders over HTTP are off, because this router has no operator's key; start it with "
                "--operator-key-file FILE or BATON_OPERATOR_KEY"
            )
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != _SCHEME:
            raise AuthenticationError("this needs the operator's key; send it as `Authorization: Bearer KEY`")
        if not hmac.compare_digest(shown.strip().encode(), self._key):
            raise AuthenticationError("this is not the operator's key; see --operator-key-file of the router")
