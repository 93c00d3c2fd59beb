"""Free memory of a device."""

from __future__ import annotations

from pathlib import Path

import torch

GIB = 2**30  # bytes


def available_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes.

    Args:
        device: CPU or CUDA.

    Returns:
        The bytes; None if unknown.
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
        left.append(int(text) - int(used.read_text()) + _file_pages(limit.with_name("memory.stat")))
    return min(left)


def _file_pages(stat: Path) -> int:
    """Bytes of cached files, such as mapped images, which a control group counts as used and frees when needed."""
    pairs = (line.split() for line in stat.read_text().splitlines()) if stat.exists() else ()
    return sum(int(value) for name, value in pairs if name in ("inactive_file", "active_file"))
