"""Faults of a Solana node (:class:`~trio_feed.simulator.solana.node.SolanaNode`)."""

from collections.abc import Callable, Mapping

from .context import FaultContext
from .schedule import Fault


def fork(context: FaultContext, fault: Fault) -> None:
    """The next ``times`` transactions are ``processed`` in slots that are skipped: two of three
    land again in a later one, the third never."""
    context.exchange.chain.fork(fault.times)


def log_truncated(context: FaultContext, fault: Fault) -> None:
    """In the next ``times`` notifications the logs are cut; getTransaction has them whole."""
    context.exchange.truncate_logs(fault.times)


def lost_notifications(context: FaultContext, fault: Fault) -> None:
    """Nobody is notified of the next ``times`` transactions."""
    context.exchange.lose_notifications(fault.times)


def quiet_program(context: FaultContext, fault: Fault) -> None:
    """For ``lasts_s`` seconds nobody calls the program, and every connection is well."""
    context.exchange.be_quiet(fault.lasts_s)


SOLANA_FAULTS: Mapping[str, Callable[[FaultContext, Fault], None]] = {
    "fork": fork,
    "log_truncated": log_truncated,
    "lost_notifications": lost_notifications,
    "quiet_program": quiet_program,
}
