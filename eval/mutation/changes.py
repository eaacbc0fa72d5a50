"""Single changes to a file of Python, drawn by a seed; cosmic-ray makes them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.show.markdown import RESULTS, markdown, provenance_line, read

COUNTS = ("places", "tried", "caught", "explained")
"""Columns of a file; explained are survivors with a reason."""


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Attributes:
        line: number of the first line that changed.
        operator: cosmic-ray's name of the change.
        column: of the change in its line.
        before, after: the changed line without its indentation.
        code: the whole file.
    """

    line: int
    operator: str
    column: int
    before: str
    after: str
    code: str

    @property
    def key(self) -> str:
        """Name of the mutant among those of one content of the file."""
        return f"{self.line}:{self.column} {self.operator}"


def is_left_out(node: Any) -> bool:
    """Whether a node of a parso tree stands in a type annotation, an assertion or a ``raise``."""
    if node.parent is not None and node.parent.type == "parameters":
        return True  # a star or slash between parameters is no operator
    child, parent = None, node
    while parent is not None:
        annotation = (parent.type == "annassign" and child is parent.children[1]) or (
            parent.type == "funcdef" and child is not None and child is parent.annotation
        )
        if annotation or parent.type in ("raise_stmt", "assert_stmt", "tfpdef"):
            return True
        child, parent = parent, parent.parent
    return False


def find_mutants(source: str, sample: int | None, seed: Sequence[int]) -> tuple[list[Mutant], int]:
    """Draw one change of each kind at each place of a source.

    Args:
        source: Python code.
        sample: number of places that are drawn; None takes all.
        seed: of the draws.

    Returns:
        - The mutants, in the order of their draw: a smaller sample is the start of a larger one.
        - The number of places.
    """
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    places: dict[tuple[int, int, str], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for full_name in operator_names():
        name = full_name.partition("/")[2]
        if get_operator(full_name).arguments():
            continue  # those that want names of variables
        operator, occurrence = get_operator(full_name)(), 0
        for node in nodes:
            for (line, column), _ in operator.mutation_positions(node):
                if not is_left_out(node):
                    places.setdefault((line, column, name.partition("_")[0]), []).append((full_name, occurrence))
                occurrence += 1
    rng = np.random.default_rng(seed)
    before, tree = source.splitlines(), ast.dump(ast.parse(source))
    found: list[Mutant] = []
    count = 0
    ordered = sorted(places.items())
    for index in rng.permutation(len(ordered)):
        (_, column, _), choices = ordered[index]
        for choice in rng.permutation(len(choices)):
            name, occurrence = choices[choice]
            try:
                code = mutate_code(source, get_operator(name)(), occurrence)
                if code is None or ast.dump(ast.parse(code)) == tree:
                    continue
            except SyntaxError:
                continue  # a star between parameters is no operator
            except AttributeError:
                continue  # cosmic-ray cannot replace an exception with a dot in its name
            count += 1
            if sample is None or len(found) < sample:
                after = code.splitlines()
                line = next(i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
                short = name.partition("/")[2]
                found.append(Mutant(line + 1, short, column, before[line].strip(), after[line].strip(), code))
            break
    return found, count


def table(name: str) -> str:
    """What the tests notice, one row per file, and what they do not, with the reason."""
    record = read(RESULTS / f"{name}.json")
    rows = []
    for row in [*record["results"], record["total"]]:
        low, high = row["interval"]
        counts = [str(row[key]) for key in COUNTS]
        rows.append([row["file"], *counts, f"{row['percent']:.1f}", f"{low:.1f} to {high:.1f}"])
    header = ["file", *COUNTS, "%", "interval"]
    left = [
        f"- `{one['file']}`, line {one['line']}, `{one['after']}`: {one['reason'] or 'not looked at yet'}"
        for one in record["survivors"]
    ]
    return "\n\n".join([markdown(header, rows), provenance_line(record), "\n".join(left) or "None survived."])
