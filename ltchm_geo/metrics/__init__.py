"""How close one image is to another: pure functions of arrays, no files.

All of them measure the delivered pixels, in the raster's own units, never the network's floats.
"""

from __future__ import annotations

from .bd_rate import bd_problem, bd_psnr, bd_rate
from .lpips import lpips
from .ms_ssim import MsSsimStats, ms_ssim, ms_ssim_db
from .psnr import ErrorStats, known_peak, psnr
from .seam_visibility import seam_step, seam_visibility
from .spectral_angle import SpectralAngleStats, spectral_angle
from .vifp import vifp

__all__ = [
    "ErrorStats",
    "MsSsimStats",
    "SpectralAngleStats",
    "bd_problem",
    "bd_psnr",
    "bd_rate",
    "known_peak",
    "lpips",
    "ms_ssim",
    "ms_ssim_db",
    "psnr",
    "seam_step",
    "seam_visibility",
    "spectral_angle",
    "vifp",
]
