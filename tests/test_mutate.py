"""``scripts/mutate``: the operators on snippets, the sample, and which tests are run."""

import ast

import pytest

from scripts.mutate import verdict_of
from scripts.mutate_choice import Equivalents, Limits, covering_tests, room_of, sample
from scripts.mutate_map import Map
from scripts.mutate_operators import Mutant, mutants_of


def broken(source: str) -> set[tuple[str, str]]:
    """Operator and changed line of every mutant."""
    return {(m.operator, m.change(source)[1]) for m in mutants_of(source, "pkg/room/a.py")}


@pytest.mark.parametrize(
    ("line", "operator", "after"),
    [
        ("x = a < b", "compare", "x = a <= b"),
        ("x = (a) <= (b)", "compare", "x = (a) < (b)"),
        ("x = a not in b", "compare", "x = a in b"),
        ("x = a is None", "compare", "x = a is not None"),
        ("x = a < b == c", "compare", "x = a < b != c"),
        ("x = a - b", "arithmetic", "x = a + b"),
        ("x -= a", "arithmetic", "x += a"),
        ("x = a and b", "boolean", "x = a or b"),
        ("x = not a", "not", "x = (a)"),
        ("x = -a", "sign", "x = +a"),
        ("x = 7", "constant", "x = 8"),
        ("x = True", "constant", "x = False"),
        ("x = min(a, b)", "min-max", "x = max(a, b)"),
        ("x = a[b:c]", "slice", "x = a[:c]"),
        ('x = a["b"]', "key", "x = a['b_']"),
        ('x = a.get("b")', "key", "x = a.get('b_')"),
        ("x = a if b else c", "negate", "x = a if (not (b)) else c"),
        ("x = [a for a in b if a]", "negate", "x = [a for a in b if (not (a))]"),
        ("a.b = c", "drop", "pass"),
        ("a(b)", "drop", "pass"),
        ("raise a", "drop", "pass"),
        ('x = "\u00e9\u00e9", a < b', "compare", 'x = "\u00e9\u00e9", a <= b'),
    ],
)
def test_an_operator_breaks_its_line(line: str, operator: str, after: str) -> None:
    assert (operator, after) in broken(f"{line}\n")


def test_statements_with_a_body() -> None:
    found = broken("def f(a, b=1):\n    if a:\n        return b\n    while b:\n        break\n")
    assert found == {
        ("constant", "def f(a, b=2):"),
        ("negate", "if (not (a)):"),
        ("return-none", "return None"),
        ("negate", "while (not (b)):"),
        ("drop", "pass"),
    }


@pytest.mark.parametrize(
    "source",
    [
        '"""Text with 1 < 2."""\n',
        "x: Literal[1, 2]\n",
        "Kind = Literal['a', 'b']\n",
        "Either = A | B\n",
        "def f(a: Annotated[int, 3]) -> Literal[4]: ...\n",
        "def f():\n    log.info('a', size=1)\n    self._log.warning('b', size=a + b)\n",
        "assert a < 1\n",
        "class A:\n    def __repr__(self):\n        return str(1)\n",
        "__all__ = ['a'][0:1]\n",
        "if TYPE_CHECKING:\n    a(1)\n",
        "if __name__ == '__main__':\n    a(1)\n",
        "@define(frozen=True)\nclass A:\n    pass\n",
        "x = f'{a + 1}'\n",
        "x = 'a' + b\n",
        "return None\n",
    ],
)
def test_what_no_test_could_notice_is_left_alone(source: str) -> None:
    assert broken(source) == set()


def test_a_mutant_changes_one_span_and_compiles() -> None:
    source = "def f(a):\n    match a:\n        case -1:  # minus < one\n            return (\n"
    source += "                a\n                < 2  # why\n            )\n"
    mutants = mutants_of(source, "pkg/room/a.py")
    for mutant in mutants:
        ast.parse(mutant.apply(source))
    assert [m.line for m in mutants if m.operator == "compare"] == [6]
    assert {m.lines for m in mutants if m.operator == "compare"} == {(4, 7)}


def test_rooms_are_the_first_folder() -> None:
    assert room_of("trio_feed/net/rest.py") == "net"
    assert room_of("trio_feed/service.py") == "service"


def mutants_in(room: str, lines: int) -> list[Mutant]:
    source = "".join(f"x = a < {n}\n" for n in range(lines))
    return mutants_of(source, f"pkg/{room}/a.py")


def test_a_seed_gives_the_same_sample() -> None:
    mutants = mutants_in("one", 40) + mutants_in("two", 20)
    assert sample(mutants, 9, 1) == sample(list(reversed(mutants)), 9, 1)
    assert sample(mutants, 9, 1) != sample(mutants, 9, 2)


