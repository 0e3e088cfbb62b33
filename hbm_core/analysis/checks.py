"""The falsification report: every criterion a declared object with one pure function.

A new check is one function with `@check(...)` in this module: the report, its order and its words follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr

from hbm_core.analysis.batched import at_tau, linear
from hbm_core.analysis.convergence import chain_diagnostics, energy_bfmi
from hbm_core.analysis.counts_predictive import observed as observed_counts
from hbm_core.analysis.counts_predictive import statistics
from hbm_core.analysis.covariance import divergent, draws_table
from hbm_core.analysis.coverage import uniformity
from hbm_core.analysis.draws import FAILURES, LIMITS, graded
from hbm_core.analysis.loo import loo_table, outside_limit, psis_loo_table
from hbm_core.analysis.predictive import cochran_q, pooled_mean, prior_predictive
from hbm_core.analysis.shrinkage import pooling_factor
from hbm_core.errors import ImproperPosteriorError, NotExactError
from hbm_core.inference.exact import ExactPosterior, solve
from hbm_core.models.raw_rates import RawRates
from hbm_core.models.structure import ModelSpec
from hbm_core.models.three_level import ThreeLevelNormal

Verdict = Literal["pass", "warn", "fail", "information", "not applicable"]
#: Data sets, and outcomes in all of them, that are simulated at most.
_SIMULATIONS, _MOST_SIMULATED = 20_000, 8_000_000
#: Beyond so many units exact leave-one-out (by downdating, by refits) is left to importance sampling.
_MOST_UNITS, _MOST_REFITS = 20_000, 60
#: Parameterizations that seldom diverge, in words.
_GEOMETRIES = {"noncentered": "non-centered", "collapsed": "collapsed"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What checks may look at. Costly parts are computed once, when first asked for.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    exact : ExactPosterior, optional
        Its exact posterior.
    tree : xarray.DataTree, optional
        Draws: posterior, sample_stats, log_likelihood (θ integrated out).
    plausible : (float, float), optional
        Range of outcomes that a person would believe, in the outcome's units.
    seconds : float, optional
        Sampling time of `tree`.
    reference : mapping, optional
        For `adaptive`: ``ess_tau`` and ``seconds`` of the fit of `weak` to the same data.
    solver : callable
        ``ModelSpec -> ExactPosterior``.
    seed : int
        Of everything that is simulated.
    """

    spec: ModelSpec
    exact: ExactPosterior | None = None
    tree: Any = None
    plausible: tuple[float, float] | None = None
    seconds: float | None = None
    reference: Mapping[str, float] | None = None
    solver: Callable[[ModelSpec], ExactPosterior] = solve
    seed: int = 42

    @property
    def approximate(self) -> bool:
        """Whether the draws are those of a variational approximation."""
        return self.tree is not None and self.tree.attrs.get("engine") == "variational"

    @property
    def tempered(self) -> bool:
        """Whether the draws are those of parallel tempering."""
        return self.tree is not None and self.tree.attrs.get("engine") == "tempering"

    @cached_property
    def diagnostics(self) -> pd.DataFrame | None:
        """R-hat and effective sample sizes, by parameter; None without draws."""
        return None if self.tree is None else chain_diagnostics(self.tree)

    @cached_property
    def simulated(self) -> dict[str, np.ndarray] | None:
        """Prior predictive draws; None under improper priors."""
        if not all(prior.proper for prior in self.spec.priors.values()):
            return None
        size = observed_counts(self.spec.structure).size
        least = 1000 if size <= _MOST_SIMULATED // 100 else 100
        count = max(least, min(_SIMULATIONS, _MOST_SIMULATED // size))
        return prior_predictive(self.spec, count, self.seed)

    @cached_property
    def loo(self) -> pd.DataFrame | None:
        """Exact leave-one-out; None where there is none, or too many units to refit."""
        structure: Any = self.spec.structure
        at_once = linear(self.spec) or isinstance(structure, ThreeLevelNormal)
        if len(structure.units) > (_MOST_UNITS if at_once else _MOST_REFITS):
            return None
        try:
            table = loo_table(self.spec, self.solver, self.seed)
        except (NotExactError, ImproperPosteriorError):
            return None
        return None if table["pit"].isna().any() else table

    @cached_property
    def psis(self) -> pd.DataFrame | None:
        """Importance-sampling leave-one-out; None without draws of the log-likelihood."""
        if self.tree is None or "log_likelihood" not in self.tree.children:
            return None
        return psis_loo_table(self.tree)

    @cached_property
    def draw_table(self) -> pd.DataFrame | None:
        """Draws of every flat parameter, one column each; None without draws."""
        if self.tree is None:
            return None
        return draws_table(self.tree).drop(columns=["chain", "draw", "divergent"])

    def draws(self, name: str) -> np.ndarray | None:
        """Draws of one parameter, (draws,) or (draws, J); None without them."""
        if self.tree is None or name not in self.tree["posterior"]:
            return None
        values = self.tree["posterior"][name].transpose("chain", "draw", ...).to_numpy()
        return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


@dataclass(frozen=True)
class Finding:
    """What a check measured.

    Parameters
    ----------
    verdict : str
        pass, warn, fail, information or not applicable.
    measured : str
        Words and figures for a person.
    value : float
        The figure itself; NaN where there is none.
    advice : str
        One line on what to do; empty where nothing is to be done.
    """

    verdict: Verdict
    measured: str
    value: float = float("nan")
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A declared criterion.

    Parameters
    ----------
    code : str
        Key, lower case.
    title : str
        The criterion, for a person.
    group : str
        Section of the report.
    severity : {"fail", "warn", "information"}
        The worst it can say.
    threshold : str
        In words.
    run : callable
        ``Evidence -> Finding``, pure.
    """

    code: str
    title: str
    group: str
    severity: Literal["fail", "warn", "information"]
    threshold: str
    run: Callable[[Evidence], Finding]


_DECLARED: list[Check] = []


def check(
    title: str, group: str, severity: Literal["fail", "warn", "information"], threshold: str
) -> Callable[[Callable[[Evidence], Finding]], Callable[[Evidence], Finding]]:
    """Declare the decorated function as a check; its name is the code."""

    def declare(run: Callable[[Evidence], Finding]) -> Callable[[Evidence], Finding]:
        _DECLARED.append(Check(run.__name__, title, group, severity, threshold, run))
        return run

    return declare


def checks() -> tuple[Check, ...]:
    """Every declared check, in the order of the report."""
    return tuple(_DECLARED)


def check_result(code: str, evidence: Evidence) -> Finding:
    """The finding of one check, by its code."""
    return next(declared for declared in _DECLARED if declared.code == code).run(evidence)


def falsification_report(
    spec: ModelSpec, exact: ExactPosterior | None = None, tree: Any = None, **facts: Any
) -> pd.DataFrame:
    """Run every check.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    exact : ExactPosterior, optional
        Its exact posterior.
    tree : xarray.DataTree, optional
        Draws.
    **facts
        Further fields of `Evidence`: plausible, seconds, reference, solver, seed.

    Returns
    -------
    DataFrame
        One row per check: group, criterion, threshold, measured, verdict, advice; then code, severity
        and value (the figure behind `measured`).
    """
    return report(Evidence(spec, exact, tree, **facts))


def report(evidence: Evidence) -> pd.DataFrame:
    """`falsification_report` of evidence that is already gathered."""
    rows = []
    for declared in checks():
        found = declared.run(evidence)
        rows.append(
            {
                "group": declared.group,
                "criterion": declared.title,
                "threshold": declared.threshold,
                "measured": found.measured,
                "verdict": found.verdict,
                "advice": found.advice,
                "code": declared.code,
                "severity": declared.severity,
                "value": found.value,
            }
        )
    return pd.DataFrame(rows)


def computation_failures(table: pd.DataFrame) -> pd.DataFrame:
    """The rows for which a readout must be withheld: failed computation checks."""
    return table[(table["group"] == "computation") & (table["verdict"] == "fail")]


def _absent(why: str) -> Finding:
    return Finding("not applicable", why)


def _ruled(name: str, value: float, measured: str, advice: str, total: int = 0) -> Finding:
    """By the rule that every page follows."""
    verdict = graded(name, value, total)
    return Finding(verdict, measured, float(value), "" if verdict == "pass" else advice)


def _graded(value: float, passes: bool, fails: bool, measured: str, advice: str) -> Finding:
    verdict: Verdict = "fail" if fails else "pass" if passes else "warn"
    return Finding(verdict, measured, float(value), "" if verdict == "pass" else advice)


# --- computation ---------------------------------------------------------------------------------------


@check(
    "R-hat of every parameter", "computation", "fail", f"≤ {LIMITS['r_hat']:g} (fail > {FAILURES['r_hat']:g})"
)
def r_hat(evidence: Evidence) -> Finding:
    """Largest rank-normalised split R-hat."""
    table = evidence.diagnostics
    if table is None or table["r_hat"].dropna().empty:
        return _absent("needs draws of two chains or more")
    if evidence.approximate:
        return _absent("draws of an approximation are independent")
    worst, where = float(table["r_hat"].max()), str(table["r_hat"].idxmax())
    advice = "Run longer or change the parameterization; chains disagree."
    return _ruled("r_hat", worst, f"{worst:.3f} ({where})", advice)


def _effective(evidence: Evidence, column: str) -> Finding:
    table = evidence.diagnostics
    if table is None or table[column].dropna().empty:
        return _absent("needs draws")
    if evidence.approximate:
        return _absent("draws of an approximation are independent")
    worst, where = float(table[column].min()), str(table[column].idxmin())
    advice = "Take more draws, or a parameterization that mixes better."
    return _ruled("ess", worst, f"{worst:,.0f} ({where})", advice)


@check(
    "Bulk effective sample size", "computation", "fail", f"≥ {LIMITS['ess']:g} (fail < {FAILURES['ess']:g})"
)
def ess_bulk(evidence: Evidence) -> Finding:
    """Smallest bulk effective sample size."""
    return _effective(evidence, "ess_bulk")


@check(
    "Tail effective sample size", "computation", "fail", f"≥ {LIMITS['ess']:g} (fail < {FAILURES['ess']:g})"
)
def ess_tail(evidence: Evidence) -> Finding:
    """Smallest tail effective sample size."""
    return _effective(evidence, "ess_tail")


@check("Divergences", "computation", "fail", "0 (warn ≤ 10, fail > 10 or > 1 %)")
def divergences(evidence: Evidence) -> Finding:
    """Divergent transitions after warm-up."""
    if evidence.tree is None:
        return _absent("needs draws")
    if evidence.approximate:
        return _absent("an approximation follows no path")
    if evidence.tempered:
        return _absent("tempering refuses trajectories that lose their way, and keeps no draw of them")
    flags = divergent(evidence.tree)
    count, share = int(flags.sum()), float(flags.mean())
    used, offered = evidence.spec.parameterization, evidence.spec.structure.parameterizations
    others = [words for name, words in _GEOMETRIES.items() if name != used and name in offered]
    advice = f"Use the {' or '.join(others)} parameterization, or raise" if others else "Raise"
    advice += " target_accept."
    measured = f"{count:,} of {flags.size:,} ({share:.2%})"
    return _ruled("divergences", count, measured, advice, flags.size)


@check(
    "Round trips of every replica",
    "computation",
    "warn",
    f"≥ {LIMITS['round_trips']:g}, from the prior to the posterior and back",
)
def round_trips(evidence: Evidence) -> Finding:
    """Fewest round trips of a replica of parallel tempering: each brings a point that began anew."""
    if not evidence.tempered or "tempering" not in evidence.tree.children:
        return _absent("needs draws of parallel tempering")
    trips = evidence.tree["tempering"]["round_trips"].to_numpy()
    barrier = float(evidence.tree.attrs["barrier"])
    advice = "Modes may have the wrong weights: take more draws, or more temperatures."
    return _ruled("round_trips", float(trips.min()), f"{trips.min():,} (barrier {barrier:.1f})", advice)


@check(
    "Pareto's k of the approximation",
    "computation",
    "fail",
    f"≤ {LIMITS['pareto_k']:g} (fail > {FAILURES['pareto_k']:g})",
)
def approximation_k(evidence: Evidence) -> Finding:
    """Pareto's k of the importance ratios of a variational fit."""
    if evidence.tree is None or not evidence.approximate:
        return _absent("the draws are no approximation's")
    k = float(evidence.tree.attrs["k_hat"])
    advice = "A normal does not fit this posterior: use NUTS or the exact engine."
    return _ruled("pareto_k", k, f"{k:.2f}", advice)


@check("E-BFMI of every chain", "computation", "warn", f"≥ {LIMITS['e_bfmi']:g}")
def bfmi(evidence: Evidence) -> Finding:
    """Smallest estimated Bayesian fraction of missing information."""
    found = energy_bfmi(evidence.tree) if evidence.tree is not None else np.empty(0)
    if not found.size:
        return _absent("needs draws with energies")
    worst = float(found.min())
    advice = "Energy is explored slowly: change the parameterization or the prior's tails."
    return _ruled("e_bfmi", worst, f"{worst:.2f}", advice)


@check("Error estimate of the quadrature", "computation", "fail", "≤ 1e-3 sd (fail > 1e-2 sd)")
def quadrature(evidence: Evidence) -> Finding:
    """The exact engine's own error estimate, in posterior sds."""
    if evidence.exact is None:
        return _absent("needs an exact posterior")
    error = float(evidence.exact.error)
    advice = "Compare with draws before trusting the last digits."
    return _graded(error, error <= 1e-3, not error <= 1e-2, f"{error:.1e} sd", advice)


# --- prior against data --------------------------------------------------------------------------------


def _tail_probability(below: float) -> float:
    return float(min(1.0, 2 * min(below, 1 - below)))


def _surprise(p: float, error: float, what: str) -> Finding:
    words = f"p = {p:.3g}" + (f" ± {error:.1g}" if error else "")
    return _graded(
        p, p >= 0.05, p < 0.005, words, f"The prior did not expect {what}: widen it or justify it."
    )


def _prior_counts(evidence: Evidence, name: str, what: str) -> Finding:
    """Two-sided prior-predictive p-value of a statistic of counts, by simulation."""
    structure: Any = evidence.spec.structure
    if evidence.simulated is None:
        return _absent("an improper prior predicts nothing")
    values = statistics(evidence.simulated["effect"])[name]
    observed = float(statistics(observed_counts(structure))[name][0])
    below = float((values <= observed).mean())
    error = 2 * np.sqrt(max(below * (1 - below), 1 / values.size) / values.size)
    return _surprise(_tail_probability(below), error, f"{what} of {observed:.3g}")


@check("Pooled mean under the prior predictive", "prior against data", "fail", "p ≥ 0.05 (fail < 0.005)")
def prior_mean(evidence: Evidence) -> Finding:
    """Two-sided prior-predictive p-value of the precision-weighted mean, by quadrature where normal."""
    spec, structure = evidence.spec, evidence.spec.structure
    if not all(prior.proper for prior in spec.priors.values()):
        return _absent("an improper prior predicts nothing")
    if isinstance(structure, RawRates):
        return _prior_counts(evidence, "mean", "a mean count")
    observed = float(pooled_mean(structure.effect, structure.se))
    if linear(spec) and structure.pooling == "partial" and not structure.columns:
        # at these 400 prior quantiles of τ the mean is normal; its spread is bounded below by τ = 0
        places, masses = np.polynomial.legendre.leggauss(400)
        tau = spec.priors["tau"].distribution.ppf((places + 1) / 2)
        weight = 1 / structure.se**2 / (1 / structure.se**2).sum()
        center, sd = spec.priors["mu"].numbers
        scale = np.sqrt(1 / pooling_factor(spec, tau) - 1) * structure.se
        spread = np.sqrt(sd**2 + (weight**2 * (structure.se**2 + scale**2)).sum(axis=1))
        p = _tail_probability(float(masses @ ndtr((observed - center) / spread) / 2))
        return _surprise(p, 0.0, f"a pooled mean of {observed:.3g}")
    simulated = evidence.simulated
    assert simulated is not None
    below = float((pooled_mean(simulated["effect"], structure.se) <= observed).mean())
    p = _tail_probability(below)
    error = 2 * np.sqrt(below * (1 - below) / len(simulated["effect"]))
    return _surprise(p, error, f"a pooled mean of {observed:.3g}")


@check("Cochran's Q under the prior predictive", "prior against data", "fail", "p ≥ 0.05 (fail < 0.005)")
def prior_q(evidence: Evidence) -> Finding:
    """Two-sided prior-predictive p-value of Cochran's Q, by simulation; Q does not depend on μ."""
    structure = evidence.spec.structure
    if len(structure.units) < 2:
        return _absent("needs two units")
    if isinstance(structure, RawRates):
        return _prior_counts(evidence, "variance_to_mean", "a variance over mean")
    simulated = evidence.simulated
    if simulated is None:
        return _absent("an improper prior predicts nothing")
    observed = float(cochran_q(structure.effect, structure.se))
    below = float((cochran_q(simulated["effect"], structure.se) <= observed).mean())
    count = len(simulated["effect"])
    error = 2 * np.sqrt(max(below * (1 - below), 1 / count) / count)
    side = "so much" if below > 0.5 else "so little"
    return _surprise(_tail_probability(below), error, f"{side} spread (Q = {observed:.3g})")


@check("Simulated outcomes inside the plausible range", "prior against data", "warn", "≥ 90 %")
def prior_range(evidence: Evidence) -> Finding:
    """Share of prior-predictive outcomes that a person would believe."""
    if evidence.plausible is None:
        return _absent("the scenario states no plausible range")
    simulated = evidence.simulated
    if simulated is None:
        return _absent("an improper prior predicts nothing")
    low, high = evidence.plausible
    share = float(((simulated["effect"] >= low) & (simulated["effect"] <= high)).mean())
    words = f"{share:.1%} within {low:g} to {high:g}"
    return _graded(
        share, share >= 0.9, False, words, "The priors allow outcomes nobody expects: narrow them."
    )


# --- boundary ------------------------------------------------------------------------------------------


@check("Evidence at τ = 0 and mean pooling", "boundary", "information", "none: it never recommends pooling")
def boundary(evidence: Evidence) -> Finding:
    """p(τ = 0 | y)/p(τ = 0), the data's own word on complete pooling, and the range of E[B]."""
    spec = evidence.spec
    if not linear(spec) or spec.structure.pooling != "partial":
        return _absent("needs τ in a model that is normal given τ")
    exact = evidence.exact
    if exact is None or exact.log_evidence is None or exact.pooling is None:
        return _absent("needs an exact posterior under proper priors")
    ratio = float(np.exp(at_tau(spec, 0.0).log_evidence[0] - exact.log_evidence))
    low, high = float(exact.pooling.min()), float(exact.pooling.max())
    words = f"ratio {ratio:.2f}; E[B] {low:.2f} to {high:.2f}"
    return Finding("information", words, ratio, "A ratio above 1 means the data lean towards equal units.")


# --- learning ------------------------------------------------------------------------------------------


def divergence_from_prior(spec: ModelSpec, exact: ExactPosterior, name: str) -> float:
    """KL(posterior‖prior) of a parameter, in nats, by quadrature of the exact density.

    Parameters
    ----------
    spec : ModelSpec
        The model, with a proper prior on `name`.
    exact : ExactPosterior
        Its posterior.
    name : str
        A hyperparameter, such as ``mu`` or ``tau``.
    """
    tails = _quantiles(exact, name, (1e-11, 0.25, 0.5, 0.75, 1 - 1e-11))
    low, quarter, middle, upper, high = tails
    width = upper - quarter
    v = np.linspace(np.arcsinh((low - middle) / width), np.arcsinh((high - middle) / width), 4001)
    x = np.clip(middle + width * np.sinh(v), low, high)
    density = exact.density(name, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(density > 0, density * (np.log(density) - spec.priors[name].log_density(x)), 0.0)
    return float(np.trapezoid(terms * width * np.cosh(v), v))


def _quantiles(exact: Any, name: str, probabilities: tuple[float, ...]) -> np.ndarray:
    """Quantiles of a hyperparameter; of very many units none is asked for."""
    if hasattr(exact, "hyper_quantiles"):
        return exact.hyper_quantiles(probabilities)[exact.hyper_names.index(name)]
    return exact.quantiles(probabilities)[exact.index(name)]


def contraction(spec: ModelSpec, exact: ExactPosterior, name: str) -> float:
    """Share of the prior's interquartile range that the data removed (negative: the posterior is wider)."""
    quarter, upper = _quantiles(exact, name, (0.25, 0.75))
    prior = np.ptp(spec.priors[name].distribution.ppf(np.array([0.25, 0.75])))
    return float(1 - (upper - quarter) / prior)


def _learned(evidence: Evidence, name: str) -> Finding:
    spec, exact = evidence.spec, evidence.exact
    if name not in spec.priors:
        return _absent(f"the model has no {name or 'single spread'}")
    if exact is None or not spec.priors[name].proper:
        return _absent("needs an exact posterior and a proper prior")
    kl = divergence_from_prior(spec, exact, name)
    words = f"KL {kl:.2f} nats; middle half narrower by {contraction(spec, exact, name):.0%}"
    advice = "The data hardly speak here: the prior decides." if kl < 0.05 else ""
    return Finding("information", words, kl, advice)


@check("What the data taught about μ", "learning", "information", "none")
def learning_mu(evidence: Evidence) -> Finding:
    """KL(posterior‖prior) and contraction of μ."""
    return _learned(evidence, "mu")


@check("What the data taught about τ", "learning", "information", "none")
def learning_tau(evidence: Evidence) -> Finding:
    """KL(posterior‖prior) and contraction of the spread of the units."""
    return _learned(evidence, evidence.spec.structure.spread)


# --- shrinkage -----------------------------------------------------------------------------------------


def _law(evidence: Evidence) -> bool:
    """Whether E[θ_i] is B_i m_i + (1 − B_i) y_i given the hyperparameters."""
    return bool(getattr(evidence.spec.structure, "leans", False))


@check("E[B] ordered as the standard errors", "shrinkage", "fail", "no pair out of order (a law)")
def shrinkage_order(evidence: Evidence) -> Finding:
    """A less precise unit leans more on μ; realised from the draws where there are any."""
    structure = evidence.spec.structure
    if not _law(evidence):
        return _absent("no such law for this model")
    tau = evidence.draws(evidence.spec.structure.spread)
    if tau is not None:
        pooling = pooling_factor(evidence.spec, tau).mean(axis=0)
    elif evidence.exact is not None and evidence.exact.pooling is not None:
        pooling = evidence.exact.pooling
    else:
        return _absent("needs τ")
    order = np.lexsort((pooling, structure.se))
    broken = int((np.diff(pooling[order]) < -1e-9).sum())
    words = "in order" if broken == 0 else f"{broken} neighbours out of order"
    return _graded(broken, broken == 0, broken > 0, words, "A defect of the program: report it.")


@check("E[θ] realised as B μ + (1 − B) y", "shrinkage", "fail", "|z| ≤ 5 (a law)")
def shrinkage_realised(evidence: Evidence) -> Finding:
    """Draws of θ_i average to the draws of B_i μ_i + (1 − B_i) y_i, within Monte-Carlo error."""
    structure: Any = evidence.spec.structure
    if not _law(evidence):
        return _absent("no such law for this model")
    tau, theta, center = (
        evidence.draws(evidence.spec.structure.spread),
        evidence.draws("theta"),
        structure.pulled_to(evidence.draws),
    )
    if tau is None or theta is None or center is None:
        return _absent("needs draws of μ, τ and θ")
    factor = pooling_factor(evidence.spec, tau)
    gap = theta - (factor * center + (1 - factor) * structure.effect)
    chains = evidence.tree["posterior"].sizes["chain"]
    # batch means: 25 per chain carry the autocorrelation
    batches = [b.mean(axis=0) for c in np.split(gap, chains) for b in np.array_split(c, min(25, len(c)))]
    each = np.array(batches)
    error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    z = np.abs(gap.mean(axis=0)) / np.maximum(error, 1e-12 * structure.se)
    worst = float(z.max())
    words = f"|z| up to {worst:.1f} ({structure.units[int(z.argmax())]})"
    return _graded(worst, worst <= 5, worst > 5, words, "A defect of the program or unconverged chains.")


# --- prediction ----------------------------------------------------------------------------------------


@check(
    "Units outside their leave-one-out 95 % interval",
    "prediction",
    "fail",
    "≤ 99 % quantile of Binomial(J, 0.05)",
)
def loo_outside(evidence: Evidence) -> Finding:
    """Count of units that the others did not foresee."""
    table = evidence.loo
    if table is None:
        return _absent("no exact leave-one-out for this model")
    count, limit = int(table["outside"].sum()), outside_limit(len(table))
    names = ", ".join(table.loc[table["outside"], "unit"].astype(str)[:5])
    words = f"{count} of {len(table)} (limit {limit})" + (f": {names}" if names else "")
    return _graded(
        count, count <= limit, count > limit, words, "Try robust or robust_effects; look at these units."
    )


@check("Coverage of leave-one-out 95 % intervals", "prediction", "fail", "≥ 90 % (fail < 80 %), J ≥ 40")
def loo_coverage(evidence: Evidence) -> Finding:
    """Share of units inside their leave-one-out interval."""
    table = evidence.loo
    if table is None:
        return _absent("no exact leave-one-out for this model")
    if len(table) < 40:
        return _absent(f"{len(table)} units: too few to judge a share")
    share = float(1 - table["outside"].mean())
    advice = "Intervals promise too much: a heavier-tailed model, or wrong standard errors."
    return _graded(share, share >= 0.9, share < 0.8, f"{share:.1%}", advice)


@check("LOO-PIT inside its envelope", "prediction", "warn", "simultaneous 99 % ECDF band")
def loo_pit(evidence: Evidence) -> Finding:
    """Whether leave-one-out probabilities are uniform."""
    table = evidence.loo
    if table is None or len(table) < 5:
        return _absent("needs exact leave-one-out of five units or more")
    found = uniformity(table["pit"].to_numpy())
    words = f"largest ECDF difference {found['statistic']:.2f} (band {found['threshold']:.2f})"
    advice = "Predictions are too wide, too narrow or shifted: see the LOO-PIT plot."
    return _graded(found["statistic"], found["passed"], False, words, advice)


@check("Pareto k of leave-one-out from draws", "prediction", "warn", "≤ 0.7")
def pareto_k(evidence: Evidence) -> Finding:
    """Largest Pareto k of importance-sampling LOO on the integrated likelihood."""
    table = evidence.psis
    if table is None:
        return _absent("needs draws of the log-likelihood")
    # k is undefined where a single draw carries all the weight
    k = table["pareto_k"].fillna(np.inf).to_numpy()
    worst = float(k.max())
    words = f"{worst:.2f} ({table['unit'].iloc[int(k.argmax())]})"
    return _graded(worst, worst <= 0.7, False, words, "Use the exact leave-one-out for these units.")


# --- adaptive only -------------------------------------------------------------------------------------


def _adaptive(evidence: Evidence) -> bool:
    return getattr(evidence.spec.structure, "scale", "identity") == "adaptive"


def _identity(spec: ModelSpec) -> ModelSpec:
    structure = replace(spec.structure, scale="identity")
    return replace(spec, structure=structure, priors=dict(spec.priors), constants={})


def _at_threshold(spec: ModelSpec, threshold: float) -> ModelSpec:
    return replace(spec, priors=dict(spec.priors), constants={**spec.constants, "threshold": threshold})


@check("Sampling of τ against weak", "adaptive only", "warn", "ESS and time at least 10 % better")
def adaptive_speed(evidence: Evidence) -> Finding:
    """Effective draws of τ and sampling time beside those of `weak`."""
    if not _adaptive(evidence):
        return _absent("not the adaptive model")
    table, reference = evidence.diagnostics, evidence.reference
    if table is None or reference is None or evidence.seconds is None:
        return _absent("needs draws of this model and of weak")
    more = float(table["ess_bulk"].to_dict()["tau"]) / reference["ess_tau"]
    faster = reference["seconds"] / evidence.seconds
    worse = min(more, faster)
    words = f"ESS ×{more:.2f}, speed ×{faster:.2f}"
    return _graded(worse, worse >= 1.1, False, words, "It does not sample better than weak: prefer weak.")


@check("τ has one mode near the threshold", "adaptive only", "warn", "one mode within t ± 2")
def adaptive_modes(evidence: Evidence) -> Finding:
    """Modes of the posterior density of τ around t, dips of less than 5 % ignored."""
    if not _adaptive(evidence):
        return _absent("not the adaptive model")
    if evidence.exact is None:
        return _absent("needs an exact posterior")
    threshold = evidence.spec.constants["threshold"]
    x = np.linspace(max(threshold / 3, 1e-9), threshold * 5 / 3, 401)
    count = mode_count(evidence.exact.density("tau", x))
    words = f"{count} mode{'s' if count != 1 else ''}"
    return _graded(
        count, count <= 1, False, words, "The answer sits between two regimes: report weak instead."
    )


def mode_count(density: np.ndarray, dip: float = 0.05) -> int:
    """Modes of a curve on a grid, its ends included, that stand out by more than `dip` of the lower one."""
    density = np.asarray(density, dtype=float)
    modes, valley, peak = 0, np.inf, -np.inf
    rising = True
    for value in density:
        if rising:
            peak = max(peak, value)
            if value < peak * (1 - dip):
                modes, rising, valley = modes + 1, False, value
        else:
            valley = min(valley, value)
            if value > valley / (1 - dip):
                rising, peak = True, value
    return modes + rising


@check("Answers under t × 2/3 and t × 4/3", "adaptive only", "warn", "move ≤ 10 % of a posterior sd")
def adaptive_threshold(evidence: Evidence) -> Finding:
    """How far μ and the θ_i move between t = 2 and t = 4 (for t = 3; in proportion otherwise)."""
    if not _adaptive(evidence):
        return _absent("not the adaptive model")
    threshold = evidence.spec.constants["threshold"]
    low, high = (evidence.solver(_at_threshold(evidence.spec, threshold * f)) for f in (2 / 3, 4 / 3))
    places = [place for place, name in enumerate(low.names) if name not in ("tau", "tau_star")]
    moved = np.abs(high.mean - low.mean)[places] / np.maximum(low.sd, high.sd)[places]
    worst = float(np.nanmax(moved))
    words = f"{worst:.1%} of an sd ({low.names[places[int(np.nanargmax(moved))]]})"
    return _graded(
        worst, worst <= 0.1, False, words, "The threshold decides the answer: report weak instead."
    )


@check("sd of τ against weak", "adaptive only", "warn", "not below weak's")
def adaptive_spread(evidence: Evidence) -> Finding:
    """Whether the device makes τ look better known than it is."""
    if not _adaptive(evidence):
        return _absent("not the adaptive model")
    exact = evidence.exact or evidence.solver(evidence.spec)
    reference = evidence.solver(_identity(evidence.spec))
    own, weak = (float(p.sd[p.index("tau")]) for p in (exact, reference))
    if not (np.isfinite(own) and np.isfinite(weak)):
        return _absent("the sd of τ is infinite")
    words = f"{own:.3g} against {weak:.3g}"
    return _graded(
        own / weak, own >= weak * (1 - 1e-6), False, words, "Certainty about τ that the data did not give."
    )
