"""What ``scripts/bench`` refuses."""

import pytest

from scripts.bench import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["fanout", "--peers", "nobody"], "bench: --peers: 'nobody' begins none of "),
        (["fanout", "--peers", "trio_feed", "nobody"], "bench: --peers: 'nobody' begins none of "),
        (["fanout", "--clients", "0"], "bench: --clients: 0 is none; 1 or more"),
        (["scenario", "--subscriptions", "-1"], "bench: --subscriptions: -1 is none; 1 or more"),
        (["store", "--clients", "5"], "bench: store has no --clients"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--quick"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
