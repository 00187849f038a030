"""The names of the KV blocks that a request's prompt would have, on workers of each block size there is."""

from collections.abc import Iterator, Sequence

from core.blocks import BlockChain, BlockName, root_name


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

        Each is hashed when it is asked for: whoever looks for a prompt's beginning stops at the first block that
        nobody has.
        """
        key = fingerprint, block_tokens
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = BlockChain(root_name(fingerprint, self._salt), block_tokens)
        yield from chain.names
        for start in range(len(chain.names) * block_tokens, len(tokens) - block_tokens + 1, block_tokens):
            chain.extend(tokens[start : start + block_tokens])
            yield chain.names[-1]
