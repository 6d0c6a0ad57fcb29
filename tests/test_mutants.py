"""The lists of mutants, and how a change finds its place; `tests/mutants/run.py` runs them."""

import pytest
from mutants import run

LISTS = sorted(path.stem for path in run.HERE.glob("*.toml"))


@pytest.mark.parametrize("name", LISTS)
def test_every_mutant_has_its_one_place_and_its_tests(name):
    mutants = run.load_mutants([name], "")
    problems = [problem for problem in map(run.find_problem, mutants) if problem]
    assert mutants and problems == []


def test_a_letter_stands_for_any_expression_and_twice_for_the_same():
    mutant = {"find": "A * B + A", "becomes": "B"}
    assert run.mutated(mutant, "x = f(1) * y[2] + f(1)") == "x = y[2]\n"
    with pytest.raises(ValueError, match="fits 0 times"):
        run.mutated(mutant, "x = f(1) * y[2] + f(2)")


def test_a_loops_variable_is_the_one_that_is_read():
    mutant = {"find": "[A(B) for B in C]", "becomes": "list(C)"}
    assert run.mutated(mutant, "x = [f(y) for y in z]") == "x = list(z)\n"


def test_a_change_that_fits_twice_is_refused():
    with pytest.raises(ValueError, match="fits 2 times"):
        run.mutated({"find": "A + 1", "becomes": "A"}, "x = a + 1\ny = b + 1")


def test_a_change_is_looked_for_in_its_function_alone():
    text = "def f():\n    return 1\n\nclass C:\n\n    def f(self):\n        return 1\n"
    mutant = {"function": "C.f", "find": "return 1", "becomes": "return 2"}
    assert run.mutated(mutant, text).endswith("return 2\n")
    with pytest.raises(ValueError, match="2 definitions of f"):
        run.mutated(mutant | {"function": "f"}, text)
