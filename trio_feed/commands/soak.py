"""``soak``: ``scripts/soak`` of the checkout."""

from .checkout import script

command = script("soak", "The service killed with -9 again and again, judged (checkout only).")
