"""Log-probabilities in the shape of OpenAI's chat API."""

from collections.abc import Iterable

from core.logprobs import TokenLogprobs
from router.http.chat_response import ChoiceLogprobs, TokenLogprob, TopLogprob
from router.text.tokenizer import TextCodec

MIN_LOGPROB = -9999.0  # OpenAI's word for "very unlikely"; JSON has none for minus infinity


def choice_logprobs(codec: TextCodec, logprobs: Iterable[TokenLogprobs]) -> ChoiceLogprobs:
    """The entries of tokens of an answer."""
    return ChoiceLogprobs(content=[_entry(codec, token) for token in logprobs])


def _entry(codec: TextCodec, token: TokenLogprobs) -> TokenLogprob:
    tops = zip(token.top_ids, token.top_logprobs, strict=True)
    drawn = _top(codec, token.token_id, token.logprob)
    top_logprobs = [_top(codec, token_id, logprob) for token_id, logprob in tops]
    return TokenLogprob(token=drawn.token, logprob=drawn.logprob, bytes=drawn.bytes, top_logprobs=top_logprobs)


def _top(codec: TextCodec, token_id: int, logprob: float) -> TopLogprob:
    piece = codec.token_piece(token_id)
    is_known = logprob > MIN_LOGPROB  # not so for NaN either
    return TopLogprob(token=piece.text, logprob=logprob if is_known else MIN_LOGPROB, bytes=list(piece.utf8))
