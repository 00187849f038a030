"""What a worker answers to questions about its experts. Called on the worker's loop, between two steps."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from core.errors import CheckpointError, ConfigError
from core.experts import ExpertLayer, ExpertReport
from engine.engine import Engine
from worker.mailbox import Mailbox

Reply = Callable[[ExpertReport], None]
"""Takes the answer. Called exactly once, on the worker's loop."""
KeepAlive = Callable[[], AbstractContextManager[None]]
"""While its context lasts, routers hear that the worker lives."""


class ExpertDesk:
    """Answers one question after another; a rebalancing takes one layer between two steps, so that requests go on.

    Args:
        engine: the loop's.
        mailbox: of the loop.
        keep_alive: of the loop; a layer may take long to read.
    """

    def __init__(self, engine: Engine, mailbox: Mailbox, keep_alive: KeepAlive) -> None:
        self._engine = engine
        self._mailbox = mailbox
        self._keep_alive = keep_alive
        self._is_rebalancing = False

    def ask(self, query_id: str, reply: Reply, *, rebalance: bool) -> None:
        """Replies how much each expert was used, after dividing them anew among the ranks if that is asked for.

        From any thread.
        """
        if rebalance:
            self._mailbox.post(lambda: self._start_rebalancing(query_id, reply))
        else:
            self._mailbox.post(lambda: reply(self._report(query_id)))

    def _start_rebalancing(self, query_id: str, reply: Reply) -> None:
        if self._is_rebalancing:
            reply(
                self._report(query_id, refusal="its experts are being moved already; ask again when that has ended")
            )
            return
        self._is_rebalancing = True
        rebalancing = _Rebalancing(query_id, deque(self._engine.expert_load()), reply)
        self._rebalance_next(rebalancing)

    def _rebalance_next(self, rebalancing: "_Rebalancing") -> None:
        """One layer, or the answer after the last. A refusal leaves that layer and those after it as they are."""
        layers = [rebalancing.open_layers.popleft()] if rebalancing.open_layers else []
        try:
            with self._keep_alive():
                outcome = self._engine.rebalance_experts(layers)
        except (ConfigError, CheckpointError) as error:
            self._is_rebalancing = False
            rebalancing.reply(self._report(rebalancing.query_id, rebalancing, refusal=error.message))
            return
        rebalancing.num_moved += outcome.num_moved
        rebalancing.balances.update((layer, (before, after)) for layer, before, after in outcome.layers)
        if rebalancing.open_layers:
            self._mailbox.post(partial(self._rebalance_next, rebalancing))
        else:
            self._is_rebalancing = False
            rebalancing.reply(self._report(rebalancing.query_id, rebalancing))

    def _report(self, query_id: str, rebalancing: "_Rebalancing | None" = None, *, refusal: str = "") -> ExpertReport:
        balances = rebalancing.balances if rebalancing else {}
        layers = tuple(
            ExpertLayer(layer, tuple(tokens), *balances.get(layer, (0.0, 0.0)))
            for layer, tokens in sorted(self._engine.expert_load().items())
        )
        return ExpertReport(query_id, layers, refusal, rebalancing.num_moved if rebalancing else 0)


class _Rebalancing:
    """One rebalancing under way: layers still to come, and what came of the others."""

    def __init__(self, query_id: str, open_layers: deque[int], reply: Reply) -> None:
        self.query_id = query_id
        self.open_layers = open_layers
        self.reply = reply
        self.balances: dict[int, tuple[float, float]] = {}
        self.num_moved = 0
