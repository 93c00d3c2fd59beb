"""Free memory of a device."""

from __future__ import annotations

from pathlib import Path

import torch

GIB = 2**30  # bytes


def available_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes, None if unknown; of a CPU within its control group's limit, which psutil ignores."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.exists():
        return None
    left = _values(meminfo)["MemAvailable:"] * 1024
    limit, used, stat = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        # cached files, such as mapped images, count as used and are freed when needed
        values = _values(stat) if stat.exists() else {}
        cached = values.get("inactive_file", 0) + values.get("active_file", 0)
        left = min(left, int(text) - int(used.read_text()) + cached)
    return left


def _values(file: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in file.read_text().splitlines() if (words := line.split())}
