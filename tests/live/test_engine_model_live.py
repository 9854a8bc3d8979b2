"""4,000 seeds of the model of the engine, which takes its time (``scripts/test --all``)."""

from scripts import engine_model


def test_four_thousand_seeds() -> None:
    assert engine_model.main(["4000"]) == 0
