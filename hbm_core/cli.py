"""The command ``hbm``: the same functions as the app and a notebook, with text or JSON answers.

Every command exits 0, or 2 with a one-line message on bad input, or 1 on failure.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import pandas as pd
import typer

from hbm_core.errors import FitError, InputError, StoreError
from hbm_core.models.dataset import Dataset
from hbm_core.models.prior import Prior
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios import scenarios as all_scenarios
from hbm_core.store.study import Study
from hbm_core.store.summary import compared, finite, parameter_entry

if TYPE_CHECKING:
    from hbm_core.analysis.spread import Spread
    from hbm_core.store.exchange import Fit
    from hbm_core.store.jobs import Job
    from hbm_core.store.local import LocalEngine

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", help="See `hbm scenarios`.")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="A built-in data set.")]
DataFile = Annotated[Path | None, typer.Option("--data", help="A CSV or Parquet file.")]
ModelId = Annotated[str | None, typer.Option("--model", help="A model of the scenario.")]
Priors = Annotated[list[str] | None, typer.Option("--prior", help="NAME=Family(numbers); may be repeated.")]
Constants = Annotated[list[str] | None, typer.Option("--constant", help="NAME=value; may be repeated.")]
Covariates = Annotated[list[str] | None, typer.Option("--covariate", help="A column; may be repeated.")]
Companion = Annotated[
    Path | None, typer.Option("--conditions", help="A second table that belongs to --data.")
]
Units = Annotated[str, typer.Option("--units", help="auto (up to 1,000), all, none, or a number.")]
FitId = Annotated[str, typer.Argument(metavar="FIT", help="A fit's id, or a result file.")]
PriorFrom = Annotated[
    str | None,
    typer.Option("--prior-from", help="Priors learned from an earlier batch: a fit, or a precomputed file."),
]


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Turn a function into a command whose errors become messages and exit codes."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except InputError as problem:
            _stop(2, str(problem))
        except (FitError, StoreError, OSError) as problem:
            _stop(1, str(problem))

    return app.command(name=function.__name__.strip("_").replace("_", "-"))(run)


def _stop(code: int, message: str) -> NoReturn:
    typer.echo("hbm: " + " ".join(message.split()), err=True)
    raise typer.Exit(code)


def _answer(as_json: bool, value: Mapping[str, Any], text: Callable[[], str]) -> None:
    if as_json:
        typer.echo(json.dumps(finite(value), ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(text())


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise InputError(option, "NAME=value", repr(text))
        if name.strip() in found:
            raise InputError(option, "every name once", f"{name.strip()} twice")
        found[name.strip()] = value.strip()
    return found


def _study(
    scenario: str,
    dataset: str | None = None,
    model: str | None = None,
    prior: list[str] | None = None,
    constant: list[str] | None = None,
    covariate: list[str] | None = None,
    prior_from: str | None = None,
    **others: Any,
) -> Study:
    """Build a study through the same reading as a link's parameters."""
    if dataset is not None and Path(dataset).suffix.lower() in (".csv", ".tsv", ".txt", ".parquet"):
        raise InputError(
            "--dataset", "the name of a built-in data set", repr(dataset), "A file goes to --data."
        )
    query = {"scenario": scenario}
    if prior_from is not None:
        query |= {f"prior.{name}": prior.text for name, prior in _learned(prior_from).items()}
    query |= {key: str(value) for key, value in (("dataset", dataset), ("model", model)) if value is not None}
    query |= {f"prior.{name}": text for name, text in _pairs("--prior", prior).items()}
    query |= {f"constant.{name}": text for name, text in _pairs("--constant", constant).items()}
    if covariate:
        query["covariates"] = "|".join(covariate)
    query |= {key: str(value) for key, value in others.items() if value is not None}
    return Study.from_query(query)


def _learned(text: str) -> dict[str, Prior]:
    """Priors of an earlier batch, and on stderr how well they stand for its hyperposterior."""
    from hbm_core.inference.precomputed import Hyperposterior
    from hbm_core.store.hyper import learned

    path = Path(text)
    found = Hyperposterior.read(path).learned if path.suffix == ".json" else learned(_fit(text))
    for name, one in found.items():
        said = f"{name} ~ {one.prior.text}, {one.divergence:.2g} nats from the earlier batch's posterior"
        typer.echo(f"hbm: {said}", err=True)
    return {name: one.prior for name, one in found.items()}


