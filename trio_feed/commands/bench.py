"""``bench``: ``scripts/bench`` of the checkout."""

from .checkout import script

command = script(
    "bench",
    "How fast it is beside other libraries (checkout only; sets up .venv-bench).",
    own_environment=True,
)
