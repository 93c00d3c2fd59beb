r"""16-bit products against float64, within the bound that bfloat16 allows, on every kind of CPU.

The bound. bfloat16 rounds to within :math:`u = 2^{-8}` of a number; products are to be summed in float32,
:math:`u_{32} = 2^{-24}`. The embeddings :math:`f` are bfloat16 numbers, as a network gives them under autocast; the rows
:math:`w` are float32. Rounding errors are independent, of mean zero and bounded, so a weighted sum of them exceeds
:math:`\lambda` times the root of the sum of its squared bounds with a probability below :math:`2 e^{-\lambda^2 / 2}`
(Hoeffding; Higham and Mary, *A New Approach to Probabilistic Rounding Error Analysis*, 2019, Theorem 2.4):
5e-11 a number for :math:`\lambda = 7`.

- A logit :math:`z_{bn}`: the row is rounded, and the result: :math:`\delta_{bn} \sim \sigma_{bn}`,
  :math:`\sigma_{bn}^2 = (u^2 + K u_{32}^2) \sum_k (f_{bk} w_{nk})^2 + u^2 z_{bn}^2`, at most :math:`D = \lambda \max \sigma`.
- logsumexp: :math:`\sum_n p_{bn} \delta_{bn}` and terms of second order:
  :math:`L_b = \lambda \sqrt{\sum_n p_{bn}^2 \sigma_{bn}^2} + D^2`.
- The gradient of an embedding, :math:`\sum_n (p_{bn} - t_{bn}) w_{nk}`: the probability's error
  :math:`p_{bn} (\delta_{bn} - L_b)`, two roundings of each term, and one of each chunk's sum.
- The gradient of a row, :math:`\sum_b (p_{bn} - t_{bn}) f_{bk}`: the same, but one row's :math:`\delta_{bn}` are not
  independent of each other, so there their sum is bounded by that of their sizes.

Sums in 16 bits, which must not be, exceed it (`test_sums_in_16_bits_exceed_the_bound`).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from helpers import each_device
from torch import Tensor

from diet_lightning.objective import DatumHead, FusedHead
from diet_lightning.objective.chunked import compute_dtype
from diet_lightning.objective.loss import datum_cross_entropy

EPSILON, LAMBDA, CHUNKS = 0.8, 7.0, 7
U32 = 2.0**-24
SIZES = [(64, 6, 8), (4096, 512, 256), (20_000, 128, 32)]  # N, K, B

pytestmark = pytest.mark.numerics


class Reference:
    """Loss and gradients in float64, and how far off each number may be.

    Args:
        features: Embeddings, ``(B, K)``.
        weight: Rows, ``(N, K)``.
        index: Targets, ``(B,)``.
        u: Half the distance from 1 to the next number of the products' dtype.
    """

    def __init__(self, features: Tensor, weight: Tensor, index: Tensor, u: float) -> None:
        f, w = features.double(), weight.double()
        batch, count = len(f), len(w)
        z = f @ w.T
        lse = z.logsumexp(1, keepdim=True)
        p = (z - lse).exp()
        target = torch.full_like(p, EPSILON / count)
        target[torch.arange(batch), index] += 1 - EPSILON
        v = (p - target) / batch
        self.loss = (lse[:, 0] - (z * target).sum(1)).mean()
        self.by_weight, self.by_features = v.T @ f, v @ w

        # float32 sums of N exponentials, and exponentials and logarithms themselves
        small = (count**0.5 + 16) * LAMBDA * U32
        variance = (u**2 + f.shape[1] * U32**2) * (f.square() @ w.T.square()) + (u * z).square()
        d = LAMBDA * variance.sqrt()
        most = float(d.max()) + small
        of_lse = LAMBDA * (p.square() * variance).sum(1, keepdim=True).sqrt() + most**2 + small * (1 + lse.abs())
        self.loss_bound = float((of_lse[:, 0] + (target * d).sum(1)).mean())

        def of_terms(left: Tensor, right: Tensor) -> Tensor:
            """Two roundings of each term of a matrix product, and their sum in float32."""
            return LAMBDA * (2**0.5 * u + len(right) ** 0.5 * U32) * (left.square() @ right.square()).sqrt()

        mass = (p + target) / batch  # a target's part may be rounded together with the probability, or not at all
        chunks = [part @ rows for part, rows in zip(p.chunk(CHUNKS, 1), w.chunk(CHUNKS), strict=True)]
        self.by_features_bound = (
            LAMBDA * ((p.square() * variance) @ w.square()).sqrt() / batch
            + of_lse * (p @ w).abs() / batch
            + (most**2 + small) * (mass @ w.abs())
            + of_terms(mass, w)
            + LAMBDA * u * torch.stack(chunks).square().sum(0).sqrt() / batch
            + u * self.by_features.abs()
        )
        self.by_weight_bound = (
            (p * (torch.expm1(d) + of_lse + small)).T @ f.abs() / batch
            + of_terms(v.T, f)
            + (u + 4 * U32) * self.by_weight.abs()
        )


def rounding(features: Tensor, weight: Tensor) -> float:
    """Half the distance from 1 to the next number, of the dtype that the products are computed in here."""
    with torch.autocast(features.device.type, torch.bfloat16):
        return float(torch.finfo(compute_dtype(features, weight)).eps / 2)


def make_batch(count: int, dim: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    features = torch.randn(batch, dim).relu_().add_(0.1).bfloat16().float()  # no mean of zero, as pooled activations
    return features, DatumHead(count, dim).weight.detach(), torch.randperm(count)[:batch]


def plain(features: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return by_autograd(features, weight, index, None)


def chunked(features: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return by_autograd(features, weight, index, -(-len(weight) // CHUNKS))


def by_autograd(
    features: Tensor, weight: Tensor, index: Tensor, chunk_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    features, weight = features.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast(features.device.type, torch.bfloat16):
        loss = datum_cross_entropy(features, weight, index, EPSILON, chunk_size=chunk_size)
    loss.backward()
    return loss.detach(), features.grad, weight.grad


def fused(features: Tensor, weight: Tensor, index: Tensor, parts: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of W is never held: it is read off AdamW's first moment after the first step."""
    head = FusedHead(*weight.shape, EPSILON).to(weight.device)
    head.weight.data.copy_(weight)
    optimizer = torch.optim.AdamW(head.parameters())
    head.attach(optimizer)
    features = features.clone().requires_grad_()
    losses = []
    for f, i in zip(features.chunk(parts), index.chunk(parts), strict=True):
        with torch.autocast(f.device.type, torch.bfloat16):
            losses.append(head(f, i) / parts)
        losses[-1].backward()
    optimizer.step()
    by_weight = optimizer.state[head.weight]["exp_avg"] / (1 - optimizer.defaults["betas"][0])
    return torch.stack(losses).sum().detach(), features.grad, by_weight


