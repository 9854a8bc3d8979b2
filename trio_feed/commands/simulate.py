"""``simulate``: ``scripts/simulate`` of the checkout."""

from .checkout import script

command = script(
    "simulate", "Virtual days of faults against the whole service, judged (checkout only)."
)
