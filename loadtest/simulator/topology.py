"""Which worker stands where, and when bytes that travel between them arrive.

Workers fill nodes and nodes fill racks in the order of their numbers. Bytes between two nodes take the source's
adapter and the target's, and the uplinks of their racks where these differ; within a node they take its own wires.
Transfers take turns on each wire: one that is asked for later starts when all its wires are free, and then has them
at the speed of the slowest. So shared wires carry what they can and no more, and the last of many transfers arrives
when it would if they had shared fairly; the first ones arrive earlier.
"""

import math
from dataclasses import dataclass

from core.errors import ConfigError

Wire = tuple[str, int]
"""A direction of an adapter, of an uplink, or the wires within a node; and the number of the node or the rack."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of wires of one sort.

    Attributes:
        bytes_per_s: in each direction.
        latency_s: of each such wire that a transfer takes, added to its time.

    Raises:
        ConfigError: on construction, when a value is out of range.
    """

    bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.bytes_per_s < math.inf:
            raise ConfigError(f"bytes_per_s of a topology is {self.bytes_per_s}; it must be positive and finite")
        if not 0 <= self.latency_s < math.inf:
            raise ConfigError(f"latency_s of a topology is {self.latency_s}; it must be finite and not below 0")


@dataclass(frozen=True, slots=True)
class Topology:
    """Where workers stand.

    Attributes:
        token_bytes: of the KV of one token.
        workers_per_node: that share a node's adapter.
        nodes_per_rack: that share a rack's uplink.
        within_node: between workers of a node.
        adapter: of a node.
        uplink: of a rack; None where racks make no difference.

    Raises:
        ConfigError: on construction, when a number is below 1.
    """

    token_bytes: int
    workers_per_node: int
    nodes_per_rack: int
    within_node: Speed
    adapter: Speed
    uplink: Speed | None = None

    def __post_init__(self) -> None:
        for name in ("token_bytes", "workers_per_node", "nodes_per_rack"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a topology is {getattr(self, name)}; it must be at least 1")

    def path(self, source: int, target: int) -> tuple[tuple[Wire, Speed], ...]:
        """Wires from one worker to another, by their numbers in the fleet; none to itself."""
        if source == target:
            return ()
        from_node, to_node = source // self.workers_per_node, target // self.workers_per_node
        if from_node == to_node:
            return ((("within", from_node), self.within_node),)
        ends = (("out", from_node), self.adapter), (("in", to_node), self.adapter)
        from_rack, to_rack = from_node // self.nodes_per_rack, to_node // self.nodes_per_rack
        if from_rack == to_rack or self.uplink is None:
            return ends
        return (*ends, (("up", from_rack), self.uplink), (("down", to_rack), self.uplink))


class Network:
    """The wires of a topology, and what travels on them.

    Args:
        topology: which there are.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._free_s: dict[Wire, float] = {}  # when each wire has carried all that it was given

    def send(self, source: int, target: int, num_tokens: int, now_s: float) -> float:
        """Has the KV of some tokens travel; returns when the last byte arrives.

        Args:
            source: number of a worker.
            target: likewise.
            num_tokens: at least 0; none arrive at once.
            now_s: when they are ready; never earlier than in the call before.
        """
        wires = self._topology.path(source, target)
        if not wires or not num_tokens:
            return now_s
        free_s, size_bytes = self._free_s, num_tokens * self._topology.token_bytes
        start_s, longest_s, latency_s = now_s, 0.0, 0.0
        for wire, speed in wires:
            start_s = max(start_s, free_s.get(wire, 0.0))
            longest_s = max(longest_s, size_bytes / speed.bytes_per_s)
            latency_s += speed.latency_s
        for wire, speed in wires:
            free_s[wire] = start_s + size_bytes / speed.bytes_per_s
        return start_s + longest_s + latency_s
