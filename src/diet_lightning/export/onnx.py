"""Writes a network as an ONNX file, after comparing its outputs with PyTorch's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from diet_lightning.errors import ConfigurationError

OPSET = 18  # version of ONNX's operators: that of PyTorch's exporter since 2.6
TOLERANCE = 1e-4  # relative to the largest embedding; another order of summation in float32 differs by far less


def write_onnx(network: nn.Module, input_shape: tuple[int, ...], file: Path) -> None:
    """Writes the computation of a network, for batches of any size, from ``input`` to ``features``.

    Args:
        network: In eval mode, float32, on the CPU; maps ``(B, *input_shape)`` to ``(B, K)``.
        input_shape: Shape of one input.
        file: The file; weights of more than 2 GB are written to a second file beside it.

    Raises:
        ConfigurationError: If a package is missing, the network cannot be exported, or the outputs of ONNX Runtime differ.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise ConfigurationError(
            f"format='onnx' needs the package {error.name!r}: pip install 'diet-lightning[onnx]'."
        ) from error
    generator = torch.Generator().manual_seed(0)
    traced, other = (torch.randn(size, *input_shape, generator=generator) for size in (2, 5))
    try:
        with _silence(), torch.no_grad():
            torch.onnx.export(
                network,
                (traced,),
                str(file),
                input_names=["input"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:  # a release that this PyTorch does not support
        raise ConfigurationError(
            f"format='onnx' needs other releases of its packages ({error}): pip install --upgrade 'diet-lightning[onnx]'."
        ) from error
    except RuntimeError as error:
        raise ConfigurationError(
            f"{type(network).__name__} cannot be exported to ONNX ({_first_line(error)}): use format='safetensors'."
        ) from error
    with torch.no_grad():
        expected = network(other)
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(["features"], {"input": other.numpy()})[0])
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        raise ConfigurationError(
            f"ONNX Runtime cannot run {type(network).__name__} on a batch of {len(other)} ({_first_line(error)}): use "
            "format='safetensors'."
        ) from error
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ConfigurationError(
            f"ONNX Runtime's embeddings of {type(network).__name__} differ from PyTorch's by {difference:.2g}: use "
            "format='safetensors'."
        )


def _first_line(error: Exception) -> str:
    """The cause of the exporter's error, whose own message starts with advice on how to report it."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(cause).__name__


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hides the exporter's messages, which concern its implementation."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
