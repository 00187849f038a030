"""Names of KV blocks: a block is named after all tokens up to its end and whatever else its KV depends on.

    root  = H(model fingerprint, tenant salt)
    name0 = H(root,  tokens [0, block_tokens))
    name1 = H(name0, tokens [block_tokens, 2 * block_tokens))      ...

Equal names mean equal KV, on whichever worker; where blocks are and who may use them is not known here.

H is BLAKE2b cut to 128 bits. With n blocks alive in a fleet, two of them share a name by chance with probability
n^2 / 2^129, under 1e-20 for a billion blocks. It is a cryptographic hash because prompts are chosen by clients: with
a weaker one somebody could write two prompts that share a name and have another's answer computed from the wrong KV;
here that takes 2^64 tries. A salt that others do not know keeps them from asking whether a prompt was seen before.
"""

import struct
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import blake2b

NAME_BYTES = 16

BlockName = bytes
"""`NAME_BYTES` bytes."""


def root_name(fingerprint: str, salt: str) -> BlockName:
    """Where the chains of a model and a tenant begin.

    Args:
        fingerprint: names model and type of KV.
        salt: chains with different salts have no name in common; the empty one is everybody's.
    """
    model = fingerprint.encode()
    # With its length, so that no two pairs read the same.
    return _hash(struct.pack("<Q", len(model)) + model + salt.encode())


class BlockChain:
    """The names of the full blocks of one growing sequence.

    Attributes:
        names: of every full block, in order; only ever grows.
    """

    __slots__ = ("_block_tokens", "_pack", "_parent", "_pending", "names")

    def __init__(self, root: BlockName, block_tokens: int) -> None:
        self.names: list[BlockName] = []
        self._block_tokens = block_tokens
        self._pending: list[int] = []
        self._parent = root
        self._pack = _packing(block_tokens)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Appends tokens, each in [0, 2^32). Costs under a microsecond per full block, and less per token."""
        pending, size = self._pending, self._block_tokens
        pending.extend(token_ids)
        for end in range(size, len(pending) + 1, size):
            self._parent = _hash(self._parent + self._pack(*pending[end - size : end]))
            self.names.append(self._parent)
        del pending[: len(pending) // size * size]


@cache
def _packing(block_tokens: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{block_tokens}I").pack


def _hash(content: bytes) -> BlockName:
    return blake2b(content, digest_size=NAME_BYTES).digest()
