"""What memory a device has left."""

from __future__ import annotations

from pathlib import Path

import torch

GIB = 2**30  # bytes


def available_memory(device: torch.device) -> int | None:
    """Bytes that a device has left.

    Args:
        device: CPU or CUDA.

    Returns:
        None where it cannot be told.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    left = [int(lines["MemAvailable"].split()[0]) * 1024]
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        left.append(int(text) - int(used.read_text()))
    return min(left)
