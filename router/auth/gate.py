"""Who may do what. Pure but for the log; the front ends ask: `router.auth.http_gate`, `router.auth.rpc_gate`."""

from enum import Enum, auto

from core.clock import Clock
from core.errors import AuthenticationError, BatonError, PermissionDeniedError
from router.auth.caller import ANONYMOUS, Caller, Scope
from router.auth.failed_attempts import FailedAttempts
from router.auth.key_ring import KeyRing

_SCHEME = "bearer"


class Need(Enum):
    """What a call needs."""

    NOTHING = auto()
    CHAT = auto()
    """A key for answers, where keys are needed."""
    OPERATOR = auto()
    """A key for operators, where keys are needed."""
    WEB_ORDER = auto()
    """A key for operators, always: any page that a browser shows could send an order over HTTP."""


_SCOPES = {Need.CHAT: Scope.CHAT, Need.OPERATOR: Scope.OPERATOR, Need.WEB_ORDER: Scope.OPERATOR}


class Gate:
    """Lets callers in or not.

    Args:
        keys: that are known.
        clock: for the log.
    """

    def __init__(self, keys: KeyRing, clock: Clock) -> None:
        self._keys = keys
        self._attempts = FailedAttempts(clock)

    @property
    def has_operators(self) -> bool:
        """Whether there may be a key for orders at all."""
        return self._keys.has_operators

    def admit(self, need: Need, authorization: str | None) -> Caller:
        """Who calls.

        Args:
            need: of the call.
            authorization: the header or metadata of that name; None for none.

        Raises:
            AuthenticationError: no key was shown, or one that is not known.
            PermissionDeniedError: the key is for something else, or nobody may do this here.
        """
        if need is Need.NOTHING or (need is not Need.WEB_ORDER and not self._keys.is_needed):
            return ANONYMOUS
        scope = _SCOPES[need]
        if scope is Scope.OPERATOR and not self._keys.has_operators:
            raise PermissionDeniedError(
                "orders over HTTP are off, because this router has no operator's key; start it with "
                "--operator-key-file FILE, BATON_OPERATOR_KEY or --api-keys-file FILE"
            )
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != _SCHEME:
            raise AuthenticationError(
                f"this needs a key with the scope {scope}; send it as `Authorization: Bearer KEY`, which commands do "
                "with BATON_API_KEY"
            )
        caller = self._keys.caller_of(key.strip())
        if caller is None:
            raise AuthenticationError("this key is not known here, or not any more; ask for another one")
        if scope not in caller.scopes:
            raise PermissionDeniedError(
                f"the key {caller.name} has the scope {', '.join(sorted(caller.scopes))}; this needs {scope}"
            )
        return caller

    def note_refusal(self, error: BatonError, *, peer: str, what: str) -> None:
        """Logs that a call was refused, but never the key.

        Args:
            error: what it was refused with.
            peer: the caller's address.
            what: was called; what the caller chose of it must be short and printable.
        """
        self._attempts.note(peer, what, error.message)
