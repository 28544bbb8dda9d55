"""The exact reference of selection: a mixed-integer linear programme, solved by HiGHS."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.terms import Choice


def solve_exactly(problem: Problem, *, seconds: float = 600) -> tuple[Choice | None, float]:
    """Return the best choice within the budget and the proven upper bound of its value.

    One binary variable per option; the time of two groups' operator is linearised over the pairs of their options (variables
    between 0 and 1 whose sums over one side are the other side's binaries).

    Args:
        problem: Of values that add up over the groups, without operators on several groups that are no sum over them.
        seconds: Time limit; the choice is then the best found, None if there is none.
    """
    terms = problem.terms
    assert not (terms.sums or problem.values.pairs)
    sizes = [len(values) for values in problem.values.unary]
    first = np.concatenate([[0], np.cumsum(sizes)])
    pairs = list(terms.pairs.items())
    start = np.concatenate([[first[-1]], first[-1] + np.cumsum([table.size for _, table in pairs])]).astype(int)
    total = int(start[-1])
    rows: list[int] = []
    columns: list[int] = []
    entries: list[float] = []
    right: list[float] = []
    for group, size in enumerate(sizes):
        rows += [len(right)] * size
        columns += range(first[group], first[group] + size)
        entries += [1.0] * size
        right.append(1.0)
    for index, ((i, j), table) in enumerate(pairs):
        cells = start[index] + np.arange(table.size).reshape(table.shape)
        for group, lines in ((i, cells), (j, cells.T)):
            for option, line in enumerate(lines):
                rows += [len(right)] * (len(line) + 1)
                columns += [*line.tolist(), int(first[group] + option)]
                entries += [1.0] * len(line) + [-1.0]
                right.append(0.0)
    ties = LinearConstraint(coo_array((entries, (rows, columns)), shape=(len(right), total)).tocsr(), right, right)
    cost = np.concatenate([*terms.unary, *(table.ravel() for _, table in pairs)])
    budget = LinearConstraint(cost[None], -np.inf, problem.limit_ms - terms.constant)
    gain = np.concatenate([*problem.values.unary, np.zeros(total - first[-1])])
    binary = np.concatenate([np.ones(first[-1]), np.zeros(total - first[-1])])
    found = milp(-gain, constraints=[ties, budget], integrality=binary, bounds=Bounds(0, 1), options={"time_limit": seconds, "mip_rel_gap": 0})
    bound = -float(found.mip_dual_bound) if found.mip_dual_bound is not None else float("inf")
    if found.x is None:
        return None, bound
    return np.array([int(found.x[first[g] : first[g + 1]].argmax()) for g in range(len(sizes))]), bound
