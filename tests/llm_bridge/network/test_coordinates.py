"""A sample of parameters: the same of every vector, read through any cut of it, beside the sketch or without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.probe.measure import trained
from llm_bridge.probe.scores import atom_scores
from llm_bridge.probe.sketch import Coordinates
from tests.llm_bridge.conftest import probed
from theory.refusal import Refusal


def test_sampled_coordinates_are_those_of_the_whole_vector() -> None:
    x = torch.arange(60.0).reshape(2, 30)
    some = Coordinates(7, 30, 1)
    got = some([x[:, :11], x[:, 11:15].reshape(2, 2, 2), x[:, 15:]])
    assert got.shape == (2, 7) and some.share == pytest.approx(7 / 30)
    torch.testing.assert_close(got, x[:, some.places])
    assert len(set(some.places.tolist())) == 7
    assert Coordinates(99, 30, 1).share == 1
    with pytest.raises(Refusal, match="coordinates = 0; give at least 1"):
        Coordinates(0, 30, 1)


@pytest.mark.parametrize("sketch", [None, 64])
def test_a_probe_keeps_the_scores_of_the_sample(split, question, prompt, sketch) -> None:
    plain, kept = (probed(split, question, sketch=sketch, coordinates=count) for count in (None, 50))
    np.testing.assert_allclose(kept.gram, plain.gram, rtol=1e-12)
    assert plain.scores is None and kept.scores is not None
    scores = atom_scores(split, prompt, split.adapters.fresh(1), kept.layout.atoms)
    np.testing.assert_allclose(
        kept.scores, scores[:, Coordinates(50, trained(split), 0).places].numpy(), rtol=1e-12
    )
    assert kept.share == pytest.approx(50 / trained(split))
