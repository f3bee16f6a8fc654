"""Speed of the simulator, as ratios measured in one run: `make bench`.

Absolute times depend on the machine and on who else uses it; the ratios between engines hardly do.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from bandit_sim import Arms, ParticleArms, TreeArms, simulate
from theory.rules import Rule
from theory.trees.response_tree import ResponseTree

ROUNDS, SEEDS, LEAVES, BRANCH = 100, 4096, 200, 3


def random_tree(leaves: int, branch: int, seed: int = 0) -> ResponseTree:
    """A tree grown breadth first, each node `branch` edges, with a random kernel of scores."""
    rng = np.random.default_rng(seed)
    node: list[int] = []
    probability: list[float] = []
    depth: list[int] = []
    paths: list[list[int]] = [[]]
    nodes = 0
    while len(paths) < leaves:
        grown = paths.pop(0)
        for share in rng.dirichlet(np.ones(branch)):
            paths.append([*grown, len(node)])
            node.append(nodes)
            probability.append(float(share))
            depth.append(len(grown))
        nodes += 1
    path = np.zeros((len(paths), len(node)), dtype=np.int8)
    for leaf, edges in enumerate(paths):
        path[leaf, edges] = 1
    pi, at = np.array(probability), np.array(node)
    score = rng.normal(size=(len(node), len(node))) * 2 / np.sqrt(len(node))
    for n in range(nodes):
        score[at == n] -= pi[at == n] @ score[at == n]
    reward = (rng.random(len(paths)) < 0.1).astype(float)
    kernel = (score @ score.T).astype(np.float32)
    return ResponseTree(at, pi, path, reward, np.array(depth), path.sum(axis=1).astype(float), kernel)


def best_of(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several runs; the first, which compiles, is not counted."""
    run()
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def main() -> None:
    tree = random_tree(LEAVES, BRANCH)
    one = Rule.model_validate({"optimiser": {"kind": "sgd", "eta": 0.05}})
    four = one.model_copy(update={"rollouts": 4})
    cases = {
        "dense": (Arms.two_class(arms=len(tree.reward), correct=20, p0=0.05), one),
        "kernel": (ParticleArms.from_tree(tree), one),
        "tree kernel": (TreeArms.from_tree(tree), one),
        "tree kernel, 4 rollouts": (TreeArms.from_tree(tree), four),
    }
    seconds = {
        name: best_of(lambda arms=arms, rule=rule: simulate(arms, rule, ROUNDS, SEEDS, 0))
        for name, (arms, rule) in cases.items()
    }
    print(f"{len(tree.node)} edges, {len(tree.reward)} leaves, {SEEDS} seeds, {ROUNDS} rounds")
    for name, spent in seconds.items():
        ratio = spent / seconds["dense"]
        print(
            f"{name:24s} {ratio:6.2f} x dense   {spent:7.2f} s   {SEEDS * ROUNDS / spent:10.0f} seed-rounds/s"
        )


if __name__ == "__main__":
    main()
