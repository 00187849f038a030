"""The names of the KV blocks that a request's prompt would have, on workers of each block size there is."""

from collections.abc import Iterator, Sequence

from core.blocks import BlockChain, BlockName, root_name

BLOCKS_AT_ONCE = 8  # hashing one more costs less than coming back for it


class PromptNames:
    """Hashes each token at most once per model and block size, however often the request is placed.

    Args:
        salt: of the tenant.
    """

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._chains: dict[tuple[str, int], BlockChain] = {}

    def of(self, tokens: Sequence[int], fingerprint: str, block_tokens: int) -> Iterator[BlockName]:
        """Names of the full blocks of a prompt, which continues the one of the last call.

        Hashed when they are asked for, the first alone and then a few at once: whoever looks for a prompt's
        beginning stops at the first block that nobody has.
        """
        key = fingerprint, block_tokens
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = BlockChain(root_name(fingerprint, self._salt), block_tokens)
        yield from chain.names
        while (num_named := len(chain.names)) < len(tokens) // block_tokens:
            num_next = min(BLOCKS_AT_ONCE if num_named else 1, len(tokens) // block_tokens - num_named)
            chain.extend(tokens[num_named * block_tokens : (num_named + num_next) * block_tokens])
            yield from chain.names[num_named:]
