"""How close one image is to another: pure functions of arrays, no files.

All of them measure the delivered pixels, in the raster's own units, never the network's floats.
"""

from __future__ import annotations

from .ms_ssim import MsSsimStats, ms_ssim
from .psnr import ErrorStats, psnr

__all__ = ["ErrorStats", "MsSsimStats", "ms_ssim", "psnr"]
