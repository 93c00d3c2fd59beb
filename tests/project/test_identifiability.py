"""The data of known origin that examples measure identifiability with, against theory and NumPy in float64."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ive

sys.path.append(str(Path(__file__).parents[2] / "examples/paper"))
from latents import SLOPE, cluster_vectors, draw_around, invertible_network, linear_r2


@pytest.mark.parametrize(("dim", "concentration"), [(3, 2.0), (5, 10.0), (20, 10.0)])
def test_draws_have_the_resultant_of_the_distribution(dim, concentration):
    centres = cluster_vectors(4, dim, np.random.default_rng(dim)).repeat(20_000, 1)
    draws = draw_around(centres, concentration, torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(draws.norm(dim=1), torch.ones(len(draws), dtype=torch.float64), atol=1e-5, rtol=0)
    length = ive(dim / 2, concentration) / ive(dim / 2 - 1, concentration)  # of the mean, along the centre
    for n in range(4):
        around = draws[n::4]
        error = around.std(dim=0) / len(around) ** 0.5
        assert ((around.mean(dim=0) - length * centres[n]).abs() < 5 * error).all()
    # the cosines' variance, from the Bessel functions' recurrence: 1 - A² - A (d - 1) / κ
    cosines = (draws * centres).sum(1)
    assert float(cosines.var()) == pytest.approx(1 - length**2 - length * (dim - 1) / concentration, rel=0.03)


def test_draws_follow_their_generator_and_differ_between_rows():
    centres = torch.eye(5)[:1].repeat(50, 1)  # the axis that SciPy draws around: nothing is to be reflected
    first, again = (draw_around(centres, 10.0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.unique(dim=0)) == 50
    generator = torch.Generator().manual_seed(7)
    draw_around(centres, 10.0, generator)
    assert not torch.equal(first, draw_around(centres, 10.0, generator))


@pytest.mark.parametrize("dim", [5, 20])
def test_the_network_is_inverted_by_solving_its_layers(dim):
    network = invertible_network(dim, np.random.default_rng(0), candidates=500).double()
    latents = cluster_vectors(300, dim, np.random.default_rng(1)).double()
    value = network(latents).numpy()
    matrices = [layer.weight.numpy() for layer in network if hasattr(layer, "weight")]
    assert len(matrices) == 4
    for depth, matrix in enumerate(reversed(matrices)):
        if depth:
            value = np.where(value < 0, value / SLOPE, value)
        value = np.linalg.solve(matrix, value.T).T
    np.testing.assert_allclose(value, latents.numpy(), atol=1e-9)
    assert max(np.linalg.cond(matrix) for matrix in matrices) < {5: 3.0, 20: 30.0}[dim]
    assert linear_r2(network(latents).numpy(), latents.numpy(), intercept=True)[0] < 95.0  # it is no linear map
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_r2_is_100_for_a_linear_map_and_nothing_for_noise():
    rng = np.random.default_rng(0)
    inputs, noise, matrix = rng.normal(size=(600, 5)), rng.normal(size=(600, 5)), rng.normal(size=(5, 5))
    value, predicted = linear_r2(inputs, inputs @ matrix, intercept=False)
    assert value == pytest.approx(100.0)
    np.testing.assert_allclose(predicted, inputs[300:] @ matrix)
    assert linear_r2(inputs, inputs @ matrix + 3.0, intercept=True)[0] == pytest.approx(100.0)
    assert linear_r2(inputs, inputs @ matrix + 3.0, intercept=False)[0] < 50.0
    assert linear_r2(noise, inputs, intercept=True)[0] < 5.0
    assert linear_r2(noise[:20], inputs[:20], intercept=True)[0] < 0.0  # measured where it was not fitted
    half = inputs + noise  # as much noise as signal: R² of 1/2 for each latent
    assert linear_r2(half, inputs, intercept=True)[0] == pytest.approx(50.0, abs=8.0)
