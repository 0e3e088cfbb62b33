"""Groups in slots: their table and both pictures of it; tables of rows that pages share."""

import numpy as np
import pytest

from hbm_core.analysis.cells import cells_table
from hbm_core.analysis.joint import exact_draws_table
from hbm_core.analysis.predictive import prior_predictive
from hbm_core.analysis.shrinkage import shrinkage_table
from hbm_core.inference.exact import solve
from hbm_core.models.dataset import Words
from hbm_core.plots.cells import bands, contrast_grid
from hbm_core.plots.plate import plate_table
from tests.inference.exact.mixed_brute_force import world
from tests.inference.exact.test_gaussian_mixed import spec_of

WORDS = Words("creator", "creators", "Effect", "dollars")


@pytest.fixture(scope="module", params=[False, True], ids=["crossed", "walk"])
def posterior(request):
    # Well told sds take few nodes.
    structure = world(21, walk=request.param, groups=2, members=3, slots=3, se=(0.3, 0.6))
    spread = "LogNormal(-1, 0.2)"
    return solve(spec_of(structure, spread=spread))


def truth_of(structure):
    names = [n for n in structure.hyperparameters if "[" in n]
    return dict(zip(names, np.linspace(-1, 1, len(names)), strict=True))


def test_table_has_each_mean_and_contrast_with_its_rows(posterior):
    structure = posterior.structure
    table = cells_table(posterior, truth_of(structure))
    means = table[table["quantity"] == "mean"]
    assert len(means) == len(structure.cells) and len(table) == len(means) + len(structure.contrasts)
    assert means["rows"].sum() == structure.effect.size
    for row in means.itertuples():
        place = posterior.index(f"mu_genre[{row.group} × {row.slot}]")
        assert (row.mean, row.sd) == (posterior.mean[place], posterior.sd[place])
        assert row.low95 < row.low50 < row.high50 < row.high95
        here = (np.array(structure.groups)[structure.group] == row.group) & (
            np.array(structure.slots)[structure.slot] == row.slot
        )
        weight = structure.se[here] ** -2.0
        assert row.raw == pytest.approx(weight @ structure.effect[here] / weight.sum())
        assert row.raw_se == pytest.approx(weight.sum() ** -0.5)
    contrasts = table[table["quantity"] == structure.contrast]
    for row in contrasts.itertuples():
        name = f"{structure.contrast}[{row.group} × {row.slot}]"
        assert row.truth == truth_of(structure)[name]
        assert row.above == pytest.approx(1 - posterior.cdf(name, np.zeros(1))[0])
    if structure.walk:
        assert structure.slots[0] not in set(contrasts["slot"])


def test_pictures_show_the_table(posterior):
    structure = posterior.structure
    table = cells_table(posterior, truth_of(structure))
    if structure.walk:
        spec = bands(table, WORDS, ("genre", "period"), "light").to_dict()
        fields = [layer["encoding"]["y"]["field"] for layer in spec["layer"]]
        assert fields == ["low95", "mean", "raw", "truth"]
        axes = [layer["encoding"]["y"].get("title") for layer in spec["layer"]]
        assert WORDS.axis in axes
        plain = bands(cells_table(posterior), WORDS, ("genre", "period"), "dark").to_dict()
        assert "truth" not in [layer["encoding"]["y"]["field"] for layer in plain["layer"]]
        return
    spec = contrast_grid(table, WORDS, ("genre", "segment"), "light").to_dict()
    kinds = [layer["mark"]["type"] for layer in spec["layer"]]
    assert kinds == ["rect", "text", "text"]
    scale = spec["layer"][0]["encoding"]["color"]["scale"]
    reach = table.loc[table["quantity"] == "contrast", "mean"].abs().max()
    assert scale["domain"] == pytest.approx([-reach, 0, reach])
    assert all(layer["encoding"]["text"]["field"] == "text" for layer in spec["layer"][1:])


def test_rows_are_pulled_to_the_mean_of_their_cell(posterior):
    structure = posterior.structure
    table = shrinkage_table(posterior.spec, posterior)
    names = [posterior.structure.funnel(unit)[0] for unit in structure.units]
    assert np.allclose(table["toward"], [posterior.mean[posterior.index(name)] for name in names])
    from_summary = shrinkage_table(posterior.spec, posterior.summary(hdi=False))
    assert np.allclose(table["pooled"], from_summary["pooled"])
    assert np.allclose(table["toward"], from_summary["toward"])


def test_draws_are_found_by_every_name(posterior):
    names = [*posterior.structure.hyperparameters, posterior.names[-1]]
    table = exact_draws_table(posterior, names, 200)
    assert np.isfinite(table[names].to_numpy()).all()


def test_prior_draws_have_the_spreads_of_their_priors(posterior):
    structure = posterior.structure
    found = prior_predictive(posterior.spec, 20_000, 3)
    groups, slots = len(structure.groups), len(structure.slots)
    means = found["mu_genre"].reshape(-1, groups, slots)
    square = {name: np.mean(found[name] ** 2) for name in structure.spreads}
    if structure.walk:
        assert np.mean((means[:, 0, 2] - means[:, 0, 1]) ** 2) == pytest.approx(
            square["sigma_drift"], rel=0.05
        )
        assert np.mean((means[:, 0, 0] - found["mu"]) ** 2) == pytest.approx(square["sigma_genre"], rel=0.05)
    else:
        # The interaction of two groups and two slots: four independent effects.
        twist = means[:, 0, 0] - means[:, 1, 0] - means[:, 0, 1] + means[:, 1, 1]
        assert np.mean(twist**2) == pytest.approx(4 * square["sigma_interaction"], rel=0.05)
    deviation = found["theta"] - found["mu_genre"][:, structure.cell]
    assert np.mean(deviation**2) == pytest.approx(square["sigma_creator"], rel=0.05)
    member = np.flatnonzero(structure.member == 0)
    assert np.allclose(deviation[:, member], deviation[:, member[:1]])


def test_plate_names_what_the_model_has(posterior):
    symbols = {node.symbol for row in plate_table(posterior.structure, "creator").rows for node in row}
    assert ("σd" in symbols) == posterior.structure.walk and {"μ", "σg", "σc", "θᵣ"} <= symbols
