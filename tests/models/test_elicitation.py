import numpy as np
import pytest
from scipy import stats

from hbm_core.errors import InputError
from hbm_core.models.elicitation import describe, elicit, interval_mass
from hbm_core.models.families import FAMILIES, FoldedStudentT
from hbm_core.models.prior import Prior

#: Between fixed ends: intervals of their own below.
BOUNDED = ("Beta", "LKJ")
PROPER = tuple(name for name, family in FAMILIES.items() if family.proper and name not in BOUNDED)
LINE = ("Normal", "StudentT", "Uniform")
CASES = [(-10.0, 20.0, 0.9), (0.0, 10.0, 0.9), (1.0, 30.0, 0.8), (1e-4, 3e-3, 0.94), (900.0, 1100.0, 0.9)]
#: Families with one number on the positive numbers: a low end above 0 may be out of their reach.
ONE_NUMBER = {
    "HalfNormal": lambda scale: stats.halfnorm(scale=scale),
    "HalfCauchy": lambda scale: stats.halfcauchy(scale=scale),
    "HalfStudentT": lambda scale: FoldedStudentT(4.0, scale),
    "Exponential": lambda scale: stats.expon(scale=scale),
}


@pytest.mark.parametrize("family", PROPER)
@pytest.mark.parametrize(("low", "high", "mass"), CASES)
def test_the_interval_gets_its_mass(family, low, high, mass):
    if low < 0 and family not in LINE:
        with pytest.raises(InputError, match="at 0 or above"):
            elicit(family, low, high, mass)
        return
    prior = elicit(family, low, high, mass)
    got = interval_mass(prior, low, high)
    if family in ONE_NUMBER and low > 0:
        law = ONE_NUMBER[family](np.geomspace(low / 100, high * 100, 4000))
        expected = min(mass, float((law.cdf(high) - law.cdf(low)).max()))
    else:
        expected = mass
    assert got == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("low", "high", "mass"), [(0.1, 0.3, 0.9), (0.0, 0.5, 0.95), (0.4, 1.0, 0.8)])
def test_a_share_gets_its_mass_and_no_other_beta_is_vaguer(low, high, mass):
    prior = elicit("Beta", low, high, mass)
    assert interval_mass(prior, low, high) == pytest.approx(mass, abs=1e-3)
    a, b = np.meshgrid(np.geomspace(0.3, 200, 400), np.geomspace(0.3, 200, 400))
    law = stats.beta(a, b)
    met = np.abs(law.cdf(high) - law.cdf(low) - mass) < 2e-3
    assert prior.distribution.entropy() >= stats.beta(a[met], b[met]).entropy().max() - 0.02
    with pytest.raises(InputError, match="ends at 1"):
        elicit("Beta", 0.5, 3.0, 0.9)
    with pytest.raises(InputError, match="its number"):
        elicit("LKJ", -0.5, 0.5, 0.9)


def test_a_uniform_prior_on_what_cannot_be_negative_starts_at_zero():
    prior = elicit("Uniform", 0.2, 10.0, 0.9, positive=True)
    assert prior.support[0] == 0
    assert interval_mass(prior, 0.2, 10.0) == pytest.approx(0.9, abs=1e-3)
    assert elicit("Uniform", 5.0, 6.0, 0.9, positive=True) == elicit("Uniform", 5.0, 6.0, 0.9)


@pytest.mark.parametrize("family", ["Normal", "Gamma", "LogNormal", "InverseGamma"])
@pytest.mark.parametrize(("low", "high"), [(1.0, 30.0), (2.0, 5.0)])
def test_no_other_member_of_the_family_is_vaguer(family, low, high):
    """Brute force over shapes and scales: no member that meets the mass has more entropy."""
    laws = {
        "Normal": lambda a, s: stats.norm(a * 30, s),
        "Gamma": lambda a, s: stats.gamma(a, scale=s),
        "InverseGamma": lambda a, s: stats.invgamma(a, scale=s),
        "LogNormal": lambda a, s: stats.lognorm(a, scale=s),
    }[family]
    shapes = (
        np.linspace(0.02, 1, 50)
        if family == "Normal"
        else np.geomspace(1 if family == "InverseGamma" else 0.1, 50, 40)
    )
    scales = np.geomspace(0.05, 1000, 1000)
    best = -np.inf
    for shape in shapes:
        law = laws(shape, scales)
        met = np.abs(law.cdf(high) - law.cdf(low) - 0.9) < 3e-3
        if met.any():
            best = max(best, law.entropy()[met].max())
    ours = float(elicit(family, low, high, 0.9).distribution.entropy())
    # The grid's members miss the mass by up to 0.003, which is worth a few hundredths of entropy.
    assert ours >= best - 0.05
    assert np.isfinite(best)


