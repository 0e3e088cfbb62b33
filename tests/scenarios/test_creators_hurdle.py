"""Revenue with many zeros: which data take the model, its defaults, what the first look offers."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hbm_core.analysis.predictive import prior_predictive
from hbm_core.cli import app
from hbm_core.errors import InputError, NotExactError
from hbm_core.inference.exact import solve
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec
from hbm_core.report.code import script
from hbm_core.scenarios import scenario
from hbm_core.scenarios.creators import hurdle

CREATORS = scenario("creators")


def rows(below: bool = False) -> pd.DataFrame:
    """User rows of 6 creators in 2 genres; most users pay nothing."""
    rng = np.random.default_rng(5)
    parts = []
    for creator in range(6):
        for group in ("treatment", "control"):
            paid = np.exp(1 + rng.standard_normal(40)) * (rng.random(40) < 0.4)
            parts.append(
                pd.DataFrame(
                    {"creator": f"c{creator}", "genre": f"g{creator % 2}", "group": group, "outcome": paid}
                )
            )
    table = pd.concat(parts, ignore_index=True)
    if below:
        table.loc[3, "outcome"] = -1.0
    return table


def test_uploaded_users_become_statistics_of_each_arm() -> None:
    table = rows()
    dataset = CREATORS.read(table)
    structure = hurdle.structure(dataset, "lognormal")
    for place, creator in enumerate(structure.units):
        for arm, group in enumerate(("control", "treatment")):
            outcome = table[(table["creator"] == creator) & (table["group"] == group)]["outcome"]
            paid = outcome[outcome > 0]
            assert structure.users[place, arm] == 40 and structure.payers[place, arm] == len(paid)
            assert structure.total[place, arm] == pytest.approx(outcome.sum())
            assert structure.log_mean[place, arm] == pytest.approx(np.log(paid).mean())
            assert structure.log_deviation[place, arm] == pytest.approx(np.log(paid).var(ddof=0) * len(paid))
    assert hurdle.structure(dataset, "lognormal") is structure
    again = CREATORS.read(dataset.table)
    assert hurdle.structure(again, "gamma").payers.tolist() == structure.payers.tolist()


def test_data_without_zeros_and_payers_by_arm_are_refused_with_what_to_do() -> None:
    few = CREATORS.dataset("few_payers")
    summaries = Dataset("upload", "Mine", few.table[["creator", "genre", "effect", "se"]])
    with pytest.raises(InputError, match="one row per user"):
        hurdle.HURDLE.spec(summaries)
    with pytest.raises(InputError, match="below 0"):
        hurdle.HURDLE.spec(CREATORS.read(rows(below=True)))
    assert not hurdle.fits(summaries) and hurdle.fits(few)


def test_defaults_follow_the_amounts_and_a_change_of_currency() -> None:
    dataset = CREATORS.dataset("few_payers")
    for model in (hurdle.HURDLE, hurdle.HURDLE_GAMMA):
        spec = model.spec(dataset)
        assert tuple(spec.priors) == spec.structure.parameters
        # Payers pay 5/0.3 dollars on average, 8 in the log's middle.
        assert spec.priors["mu_amount"].text == "Normal(2, 1)"
    cents = CREATORS.read(rows().assign(outcome=lambda table: 100 * table["outcome"]))
    shift = [
        hurdle.HURDLE.spec(data).priors["mu_amount"].numbers[0] for data in (CREATORS.read(rows()), cents)
    ]
    assert shift[1] - shift[0] == pytest.approx(np.log(100), abs=1)


def test_the_first_look_offers_it_where_a_normal_model_is_wrong() -> None:
    few, normal = CREATORS.dataset("few_payers"), CREATORS.dataset("ab_tests")
    offer = CREATORS.offer(few, "base")
    assert (
        offer is not None
        and offer.model == "hurdle"
        and "70%" in offer.text.replace("\N{NO-BREAK SPACE}", "")
    )
    assert CREATORS.offer(few, "hurdle") is None and CREATORS.offer(few, "hurdle_gamma") is None
    assert CREATORS.offer(normal, "base") is None
    assert scenario("schools").offer(scenario("schools").dataset("eight_schools"), "weak") is None


def test_the_truth_is_on_the_readouts_scale() -> None:
    """Raw differences of mean revenue are unbiased for θ: their z values are standard."""
    dataset = CREATORS.dataset("few_payers")
    assert dataset.truth is not None
    truth = np.array([dataset.truth[f"theta[{creator}]"] for creator in dataset.table["creator"]])
    large = dataset.table["n"].to_numpy() > 1000
    z = (dataset.table["effect"].to_numpy() - truth)[large] / dataset.table["se"].to_numpy()[large]
    assert abs(z.mean()) < 4 / np.sqrt(large.sum())
    assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * large.sum()))


def test_nothing_exact_covers_it_and_the_command_says_what_to_use() -> None:
    spec = hurdle.HURDLE.spec(CREATORS.dataset("few_payers"))
    with pytest.raises(NotExactError, match="NUTS"):
        solve(spec)
    done = CliRunner().invoke(app, ["exact", "creators", "--dataset", "few_payers", "--model", "hurdle"])
    assert done.exit_code == 2 and "hbm fit" in done.output


def test_code_names_every_parameter() -> None:
    from hbm_core.inference.sampler import Sampler

    source = script(hurdle.HURDLE.spec(CREATORS.read(rows())), Sampler(), "Hurdle")
    assert all(f'"{name}"' in source for name in hurdle.HURDLE.families)


@pytest.mark.parametrize("model", [hurdle.HURDLE, hurdle.HURDLE_GAMMA])
def test_what_the_priors_predict_is_what_users_would_do(model) -> None:
    """At known parameters mean and sd of the raw differences are those of simulated users."""
    spec = model.spec(CREATORS.read(rows()))
    known = {"mu_pay": -0.4, "mu_pay_effect": 0.3, "mu_amount": 1.0, "mu_amount_effect": 0.2}
    priors = {
        name: Prior("Normal", (known[name], 1e-9)) if name in known else Prior("HalfNormal", (1e-9,))
        for name in spec.priors
    }
    residual = spec.structure.residual
    priors[residual] = Prior("LogNormal", (0.0, 1e-9))
    found = prior_predictive(ModelSpec(spec.structure, priors), 4000, 1)
    rng = np.random.default_rng(2)
    arms = []
    for arm in (0, 1):
        paid = rng.random((20_000, 40)) < 1 / (1 + np.exp(0.4 - 0.3 * arm))
        normal, exponential = rng.standard_normal(paid.shape), rng.exponential(size=paid.shape)
        noise = normal if residual == "sigma_log" else np.log(exponential)
        arms.append((paid * np.exp(1 + 0.2 * arm + noise)).mean(axis=1))
    gap = arms[1] - arms[0]
    theirs = found["effect"][:, 0]
    assert theirs.mean() == pytest.approx(gap.mean(), abs=4 * gap.std() / np.sqrt(4000))
    assert theirs.std() == pytest.approx(gap.std(), rel=0.1)
    assert found["theta"][:, 0] == pytest.approx(gap.mean(), abs=5 * gap.std() / np.sqrt(20_000))
