"""How fast blocks of each size are copied, contestant beside contestant."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from core.errors import InternalError
from deploy.bench.checks import at_least
from deploy.bench.cores import two_cores
from deploy.bench.kv.contestants import CONTESTANTS, OTHERS
from deploy.bench.kv.exchange import Exchange
from deploy.bench.kv.pairs import Pair
from deploy.cluster import Say

KIB, MIB = 1024, 1024 * 1024
LARGE_BYTES = MIB  # from here on the targets hold
SHM_VS_MEMCPY = 0.8
TCP_VS_SOCKET = 1.2
AHEAD = 1.0

Rates = dict[str, dict[int, float]]
"""GB/s (1e9 bytes a second) by contestant and by bytes of a block; the best of all rounds, for noise only slows."""


@dataclass(slots=True)
class ByteRates:
    """What to measure, and what is found.

    Attributes:
        pool_bytes: of each end of each contestant; all of it is copied in every round.
        block_sizes: in bytes.
        num_rounds: in each of which every contestant has a turn.
        rates: filled in by `measure`.
        skipped: why a contestant was left out, by its name.
    """

    pool_bytes: int
    block_sizes: tuple[int, ...]
    num_rounds: int
    rates: Rates = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def measure(self, say: Say) -> dict[str, Any]:
        """Fills in `rates` and `skipped`, and returns all of it for the JSON file."""
        with ExitStack() as stack:
            pairs = self._start(stack, say)
            self.rates = {name: {} for name in pairs}
            for block_bytes in self.block_sizes:
                say(f"blocks of {size_text(block_bytes)}")
                self._measure_size(pairs, block_bytes)
        return {
            "pool_bytes": self.pool_bytes,
            "rounds": self.num_rounds,
            "gb_per_s": self.rates,
            "skipped": self.skipped,
        }

    def checks(self) -> list[dict[str, Any]]:
        """The targets; each for the size at which it is missed most."""
        best_other = {
            size: max(self.rates[name][size] for name in OTHERS if name in self.rates) for size in self.block_sizes
        }
        shm, tcp = self.rates["nixl-shm"], self.rates["nixl-tcp"]
        return [
            at_least("shm_vs_memcpy", worst_ratio(shm, self.rates["memcpy"]), "x", SHM_VS_MEMCPY),
            at_least("tcp_vs_socket", worst_ratio(tcp, self.rates["socket"]), "x", TCP_VS_SOCKET),
            at_least("shm_vs_best_other", worst_ratio(shm, best_other), "x", AHEAD),
            at_least("tcp_vs_best_other", worst_ratio(tcp, best_other), "x", AHEAD),
        ]

    def _start(self, stack: ExitStack, say: Say) -> dict[str, Pair]:
        """Starts the contestants; leaves out optional ones that do not work here."""
        pairs: dict[str, Pair] = {}
        for contestant in CONTESTANTS:
            say(f"starting {contestant.name}")
            pair = contestant.start(self.pool_bytes, two_cores())
            stack.callback(pair.close)
            if contestant.is_optional and (reason := why_not(pair, self.block_sizes[0])):
                self.skipped[contestant.name] = reason
            else:
                pairs[contestant.name] = pair
        return pairs

    def _measure_size(self, pairs: dict[str, Pair], block_bytes: int) -> None:
        for pair in pairs.values():
            pair.open(block_bytes)
        for number in range(self.num_rounds):
            exchange = Exchange(number, self.pool_bytes // block_bytes)
            for name, pair in pairs.items():
                rate = self.pool_bytes / pair.copy(exchange) / 1e9
                self.rates[name][block_bytes] = max(rate, self.rates[name].get(block_bytes, 0.0))
        for pair in pairs.values():
            pair.finish()


def why_not(pair: Pair, block_bytes: int) -> str | None:
    """Why a pair cannot get ready, in one line; None when it can."""
    try:
        pair.open(block_bytes)
    except InternalError as error:
        return error.message.splitlines()[-1]
    pair.finish()
    return None


def worst_ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """The smallest ratio over all large blocks."""
    return min(rate / theirs[size] for size, rate in ours.items() if size >= LARGE_BYTES)


def size_text(num_bytes: int) -> str:
    """A power of two of bytes, for people."""
    return f"{num_bytes // MIB} MiB" if num_bytes >= MIB else f"{num_bytes // KIB} KiB"