def test_preliz_agrees():
    """PreliZ's maximum-entropy search as an independent oracle."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import preliz as pz

        for family, law, low, high in [
            ("Normal", pz.Normal(), -10, 20),
            ("StudentT", pz.StudentT(nu=4), -10, 20),
            ("HalfNormal", pz.HalfNormal(), 0, 10),
            ("HalfCauchy", pz.HalfCauchy(), 0, 50),
            ("HalfStudentT", pz.HalfStudentT(nu=4), 0, 10),
            ("Exponential", pz.Exponential(), 0, 10),
            ("Gamma", pz.Gamma(), 1, 30),
            ("InverseGamma", pz.InverseGamma(), 1, 30),
            ("LogNormal", pz.LogNormal(), 1, 30),
        ]:
            pz.maxent(law, low, high, 0.9, plot=False)
            ours = elicit(family, low, high, 0.9).distribution
            for level in (0.05, 0.25, 0.5, 0.75, 0.95):
                width = float(law.ppf(0.95) - law.ppf(0.05))
                assert float(ours.ppf(level)) == pytest.approx(float(law.ppf(level)), abs=0.01 * width), (
                    family
                )


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("family", PROPER)
def test_elicited_priors_follow_the_units(family, factor):
    one, other = elicit(family, 1, 30), elicit(family, factor, 30 * factor)
    levels = np.array([0.1, 0.5, 0.9])
    # Both are rounded to the digits that keep the mass within 0.0005.
    np.testing.assert_allclose(
        other.distribution.ppf(levels), one.distribution.ppf(levels) * factor, rtol=0.01
    )


def test_numbers_are_round():
    assert elicit("HalfNormal", 0, 10).text == "HalfNormal(6.08)"
    assert elicit("Normal", -10, 20).text == "Normal(5, 9.12)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Flat", 0, 1), "Normal"),
        (("Cauchy", 0, 1), "Normal"),
        (("Normal", 1, 1), "lower one first"),
        (("Normal", 2, 1), "lower one first"),
        (("Normal", float("nan"), 1), "finite"),
        (("Normal", 0, float("inf")), "finite"),
        (("HalfNormal", -2, -1), "0 or above"),
        (("Normal", 0, 1, 0.5), "above 0.5"),
        (("Normal", 0, 1, 1.0), "0.999"),
    ],
)
def test_impossible_beliefs_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        elicit(*arguments)


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("Normal(0, 20)", "points", "90 % sure it is between −33 and 33 points"),
        ("HalfCauchy(10)", "", "half of it below 10, nine tenths below 63"),
        ("HalfNormal(0.0029)", "", "half of it below 0.0020, nine tenths below 0.0048"),
        ("LogNormal(4.605, 0.1)", "points", "90 % sure it is between 85 and 118 points"),
        ("Gamma(0.5, 0.01)", "", "half of it below 23, nine tenths below 140"),
        ("Normal(16.2, 10)", "", "90 % sure it is between 0 and 33"),
        ("Uniform(0, 50)", "points", "equally likely anywhere from 0 to 50 points"),
        ("Exponential(0.001)", "", "half of it below 690, nine tenths below 2,300"),
        ("Flat()", "points", "every value is equally likely: nothing is believed beforehand"),
    ],
)
def test_priors_in_words(text, unit, words):
    assert describe(Prior.parse(text), unit) == words
