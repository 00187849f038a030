"""The keys that this router knows, and whose they are. Follows the file of keys without a restart."""

import hmac
import logging
from dataclasses import dataclass
from pathlib import Path

from core.clock import Clock
from core.errors import ConfigError
from router.auth.api_key import NUM_ID_CHARS, ApiKey, digest_of
from router.auth.caller import Caller, Scope
from router.auth.key_file import FileSign, load_keys, sign_of
from router.auth.quota import KeyLimits, Quota

LOOK_S = 1.0  # for how long a key that was revoked may still begin requests
OPERATOR = "operator"
"""The name of the key of `--operator-key-file`."""
CONSOLE = "baton-serve"
"""The name of the key that `baton serve` makes for its own questions."""
_NO_DIGEST = "0" * 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _KnownKey:
    digest: str
    caller: Caller


class KeyRing:
    """Finds the holder of a key.

    Args:
        file: the API keys; None when none are needed.
        operator_key: a further key, for operators; None for none.
        console_key: a further key, for everything; None for none.
        num_routers: that share what the keys may use.
        clock: for quotas, and for when to look at the file again.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(
        self,
        file: Path | None,
        *,
        operator_key: str | None,
        console_key: str | None = None,
        num_routers: int = 1,
        clock: Clock,
    ) -> None:
        self._file = file
        self._num_routers = num_routers
        self._clock = clock
        self._fixed: list[_KnownKey] = []
        if operator_key is not None:
            self._fixed.append(_fixed_key(operator_key, OPERATOR, Scope.OPERATOR))
        if console_key is not None:
            self._fixed.append(_fixed_key(console_key, CONSOLE, *Scope))
        self._known: dict[str, _KnownKey] = {}
        self._sign = None if file is None else _sign_or_none(file)  # of what has been read
        self._problem: str | None = None  # with the file as it was at the last look
        self._next_look_s = clock.now_s() + LOOK_S
        self._take(() if file is None else load_keys(file))

    @property
    def is_needed(self) -> bool:
        """Whether answers need a key."""
        return self._file is not None

    @property
    def has_operators(self) -> bool:
        """Whether there may be a key for orders at all."""
        return self._file is not None or any(Scope.OPERATOR in key.caller.scopes for key in self._fixed)

    def caller_of(self, key: str) -> Caller | None:
        """Who shows this key; None when it is not known. Takes as long for one that is not."""
        self._look()
        digest = digest_of(key)
        known = self._known.get(digest[:NUM_ID_CHARS])
        is_right = hmac.compare_digest(digest, known.digest if known else _NO_DIGEST)
        return known.caller if known is not None and is_right else None

    def _look(self) -> None:
        """Takes in a file that has changed. One that cannot be used changes nothing; it is read until it can."""
        now_s = self._clock.now_s()
        if self._file is None or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        sign = _sign_or_none(self._file)
        if sign == self._sign and self._problem is None:
            return
        try:
            self._take(load_keys(self._file))
        except ConfigError as error:
            if error.message != self._problem:
                logger.error("the API keys stay as they were: %s", error.message)  # noqa: TRY400 - it says all
            self._problem = error.message
        else:
            self._sign, self._problem = sign, None
            logger.info("%d API keys are known now", len(self._known) - len(self._fixed))

    def _take(self, keys: tuple[ApiKey, ...]) -> None:
        before = self._known
        self._known = {known.digest[:NUM_ID_CHARS]: known for known in self._fixed}
        for key in keys:
            was = before.get(key.key_id)
            quota = was.caller.quota if was is not None else None
            caller = Caller(key.name, key.tenant, key.scopes, self._quota(key, quota))
            self._known[key.key_id] = _KnownKey(key.sha256, caller)

    def _quota(self, key: ApiKey, before: Quota | None) -> Quota | None:
        """What a key may use; one whose limits are as before has used what it has."""
        if before is not None and before.limits == key.limits:
            return before
        is_limited = key.limits != KeyLimits()
        return Quota(key.name, key.limits, self._num_routers, self._clock) if is_limited else None


def _fixed_key(key: str, name: str, *scopes: Scope) -> _KnownKey:
    return _KnownKey(digest_of(key), Caller(name, name, frozenset(scopes)))


def _sign_or_none(file: Path) -> FileSign | None:
    try:
        return sign_of(file)
    except OSError:
        return None
