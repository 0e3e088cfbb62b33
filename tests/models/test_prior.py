import json

import numpy as np
import pytest
from scipy import integrate, stats

from hbm_core.errors import InputError
from hbm_core.models.families import FAMILIES
from hbm_core.models.prior import Prior

EXAMPLES = (
    "Normal(3, 2)",
    "StudentT(4, 1, 2.5)",
    "HalfNormal(5)",
    "HalfCauchy(10)",
    "HalfStudentT(3, 2)",
    "Exponential(0.2)",
    "Gamma(2, 0.1)",
    "InverseGamma(3, 2)",
    "LogNormal(1, 0.5)",
    "Uniform(-1, 4)",
    "Beta(2, 5.5)",
    "LKJ(2.5)",
)
#: Laws whose ends are fixed know no units.
BOUNDED = ("Beta", "LKJ")
# PyMC's parameterizations, written out with SciPy's keywords.
SCIPY = {
    "Normal(3, 2)": stats.norm(loc=3, scale=2),
    "StudentT(4, 1, 2.5)": stats.t(df=4, loc=1, scale=2.5),
    "HalfNormal(5)": stats.halfnorm(scale=5),
    "HalfCauchy(10)": stats.halfcauchy(scale=10),
    "HalfStudentT(3, 2)": stats.foldnorm(0),  # no such law in SciPy: checked through |T| below
    "Exponential(0.2)": stats.expon(scale=5),
    "Gamma(2, 0.1)": stats.gamma(a=2, scale=10),
    "InverseGamma(3, 2)": stats.invgamma(a=3, scale=2),
    "LogNormal(1, 0.5)": stats.lognorm(s=0.5, scale=np.e),
    "Uniform(-1, 4)": stats.uniform(loc=-1, scale=5),
    "Beta(2, 5.5)": stats.beta(a=2, b=5.5),
    "LKJ(2.5)": stats.beta(a=2.5, b=2.5, loc=-1, scale=2),
}
every = pytest.mark.parametrize("text", EXAMPLES)


def test_the_examples_cover_every_proper_family():
    assert {text.split("(")[0] for text in EXAMPLES} == {n for n, f in FAMILIES.items() if f.proper}


@every
def test_text_and_prior_are_inverse(text):
    prior = Prior.parse(text)
    assert prior.text == text
    assert Prior.parse(json.loads(json.dumps(prior.text))) == prior
    keywords = ", ".join(
        f"{number.name}={value!r}"
        for number, value in zip(prior.declared.numbers, prior.numbers, strict=True)
    )
    assert Prior.parse(f" {prior.family} ( {keywords} ) ") == prior


def test_digits_survive_the_text():
    prior = Prior("Normal", (0.1 + 0.2, 1e-17))
    assert Prior.parse(prior.text) == prior


@every
def test_density_integrates_to_one_and_to_the_distribution_function(text):
    prior = Prior.parse(text)
    lower, upper = prior.support
    middle, far = (float(prior.distribution.ppf(q)) for q in (0.5, 0.9))

    def density(x):
        return float(np.exp(prior.log_density(np.array([x]))[0]))

    below, _ = integrate.quad(density, lower, middle, epsabs=1e-11)
    between, _ = integrate.quad(density, middle, far, epsabs=1e-11)
    above, _ = integrate.quad(density, far, upper, epsabs=1e-11)
    assert (below, between, above) == pytest.approx((0.5, 0.4, 0.1), abs=1e-8)


@every
def test_density_is_scipys(text):
    prior = Prior.parse(text)
    points = prior.distribution.ppf([0.001, 0.1, 0.5, 0.9, 0.999])
    if prior.family == "HalfStudentT":
        nu, sigma = prior.numbers
        expected = np.log(2) + stats.t(df=nu, scale=sigma).logpdf(points)
    else:
        expected = SCIPY[text].logpdf(points)
    np.testing.assert_allclose(prior.log_density(points), expected, rtol=1e-10, atol=1e-12)