def test_a_sample_breaks_each_line_once_and_shares_by_size() -> None:
    chosen = sample(mutants_in("one", 40) + mutants_in("two", 20), 9, 1)
    assert len({(m.file, m.line) for m in chosen}) == 9
    assert [room_of(m.file) for m in chosen] == ["one"] * 6 + ["two"] * 3


def test_a_quota_is_kept_and_a_room_does_not_see_the_others() -> None:
    one, two, more = mutants_in("one", 40), mutants_in("two", 20), mutants_in("two", 30)
    quota = {"one": 5, "two": 30}
    before, after = (sample(one + other, 0, 1, quota) for other in (two, more))
    assert [m for m in before if "one" in m.file] == [m for m in after if "one" in m.file]
    assert (len(before), len(after)) == (25, 35)


SOURCE = "LIMIT = 3\ndef f(a,\n      b=4):\n    x = (a\n         < b)\n    return x\n"
KNOWN = Map(
    tests=["t/test_x.py::slow", "t/test_x.py::quick", "t/test_x.py::other", "t/test_a.py::named"],
    seconds=[3.0, 0.1, 1.0, 9.0],
    lines={"pkg/room/a.py": {"1": [], "2": [], "4": [0, 1], "6": [0, 1, 2]}},
)


def chosen(operator: str, line: int, limits: Limits | None = None) -> list[str]:
    mutants = mutants_of(SOURCE, "pkg/room/a.py")
    [mutant] = [m for m in mutants if (m.operator, m.line) == (operator, line)]
    names = covering_tests(mutant, KNOWN, limits or Limits())
    return [name.partition("::")[2] for name in names]


def test_the_covering_tests_are_run_cheapest_first() -> None:
    assert chosen("return-none", 6) == ["quick", "other", "slow"]


def test_a_line_of_a_long_statement_is_covered_by_the_statement() -> None:
    assert chosen("compare", 5) == ["quick", "slow"]


def test_what_runs_at_import_is_covered_through_its_function_or_module() -> None:
    assert chosen("constant", 3) == ["quick", "other", "slow"]
    assert chosen("constant", 1) == ["quick", "other", "slow", "named"]


def test_a_mutant_costs_a_bounded_number_of_tests_and_seconds() -> None:
    assert chosen("return-none", 6, Limits(tests=2)) == ["quick", "other"]
    assert chosen("return-none", 6, Limits(seconds=1.5)) == ["quick", "other"]


def test_a_module_that_no_test_runs_is_not_covered() -> None:
    [mutant] = mutants_of("x = 1\n", "pkg/room/b.py")
    assert covering_tests(mutant, KNOWN, Limits()) == []


@pytest.mark.parametrize(
    ("tests", "result", "verdict"),
    [
        ([], {"code": 0, "failed": "", "ran": 0}, "not covered"),
        (["a"], {"code": 0, "failed": "", "ran": 1}, "survived"),
        (["a"], {"code": 5, "failed": "", "ran": 0}, "survived"),
        (["a"], {"code": 1, "failed": "a", "ran": 1}, "noticed"),
        (["a"], {"code": 2, "failed": "t/test_x.py", "ran": 0}, "noticed"),
        (["a"], {"hang": True}, "noticed"),
        (["a"], {"died": 9}, "noticed"),
    ],
)
def test_verdicts(tests: list[str], result: dict[str, object], verdict: str) -> None:
    assert verdict_of(tests, result)[0] == verdict


def test_equivalents_name_file_line_operator_and_reason() -> None:
    listed = Equivalents("# why\n\npkg/room/a.py | LIMIT = 3 | constant | nobody asks\n")
    [mutant] = mutants_of("LIMIT = 3\n", "pkg/room/a.py")
    assert listed.reason(mutant, "LIMIT = 3") == "nobody asks"
    assert listed.reason(mutant, "LIMIT = 4") is None


def test_a_changed_file_of_tests_is_measured_alone() -> None:
    known = Map(**{**vars(KNOWN), "files": {"t/test_x.py": "1", "t/test_a.py": "1"}})
    known = known.without({"t/test_x.py"})
    assert (known.tests, known.files) == (["t/test_a.py::named"], {"t/test_a.py": "1"})
    assert known.lines == {"pkg/room/a.py": {"1": [], "2": [], "4": [], "6": []}}
    lines = {"pkg/room/a.py": {"6": [0]}, "pkg/room/b.py": {"1": [0]}}
    known.add(Map(["t/test_x.py::new"], [1.0], lines, files={"t/test_x.py": "2"}))
    assert known.covering("pkg/room/a.py", range(6, 7)) == {1}
    assert known.covering("pkg/room/b.py", range(1, 2)) == {1}
    assert known.files == {"t/test_x.py": "2", "t/test_a.py": "1"}
