"""What the processor can do."""

from __future__ import annotations

import os

import torch

_IMITATED = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Limits of oneDNN, which convolves for torch, under which it takes no instructions of bfloat16."""


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a device computes in bfloat16 rather than to imitate it; False where nobody knows."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    if limit.upper() in _IMITATED:
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())