@every
def test_density_vanishes_outside_the_support(text):
    prior = Prior.parse(text)
    lower, upper = prior.support
    outside = [x for x in (lower - 1, upper + 1) if np.isfinite(x)]
    assert (prior.log_density(np.array(outside)) == -np.inf).all()


@every
def test_origin_and_tail_are_the_slopes_of_the_log_density(text):
    prior = Prior.parse(text)
    lower, upper = prior.support
    # Inverse gamma and log-normal vanish faster than any power at 0, which counts as regular.
    if np.isfinite(lower) and prior.family not in ("InverseGamma", "LogNormal"):
        near = lower + np.array([1e-9, 1e-8])
        slope = np.diff(prior.log_density(near)) / np.log(10)
        assert slope[0] == pytest.approx(prior.origin - 1, abs=1e-5)
    if upper == np.inf and np.isfinite(prior.tail):
        far = np.array([1e9, 1e10])
        slope = np.diff(prior.log_density(far)) / np.log(10)
        assert slope[0] == pytest.approx(-prior.tail - 1, abs=1e-5)


@every
@pytest.mark.parametrize("factor", [0.001, 40.0])
def test_scaling_is_a_change_of_units(text, factor):
    prior = Prior.parse(text)
    scaled = prior.scaled(factor)
    if prior.family in BOUNDED:
        assert scaled == prior
        return
    levels = np.array([0.05, 0.5, 0.95])
    np.testing.assert_allclose(
        scaled.distribution.ppf(levels), prior.distribution.ppf(levels) * factor, rtol=1e-9
    )
    points = prior.distribution.ppf(levels)
    np.testing.assert_allclose(
        scaled.log_density(points * factor), prior.log_density(points) - np.log(factor), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("nu", [0.5, 1.5, 3.0])
def test_folded_student_moments(nu):
    law = Prior("HalfStudentT", (nu, 2.0)).distribution
    draws = np.abs(stats.t.ppf((np.arange(200_000) + 0.5) / 200_000, nu)) * 2
    assert law.cdf(np.quantile(draws, 0.7)) == pytest.approx(0.7, abs=1e-4)
    if nu <= 1:
        assert law.mean() == np.inf
    else:
        expected, _ = integrate.quad(lambda x: law.sf(x), 0, np.inf)
        assert law.mean() == pytest.approx(expected, rel=1e-6)
    if nu <= 2:
        assert law.std() == np.inf
    else:
        second, _ = integrate.quad(lambda x: 2 * x * law.sf(x), 0, np.inf)
        assert law.std() == pytest.approx(np.sqrt(second - law.mean() ** 2), rel=1e-6)
    assert law.cdf(-1.0) == 0 and law.sf(-1.0) == 1


def test_flat_has_no_distribution():
    flat = Prior.parse("Flat()")
    assert not flat.proper and flat.distribution is None and flat.text == "Flat()"
    assert (flat.log_density(np.array([-1e9, 0, 5])) == 0).all()
    assert flat.scaled(10) == flat


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Normal", "a text like"),
        ("Normal(0, 1", "a text like"),
        ("__import__('os')", "a text like"),
        ("Cauchy(1)", "HalfCauchy"),
        ("Normal(1)", "2 numbers"),
        ("Normal(0, 1, 2)", "number 3"),
        ("Normal(0, 0)", "above 0"),
        ("Normal(0, -1)", "above 0"),
        ("Normal(nan, 1)", "finite"),
        ("HalfCauchy(inf)", "finite"),
        ("HalfCauchy(1e200)", "finite"),
        ("Normal(0, sigma=1, sigma=2)", "sigma"),
        ("Normal(sd=1, mu=0)", "mu, sigma"),
        ("Normal(a, 1)", "a number"),
        ("Uniform(2, 1)", "below upper"),
        ("Uniform(1, 1)", "below upper"),
        ("Flat(1)", r"\(none\)"),
    ],
)
def test_wrong_priors_are_refused_in_words(text, message):
    with pytest.raises(InputError, match=message):
        Prior.parse(text)
