"""Faults of a Solana node, as functions that a fault script's registry may hold.

Each takes the trial (its ``exchange`` is a :class:`~.solana.SimulatedSolana`) and the fault, like
every lever of :mod:`.levers`; :data:`SOLANA_KINDS` draws them like ``KINDS`` of
:mod:`.faultscript`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .schedule import Fault


class HasExchange(Protocol):
    """What is needed of a trial."""

    @property
    def exchange(self) -> Any: ...


def fork(trial: HasExchange, fault: Fault) -> None:
    """The next ``times`` transactions are told as ``processed`` in slots that are skipped: two of
    three land again in a later one, the third never."""
    trial.exchange.chain.fork(fault.times)


def log_truncated(trial: HasExchange, fault: Fault) -> None:
    """In the next ``times`` notifications the logs are cut; getTransaction has them whole."""
    trial.exchange.truncate_logs(fault.times)


def lost_notifications(trial: HasExchange, fault: Fault) -> None:
    """The next ``times`` transactions are told to nobody."""
    trial.exchange.lose_notifications(fault.times)


def quiet_program(trial: HasExchange, fault: Fault) -> None:
    """For ``lasts_s`` seconds nobody calls the program, and every connection is well."""
    trial.exchange.be_quiet(fault.lasts_s)


SOLANA_LEVERS: Mapping[str, Callable[[HasExchange, Fault], None]] = {
    "fork": fork,
    "log_truncated": log_truncated,
    "lost_notifications": lost_notifications,
    "quiet_program": quiet_program,
}
