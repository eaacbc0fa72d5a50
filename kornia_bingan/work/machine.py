"""What the processor can do."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a device computes in bfloat16 rather than to imitate it; False where nobody knows."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())