def _data(study: Study, data: Path | None, dataset: str | None, conditions: Path | None = None) -> Dataset:
    if data is None:
        if conditions is not None:
            raise InputError("--conditions", "--data beside it", "no --data")
        return study.data()
    if dataset is not None:
        raise InputError("data", "either --dataset or --data", "both")
    if conditions is not None:
        return _noted(_two_tables(study, data, conditions))
    return _noted(find_scenario(study.scenario).open(data))


def _two_tables(study: Study, data: Path, conditions: Path) -> Dataset:
    from hbm_core.scenarios.tables import file_title, read_file

    found = find_scenario(study.scenario)
    return found.read(found.joined(read_file(data), read_file(conditions)), label=file_title(str(data)))


def _noted(dataset: Dataset) -> Dataset:
    """Say on stderr what was left out of a data set."""
    for note in dataset.notes:
        typer.echo(f"hbm: {note}", err=True)
    return dataset


def _most_units(count: int, units: str) -> int:
    """How many of `count` units the --units option lists."""
    if units not in ("auto", "all", "none") and not units.isdigit():
        raise InputError("--units", "auto, all, none or a number", repr(units))
    limit = {"auto": count if count <= 1000 else 0, "all": count, "none": 0}
    return limit[units] if units in limit else min(int(units), count)


def _units_shown(names: list[str], units: str) -> list[str]:
    """Filter the units' parameters (names with a bracket) by the --units option."""
    effects = [name for name in names if name.startswith("theta[")]
    kept = set(effects[: _most_units(len(effects), units)])
    return [name for name in names if not name.startswith("theta[") or name in kept]


def parameters_json(summary: pd.DataFrame, units: str = "auto") -> dict[str, Any]:
    """One entry per parameter, in the shape that `hbm exact` and `hbm fit` promise."""
    shown = _units_shown(list(summary.index), units)
    return {str(name): parameter_entry(row) for name, row in summary.loc[shown].iterrows()}


def _summary_text(summary: pd.DataFrame, units: str) -> str:
    shown = summary.loc[_units_shown(list(summary.index), units)]
    return shown.to_string(float_format=lambda value: f"{value:.4g}")


@command
def scenarios(json: JsonFlag = False) -> None:
    """List the scenarios, their data sets, models and parameterizations."""
    value = {
        "scenarios": [
            {
                "id": item.id,
                "title": item.title,
                "datasets": dict(item.datasets),
                "default_dataset": item.default_dataset,
                "default_model": item.default_model,
                "models": [
                    {"id": model.id, "label": model.label, "parameterizations": list(model.parameterizations)}
                    for model in item.models.values()
                ],
                "knobs": {knob.name: knob.default for knob in item.knobs},
            }
            for item in all_scenarios().values()
        ]
    }
    lines = [
        f"{item.id}: {item.title}\n  data sets: {', '.join(item.datasets)}\n"
        f"  models: {', '.join(item.models)}"
        for item in all_scenarios().values()
    ]
    _answer(json, value, lambda: "\n".join(lines))


