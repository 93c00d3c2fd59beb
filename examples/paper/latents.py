"""Data of known origin: clusters on a sphere, latents around them, an invertible network that hides both, and R²."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import vonmises_fisher
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLU below 0


def cluster_vectors(count: int, dim: int, rng: np.random.Generator) -> Tensor:
    """Unit vectors, uniform on the sphere, shape ``(count, dim)``, float32."""
    return nn.functional.normalize(torch.from_numpy(rng.standard_normal((count, dim))), dim=1).float()


def draw_around(centres: Tensor, concentration: float, generator: torch.Generator) -> Tensor:
    """One von Mises-Fisher draw around each centre.

    SciPy draws around the first axis; the reflection that takes this axis to a centre takes the draw along, since the
    density depends on the angle alone.

    Args:
        centres: Unit vectors, shape ``(B, d)``.
        concentration: κ.
        generator: Generator on the centres' device, the only source of randomness.

    Returns:
        Unit vectors, shape ``(B, d)``, float32.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    axis = np.eye(centres.shape[1])[0]
    drawn = vonmises_fisher(axis, concentration).rvs(len(centres), random_state=rng)
    draws = torch.from_numpy(drawn).to(centres.device, torch.float32)
    normal = torch.from_numpy(axis).to(draws) - centres
    share = (draws * normal).sum(1, keepdim=True) / normal.square().sum(1, keepdim=True).clamp(min=1e-12)
    return draws - 2.0 * share * normal


def invertible_network(dim: int, rng: np.random.Generator, candidates: int, layers: int = 4) -> nn.Sequential:
    """Square linear layers with leaky ReLUs between them, as is usual in nonlinear ICA; not trained.

    Each matrix has the smallest condition number among random ones with columns of unit norm.
    """
    network = nn.Sequential()
    for _ in range(layers):
        matrices = rng.uniform(-1.0, 1.0, (candidates, dim, dim))
        matrices /= np.linalg.norm(matrices, axis=1, keepdims=True)
        linear = nn.Linear(dim, dim, bias=False).requires_grad_(False)
        linear.weight.copy_(torch.from_numpy(matrices[np.linalg.cond(matrices).argmin()]))
        network.extend([linear, nn.LeakyReLU(SLOPE)])
    return network[:-1]


def linear_r2(inputs: NDArray, targets: NDArray, intercept: bool) -> tuple[float, NDArray]:
    """How well a linear map takes inputs to targets: fitted on the first half of the rows, measured on the second.

    Returns:
        The coefficient of determination × 100, a mean over the targets' dimensions, and the predictions of the second half.
    """
    half = len(inputs) // 2
    fitted = LinearRegression(fit_intercept=intercept).fit(inputs[:half], targets[:half])
    return 100.0 * fitted.score(inputs[half:], targets[half:]), fitted.predict(inputs[half:])
