"""HEVC and VVC intra pictures through the FFmpeg that the package imageio-ffmpeg carries (libx265, libvvenc).

HEVC stands for BPG, whose coding tools are HEVC's: a flat picture of 256 x 256 takes x265 116 bytes and bpgenc 51, so
65 bytes of headers that BPG does not have are taken off each picture. Rates agree with bpgenc within about 1.5 points
of BD-rate. VVC's bytes are counted as they are.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codecs import Files, Pixels, install_hint
from .yuv import rgb_to_yuv420, yuv420_to_rgb

__all__ = ["VIDEO_CODECS", "VideoCodec"]

_SETTING = "SETTING"


@dataclass(frozen=True)
class VideoCodec:
    """An encoder of FFmpeg for single pictures, 4:2:0. See `Codec`.

    Attributes
    ----------
    stream : FFmpeg's name of the raw bitstream
    bits : of the planes
    arguments : of the encoder; "SETTING" in them is replaced
    """

    name: str
    label: str
    stream: str
    bits: int
    values: tuple[str, ...]
    arguments: tuple[str, ...]
    excess: int = 0

    def missing(self) -> str | None:
        """See `Codec.missing`."""
        if hint := install_hint("imageio_ffmpeg", "imageio-ffmpeg"):
            return hint
        encoder = self.arguments[1]
        if f" {encoder} " in _ffmpeg(("-encoders",), b"").decode():
            return None
        return f"needs an FFmpeg with {encoder}: unset IMAGEIO_FFMPEG_EXE or upgrade imageio-ffmpeg"

    def refuses(self, dtype: np.dtype[Any], bands: int) -> str | None:
        """See `Codec.refuses`."""
        return None if dtype == np.uint8 and bands in (1, 3) else f"{self.label} is measured with 8 bits, 1 or 3 bands"

    def settings(self, dtype: np.dtype[Any]) -> tuple[str, ...]:
        """See `Codec.settings`."""
        return self.values

    def encode(self, pixels: Pixels, setting: str) -> Files:
        """See `Codec.encode`."""
        planes = rgb_to_yuv420(np.broadcast_to(pixels, (3, *pixels.shape[1:])), self.bits)
        height, width = planes[0].shape
        source = ("-f", "rawvideo", "-pix_fmt", self._format, "-s", f"{width}x{height}", "-i", "-")
        raw = b"".join(plane.astype(self._type).tobytes() for plane in planes)
        return (_ffmpeg((*source, *self._encoder(setting), "-f", self.stream, "-"), raw),)

    def decode(self, files: Files, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Pixels:
        """See `Codec.decode`."""
        raw = _ffmpeg(
            ("-threads", "1", "-f", self.stream, "-i", "-", "-f", "rawvideo", "-pix_fmt", self._format, "-"), files[0]
        )
        values = np.frombuffer(raw, self._type)
        height, width = (-(-side // 2) for side in shape[1:])
        luma, cb, cr = np.split(values, (4 * height * width, 5 * height * width))
        planes = (luma.reshape(2 * height, 2 * width), cb.reshape(height, width), cr.reshape(height, width))
        return yuv420_to_rgb(planes, self.bits, shape[1:])[: shape[0]]

    def about(self) -> dict[str, Any]:
        """See `Codec.about`."""
        import imageio_ffmpeg

        return {
            "command": " ".join(("ffmpeg", "-pix_fmt", self._format, *self._encoder(_SETTING), "-f", self.stream)),
            "versions": {"imageio-ffmpeg": imageio_ffmpeg.__version__, "ffmpeg": imageio_ffmpeg.get_ffmpeg_version()},
            "bytes_taken_off": self.excess,
        }

    @property
    def _format(self) -> str:
        return "yuv420p" if self.bits == 8 else f"yuv420p{self.bits}le"

    @property
    def _type(self) -> str:
        return "<u1" if self.bits == 8 else "<u2"

    def _encoder(self, setting: str) -> tuple[str, ...]:
        return tuple(argument.replace(_SETTING, setting) for argument in self.arguments)


def _ffmpeg(arguments: tuple[str, ...], data: bytes) -> bytes:
    import imageio_ffmpeg

    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", *arguments)
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


_X265 = f"qp={_SETTING}:keyint=1:info=0:repeat-headers=1:pools=none:frame-threads=1"

VIDEO_CODECS = {
    codec.name: codec
    for codec in (
        VideoCodec(
            "hevc",
            "HEVC intra (for BPG)",
            "hevc",
            8,
            ("20", "25", "30", "35", "40", "43", "46"),  # the paper's, and one above
            ("-c:v", "libx265", "-preset", "veryslow", "-tune", "ssim", "-x265-params", _X265),
            excess=65,
        ),
        VideoCodec(
            "vvc",
            "VVC intra",
            "vvc",
            10,
            ("23", "28", "32", "36", "40", "44"),
            # Without qpa=0 the encoder optimises for the eye and loses PSNR.
            ("-c:v", "libvvenc", "-preset", "fast", "-qp", _SETTING, "-qpa", "0", "-threads", "1"),
        ),
    )
}
