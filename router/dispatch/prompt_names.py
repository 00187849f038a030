"""The names of the KV blocks that a request's prompt would have, on workers of each block size there is."""

from collections.abc import Sequence

from core.blocks import BlockChain, BlockName, root_name


class PromptNames:
    """Hashes each token once per model and block size, however often the request is placed.

    Args:
        salt: of the tenant.
    """

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._chains: dict[tuple[str, int], tuple[BlockChain, int]] = {}  # with the tokens taken in

    def of(self, tokens: Sequence[int], fingerprint: str, block_tokens: int) -> Sequence[BlockName]:
        """Names of the full blocks of a prompt, which continues the one of the last call."""
        key = fingerprint, block_tokens
        chain, num_taken = self._chains.get(key) or (BlockChain(root_name(fingerprint, self._salt), block_tokens), 0)
        chain.extend(tokens[num_taken:])
        self._chains[key] = chain, len(tokens)
        return chain.names
