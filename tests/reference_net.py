"""The exact parameter network once more, in int64 numpy with loops, as literally as docs/exact-network.md puts it.

Slow and short on purpose: the float64 tensors of the library must give the same integers. The stored exponential table
is all that the two share.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from ltchm_geo.entropy import rans, tables

EXP = tables.load().exp


def clamp(v):
    return np.clip(v, -32767, 32767)


def divide(a, b):
    return (2 * a + b) // (2 * b)


def requantise(acc, shift, leaky=False, residual=None, skip=0):
    """floor(leaky(acc) / 2**shift + residual / 2**skip + 1/2), with every term over a common power of two."""
    shift = np.asarray(shift, dtype=object)
    bits = 70  # Python integers from here: no bound to think about
    value = np.asarray(acc).astype(object) << (bits - shift)
    if leaky:
        value = np.where(value < 0, value, value * 128) >> 7
    if residual is not None:
        value = value + (residual.astype(object) << (bits - skip))
    return clamp((value + (1 << (bits - 1))) >> bits).astype(np.int64)


class Net:
    def __init__(self, tensors, spec):
        self.t = {k: v.astype(np.int64) for k, v in tensors.items()}
        self.spec = spec
        self.m = spec.get("latent_channels", spec["channels"])

    def linear(self, name, x, **how):
        acc = x @ self.t[f"{name}.weight"] + self.t[f"{name}.bias"]
        return requantise(acc, self.t[f"{name}.shift"], **how)

    def affine(self, name, x, level):
        lower = min(level // 16, 6)
        j = level - 16 * lower
        scale, offset = (
            self.t[f"{name}.{k}"][lower] * (16 - j) + self.t[f"{name}.{k}"][lower + 1] * j for k in ("scale", "offset")
        )
        return requantise(x * scale + offset, self.t[f"{name}.shift"] + 4)

    def hyper(self, z, level):
        """One tile: (N, hz, wz) -> (4 hz, 4 wz, 2 N)."""
        x = clamp(z.astype(np.int64)).transpose(1, 2, 0)
        for i, layer in enumerate(self.spec["hyper"]):
            x = getattr(self, layer["op"])(f"hyper.{i}", layer, x)
        return self.affine("hyper_affine", x, level)

    def conv(self, name, layer, x):
        h, w, c = x.shape
        out = np.zeros((h, w, 9 * c), np.int64)
        for oy, ox, ky, kx in np.ndindex(h, w, 3, 3):
            iy, ix = oy + ky - 1, ox + kx - 1
            if 0 <= iy < h and 0 <= ix < w:
                out[oy, ox, (3 * ky + kx) * c :][:c] = x[iy, ix]
        return self.linear(name, out, leaky=layer["leaky"])

    def deconv(self, name, layer, x):
        h, w, c = x.shape
        out = np.zeros((2 * h, 2 * w, 9 * c), np.int64)
        for oy, ox, ky, kx in np.ndindex(2 * h, 2 * w, 3, 3):
            (iy, odd_y), (ix, odd_x) = divmod(oy + 1 - ky, 2), divmod(ox + 1 - kx, 2)
            if not odd_y and not odd_x and 0 <= iy < h and 0 <= ix < w:
                out[oy, ox, (3 * ky + kx) * c :][:c] = x[iy, ix]
        return self.linear(name, out, leaky=layer["leaky"])

    def hybrid(self, name, layer, x):
        half = x.shape[2] // 2
        split = self.linear(f"{name}.split", self.norm(x, layer["epsilon1"], layer["bits1"]))
        joined = [
            self.channel(f"{name}.channel", layer, split[..., :half]),
            self.attention(f"{name}.attention", layer, split[..., half:]),
        ]
        mid = self.linear(f"{name}.join", np.concatenate(joined, axis=2), residual=x, skip=layer["skip1"])
        hidden = self.linear(f"{name}.expand", self.norm(mid, layer["epsilon2"], layer["bits2"]), leaky=True)
        hidden = self.depthwise(f"{name}.depthwise", hidden)
        return self.linear(f"{name}.reduce", hidden, residual=mid, skip=layer["skip2"])

    def norm(self, x, epsilon, bits):
        c = x.shape[-1]
        out = np.empty_like(x)
        for at in np.ndindex(*x.shape[:-1]):
            v = [int(a) for a in x[at]]
            root = isqrt(c * sum(a * a for a in v) - sum(v) ** 2 + epsilon)
            out[at] = [divide((c * a - sum(v)) << bits, root) for a in v]
        return clamp(out)

    def channel(self, name, layer, x):
        pooled = clamp(divide(x.sum(axis=(0, 1)) << layer["mean_bits"], x.shape[0] * x.shape[1]))
        value, gate = np.split(self.linear(f"{name}.branches", pooled), 2)
        small = EXP[np.minimum(np.abs(gate), 2816)]
        sigmoid = divide(EXP[0] << 15, EXP[0] + small)
        sigmoid = np.where(gate < 0, 2**15 - sigmoid, sigmoid)
        factor = self.linear(f"{name}.merge", requantise(value * sigmoid, 15))
        return requantise(x * factor, layer["channel_shift"])

    def attention(self, name, layer, x):
        h, w, c = x.shape
        size, d = layer["window"], layer["head_dim"]
        shift = size // 2 if layer["shifted"] and min(h, w) > size else 0
        q, k, v = np.split(self.linear(f"{name}.qkv", x), 3, axis=2)
        position = self.t[f"{name}.position"]
        mixed = np.zeros_like(x)
        window_of, region_of, pixels = {}, {}, list(np.ndindex(h, w))
        for y, column in pixels:  # a pixel's place after rolling by -shift
            ry, rx = (y - shift) % h, (column - shift) % w
            window_of[y, column] = (ry // size, rx // size)
            region_of[y, column] = (shift > 0 and y < shift, shift > 0 and column < shift)
        for at in pixels:
            others = [p for p in pixels if window_of[p] == window_of[at] and region_of[p] == region_of[at]]
            place = [((p[0] - shift) % h % size, (p[1] - shift) % w % size) for p in (at, *others)]
            for head in range(c // d):
                part = slice(head * d, (head + 1) * d)
                scores = []
                for p, (py, px) in zip(others, place[1:], strict=True):
                    offset = (place[0][0] - py + size - 1) * (2 * size - 1) + place[0][1] - px + size - 1
                    scores.append((q[at][part] * k[p][part]).sum() + position[head, offset])
                scores = requantise(np.array(scores), layer["score_shift"])
                e = EXP[np.minimum(scores.max() - scores, 2816)]
                p16 = divide(e << 15, e.sum())
                total = sum(a * v[p][part] for a, p in zip(p16, others, strict=True))
                mixed[at][part] = requantise(total, layer["mix_shift"])
        return mixed

    def depthwise(self, name, x):
        kept, carried = [], x[..., :0]
        for i, (size, group) in enumerate(zip((1, 3, 5, 7), np.split(x, 4, axis=2), strict=True)):
            entry = np.concatenate([group, carried], axis=2)
            h, w, c = entry.shape
            weight, shift = self.t[f"{name}.{i}.weight"], self.t[f"{name}.{i}.shift"]
            acc = np.zeros_like(entry) + self.t[f"{name}.{i}.bias"]
            for oy, ox, ky, kx in np.ndindex(h, w, size, size):
                iy, ix = oy + ky - size // 2, ox + kx - size // 2
                if 0 <= iy < h and 0 <= ix < w:
                    acc[oy, ox] += weight[ky * size + kx] * entry[iy, ix]
            keep = c if i == 3 else c - c // 2
            kept.append(requantise(acc[..., :keep], shift[:keep], leaky=True))
            carried = requantise(acc[..., keep:], shift[keep:])
        return np.concatenate(kept, axis=2)

    def parameters(self, hyper, y, level):
        """One tile: hyper (h, w, 2 N), y (M, h, w) -> (P, 9, M) in wavefront order."""
        h, w, _ = hyper.shape
        y = clamp(y.astype(np.int64)).transpose(1, 2, 0)
        rows = []
        for at in np.concatenate(rans.wavefront(h, w)):
            row, column = divmod(int(at), w)
            taps = np.zeros((12, self.m), np.int64)
            for tap in range(12):
                iy, ix = row + tap // 5 - 2, column + tap % 5 - 2
                if iy >= 0 and 0 <= ix < w:
                    taps[tap] = y[iy, ix]
            context = self.affine("context_affine", self.linear("context", taps.reshape(-1)), level)
            v = np.concatenate([hyper[row, column], context])
            v = self.linear("mlp.0", v, leaky=True)
            v = self.linear("mlp.1", v, leaky=True)
            v = self.linear("mlp.2", v).reshape(9, self.m)
            v[6:] = np.clip(v[6:], -52, 144)
            rows.append(v)
        return np.array(rows)
