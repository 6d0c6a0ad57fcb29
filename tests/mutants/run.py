"""Change one expression at a time and see a test turn red.

    python tests/mutants/run.py                  # every list beside this file
    python tests/mutants/run.py train evaluate   # train.toml and evaluate.toml
    python tests/mutants/run.py train -k clip    # the mutants of train.toml that "clip" names
    python tests/mutants/run.py --check          # only that every change still has its one place

A list is a TOML file of `[[mutant]]` tables:

    name       what is broken, in words
    file       the source file
    function   where in it: `name`, `Class.method`, or left out for the whole file
    find       Python code, an expression or a statement, in which a single capital letter stands
               for any expression: `A.zero_grad(set_to_none=True)`, `min(A, len(B))`, `A += B`
    becomes    the code that takes its place; the letters stand for what they stood for
    killed_by  the tests of which one must fail (pytest's node ids)

`find` is compared with the syntax tree, not with the text, and has to fit exactly once. So a mutant
survives another layout of the code and other names of local variables. Each mutant lives in a copy
of the repository, and the checkout is never touched. The exit code is 1 if a mutant survives, 2 if
a change has no place or several, or names a test that is gone.
"""

import argparse
import ast
import copy
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

LEFT_OUT = {".git", ".venv", "cache", "datasets", "runs", "reports", "weights"}
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def is_wildcard(node: object) -> bool:
    """Whether a node of a pattern stands for any expression: a name of one capital letter."""
    return isinstance(node, ast.Name) and len(node.id) == 1 and node.id.isupper()


def matches(pattern: object, node: object, captured: dict[str, ast.expr]) -> bool:
    """Whether a part of the source has the pattern's shape; fills in what the letters stand for."""
    if is_wildcard(pattern):
        if not isinstance(node, ast.expr):
            return False
        before = captured.setdefault(pattern.id, node)
        # A letter that comes twice is the same twice, be it read or bound.
        return ast.unparse(before) == ast.unparse(node)
    if isinstance(pattern, list):
        if not isinstance(node, list) or len(pattern) != len(node):
            return False
        return all(matches(*pair, captured) for pair in zip(pattern, node))
    if not isinstance(pattern, ast.AST):
        return pattern == node
    if type(pattern) is not type(node):
        return False
    for field in pattern._fields:
        if field == "ctx":  # the same name is read in one place and bound in another
            continue
        if not matches(getattr(pattern, field, None), getattr(node, field, None), captured):
            return False
    return True


def parse(code: str) -> ast.AST:
    """The syntax tree of one expression or statement."""
    (statement,) = ast.parse(code).body
    return statement.value if isinstance(statement, ast.Expr) else statement


class Replacement(ast.NodeTransformer):
    """Replaces what has the shape of `pattern`, and counts how often it did."""

    def __init__(self, pattern: ast.AST, becomes: ast.AST) -> None:
        self.pattern = pattern
        self.becomes = becomes
        self.count = 0

    def visit(self, node: ast.AST) -> ast.AST:
        captured: dict[str, ast.expr] = {}
        if not matches(self.pattern, node, captured):
            return self.generic_visit(node)
        self.count += 1
        return Filling(captured).visit(copy.deepcopy(self.becomes))


class Filling(ast.NodeTransformer):
    """Puts what the letters stood for into the code that takes the place."""

    def __init__(self, captured: dict[str, ast.expr]) -> None:
        self.captured = captured

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self.captured[node.id]) if is_wildcard(node) else node


def find_function(tree: ast.Module, name: str) -> ast.AST:
    """The function, class or method of a dotted name within a module; the module without one."""
    scope: ast.AST = tree
    for part in filter(None, name.split(".")):
        named = [node for node in ast.walk(scope) if getattr(node, "name", None) == part
                 and isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        if len(named) != 1:
            raise ValueError(f"{len(named)} definitions of {part}, expected one")
        (scope,) = named
    return scope


def mutated(mutant: dict[str, str], text: str) -> str:
    """The source text with the change of a mutant; a ValueError if that has not just one place."""
    tree = ast.parse(text)
    replacement = Replacement(parse(mutant["find"]), parse(mutant["becomes"]))
    scope = find_function(tree, mutant.get("function", ""))
    replacement.generic_visit(scope)
    if replacement.count != 1:
        raise ValueError(f"{mutant['find']!r} fits {replacement.count} times, expected once")
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def find_problem(mutant: dict) -> str:
    """Why a mutant is stale, in words: its change has no one place, or a test of it is gone."""
    try:
        mutated(mutant, (REPOSITORY / mutant["file"]).read_text())
    except (OSError, SyntaxError, ValueError) as error:
        return f"{mutant['name']}: {mutant['file']}: {error}"
    for test in mutant["killed_by"]:
        path, _, name = test.partition("::")
        function = name.partition("[")[0]
        file = REPOSITORY / path
        if not file.is_file() or f"def {function}" not in file.read_text():
            return f"{mutant['name']}: there is no test {test}"
    return ""


def is_killed(mutant: dict[str, str], folder: Path) -> bool:
    """Whether one of the mutant's tests fails on a copy of the repository with its change."""
    file = folder / mutant["file"]
    text = file.read_text()
    file.write_text(mutated(mutant, text))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               "-m", "not by_hand", *mutant["killed_by"]]
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        file.write_text(text)
    return done.returncode == 1


def copy_repository(target: Path) -> None:
    """Copy the checkout without its environment and what runs have written."""
    for entry in REPOSITORY.iterdir():
        if entry.name in LEFT_OUT:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, symlinks=True)
        else:
            shutil.copy(entry, target / entry.name)


def load_mutants(lists: list[str], name_part: str) -> list[dict]:
    """The mutants of these lists whose name has that in it, each with the name of its list."""
    selected = []
    for name in lists:
        for mutant in tomllib.loads((HERE / f"{name}.toml").read_text())["mutant"]:
            if name_part in mutant["name"]:
                selected.append(mutant | {"name": f"{name}: {mutant['name']}"})
    return selected


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="*",
                        default=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("-k", default="", metavar="TEXT",
                        help="take only the mutants whose name has this in it")
    parser.add_argument("--check", action="store_true",
                        help="run no test; check that every change has its one place and its tests")
    args = parser.parse_args(argv)

    mutants = load_mutants(args.lists, args.k)
    stale = [problem for problem in map(find_problem, mutants) if problem]
    for problem in stale:
        print(f"STALE     {problem}")
    if stale or args.check:
        print(f"{len(mutants) - len(stale)} of {len(mutants)} changes have their place and tests")
        return 2 if stale else 0

    survivors = 0
    # A copy beside the repository: shared/ is found there too.
    with tempfile.TemporaryDirectory(dir=REPOSITORY.parent) as folder:
        copy_repository(Path(folder))
        for mutant in mutants:
            began = time.monotonic()
            killed = is_killed(mutant, Path(folder))
            survivors += not killed
            verdict = "killed  " if killed else "SURVIVED"
            print(f"{verdict}  {mutant['name']}  ({time.monotonic() - began:.0f} s)", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
