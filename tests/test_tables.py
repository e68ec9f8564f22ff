from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from ltchm_geo.entropy import tables
from ltchm_geo.errors import InvalidWeightsError, WeightsHashError


def test_stored_tables_are_the_generated_ones():
    stored, generated = tables.load(), tables.generate()
    for field in dataclasses.fields(tables.Tables):
        np.testing.assert_array_equal(getattr(stored, field.name), getattr(generated, field.name))
    assert tables.fingerprint(generated) == tables.TABLES_SHA256


def test_tables_follow_their_definitions():
    """Against libm, which is a different computation: equal but for the rounding of the last unit."""
    table = tables.load()
    phi = [math.erfc(-(i - tables.PHI_HALF) / 64 / math.sqrt(2)) / 2 * 2**24 for i in range(2 * tables.PHI_HALF + 1)]
    exp = [math.exp(-i / 256) * 2**24 for i in range(tables.EXP_CLAMP + 1)]
    inv_sigma = [2.0 ** (24 - s / 16) for s in range(tables.LS_MIN, tables.LS_MAX + 1)]
    for stored, real in ((table.phi, phi), (table.exp, exp), (table.inv_sigma, inv_sigma)):
        assert stored.dtype == np.int64
        assert not stored.flags.writeable
        np.testing.assert_allclose(stored, real, rtol=0, atol=0.5 + 1e-6)


def test_invariants_that_the_overflow_proofs_use():
    table = tables.load()
    assert table.phi[0] == 0
    assert table.phi[-1] == tables.PROB_TOTAL
    steps = np.diff(table.phi)
    assert steps.min() >= 0
    assert steps.max() < 2**17
    np.testing.assert_array_equal(table.phi + table.phi[::-1], tables.PROB_TOTAL)
    assert table.exp[0] == tables.PROB_TOTAL
    assert (np.diff(table.exp) < 0).all()
    assert table.exp[-1] << tables.WEIGHT_BITS < tables.PROB_TOTAL  # clamped components weigh nothing
    assert table.inv_sigma.min() > 0
    assert table.inv_sigma.max() < 2**28
    assert (np.diff(table.inv_sigma) < 0).all()


def test_saved_file_holds_no_pickle_and_reads_back(tmp_path):
    tables.save(tables.generate(), tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as stored:
        assert sorted(stored) == ["exp", "inv_sigma", "phi"]
        assert {stored[name].dtype for name in stored} == {np.dtype("<i4")}


@pytest.mark.parametrize("damage", ["missing", "garbage", "other"])
def test_damaged_table_file_is_refused(tmp_path, monkeypatch, damage):
    if damage == "garbage":
        (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 not a table")
    elif damage == "other":
        changed = tables.generate()
        phi = changed.phi.copy()
        phi[400] += 1
        tables.save(dataclasses.replace(changed, phi=phi), tmp_path / "t.npz")
    monkeypatch.setattr(tables, "_FILE", "t.npz")
    monkeypatch.setattr(tables.resources, "files", lambda _: tmp_path)
    with pytest.raises(WeightsHashError, match="reinstall"):
        tables.load.__wrapped__()


def uniform_z_cdf(channels=2):
    edges = np.arange(130) * 130055
    edges[-1] = 2**24
    return np.tile(edges, (channels, 1))


def test_z_cdf_is_copied_and_widened():
    given = uniform_z_cdf().astype(np.uint32)
    checked = tables.check_z_cdf(given)
    assert checked.dtype == np.int64
    np.testing.assert_array_equal(checked, given)
    given[:] = 0
    assert checked[0, -1] == 2**24


def change(index, value):
    def apply(table):
        table[index] = value
        return table

    return apply


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda t: t.astype(np.float64), id="float"),
        pytest.param(lambda t: t[0], id="one dimension"),
        pytest.param(lambda t: t[:, :-1], id="short"),
        pytest.param(change((0, 0), 1), id="first"),
        pytest.param(change((1, -1), 2**24 + 1), id="last"),
        pytest.param(change((1, 7), 130055 * 6), id="empty bucket"),
        pytest.param(change((1, 7), 0), id="falling"),
        pytest.param(lambda t: change((0, 5), 2**64 - 1)(t.astype(np.uint64)), id="wraps in the cast"),
        pytest.param(
            change((0, slice(1, 7)), [2**62, 2**63 - 1, -(2**63), -(2**62), -1, 5]), id="wraps in the difference"
        ),
    ],
)
def test_broken_z_cdf_is_refused(spoil):
    with pytest.raises(InvalidWeightsError):
        tables.check_z_cdf(spoil(uniform_z_cdf()))


def test_import_needs_no_numba():
    code = "import sys, ltchm_geo.entropy.tables as t; t.load(); sys.exit(bool({'numba', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
