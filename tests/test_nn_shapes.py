"""Output sizes of Tab. 1 and 2 of the paper, stage by stage, on the meta device: nothing is computed."""

from __future__ import annotations

import pytest
import torch

from ltchm_geo.nn.config import ModelConfig
from ltchm_geo.nn.model import LTCHM

# (module, channels as a multiple of N, side for a 256x256 input). Where Tab. 1 gives the latent 2C channels, the
# paper's Sec. 2.1 and its published code have C; that is also what its parameter counts need.
TABLE_1 = [
    ("g_a.down1", 1, 128),
    ("g_a.stage1", 1, 128),
    ("g_a.down2", 1, 64),
    ("g_a.stage2", 1, 64),
    ("g_a.down3", 1, 32),
    ("g_a.stage3", 1, 32),
    ("g_a.down4", 1, 16),
    ("g_a.stage4", 1, 16),
    ("g_s.stage4", 1, 16),
    ("g_s.up3", 1, 32),
    ("g_s.stage3", 1, 32),
    ("g_s.up2", 1, 64),
    ("g_s.stage2", 1, 64),
    ("g_s.up1", 1, 128),
    ("g_s.stage1", 1, 128),
]
TABLE_2 = [
    ("h_a.layers.4", 2, 8),  # third convolution of the first stage, stride 2
    ("h_a.layers.5", 2, 8),  # HPHAM
    ("h_a.layers.6", 1, 8),
    ("h_a.layers.8", 1, 4),
    ("h_s.layers.0", 1, 8),
    ("h_s.layers.2", 2, 8),
    ("h_s.layers.3", 2, 8),  # HPHAM
    ("h_s.layers.4", 1.5, 8),
    ("h_s.layers.6", 1.5, 16),
    ("h_s.layers.8", 2, 16),
    ("context", 2, 16),
    ("parameter_net", 9, 16),
]


def output_shapes(config, names, batch=2, size=256):
    """Shapes that the named modules put out, and those of y, z and the reconstruction."""
    shapes = {}
    with torch.device("meta"), torch.no_grad():
        model, quality = LTCHM(config), torch.zeros(batch)
        for name in names:
            hook = lambda _module, _inputs, out, name=name: shapes.__setitem__(name, tuple(out.shape))  # noqa: E731
            model.get_submodule(name).register_forward_hook(hook)
        y, z = model.analyse(torch.zeros(batch, 3, size, size), quality)
        parameters = model.parameters_of(y.float(), z.float(), quality)
        pixels = model.synthesise(y, quality)
    return shapes, {"y": y, "z": z, "parameters": parameters, "pixels": pixels}


def test_stages_have_the_sizes_of_tables_1_and_2():
    rows = TABLE_1 + TABLE_2
    shapes, _ = output_shapes(ModelConfig(channels=128), [name for name, _, _ in rows])
    assert shapes == {name: (2, int(factor * 128), side, side) for name, factor, side in rows}


@pytest.mark.parametrize("variant", [{}, {"dam": "table1", "hpham": "table2"}])
def test_ends_have_the_sizes_of_the_paper_in_every_variant(variant):
    _, out = output_shapes(ModelConfig(channels=128, **variant), [])
    assert out["y"].shape == (2, 128, 16, 16)
    assert out["z"].shape == (2, 128, 4, 4)
    assert out["parameters"].shape == (2, 9 * 128, 16, 16)
    assert out["pixels"].shape == (2, 3, 256, 256)
    assert out["y"].dtype == out["z"].dtype == torch.int32


def test_variants_put_attention_where_the_tables_do():
    def places(kind, **variant):
        with torch.device("meta"):
            model = LTCHM(ModelConfig(channels=128, **variant))
        return sorted(name for name, module in model.named_modules() if type(module).__name__ == kind)

    latent = ["g_a.stage2.0", "g_a.stage4", "g_s.stage2.0", "g_s.stage4.0"]
    assert places("DAM") == latent
    assert places("DAM", dam="table1") == sorted([*latent, "g_a.stage1.0", "g_a.stage3.0", "g_s.stage3.0"])
    assert places("HPHAM") == ["h_a.layers.5", "h_s.layers.3"]
    assert len(places("HPHAM", hpham="table2")) == 4


def test_a_training_crop_of_128_pixels_passes():
    _, out = output_shapes(ModelConfig(channels=32, parameter_width=32), [], size=128)
    assert out["z"].shape == (2, 32, 2, 2)
    assert out["pixels"].shape == (2, 3, 128, 128)
