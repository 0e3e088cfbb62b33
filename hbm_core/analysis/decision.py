"""Which fit to believe: computation first, then plausibility, then prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from hbm_core.analysis.checks import Evidence, check_result
from hbm_core.analysis.covariance import divergent
from hbm_core.analysis.loo import elpd, elpd_difference
from hbm_core.errors import InputError

#: Differences of posterior means, in posterior sds, up to which fits are said to agree.
_AGREE, _DISAGREE = 0.5, 1.0
#: |Δ elpd| from which a difference in prediction is called substantial, in nats.
_SUBSTANTIAL = 5.0
_FEW_UNITS = 100


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision path across fits.

    Attributes
    ----------
    steps : DataFrame
        step ("1 computation", "2 plausibility", "3 prediction"), fit (or "A | B" for a pair), criterion,
        measured (words), value (the figure; sds or nats), verdict (pass, warn, fail, not applicable).
    recommendation : str
        One sentence.
    red_flags : tuple of str
        One sentence each.
    chosen : str or None
        The recommended fit.
    """

    steps: pd.DataFrame
    recommendation: str
    red_flags: tuple[str, ...]
    chosen: str | None


def decision_path(fits: Mapping[str, Evidence]) -> Decision:
    """Compare fits of the same data and recommend one.

    Parameters
    ----------
    fits : mapping of str to Evidence
        By name, in order of preference where nothing else decides. Each with an exact posterior, draws or
        both.

    Raises
    ------
    InputError
        No fit, or fits of different units.
    """
    if not fits:
        raise InputError("decision path", "at least one fit", "none")
    if len({evidence.spec.structure.units for evidence in fits.values()}) > 1:
        raise InputError("decision path", "fits of the same units", "different units")
    rows: list[dict[str, object]] = []
    kept = {name: fit for name, fit in fits.items() if _computes(name, fit, rows)}
    alive = kept or dict(fits)
    apart = _plausible(alive, rows)
    best, clear = _predicts(alive, rows)
    flags = _red_flags(fits, kept, apart)
    chosen = None if not kept else best or next(iter(kept))
    steps = pd.DataFrame(rows, columns=["step", "fit", "criterion", "measured", "value", "verdict"])
    return Decision(steps, _sentence(chosen, kept, apart, clear, len(_units(fits))), tuple(flags), chosen)


def means_and_sds(fit: Evidence) -> pd.DataFrame:
    """Posterior mean and sd by parameter, from the exact posterior or else the draws (outcome's units)."""
    if fit.exact is not None:
        return pd.DataFrame({"mean": fit.exact.mean, "sd": fit.exact.sd}, index=list(fit.exact.names))
    table = fit.draw_table
    if table is None:
        raise InputError("fit", "an exact posterior or draws", "neither")
    return pd.DataFrame({"mean": table.mean(), "sd": table.std()})


def _computes(name: str, fit: Evidence, rows: list[dict[str, object]]) -> bool:
    if fit.tree is None:
        found = check_result("quadrature", fit)
        verdict = "fail" if found.verdict == "fail" else "pass"
        rows.append(_row("1 computation", name, "exact engine", found.measured, found.value, verdict))
        return verdict == "pass"
    share = float(divergent(fit.tree).mean())
    diagnostics = fit.diagnostics
    assert diagnostics is not None
    smallest = float(diagnostics[["ess_bulk", "ess_tail"]].min().min())
    passed = share <= 0.02 and not smallest < 100
    words = f"{share:.1%} divergent, smallest ESS {smallest:,.0f}"
    criterion = "≤ 2 % divergent and ESS ≥ 100"
    rows.append(_row("1 computation", name, criterion, words, smallest, "pass" if passed else "fail"))
    return passed


def _plausible(fits: Mapping[str, Evidence], rows: list[dict[str, object]]) -> float:
    """Record how far the fits' answers lie apart; return the largest distance in posterior sds."""
    tables = {name: means_and_sds(fit) for name, fit in fits.items()}
    largest = 0.0
    for a, b in combinations(tables, 2):
        shared = [
            name
            for name in tables[a].index.intersection(tables[b].index)
            if name == "mu" or str(name).startswith("theta[")
        ]
        left, right = tables[a].loc[shared], tables[b].loc[shared]
        gap: pd.Series = ((left["mean"] - right["mean"]).abs() / np.minimum(left["sd"], right["sd"])).dropna()
        if gap.empty:
            continue
        worst, where = float(gap.max()), str(gap.idxmax())
        largest = max(largest, worst)
        verdict = "pass" if worst <= _AGREE else "warn" if worst <= _DISAGREE else "fail"
        words = f"differ by up to {worst:.2f} posterior sds ({where})"
        rows.append(_row("2 plausibility", f"{a} | {b}", f"≤ {_AGREE:g} sd", words, worst, verdict))
    for name, fit in fits.items():
        middle = _median_tau(fit)
        if middle is None:
            continue
        spread = float(np.std(fit.spec.structure.effect, ddof=1)) if len(_units(fits)) > 1 else np.nan
        words = f"median of τ {middle:.3g}, spread of the data {spread:.3g}"
        verdict = "not applicable" if np.isnan(spread) else "pass" if middle <= spread else "warn"
        rows.append(
            _row("2 plausibility", name, "median of τ within the data's spread", words, middle, verdict)
        )
    return largest


