"""The one error tree, and its mapping to HTTP and gRPC status codes.

    BatonError
    ├── InvalidRequestError          400  INVALID_ARGUMENT    the caller must change the request
    │   ├── ContextLengthError       400  INVALID_ARGUMENT    prompt (plus answer) exceeds the context
    │   └── KeyConflictError         422  INVALID_ARGUMENT    an idempotency key stands for another request
    ├── UnknownRequestError          404  NOT_FOUND           no such request, or not any more, or not the caller's
    ├── UnknownModelError            404  NOT_FOUND           no such model is served here
    ├── BodyTooLargeError            413  RESOURCE_EXHAUSTED  the HTTP body is over the limit
    ├── OverloadedError              429  RESOURCE_EXHAUSTED  too much waits before it; says when to ask again
    ├── AuthenticationError          401  UNAUTHENTICATED     no key, or not the right one
    │   └── ClusterTokenError        401  UNAUTHENTICATED     a call without the cluster's token where one is needed
    ├── PermissionDeniedError        403  PERMISSION_DENIED   nobody may do this here, or not with this key
    ├── RateLimitedError             429  RESOURCE_EXHAUSTED  the caller's key has reached one of its limits
    ├── UnavailableError             503  UNAVAILABLE         nobody can do it now; try again
    │   ├── NoWorkerError            503  UNAVAILABLE         no worker of a needed role is attached
    │   ├── WorkerLostError          503  UNAVAILABLE         workers died under it too many times
    │   ├── RequestMovedError        503  UNAVAILABLE         another router goes on with it; ask for the rest
    │   ├── DrainingError            503  UNAVAILABLE         whoever was asked is leaving; others are not
    │   └── UnreachableError         503  UNAVAILABLE         nobody answers; what was asked for may have been done
    ├── DeadlineError                504  DEADLINE_EXCEEDED   the request's own deadline has passed
    ├── CancelledRequestError        499  CANCELLED           the client went away or asked to stop
    ├── StaleEpochError              409  FAILED_PRECONDITION an order for an incarnation or epoch that is gone
    ├── HandoffError                 500  ABORTED             a KV handoff failed; the router places it again
    │   ├── IncompatibleLayoutError  500  ABORTED             two workers' KV layouts cannot be reconciled
    │   ├── LostConnectionError      500  ABORTED             a connection broke; the worker may live
    │   ├── PeerLostError            500  ABORTED             the other worker's process is dead
    │   ├── StalledTransferError     500  ABORTED             a transfer took longer than any live peer needs
    │   ├── UnknownOutcomeError      500  ABORTED             an order's answer was lost; it may have been carried out
    │   └── CorruptKvError           500  ABORTED             KV arrived with other bytes than it left with
    ├── CheckpointError              500  FAILED_PRECONDITION a model folder that cannot be served, and why
    ├── ConfigError                  500  FAILED_PRECONDITION a flag or setting that cannot work, and why
    └── InternalError                500  INTERNAL            our bug
        └── ShardGroupError          500  INTERNAL            ranks of a worker out of step; the process must end

Every message says what was wrong, with the value, and what to do. Not here: OpenAI's JSON error shape, which
is the HTTP layer's.
"""

ERROR_CODE_KEY = "baton-error"  # of a failed call's trailing metadata: the error's code, for programs
RETRY_AFTER_KEY = "retry-after"  # likewise: seconds, as in HTTP's header


class BatonError(Exception):
    """Base of all errors that cross a package boundary.

    Attributes:
        http_status: the HTTP status a client sees.
        grpc_status: the name of the gRPC status code a client sees.
        code: a short machine-readable word, stable across versions.
        param: the request field that was wrong, when there is one.
        retry_after_s: seconds after which the same request may succeed; None where waiting does not help.
    """

    http_status: int = 500
    grpc_status: str = "INTERNAL"
    code: str = "internal_error"
    retry_after_s: float | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequestError(BatonError):
    """The request can never succeed as it is."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    code = "invalid_value"


class ContextLengthError(InvalidRequestError):
    """Prompt, or prompt plus requested answer, does not fit the model's context."""

    code = "context_length_exceeded"


class KeyConflictError(InvalidRequestError):
    """An idempotency key was used for another request before."""

    http_status = 422
    code = "idempotency_key_reused"


class UnknownRequestError(BatonError):
    """There is no request of that id: there never was, it is no longer kept, or it is another tenant's."""

    http_status = 404
    grpc_status = "NOT_FOUND"
    code = "request_not_found"


