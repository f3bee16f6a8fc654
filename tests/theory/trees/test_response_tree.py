"""The order of a response tree's edges by node, which the simulator lays out."""

import numpy as np

from theory.trees.response_tree import ResponseTree


def test_edges_by_node_keep_their_order_within_one() -> None:
    """Three nodes, labelled 5, 2 and 7, whose edges stand mixed."""
    node = np.array([5, 2, 5, 7, 2, 7])
    tree = ResponseTree(
        node=node,
        probability=np.array([0.4, 0.5, 0.6, 0.3, 0.5, 0.7]),
        path=np.array([[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 0, 1]]),
        reward=np.array([1.0, 0.0, 0.0, 0.0]),
        depth=np.array([0, 1, 0, 1, 1, 1]),
        length=np.full(4, 2.0),
        kernel=np.eye(6),
    )
    assert tree.by_node.tolist() == [1, 4, 0, 2, 3, 5]
