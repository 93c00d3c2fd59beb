"""Metrics of a test as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from torch import Tensor

from diet_lightning.runs.metrics import is_accuracy

ENDS = ("_low", "_high")  # what the names of an interval's ends end with


def metrics_table(metrics: Mapping[str, Tensor]) -> Table:
    """A row per metric: accuracies in per cent, with their intervals where they were measured.

    Args:
        metrics: Name → value, with the ends of intervals under ``NAME_low`` and ``NAME_high``.

    Returns:
        The table.
    """
    table = Table(title="Test metrics")
    table.add_column("metric", overflow="fold")
    for column in ("value", "interval"):
        table.add_column(column, justify="right")
    for name, value in metrics.items():
        if name.endswith(ENDS):
            continue
        form = "{:.1%}" if is_accuracy(name) else "{:.4g}"
        ends = [form.format(float(metrics[name + end])) for end in ENDS if name + end in metrics]
        table.add_row(name, form.format(float(value)), " to ".join(ends))
    return table