def fused_in_four_parts(features: Tensor, weight: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return fused(features, weight, index, parts=4)


def share_of_bound(found: tuple[Tensor, Tensor, Tensor], reference: Reference) -> dict[str, float]:
    """The largest error as a share of what is allowed; at most 1 where all is well."""
    loss, by_features, by_weight = found
    return {
        "loss": float((loss.double() - reference.loss).abs() / reference.loss_bound),
        "features": float(((by_features.double() - reference.by_features).abs() / reference.by_features_bound).max()),
        "weight": float(((by_weight.double() - reference.by_weight).abs() / reference.by_weight_bound).max()),
    }


@each_device
@pytest.mark.parametrize("way", [plain, chunked, fused, fused_in_four_parts])
@pytest.mark.parametrize("size", SIZES)
def test_loss_and_gradients_are_within_the_bound(size, way, device):
    batch = make_batch(*size)
    there = [each.to(device) for each in batch]
    found = [each.cpu() for each in way(*there)]
    shares = share_of_bound(found, Reference(*batch, rounding(*there[:2])))
    assert max(shares.values()) <= 1.0, shares
    # nor is the bound so wide that it says nothing: some number comes near it
    assert max(shares.values()) >= 0.01, shares


@pytest.mark.parametrize("summed_over", ["batch", "classes"])
def test_sums_in_16_bits_exceed_the_bound(summed_over):
    """The bound is narrow enough to find what it is for."""
    features, weight, index = make_batch(1024, 32, 1024)
    loss, by_features, by_weight = plain(features, weight, index)
    reference = Reference(features, weight, index, 2.0**-8)
    z = (features @ weight.T).requires_grad_()
    torch.nn.functional.cross_entropy(z, index, label_smoothing=EPSILON).backward()
    v = z.grad.bfloat16()
    if summed_over == "batch":
        by_weight = sum_in_16_bits(v.T, features.bfloat16())
    else:
        by_features = sum_in_16_bits(v, weight.bfloat16())
    shares = share_of_bound((loss, by_features, by_weight), reference)
    assert shares["weight" if summed_over == "batch" else "features"] > 1.0, shares


def sum_in_16_bits(left: Tensor, right: Tensor) -> Tensor:
    product = torch.zeros(len(left), right.shape[1], dtype=torch.bfloat16)
    for n in range(len(right)):
        product += left[:, n : n + 1] * right[n]
    return product.float()


# -- every instruction set that this machine has -----------------------------------------------------------------------

INSIDE = "DIET_TEST_INSTRUCTION_SET"
INSTRUCTION_SETS = [  # of oneDNN, and of torch's own kernels: the most that may be used
    ("AVX2", "avx2"),
    ("AVX512_CORE", "avx512"),
    ("AVX512_CORE_BF16", "avx512"),
    ("AVX512_CORE_AMX", "avx512"),
    ("AVX2", "avx512"),
]


@pytest.mark.slow
@pytest.mark.skipif(INSIDE in os.environ, reason="runs the others once")
@pytest.mark.parametrize(("onednn", "aten"), INSTRUCTION_SETS)
def test_numerics_hold_on_the_instruction_set(onednn, aten):
    if torch.backends.cpu.get_cpu_capability() != "AVX512" and aten != "avx2":
        pytest.skip("this machine has no 512-bit vectors")
    environment = {**os.environ, INSIDE: "1", "ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not gpu",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        __file__,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    assert f"{4 * len(SIZES) + 2} passed" in done.stdout
