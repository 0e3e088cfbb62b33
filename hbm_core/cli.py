"""The command ``hbm``: the same functions as the app and a notebook, with text or JSON answers.

Every command exits 0, or 2 with a one-line message on bad input, or 1 on failure.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import pandas as pd
import typer

from hbm_core.errors import FitError, InputError
from hbm_core.models.dataset import Dataset
from hbm_core.scenarios import scenario as find_scenario
from hbm_core.scenarios import scenarios as all_scenarios
from hbm_core.store.study import Study

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
ScenarioName = Annotated[str, typer.Argument(metavar="SCENARIO", help="See `hbm scenarios`.")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="A built-in data set.")]
DataFile = Annotated[Path | None, typer.Option("--data", help="A CSV or Parquet file.")]
ModelId = Annotated[str | None, typer.Option("--model", help="A model of the scenario.")]
Priors = Annotated[list[str] | None, typer.Option("--prior", help="NAME=Family(numbers); may be repeated.")]
Constants = Annotated[list[str] | None, typer.Option("--constant", help="NAME=value; may be repeated.")]
Covariates = Annotated[list[str] | None, typer.Option("--covariate", help="A column; may be repeated.")]
Units = Annotated[str, typer.Option("--units", help="auto (up to 1,000), all, none, or a number.")]
FitId = Annotated[str, typer.Argument(metavar="FIT", help="A fit's id, or a result file.")]


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Turn a function into a command whose errors become messages and exit codes."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except InputError as problem:
            _stop(2, str(problem))
        except (FitError, OSError) as problem:
            _stop(1, str(problem))

    return app.command(name=function.__name__.strip("_").replace("_", "-"))(run)


def _stop(code: int, message: str) -> NoReturn:
    typer.echo("hbm: " + " ".join(message.split()), err=True)
    raise typer.Exit(code)


def _answer(as_json: bool, value: Mapping[str, Any], text: Callable[[], str]) -> None:
    if as_json:
        typer.echo(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(text())


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say: NaN and infinities become null, arrays lists."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise InputError(option, "NAME=value", repr(text))
        found[name.strip()] = value.strip()
    return found


def _study(
    scenario: str,
    dataset: str | None = None,
    model: str | None = None,
    prior: list[str] | None = None,
    constant: list[str] | None = None,
    covariate: list[str] | None = None,
    **others: Any,
) -> Study:
    """Build a study through the same reading as a link's parameters."""
    query = {"scenario": scenario}
    query |= {key: str(value) for key, value in (("dataset", dataset), ("model", model)) if value is not None}
    query |= {f"prior.{name}": text for name, text in _pairs("--prior", prior).items()}
    query |= {f"constant.{name}": text for name, text in _pairs("--constant", constant).items()}
    if covariate:
        query["covariates"] = "|".join(covariate)
    query |= {key: str(value) for key, value in others.items() if value is not None}
    return Study.from_query(query)


def _data(study: Study, data: Path | None, dataset: str | None) -> Dataset:
    if data is None:
        return study.data()
    if dataset is not None:
        raise InputError("data", "either --dataset or --data", "both")
    from hbm_core.scenarios.tables import read_file

    return find_scenario(study.scenario).read(read_file(data), label=data.name)


def _units_shown(names: list[str], units: str) -> list[str]:
    """Filter the units' parameters (names with a bracket) by the --units option."""
    if units not in ("auto", "all", "none") and not units.isdigit():
        raise InputError("--units", "auto, all, none or a number", repr(units))
    effects = [name for name in names if name.startswith("theta[")]
    limit = {"auto": len(effects) if len(effects) <= 1000 else 0, "all": len(effects), "none": 0}
    kept = set(effects[: limit[units] if units in limit else int(units)])
    return [name for name in names if not name.startswith("theta[") or name in kept]


def parameters_json(summary: pd.DataFrame, units: str = "auto") -> dict[str, Any]:
    """One entry per parameter, in the shape that `hbm exact` and `hbm fit` promise."""
    quantiles = [column for column in summary.columns if column.startswith("q")]
    extra = [name for name in ("ess_bulk", "ess_tail", "r_hat", "mcse_mean") if name in summary.columns]
    found = {}
    for name in _units_shown(list(summary.index), units):
        row = summary.loc[name]
        found[name] = {
            "mean": row["mean"],
            "sd": row["sd"],
            "q": {column[1:]: row[column] for column in quantiles},
            "hdi95": [row["hdi95_low"], row["hdi95_high"]],
            **{key: row[key] for key in extra},
        }
    return found


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
    dataset = find_scenario(scenario).simulate(seed, **_pairs("--set", set))
    if out.suffix == ".csv":
        dataset.table.to_csv(out, index=False)
    else:
        dataset.table.to_parquet(out, index=False)
    if truth is not None:
        truth.write_text(_dumps(dict(dataset.truth or {})))
    rows = len(dataset.table)
    value = {"scenario": scenario, "rows": rows, "out": str(out), "data": dataset.digest, "seed": seed}
    _answer(json, value, lambda: f"{rows} rows in {out}")


def _dumps(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False)


@command
def exact(
    scenario: ScenarioName,
    dataset: DatasetName = None,
    data: DataFile = None,
    model: ModelId = None,
    prior: Priors = None,
    constant: Constants = None,
    covariate: Covariates = None,
    units: Units = "auto",
    json: JsonFlag = False,
) -> None:
    """Compute the exact posterior, without sampling."""
    from hbm_core.inference.exact import solve

    study = _study(scenario, dataset, model, prior, constant, covariate, engine="exact")
    chosen = _data(study, data, dataset)
    begun = time.perf_counter()
    posterior = solve(study.spec(chosen))
    summary = posterior.summary()
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
    scenario: ScenarioName, dataset: DatasetName = None, data: DataFile = None, json: JsonFlag = False
) -> None:
    """Classical answers: moments, no pooling, complete pooling, empirical Bayes."""
    study = _study(scenario, dataset)
    found, chosen = find_scenario(scenario), _data(study, data, dataset)
    look, table = found.first_look(chosen), found.estimate(chosen)
    value = {
        "scenario": scenario,
        "moments": look.to_dict(orient="records"),
        "estimates": table.to_dict(orient="records"),
    }
    _answer(json, value, lambda: f"{look.to_string(index=False)}\n\n{table.to_string(index=False)}")


@command
def serve(
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8501,
    address: Annotated[str, typer.Option("--address", help="Interface to listen on.")] = "localhost",
    base_path: Annotated[str, typer.Option("--base-path", help="Path under which the app is served.")] = "",
    store: Annotated[Path | None, typer.Option("--store", help="Folder of fits and data.")] = None,
) -> None:
    """Start the app: web server and workers."""
    import os

    from streamlit.web import cli as streamlit_cli

    if store is not None:
        os.environ["HBM_STORE"] = str(store.resolve())
    root = Path(__file__).parents[1]
    os.chdir(root)
    options = [f"--server.port={port}", f"--server.address={address}", "--server.headless=true"]
    if base_path:
        options.append(f"--server.baseUrlPath={base_path.strip('/')}")
    sys.argv = ["streamlit", "run", str(root / "app.py"), *options]
    streamlit_cli.main()


def main() -> None:
    """Entry point: what the option parser refuses is bad input too, said in one line."""
    from click.exceptions import Abort, ClickException, Exit

    try:
        code = app(standalone_mode=False)
    except Exit as stop:
        code = stop.exit_code
    except Abort:
        code = 1
    except ClickException as problem:
        typer.echo("hbm: " + " ".join(problem.format_message().split()), err=True)
        code = 2
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
