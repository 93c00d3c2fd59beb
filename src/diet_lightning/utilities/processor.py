"""What the processor computes by itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # environment variables that narrow the instructions of oneDNN


def multiplies_bf16() -> bool:
    """Whether the processor multiplies matrices in bf16 (AVX512-BF16 or AMX); others emulate it, at a fraction of the speed.

    Returns:
        False where it is not known, as on systems without ``/proc/cpuinfo``.
    """
    limits = [os.environ[name].upper() for name in LIMITS if name in os.environ]
    if any(not re.search("BF16|FP16|AMX|DEFAULT|ALL", limit) for limit in limits) or not CPUINFO.is_file():
        return False
    return re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", CPUINFO.read_text(), re.MULTILINE) is not None
