"""Rank 0 commands, the others follow. One group lives as long as its processes; none can be replaced."""

from typing import TypeVar

from core.errors import ConfigError, ShardGroupError
from engine.commands import Command, Stop
from engine.executor import Executor
from engine.parallel.communicator import LOAD_TIMEOUT_S, Communicator

T = TypeVar("T")


class ShardGroup:
    """One rank's side of a group; a rank alone is a group, too.

    Args:
        executor: this rank's part of the model.
        communicator: reaches the other ranks.
    """

    def __init__(self, executor: Executor, communicator: Communicator) -> None:
        self._executor = executor
        self._communicator = communicator
        self._is_closed = False

    def command(self, command: Command[T], others: Command[T] | None = None) -> T:
        """Has all ranks do something. Rank 0 only.

        Args:
            command: what.
            others: what the others are sent, where they need to know less.

        Raises:
            ShardGroupError: in a group of several, if any rank failed or died; nothing more can be commanded.
        """
        assert self._communicator.rank == 0, f"rank {self._communicator.rank} can only follow"
        if self._communicator.size == 1:
            return command.run(self._executor)
        self._communicator.broadcast_object(others or command)
        return self._run(command)

    def follow(self) -> None:
        """Does this rank's part of every command until rank 0 calls `close`. Ranks above 0 only.

        Raises:
            ShardGroupError: a rank failed or died.
        """
        command: Command[object] | None = None
        while not isinstance(command, Stop):
            command = self._communicator.broadcast_object()
            self._run(command)
        self._communicator.gather_object(None)
        self._communicator.close()

    def close(self) -> None:
        """Ends `follow` on the other ranks and returns when it has ended; does nothing the second time.

        Raises:
            ShardGroupError: a rank died before.
        """
        if self._is_closed or self._communicator.size == 1:
            return
        self._is_closed = True
        self.command(Stop())
        self._communicator.gather_object(None)
        self._communicator.close()

    def _run(self, command: Command[T]) -> T:
        """Executes a command that the other ranks have got as well: if it fails on one, they no longer agree."""
        try:
            return command.run(self._executor)
        except ShardGroupError:
            raise
        except Exception as error:
            rank, name = self._communicator.rank, type(command).__name__
            raise ShardGroupError(f"rank {rank} failed in {name}: {error!r}; start all ranks again") from error


def agree(communicator: Communicator, loaded: tuple[object, ...]) -> None:
    """Makes sure that all ranks have loaded the same; they would compute nonsense together otherwise.

    Raises:
        ConfigError: on every rank, if one has not; names it.
    """
    everybody = communicator.gather_object(loaded, LOAD_TIMEOUT_S) or []
    strangers = [rank for rank, other in enumerate(everybody) if other != loaded]
    stranger = communicator.broadcast_object(strangers[0] if strangers else None)
    if stranger is not None:
        raise ConfigError(
            f"rank {stranger} has another model or other settings than rank 0; start all ranks of a worker "
            "with the same flags and the same checkpoint"
        )