class UnknownModelError(BatonError):
    """The named model is not served here."""

    http_status = 404
    grpc_status = "NOT_FOUND"
    code = "model_not_found"


class OverloadedError(BatonError):
    """The request was not accepted, because too much waits before it. Nothing of it was done."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, reason: str = "") -> None:
        """`reason` is one of `router.admission.refusal.REASONS`, for counting; empty for none of them."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason


class BodyTooLargeError(BatonError):
    """The HTTP body is larger than the configured limit."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"
    code = "request_too_large"


class AuthenticationError(BatonError):
    """The caller has shown no key, or not the right one."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    code = "invalid_api_key"


class ClusterTokenError(AuthenticationError):
    """A process calls a service of the cluster's own without the cluster's token."""

    code = "invalid_cluster_token"


class PermissionDeniedError(BatonError):
    """What was asked for is switched off here, or the caller's key is not good for it."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    code = "permission_denied"


class RateLimitedError(BatonError):
    """The caller's key has reached one of its own limits."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(BatonError):
    """Nobody can serve this now; the same request may succeed later."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    code = "unavailable"
    retry_after_s = 1.0  # a worker is restarted in 1-2 s; sooner is in vain, later keeps clients waiting


class NoWorkerError(UnavailableError):
    """No worker of a needed role is attached to the router."""

    code = "no_worker"


class WorkerLostError(UnavailableError):
    """The request was placed again as often as allowed, and every attempt lost its worker."""

    code = "worker_lost"


class RequestMovedError(UnavailableError):
    """Another router has taken the request over; whoever reads it here can have the rest by asking again."""

    code = "request_moved"


class DrainingError(UnavailableError):
    """The process that was asked is leaving, as it had said. This speaks against nobody; another one serves it."""

    code = "draining"


class UnreachableError(UnavailableError):
    """A process that was asked does not answer, or no longer. Whether it did what was asked is not known."""

    code = "unreachable"


class DeadlineError(BatonError):
    """The request ran past its deadline."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    code = "deadline_exceeded"


class CancelledRequestError(BatonError):
    """The client cancelled the request or disconnected."""

    http_status = 499
    grpc_status = "CANCELLED"
    code = "cancelled"


class StaleEpochError(BatonError):
    """An order named a worker incarnation or role epoch that is no longer current."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"
    code = "stale_epoch"


class HandoffError(BatonError):
    """A KV handoff could not be carried out; the request itself may be placed again."""

    grpc_status = "ABORTED"
    code = "handoff_failed"


class IncompatibleLayoutError(HandoffError):
    """Two workers' KV layouts differ in a way the transfer cannot reconcile."""

    code = "incompatible_layout"


class LostConnectionError(HandoffError):
    """The connection to the other end of a transfer broke; whether its process lives, only a new one can tell."""

    code = "connection_lost"


class PeerLostError(HandoffError):
    """The worker at the other end of a transfer is dead; nothing of it is under way any more."""

    code = "peer_lost"


class StalledTransferError(HandoffError):
    """A transfer has been under way for longer than a live peer would let it."""

    code = "handoff_stalled"


class UnknownOutcomeError(HandoffError):
    """No answer came to an order: whether it was carried out, nobody here knows."""

    code = "outcome_unknown"


class CorruptKvError(HandoffError):
    """KV that arrived has another checksum than KV that left; it is computed anew, and the path is not used again."""

    code = "kv_corrupt"


HANDOFF_ERRORS: dict[str, type[HandoffError]] = {
    error.code: error
    for error in (IncompatibleLayoutError, LostConnectionError, PeerLostError, StalledTransferError, CorruptKvError)
}
"""The kinds of HandoffError, by code; one process tells another which it was."""


class CheckpointError(BatonError):
    """A model folder cannot be served; the message names the file or tensor."""

    grpc_status = "FAILED_PRECONDITION"
    code = "bad_checkpoint"


class ConfigError(BatonError):
    """A flag or setting cannot work; the message names it."""

    grpc_status = "FAILED_PRECONDITION"
    code = "bad_config"


class InternalError(BatonError):
    """A defect of ours. The message carries what is needed to report it."""


class ShardGroupError(InternalError):
    """A rank of a worker died, hung or failed in the middle of a step, so that the ranks no longer agree.

    Nothing but a new start of all ranks helps: whoever owns the process ends it.
    """

    code = "shard_group_failed"