def _median_tau(fit: Evidence) -> float | None:
    if fit.exact is not None:
        if "tau" not in fit.exact.names:
            return None
        return float(fit.exact.quantiles((0.5,))[fit.exact.index("tau"), 0])
    draws = fit.draws("tau")
    return None if draws is None else float(np.median(draws))


def _predicts(fits: Mapping[str, Evidence], rows: list[dict[str, object]]) -> tuple[str | None, bool]:
    """Record LOO differences; return the fit to prefer and whether prediction decides it."""
    # exact leave-one-out for all, or importance sampling for all: never one against the other
    exact = {name: fit.loo for name, fit in fits.items()}
    tables = exact if all(t is not None for t in exact.values()) else {n: f.psis for n, f in fits.items()}
    scored = {name: table for name, table in tables.items() if table is not None}
    if not scored:
        return None, False
    total = {name: elpd(table)["elpd"] for name, table in scored.items()}
    best = max(total, key=lambda name: total[name])
    units = len(_units(fits))
    few = f" (J = {units} < {_FEW_UNITS}: its standard error is unreliable)" if units < _FEW_UNITS else ""
    preferred = next(iter(scored))
    decided = False
    for name, table in scored.items():
        if name == best:
            rows.append(
                _row("3 prediction", name, "best elpd", f"elpd {total[name]:.2f}", total[name], "pass")
            )
            continue
        gap = elpd_difference(table, scored[best])
        beaten = abs(gap["difference"]) > _SUBSTANTIAL and abs(gap["difference"]) > 2 * gap["se"]
        words = f"Δ elpd {gap['difference']:.2f} ± {gap['se']:.2f}{few}"
        criterion = f"|Δ| ≤ {_SUBSTANTIAL:g}"
        verdict = "fail" if beaten else "pass"
        rows.append(_row("3 prediction", f"{name} | {best}", criterion, words, gap["difference"], verdict))
        decided = decided or (beaten and name == preferred)
    return (best if decided else preferred), decided


def _red_flags(fits: Mapping[str, Evidence], kept: Mapping[str, Evidence], apart: float) -> list[str]:
    flags = []
    if not kept:
        flags.append("Every fit fails its computation: use the exact engine or empirical Bayes.")
    verdicts = {name: check_result("loo_outside", fit).verdict for name, fit in fits.items()}
    if set(verdicts.values()) == {"fail"}:
        flags.append("No fit predicts the units left out: try the model robust.")
    if outlying := _outlying(fits):
        flags.append(f"Outlying under every fit: {', '.join(outlying)}. Try the model robust_effects.")
    order = [check_result("shrinkage_order", fit).verdict for fit in fits.values()]
    if "fail" in order and set(order) <= {"fail", "not applicable"}:
        flags.append("Shrinkage is out of order in every fit: use no pooling until that is understood.")
    if apart > _DISAGREE:
        flags.append("The models differ by more than they are uncertain: report both.")
    return flags


def _outlying(fits: Mapping[str, Evidence]) -> list[str]:
    """Units beyond a 95 % bound for the most extreme of J leave-one-out predictions, in every fit."""
    found: set[str] | None = None
    for fit in fits.values():
        if (table := fit.loo) is None:
            continue
        tail = 2 * np.minimum(table["pit"], 1 - table["pit"])
        beyond = set(table.loc[tail * len(table) < 0.05, "unit"].astype(str))
        found = beyond if found is None else found & beyond
    return [unit for unit in _units(fits) if unit in (found or set())]


def _sentence(chosen: str | None, kept: Mapping[str, Evidence], apart: float, clear: bool, units: int) -> str:
    if chosen is None:
        return "Do not report any of these fits: none passes its computation checks."
    if clear:
        return f"Report {chosen}: it predicts units left out substantially better than the others."
    if len(kept) == 1:
        return f"Report {chosen}: it is the only fit here that passes its computation checks."
    if apart > _DISAGREE:
        return f"Report {chosen} together with the others: they predict alike and answer differently."
    few = f", and with {units} units prediction cannot tell" if units < _FEW_UNITS else ""
    return f"Report {chosen}: the fits agree within {apart:.1f} posterior sds{few}."


def _units(fits: Mapping[str, Evidence]) -> tuple[str, ...]:
    return next(iter(fits.values())).spec.structure.units


def _row(step: str, fit: str, criterion: str, measured: str, value: float, verdict: str) -> dict[str, object]:
    return {
        "step": step,
        "fit": fit,
        "criterion": criterion,
        "measured": measured,
        "value": float(value),
        "verdict": verdict,
    }
