"""The script is the same model: its density point by point, and its draws when run with plain Python."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hbm_core.analysis.draws import summary
from hbm_core.inference.nuts import sample
from hbm_core.inference.sampler import Sampler
from hbm_core.models.pymc_model import build
from hbm_core.models.structure import PARAMETERIZATIONS, ModelSpec, TwoLevelNormal
from hbm_core.report.code import script
from tests.models.test_pymc_model import MODELS, PRECISION, eight_schools

SPECS = [
    *(
        eight_schools(parameterization, **variation)
        for name, variation in MODELS.items()
        for parameterization in PARAMETERIZATIONS
        if not (parameterization == "collapsed" and name.startswith("robust"))
    ),
    eight_schools("centered", pooling="complete"),
    eight_schools("centered", pooling="complete", design=PRECISION[:, None], columns=("x",)),
    eight_schools("centered", pooling="none"),
    eight_schools("centered", {"theta": "Flat()"}, pooling="none"),
    eight_schools("noncentered", {"tau": "Flat()", "mu": "Flat()"}),
    eight_schools("noncentered", {"tau": "HalfStudentT(4, 300)", "mu": "StudentT(3, 0, 100000)"}),
    eight_schools("centered", {"tau": "InverseGamma(2, 300)", "mu": "Uniform(-1000, 1000)"}),
    eight_schools("collapsed", {"tau": "Uniform(0, 50)", "mu": "StudentT(3, 1e-7, 2.5)"}),
]


def model_of(source):
    """The script's model, without sampling it."""
    namespace = {}
    exec(source.split("fit = nutpie.sample")[0], namespace)
    return namespace["model"]


@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: "-".join(map(str, [*spec.priors, spec.parameterization]))
)
def test_same_density_as_the_compiled_model(spec):
    ours, scripts = build(spec), model_of(script(spec, Sampler(), "Eight schools"))
    start = ours.initial_point()
    assert list(start) == list(scripts.initial_point())
    densities = [model.compile_logp(mode="FAST_COMPILE") for model in (ours, scripts)]
    rng = np.random.default_rng(1)
    differences = []
    for _ in range(3):
        point = {name: rng.normal(1.0, 0.7, np.shape(value)) for name, value in start.items()}
        got = [float(density(point)) for density in densities]
        assert abs(got[1] - got[0]) < 1e-5
        differences.append(got[1] - got[0])
    # PyMC holds constants such as log 2π in single precision, folded in one of the two: one offset for all.
    assert np.ptp(differences) < 1e-9 * abs(got[0])


def test_any_title_and_label_is_text_and_nothing_else():
    hostile = (
        '"""',
        "\\",
        "a'b\"c",
        "new\nline",
        "{x}",
        "Ünï 日本",
        "\u2028",
        "# coding: latin-1",
        "')]; 1/0",
    )
    structure = TwoLevelNormal(
        np.arange(9.0), np.ones(9), hostile, design=np.arange(9.0)[:, None], columns=('"\n',)
    )
    base = eight_schools(design=PRECISION[:, None], columns=("x",))
    spec = ModelSpec(structure, base.priors)
    source = script(spec, Sampler(), '"""\nimport os\\\n"""; \x00 raise SystemExit')
    namespace = {}
    exec(source.split("with pm.Model")[0], namespace)
    assert tuple(namespace["units"]) == hostile
    assert namespace["columns"] == ['"\n']
    assert "raise SystemExit" in namespace["__doc__"]
    assert set(namespace) - {"__builtins__", "__doc__"} == {
        *("az", "np", "nutpie", "pm"),
        *("units", "effect", "se", "columns", "design"),
    }


def test_long_data_are_wrapped_and_read_back_exactly():
    rng = np.random.default_rng(0)
    structure = TwoLevelNormal(
        rng.normal(size=300), rng.gamma(2, size=300), tuple(f"unit {i}" for i in range(300))
    )
    spec = ModelSpec(structure, eight_schools().priors)
    source = script(spec, Sampler(), "Many units")
    assert max(map(len, source.splitlines())) <= 110
    namespace = {}
    exec(source.split("with pm.Model")[0], namespace)
    assert np.array_equal(namespace["effect"], structure.effect)
    assert np.array_equal(namespace["se"], structure.se)
    assert tuple(namespace["units"]) == structure.units


def test_settings_are_the_fits_own():
    source = script(eight_schools(), Sampler(123, 456, 3, 0.87, 99), "Settings")
    for setting in ("draws=123", "tune=456", "chains=3", "target_accept=0.87", "seed=99"):
        assert setting in source


REPORT = """
import json, sys
table = posterior if "posterior" in globals() else fit.posterior
json.dump({name: table[name].values.reshape(-1, *table[name].shape[2:]).tolist()
           for name in ("mu", "tau", "theta")}, open(sys.argv[1], "w"))
"""


@pytest.mark.sampling
def test_run_alone_it_reproduces_the_fit(tmp_path, compile_cache):
    sampler = Sampler(draws=1000, tune=1000)
    specs = {
        "noncentered": eight_schools("noncentered"),
        "collapsed": eight_schools("collapsed"),
    }
    running = {}
    for name, spec in specs.items():
        path = tmp_path / f"{name}.py"
        path.write_text(script(spec, sampler, f"Eight schools, {name}") + REPORT, encoding="utf-8")
        command = [sys.executable, str(path), str(tmp_path / f"{name}.json")]
        running[name] = subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    for name, process in running.items():
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "theta[H]" in printed and "r_hat" in printed
        table = summary(sample(specs[name], sampler, cache=compile_cache))
        draws = json.loads((tmp_path / f"{name}.json").read_text())
        rows = np.column_stack([draws["mu"], draws["tau"], np.array(draws["theta"])])
        # Two independent runs of the same length: the error of a difference is √2 of one's.
        z = (rows.mean(0) - table["mean"]) / (np.sqrt(2) * table["mcse_mean"])
        assert np.abs(z).max() < 4
        z = (rows.std(0, ddof=1) - table["sd"]) / (np.sqrt(2) * table["mcse_sd"])
        assert np.abs(z).max() < 4
