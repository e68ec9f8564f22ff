"""JPEG 2000, JPEG, WebP and AVIF through Pillow, which carries OpenJPEG, libjpeg-turbo, libwebp, libavif and libaom.

OpenJPEG's files are those of ``opj_compress -r RATIO`` (with ``-I`` for 9/7), byte for byte but for the version in the
comment; ``-r`` sets the size, all others a quality. JPEG 2000 takes any number of bands of 16 bits, each by itself.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .codecs import Files, Pixels, by_band, install_hint

__all__ = ["PILLOW_CODECS", "PillowCodec"]

# The paper's ratios (20, 30, 40, 60, 110, 160) and denser.
_RATIOS = ("8", "12", "16", "20", "24", "30", "40", "50", "60", "80", "110", "160")
_WIDE_RATIOS = ("3", "4", "6", *_RATIOS)
_SIGNED_OFFSET = 1 << 15


@dataclass(frozen=True)
class PillowCodec:
    """One of Pillow's writers. See `Codec`.

    Attributes
    ----------
    writer : Pillow's name of the format
    parameter : the argument that `settings` are values of
    options : further arguments of ``Image.save``
    library : Pillow's name of the library beneath
    """

    name: str
    label: str
    writer: str
    parameter: str
    values: tuple[str, ...]
    library: str
    options: dict[str, Any] = field(default_factory=dict)
    excess: int = 0

    def missing(self) -> str | None:
        """See `Codec.missing`."""
        if hint := install_hint("PIL", "pillow"):
            return hint
        from PIL import features

        return None if features.check(self.library) else f"this Pillow was built without {self.library}; take a wheel"

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """See `Codec.refuses`."""
        if dtype == np.uint8 or (self.writer == "JPEG2000" and dtype in (np.uint16, np.int16)):
            return None
        return f"{self.label} has no {dtype}"

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """See `Codec.settings`."""
        return self.values if dtype == np.uint8 else _WIDE_RATIOS

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """See `Codec.encode`."""
        if len(pixels) == 3 and pixels.dtype == np.uint8:
            return (self._save(pixels, setting),)
        return by_band(pixels, lambda band: self._save(band, setting))

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """See `Codec.decode`."""
        return np.concatenate([self._load(file, shape[0] // len(files), dtype) for file in files])

    def about(self) -> dict[str, Any]:
        """See `Codec.about`."""
        import PIL

        arguments = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return {
            "command": f"PIL.Image.save(format={self.writer!r}, {self.parameter}=SETTING, {arguments})",
            "versions": {"pillow": PIL.__version__, self.library: _version(self.library)},
        }

    def _save(self, pixels: Pixels, setting: str) -> bytes:
        from PIL import Image

        options = dict(self.options)
        if self.writer == "JPEG2000":
            options |= {self.parameter: [float(setting)], "mct": int(len(pixels) == 3)}
        else:
            options |= {self.parameter: int(setting)}
        if pixels.dtype == np.int16:
            pixels = (pixels.astype(np.int32) + _SIGNED_OFFSET).astype(np.uint16)
        file = io.BytesIO()
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        Image.fromarray(image if len(pixels) == 3 else image[..., 0]).save(file, self.writer, **options)
        return file.getvalue()

    def _load(self, file: bytes, bands: int, dtype: np.dtype[Any]) -> Pixels:
        from PIL import Image

        with Image.open(io.BytesIO(file)) as image:
            if dtype == np.uint8:  # WebP and AVIF know no grey: what comes back is as grey as it went in
                pixels = np.asarray(image.convert("RGB" if bands == 3 else "L"))
            else:
                pixels = np.asarray(image)
        pixels = pixels.reshape(*pixels.shape[:2], bands).transpose(2, 0, 1)
        return (pixels.astype(np.int32) - _SIGNED_OFFSET).astype(dtype) if dtype == np.int16 else pixels


def _version(library: str) -> str | None:
    from PIL import features

    return features.version("libjpeg_turbo" if library == "jpg" else library)


def _jpeg2000(name: str, label: str, irreversible: bool) -> PillowCodec:
    options = {"no_jp2": True, "quality_mode": "rates", "irreversible": irreversible}
    return PillowCodec(name, label, "JPEG2000", "quality_layers", _RATIOS, "jpg_2000", options)


def _avif(name: str, label: str, values: tuple[str, ...], speed: int, subsampling: str, tune: str) -> PillowCodec:
    # Pillow's own default, tune=iq, costs 3 dB of PSNR.
    options = {"codec": "aom", "speed": speed, "subsampling": subsampling, "max_threads": 1, "advanced": {"tune": tune}}
    return PillowCodec(name, label, "AVIF", "quality", values, "avif", options)


_JPEG = PillowCodec(
    "jpeg",
    "JPEG 4:2:0",
    "JPEG",
    "quality",
    ("5", "10", "15", "20", "30", "40", "50", "60", "70", "80", "90"),
    "jpg",
    {"subsampling": "4:2:0"},
)
_WEBP = PillowCodec(
    "webp",
    "WebP",
    "WEBP",
    "quality",
    ("1", "4", "10", "20", "35", "50", "60", "70", "80", "90"),  # 1, 4, 20, 35, 60 and 80 are the paper's
    "webp",
    {"method": 4},
)

PILLOW_CODECS = {
    codec.name: codec
    for codec in (
        _jpeg2000("openjpeg53", "JPEG 2000 (OpenJPEG, 5/3)", False),
        _jpeg2000("openjpeg97", "JPEG 2000 (OpenJPEG, 9/7)", True),
        _JPEG,
        _WEBP,
        # What Squoosh makes; 10 to 60 are the paper's.
        _avif("avif", "AVIF 4:2:0", ("10", "20", "30", "40", "50", "60", "70", "80"), 6, "4:2:0", "ssim"),
        _avif("avif-best", "AVIF 4:4:4, speed 2", ("15", "25", "35", "50", "60", "70"), 2, "4:4:4", "psnr"),
    )
}
