"""Whether the processor multiplies in bf16, from the system's description of it."""

from __future__ import annotations

import pytest

from diet_lightning.utilities import processor

OLD = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni\n"
NEW = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 avx512f avx512_bf16 fsrm\n"
AMX = "flags\t\t: avx512f amx_bf16 amx_tile\n"


@pytest.fixture(autouse=True)
def no_limits(monkeypatch):
    for name in processor.LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "expected"), [(OLD, False), (NEW, True), (AMX, True), ("Features: asimd bf16\n", False)]
)
def test_flags_of_the_processor_decide(tmp_path, monkeypatch, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.multiplies_bf16() is expected
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "missing")
    assert processor.multiplies_bf16() is False


@pytest.mark.parametrize(
    ("limit", "expected"), [("AVX2", False), ("AVX512_CORE_VNNI", False), ("AVX512_CORE_BF16", True), ("default", True)]
)
@pytest.mark.parametrize("variable", processor.LIMITS)
def test_a_limit_of_onednn_is_respected(tmp_path, monkeypatch, variable, limit, expected):
    (tmp_path / "cpuinfo").write_text(NEW)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setenv(variable, limit)
    assert processor.multiplies_bf16() is expected
