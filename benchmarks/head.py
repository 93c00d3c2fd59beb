"""Time and memory of a step of the head: each kind of head compared with plain cross-entropy and AdamW, in one run.

A step is loss, gradients and AdamW's step on W; the embeddings are given and get their gradient. The cases take turns, so
that other work on the machine slows all of them. `ratio` is the median time relative to `plain`; `extra_mb` is the peak memory
of a step beyond weights, moments and, except for `fused` and `sampled`, one gradient. Prints one JSON line per case.

    python benchmarks/head.py --num-samples 10000 50000 200000 --dtype fp32 bf16
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diet_lightning.objective import DatumHead, FusedHead, SampledHead

SMOOTHING = 0.8
MB = 2**20


def plain(features: Tensor, head: nn.Module, index: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, head.weight), index, label_smoothing=SMOOTHING)


def torchs_own(features: Tensor, head: nn.Module, index: Tensor) -> Tensor:
    return F.linear_cross_entropy(features, head.weight, index, label_smoothing=SMOOTHING)


def ours(features: Tensor, head: nn.Module, index: Tensor) -> Tensor:
    return head(features, index)


def liger(features: Tensor, head: nn.Module, index: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(label_smoothing=SMOOTHING)(head.weight, features, index)


CASES: dict[str, tuple[type[DatumHead], Callable[..., Tensor]]] = {
    "plain": (DatumHead, plain),
    "dense": (DatumHead, ours),
    "fused": (FusedHead, ours),
    "sampled": (SampledHead, ours),
    "torch_linear_cross_entropy": (DatumHead, torchs_own),
    "liger": (DatumHead, liger),
}


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


class Peak:
    """Peak memory of a block, in bytes above the memory before it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            with suppress(OSError, AttributeError):
                # otherwise freed memory that malloc keeps would hide the memory of a step
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self.before = self._status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        after = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else self._status("VmHWM")
        self.extra = after - self.before

    @staticmethod
    def _status(name: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024


def run(count: int, dim: int, batch: int, dtype: str, device: torch.device, cases: list[str], repeats: int) -> None:
    torch.manual_seed(0)
    shared = nn.Parameter(torch.empty(count, dim, device=device).uniform_(-(dim**-0.5), dim**-0.5))
    # shared by all cases, to fit into memory; written, so that no step is slowed by the first access to their memory
    moments = [torch.full((count, dim), 1e-12, device=device) for _ in range(2)]
    features = torch.randn(batch, dim, device=device, requires_grad=True)

    def step_of(case: str) -> Callable[[], None]:
        head_class, loss_of = CASES[case]
        with torch.device("meta"):  # rows of its own would not fit into memory beside the others'
            head = head_class(count, dim, SMOOTHING)
        for name, buffer in head.named_buffers():
            setattr(head, name, torch.zeros_like(buffer, device=device))
        head.weight = shared
        optimizer = torch.optim.AdamW([shared], lr=1e-6, weight_decay=0.05, fused=True)
        optimizer.state[shared] = {
            "step": torch.zeros((), device=device),
            "exp_avg": moments[0],
            "exp_avg_sq": moments[1],
        }
        if hasattr(head, "attach"):
            head.attach(optimizer)

        def step() -> None:
            index = torch.randint(count, (batch,), device=device)
            features.grad = shared.grad = None
            cast = torch.autocast(device.type, dtype=torch.bfloat16) if dtype == "bf16" else nullcontext()
            with cast:
                loss = loss_of(features, head, index)
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    steps, extra, times = {}, {}, {}
    for case in cases:
        try:
            steps[case] = step_of(case)
            steps[case]()  # warm-up
            shared.grad = None
            with Peak(device) as peak:
                steps[case]()
            gradient = 0 if case in ("fused", "sampled") else count * dim * 4
            extra[case] = (peak.extra - gradient) / MB
            times[case] = []
        except (AttributeError, ImportError, RuntimeError, TypeError) as error:
            print(
                json.dumps(
                    {"case": case, "num_samples": count, "dtype": dtype, "error": str(error).splitlines()[0][:200]}
                )
            )
            steps.pop(case, None)
        shared.grad = features.grad = None
    for _ in range(repeats):
        for case, step in steps.items():
            start = time.perf_counter()
            step()
            times[case].append(time.perf_counter() - start)
            shared.grad = None
    base = statistics.median(times.get("plain", [0.0]))
    for case in steps:
        middle = statistics.median(times[case])
        line = {
            "case": case,
            "num_samples": count,
            "embed_dim": dim,
            "batch_size": batch,
            "dtype": dtype,
            "device": device.type,
            "ms": round(1e3 * middle, 2),
            "ratio": round(middle / base, 3) if "plain" in times else None,
            "extra_mb": round(extra[case], 1),
            "repeats": repeats,
            "hardware": hardware(device),
            "torch": torch.__version__,
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--embed-dim", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], nargs="+", default=["fp32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=["plain", "dense", "fused", "sampled"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for count in args.num_samples:
        for dtype in args.dtype:
            run(count, args.embed_dim, args.batch_size, dtype, torch.device(args.device), args.cases, args.repeats)


if __name__ == "__main__":
    main()
