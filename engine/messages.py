"""All types that the ranks of a worker send each other, for `engine.parallel.plain_pickle`."""

from core.ids import WorkerId
from core.logprobs import TokenLogprobs
from core.processes import ProcessId, RankProcess
from core.sampling import SamplingParams
from engine.commands import ComputeLogits, DrawTokens, MoveExperts, ReadExpertLoad, Stop
from engine.kv.layout import KvLayout
from engine.parallel.topology import ShardTopology
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan, StepResult
from engine.sampling.bad_words import BadWordMatcher
from engine.sampling.counts import TokenCounts
from engine.sampling.rules import LogitRules

COMMANDS = (ComputeLogits, DrawTokens, MoveExperts, ReadExpertLoad, Stop)
PLANS = (StepPlan, SequenceSlice, SliceKind, Draw, SamplingParams, LogitRules, TokenCounts, BadWordMatcher)
ANSWERS = (StepResult, TokenLogprobs)
AGREED = (WorkerId, RankProcess, ProcessId, KvLayout, ShardTopology)  # when a worker starts

RANK_MESSAGES: tuple[type, ...] = (*COMMANDS, *PLANS, *ANSWERS, *AGREED)