@command
def simulate(
    scenario: ScenarioName,
    out: Annotated[Path, typer.Option("--out", help="Where the data go: .csv or .parquet.")],
    set: Annotated[list[str] | None, typer.Option("--set", help="KNOB=value; may be repeated.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 1,
    truth: Annotated[Path | None, typer.Option("--truth", help="Where the true values go, as JSON.")] = None,
    json: JsonFlag = False,
) -> None:
    """Simulate data with known truth."""
    if out.suffix not in (".csv", ".parquet"):
        raise InputError("--out", "a name ending in .csv or .parquet", out.name)
    from hbm_core.scenarios.tables import write_rows

    for option, path in (("--out", out), ("--truth", truth)):
        _writable(option, path)
    found, knobs = find_scenario(scenario), _pairs("--set", set)
    dataset = _noted(found.simulate(seed, **knobs))
    # The raw rows where the scenario has such; the data set is then what they come to.
    rows = write_rows(found.rows(seed, **knobs), out) or write_rows([dataset.table], out)
    if truth is not None:
        truth.write_text(_dumps(dict(dataset.truth or {})))
    value = {"scenario": scenario, "rows": rows, "out": str(out), "data": dataset.digest, "seed": seed}
    _answer(json, value, lambda: f"{rows} rows in {out}")


def _writable(option: str, path: Path | None) -> None:
    """Refuse a file in a folder that does not exist before anything is computed for it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(option, "a file in a folder that exists", str(path), "Make the folder first.")


def _dumps(value: Any) -> str:
    return json.dumps(finite(value), ensure_ascii=False)


@command
def exact(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    model: ModelId = None,
    prior: Priors = None,
    constant: Constants = None,
    covariate: Covariates = None,
    prior_from: PriorFrom = None,
    units: Units = "auto",
    json: JsonFlag = False,
) -> None:
    """Compute the exact posterior, without sampling."""
    from hbm_core.inference.exact import solve

    study = _study(scenario, dataset, model, prior, constant, covariate, prior_from, engine="exact")
    chosen = _data(study, data, dataset)
    study = study.suited(chosen) if model is None else study
    begun = time.perf_counter()
    posterior = solve(study.spec(chosen))
    summary = posterior.summary(units=_most_units(posterior.theta.stop - posterior.theta.start, units))
    seconds = time.perf_counter() - begun
    request = study.request(chosen)
    value = {
        "scenario": scenario,
        "model": study.model,
        "parameters": parameters_json(summary, units),
        "diagnostics": {
            "error_sd": posterior.error,
            "error_absolute": posterior.error_absolute,
            "log_evidence": posterior.log_evidence,
            "notes": list(posterior.notes),
        },
        "timings": {"compile": 0.0, "sample": 0.0, "total": seconds},
        "request": request.as_dict(),
        "fit": request.digest,
    }
    notes = "".join(f"\n{note}" for note in posterior.notes)
    text = f"\nExact to {posterior.error:.0e} posterior sd.{notes}"
    _answer(json, value, lambda: _summary_text(summary, units) + text)


@command
def estimate(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    conditions: Companion = None,
    json: JsonFlag = False,
) -> None:
    """Classical answers: moments, no pooling, complete pooling, empirical Bayes."""
    study = _study(scenario, dataset)
    found, chosen = find_scenario(scenario), _data(study, data, dataset, conditions)
    look, table = found.first_look(chosen), found.estimate(chosen)
    value = {
        "scenario": scenario,
        "moments": look.to_dict(orient="records"),
        "estimates": table.to_dict(orient="records"),
    }
    _answer(json, value, lambda: f"{look.to_string(index=False)}\n\n{table.to_string(index=False)}")


@command
def fit(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    conditions: Companion = None,
    model: ModelId = None,
    prior: Priors = None,
    constant: Constants = None,
    covariate: Covariates = None,
    prior_from: PriorFrom = None,
    parameterization: Annotated[str | None, typer.Option("--parameterization")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="nuts, blocked, tempering, variational or exact; the model's usual one if absent.",
        ),
    ] = None,
    draws: Annotated[str | None, typer.Option("--draws", help="Kept draws per chain.")] = None,
    tune: Annotated[str | None, typer.Option("--tune", help="Warm-up draws per chain.")] = None,
    chains: Annotated[str | None, typer.Option("--chains")] = None,
    target_accept: Annotated[str | None, typer.Option("--target-accept")] = None,
    seed: Annotated[str | None, typer.Option("--seed")] = None,
    temperatures: Annotated[
        str | None, typer.Option("--temperatures", help="Of tempering, prior and posterior among them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the result goes as netCDF.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Fit anew.")] = False,
    units: Units = "auto",
    json: JsonFlag = False,
) -> None:
    """Fit a model; a fit that is kept already is shown at once."""
    study = _study(
        scenario, dataset, model, prior, constant, covariate, prior_from,
        parameterization=parameterization, engine=engine, draws=draws, tune=tune, chains=chains,
        target_accept=target_accept, seed=seed, temperatures=temperatures,
    )  # fmt: skip
    _writable("--out", out)
    chosen = _data(study, data, dataset, conditions)
    study = study.suited(chosen) if model is None else study
    request = study.request(chosen)
    if request.engine == "tempering":
        from hbm_core.inference.tempering.target import refuse_improper

        refuse_improper(request.spec(chosen))
    with _engine() as local:
        (local.refit if no_cache else local.submit)(request, chosen, _SESSION)
        if local.status(request.digest).state != "done":
            _compute(local, request.digest)
        status = local.wait(request.digest)
        if status.state != "done":
            raise FitError(status.error or f"The fit is {status.state}.")
        tree, meta = local.result(request.digest), local.meta(request.digest)
    from hbm_core.analysis import draws as tables

    summary = tables.summary(tree)
    if out is not None:
        from hbm_core.store.exchange import Fit, write_fit

        write_fit(out, Fit(request, chosen, tree))
    exact = compared(summary, request.spec(chosen), request.engine)
    value = {
        "scenario": scenario,
        "model": study.model,
        "parameters": parameters_json(summary, units),
        "diagnostics": tables.diagnostics(tree, summary) | {"exact": exact},
        "timings": meta["timings"],
        "request": request.as_dict(),
        "fit": request.digest,
    }
    said = exact["sentence"] if exact else "There is no exact answer to compare with."
    if request.engine == "variational":
        said += f" Pareto's k is {tree.attrs['k_hat']:.2f} (0.7 is the limit), ELBO {tree.attrs['elbo']:.2f}."
    if request.engine == "tempering":
        from hbm_core.analysis.tempering import sentence

        said += f" {sentence(tree)}"
    text = f"\n{said}\nFit {request.digest[:12]}"
    _answer(json, value, lambda: _summary_text(summary, units) + text)


#: Whose interest the command line's fits are.
_SESSION = "command-line"


def _engine() -> LocalEngine:
    from hbm_core.store.local import LocalEngine

    return LocalEngine()


def _compute(local: LocalEngine, id: str) -> None:
    """Run a fit that was asked for: in this process, or on the cluster of HBM_SCHEDULER."""
    if not local.settings.scheduler:
        from hbm_core.store.worker import compute_here

        compute_here(local.settings, id)
        return
    from hbm_core.store.cluster import compute_there

    try:
        compute_there(local.settings, id)
    except StoreError:
        local.cancel(id, _SESSION)
        raise


@contextmanager
def _spread() -> Iterator[Spread]:
    """Where the parts of a study are computed: here, or on the cluster of HBM_SCHEDULER."""
    from hbm_core.analysis.spread import in_turn
    from hbm_core.store.settings import Settings

    settings = Settings.from_environment()
    if not settings.scheduler:
        yield in_turn
        return
    from hbm_core.store.cluster import ClusterSpread

    cluster = ClusterSpread(settings.scheduler)
    try:
        yield cluster
    finally:
        cluster.close()


def _fit(text: str) -> Fit:
    """A fit by id, by the first digits of one, or by file."""
    from hbm_core.store.exchange import Fit, read_fit

    if Path(text).is_file():
        return read_fit(Path(text))
    with _engine() as local:
        id = _id(local, text)
        return Fit(local.request(id), local.dataset(id), local.result(id))


def _id(local: LocalEngine, text: str) -> str:
    found = [job.id for job in local.table.jobs() if job.id.startswith(text)] if len(text) >= 4 else []
    if len(found) != 1:
        expected = "a result file, or the id of a kept fit or at least its first 4 digits"
        got = f"{text!r}, which {len(found)} fits begin with" if found else repr(text)
        raise InputError("fit", expected, got, "`hbm fits` lists them.")
    return found[0]


@command
def precompute(
    batch: Annotated[str, typer.Argument(metavar="FIT|SCENARIO", help="A completed batch.")],
    out: Annotated[Path, typer.Option("--out", help="Where the hyperposterior goes: .json.")],
    dataset: DatasetName = None,
    data: DataFile = None,
    model: ModelId = None,
    prior: Priors = None,
    json: JsonFlag = False,
) -> None:
    """Keep what a completed batch says about new experiments, for `hbm score` and `--prior-from`."""
    from hbm_core.store.hyper import precompute as make

    if out.suffix != ".json":
        raise InputError("--out", "a name ending in .json", out.name)
    begun = time.perf_counter()
    if batch in all_scenarios():
        study = _study(batch, dataset, model, prior, engine="exact")
        chosen = _data(study, data, dataset)
        request = study.request(chosen)
    elif any(value is not None for value in (dataset, data, model, prior)):
        raise InputError("options", "none beside a fit, which has its own data and model", "others")
    else:
        found = _fit(batch)
        request, chosen = found.request, found.dataset
    hyper = make(request, chosen)
    hyper.write(out)
    value = {
        "out": str(out),
        "digest": hyper.digest,
        "nodes": hyper.weights.size,
        "groups": list(hyper.groups),
        "learned": {name: one.as_dict() for name, one in hyper.learned.items()},
        "source": dict(hyper.source),
        "timings": {"total": time.perf_counter() - begun},
    }
    size = f"{hyper.weights.size} nodes, {len(hyper.groups)} {hyper.levels[1]}s"
    _answer(json, value, lambda: f"{chosen.label}: {size} in {out}")


@command
def score(
    hyper: Annotated[Path, typer.Argument(metavar="FILE", help="Written by `hbm precompute`.")],
    effect: Annotated[float | None, typer.Option("--effect", help="Estimated effect.")] = None,
    se: Annotated[float | None, typer.Option("--se", help="Its standard error.")] = None,
    genre: Annotated[str | None, typer.Option("--genre", help="Its group; unknown: a new one.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Many experiments, CSV or Parquet.")] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="For P(effect > threshold).")] = 0.0,
    json: JsonFlag = False,
) -> None:
    """Read new experiments out from a precomputed batch, without a fit."""
    import numpy as np

    from hbm_core.inference.precomputed import Hyperposterior
    from hbm_core.store.hyper import Experiments

    batch = Hyperposterior.read(hyper)
    if data is not None:
        if (effect, se, genre) != (None, None, None):
            raise InputError("experiments", "either --data or --effect and --se", "both")
        new = Experiments.open(data, batch)
    elif effect is None or se is None:
        raise InputError("experiment", "--effect and --se, or --data", "neither")
    else:
        new = Experiments(["new"], np.array([effect]), np.array([se]), [genre])
    begun = time.perf_counter()
    table, found = new.table(batch, threshold)
    seconds = time.perf_counter() - begun
    value = {
        "readouts": table.to_dict(orient="records"),
        "threshold": threshold,
        "hyper": batch.digest,
        "source": dict(batch.source),
        "timings": {"score": seconds, "each": seconds / len(table)},
    }
    far = (
        f"\nFar from anything in the batch, refit with them: {int(found.far.sum())}."
        if found.far.any()
        else ""
    )
    shown = table.drop(columns=["known", "far"])
    text = shown.head(50).to_string(index=False, float_format=lambda number: f"{number:.4g}")
    more = f"\n… {len(table) - 50:,} more; --json prints all." if len(table) > 50 else ""
    _answer(json, value, lambda: text + more + far)


@command
def check(fit: FitId, json: JsonFlag = False) -> None:
    """Print the falsification report of a fit: criterion, threshold, measured, verdict, advice."""
    from hbm_core.analysis.checks import falsification_report
    from hbm_core.inference.exact import solve

    found = _fit(fit)
    spec = found.request.spec(found.dataset)
    scenario = find_scenario(found.request.scenario)
    try:
        posterior = solve(spec)
    except InputError:
        posterior = None
    report = falsification_report(spec, posterior, found.tree, plausible=scenario.plausible(found.dataset))
    counts = report["verdict"].value_counts().to_dict()
    value = {"fit": found.request.digest, "verdicts": counts, "report": report.to_dict(orient="records")}
    _answer(json, value, lambda: _report_text(report))


def _report_text(report: pd.DataFrame) -> str:
    """The report as people read it: a line per criterion, advice under those that need it."""
    lines: list[str] = []
    for group, rows in report.groupby("group", sort=False):
        lines += ["", str(group).capitalize()]
        for row in rows.to_dict("records"):
            lines.append(f"  {row['verdict']:<15}{row['criterion']}: {row['measured']}")
            if row["advice"]:
                lines.append(f"{'':17}{row['advice']}")
    return "\n".join(lines[1:])


@command
def coverage(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    model: ModelId = None,
    prior: Priors = None,
    replications: Annotated[int, typer.Option("--replications", help="Simulated data sets.")] = 1000,
    tau: Annotated[
        list[float] | None,
        typer.Option("--tau", help="A fixed true spread; may be repeated. Drawn from the prior by default."),
    ] = None,
    effects: Annotated[str, typer.Option("--effects", help="normal, student_t or clusters.")] = "normal",
    nu: Annotated[float, typer.Option("--nu", help="Degrees of freedom of student_t effects.")] = 4.0,
    se_factor: Annotated[float, typer.Option("--se-factor", help="True noise over reported se.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 42,
    json: JsonFlag = False,
) -> None:
    """Simulate worlds with these standard errors and see what each estimator's intervals cover."""
    from hbm_core.analysis.coverage import Truth, coverage_study
    from hbm_core.analysis.promise import infinite, lab_priors

    _check_replications(replications, 2)
    study = _study(scenario, dataset, model, prior)
    begun = time.perf_counter()
    if (own := find_scenario(scenario)).own_lab:
        others = (data, dataset, *(tau or ()), effects != "normal" or None, se_factor != 1 or None)
        if any(value is not None for value in others):
            raise InputError("options", f"none on the data: {scenario} simulates its own", "others")
        table = own.recovery(replications, seed, study.model, study.priors)
        chosen = study.spec(study.data()).priors
        _coverage_answer(table, study, chosen, replications, seed, begun, json)
        return
    spec = study.spec(_data(study, data, dataset))
    priors = lab_priors(spec)
    center = float(priors["mu"].distribution.mean()) if priors["mu"].proper else 0.0
    parts = []
    worlds: list[float | None] = [*tau] if tau else [None]
    for value in worlds:
        truth = Truth(
            se=tuple(spec.structure.se),
            mu=priors["mu"] if value is None else center,
            tau=priors["tau"] if value is None else value,
            effects=effects,  # type: ignore[arg-type]
            nu=nu,
            se_factor=se_factor,
        )
        with _spread() as spread:
            part = coverage_study(
                truth, {"partial": priors}, replications=replications, seed=seed, spread=spread
            )
        part = infinite(part, priors["tau"].tail if value is None else float("inf"))
        part.insert(1, "tau", value)
        parts.append(part)
    table = pd.concat([part.astype({"tau": float}) for part in parts], ignore_index=True)
    _coverage_answer(table, study, priors, replications, seed, begun, json)


def _coverage_answer(
    table: pd.DataFrame,
    study: Study,
    priors: Mapping[str, Prior],
    replications: int,
    seed: int,
    begun: float,
    as_json: bool,
) -> None:
    found = {
        "scenario": study.scenario,
        "model": study.model,
        "priors": {name: item.text for name, item in priors.items()},
        "replications": replications,
        "seed": seed,
        "rows": table.to_dict(orient="records"),
        "timings": {"total": time.perf_counter() - begun},
    }
    known = ["estimator", "tau", "bin", "level", "coverage", "coverage_se", "width", "rmse", "bias"]
    columns = [name for name in known if name in table]
    shown = table[table["level"] == 0.95][columns]
    _answer(as_json, found, lambda: shown.to_string(index=False, float_format=lambda v: f"{v:.4g}"))


def _check_replications(count: int, least: int) -> None:
    from hbm_core.store.settings import Settings

    most = Settings.from_environment().max_replications
    if not least <= count <= most:
        hint = "HBM_MAX_REPLICATIONS is the limit." if count > most else ""
        raise InputError("--replications", f"a whole number from {least} to {most:,}", count, hint)


@command
def sbc(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    model: ModelId = None,
    prior: Priors = None,
    constant: Constants = None,
    covariate: Covariates = None,
    replications: Annotated[int, typer.Option("--replications", help="Simulated data sets.")] = 200,
    engine: Annotated[str, typer.Option("--engine", help="exact, nuts, tempering or variational.")] = "exact",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 42,
    json: JsonFlag = False,
) -> None:
    """Simulation-based calibration: whether posteriors rank the truth evenly."""
    from hbm_core.analysis.coverage import sbc_pit, uniformity
    from hbm_core.analysis.ranked import STUDIES, solver

    if engine != "exact" and engine not in STUDIES:
        raise InputError("--engine", "one of exact, " + ", ".join(STUDIES), repr(engine))
    _check_replications(replications, 10)
    study = _study(scenario, dataset, model, prior, constant, covariate, engine="exact")
    chosen = _data(study, data, dataset)
    study = study.suited(chosen) if model is None else study
    spec = study.spec(chosen)
    begun = time.perf_counter()
    options: dict[str, Any] = {}
    if engine != "exact":
        options["solver"] = solver(engine)
    with _spread() as spread:
        verdict = uniformity(sbc_pit(spec, replications, seed, spread=spread, **options))
    seconds = time.perf_counter() - begun
    found = {
        "scenario": scenario,
        "model": study.model,
        "engine": engine,
        **verdict,
        "seed": seed,
        "timings": {"total": seconds},
    }
    said = "Calibrated" if verdict["passed"] else "Not calibrated"
    text = (
        f"{said}: largest departure {verdict['statistic']:.2f} ({verdict['worst']}), "
        f"{verdict['threshold']:.2f} allowed, {replications} data sets, {seconds:.1f} s"
    )
    _answer(json, found, lambda: text)


@command
def code(fit: FitId, json: JsonFlag = False) -> None:
    """Print a stand-alone PyMC script that reproduces a fit."""
    from hbm_core.report.code import script

    found = _fit(fit)
    text = script(
        found.request.spec(found.dataset),
        found.request.sampler,
        f"{found.dataset.label}, {found.request.model}",
        found.request.engine,
    )
    _answer(json, {"fit": found.request.digest, "code": text}, lambda: text)


@command
def fits(
    action: Annotated[str, typer.Argument(help="list, show, cancel, pin, unpin, delete or export.")] = "list",
    fit: Annotated[str | None, typer.Argument(help="A fit's id.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="For export: .nc or .csv.")] = None,
    json: JsonFlag = False,
) -> None:
    """List, show, cancel, pin, unpin, delete or export kept fits."""
    actions = ("list", "show", "cancel", "pin", "unpin", "delete", "export")
    if action not in actions:
        raise InputError("action", "one of " + ", ".join(actions), repr(action))
    with _engine() as local:
        if action == "list":
            rows = [_job_row(job) for job in local.table.jobs()]
            empty = "No fits are kept yet. `hbm fit schools` makes the first."
            _answer(
                json, {"fits": rows}, lambda: pd.DataFrame(rows).to_string(index=False) if rows else empty
            )
            return
        if fit is None:
            raise InputError("fit", "the id of a kept fit", "none", "`hbm fits` lists them.")
        id = _id(local, fit)
        row = {**_job_row(local.table.get(id)), "id": id}
        match action:
            case "show":
                row |= {"request": local.request(id).as_dict()}
                if row["state"] == "done":
                    row |= {"summary": local.summary(id), "timings": local.meta(id)["timings"]}
            case "cancel":
                for session in local.table.sessions(id):
                    local.cancel(id, session)
            case "pin" | "unpin":
                local.pin(id, action == "pin")
            case "delete":
                from hbm_core.store.retention import delete

                if not delete(local.table, local.results, id):
                    raise FitError(f"The fit {id[:12]} is running. Cancel it first.")
            case "export":
                _export(local, id, out)
        _answer(json, {"action": action, **row}, lambda: f"{action}: {row['label']} ({id[:12]})")


def _job_row(job: Job | None) -> dict[str, Any]:
    if job is None:
        raise FitError("The fit has gone meanwhile.")
    return {
        "id": job.id[:12],
        "state": job.state,
        "label": job.label,
        "bytes": job.bytes,
        "pinned": job.pinned,
        "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created)),
        "error": job.error,
    }


def _export(local: LocalEngine, id: str, out: Path | None) -> None:
    from hbm_core.scenarios.tables import csv_text
    from hbm_core.store.exchange import Fit, write_fit
    from hbm_core.store.summary import draws_table

    if out is None or out.suffix not in (".nc", ".csv"):
        raise InputError("--out", "a name ending in .nc or .csv", out and out.name)
    tree = local.result(id)
    if out.suffix == ".csv":
        out.write_text(csv_text(draws_table(tree)), encoding="utf-8")
    else:
        write_fit(out, Fit(local.request(id), local.dataset(id), tree))


@command
def gallery(
    build: Annotated[bool, typer.Option("--build", help="Fit the default studies anew.")] = False,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", help="Only this; may repeat.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the fits that come with the program, or make them anew."""
    from hbm_core.store import gallery as fits

    if scenario is not None and not build:
        raise InputError("--scenario", "--build beside it", "no --build")
    found = fits.build(scenario) if build else fits.shipped()
    rows = [
        {"id": one.id[:12], "label": one.ask.label, "state": one.state, "bytes": one.bytes} for one in found
    ]
    _answer(json, {"gallery": rows}, lambda: pd.DataFrame(rows).to_string(index=False))


@command
def worker(
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of fits, data and the job table.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="A Dask scheduler, tcp://host:port, to work for instead."),
    ] = None,
) -> None:
    """Run one more worker on a store, or a cluster's worker, until it is stopped."""
    if scheduler is not None:
        import os

        from hbm_core.store.cluster_worker import command as started
        from hbm_core.store.settings import Settings

        if store is not None:
            raise InputError("worker", "either --store or --scheduler", "both")
        line, environment = started(Settings(scheduler=scheduler).scheduler)
        os.execve(line[0], line, environment)
    from hbm_core.store.worker import main as work

    sys.argv = ["hbm-worker", *(["--store", str(store)] if store else [])]
    work()


@command
def serve(
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option("--address", help="Interface to listen on.")] = "localhost",
    base_path: Annotated[str, typer.Option("--base-path", help="Path under which the app is served.")] = "",
    store: Annotated[Path | None, typer.Option("--store", help="Folder of fits and data.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="A Dask scheduler, tcp://host:port, whose workers fit.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Fits computed at once, here.")] = None,
) -> None:
    """Start the app: web server and workers."""
    import os
    import re

    from hbm_core.store.settings import Settings

    settings = Settings.from_environment(store=store, scheduler=scheduler, workers=workers)
    path = base_path.strip("/")
    if not re.fullmatch(r"[\w.~/-]*", path, re.ASCII):
        raise InputError("--base-path", "letters, digits, - _ . ~ and /", repr(base_path))
    _free(address, port)
    try:
        settings.store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The store {settings.store} cannot be made: {error.strerror}. Choose another with --store."
        ) from error
    os.environ |= settings.environment()
    # Many small problems at once: threads inside one of them only get in each other's way.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    root = Path(__file__).parents[1]
    os.chdir(root)
    options = [f"--server.port={port}", f"--server.address={address}", "--server.headless=true"]
    if path:
        options.append(f"--server.baseUrlPath={path}")
    # One limit, said once: the browser refuses what the server would.
    options.append(f"--server.maxUploadSize={settings.upload_mb}")
    options += [f"--server.allowedHosts={host}" for host in settings.hosts]
    command = [sys.executable, "-m", "streamlit", "run", str(root / "app.py"), *options]
    os.execv(sys.executable, command)


def _free(address: str, port: int) -> None:
    """Raise InputError where the server could not listen, before anything is started."""
    import errno
    import socket

    try:
        kind, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
    except socket.gaierror:
        raise InputError(
            "--address", "an address or a name of this machine", address, "0.0.0.0 is all of them."
        ) from None
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                raise InputError(
                    "--port",
                    "a free port",
                    f"{port}, which is in use",
                    "Stop what uses it, or choose another.",
                ) from None
            case errno.EACCES:
                raise InputError(
                    "--port",
                    "a port that you may use",
                    port,
                    "Those below 1024 need rights; choose a higher one.",
                ) from None
        raise InputError("--address", "an address of this machine", address, f"({error.strerror})") from None


def main() -> None:
    """Entry point: what the option parser refuses is bad input too, said in one line."""
    try:
        code = app(standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 1
    except typer.TyperException as problem:
        # Without a command its help is the message.
        if text := " ".join(problem.format_message().split()):
            typer.echo(f"hbm: {text}", err=True)
        code = 2
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
