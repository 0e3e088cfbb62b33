import numpy as np
import pytest

from hbm_core.errors import InputError
from hbm_core.models.prior import Prior
from hbm_core.models.structure import ModelSpec, TwoLevelNormal

EFFECT, SE, UNITS = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]), ("a", "b", "c")
MU, TAU = Prior.parse("Normal(0, 20)"), Prior.parse("HalfCauchy(10)")


def structure(**shape):
    return TwoLevelNormal(EFFECT, SE, UNITS, **shape)


@pytest.mark.parametrize(
    ("shape", "parameters", "parameterizations"),
    [
        ({}, ("mu", "tau"), {"centered", "noncentered", "partial", "collapsed"}),
        ({"scale": "adaptive"}, ("mu", "tau"), {"centered", "noncentered", "partial", "collapsed"}),
        ({"pooling": "complete"}, ("mu",), {"centered"}),
        ({"pooling": "none"}, ("theta",), {"centered"}),
        ({"likelihood": "student_t"}, ("mu", "tau", "nu"), {"centered", "noncentered", "partial"}),
        ({"effects": "student_t"}, ("mu", "tau", "nu"), {"centered", "noncentered", "partial"}),
        (
            {"design": np.ones((3, 1)), "columns": ("x",)},
            ("mu", "tau", "beta"),
            {"centered", "noncentered", "partial", "collapsed"},
        ),
    ],
)
def test_shape_decides_parameters_and_geometries(shape, parameters, parameterizations):
    made = structure(**shape)
    assert made.parameters == parameters
    assert set(made.parameterizations) == parameterizations


def test_arrays_cannot_be_written_and_leave_the_callers_alone():
    effect = EFFECT.copy()
    made = TwoLevelNormal(effect.astype("float32"), SE.tolist(), UNITS)
    assert made.effect.dtype == made.se.dtype == float
    for array in (made.effect, made.se, made.design):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert made.typical_se == 2


@pytest.mark.parametrize(
    ("effect", "se"),
    [
        ([], []),
        ([1.0, 2.0], [1.0]),
        ([1.0, np.nan], [1.0, 1.0]),
        ([1.0, 2.0], [1.0, 0.0]),
        ([1.0, 2.0], [1.0, -1.0]),
        ([1.0, 2.0], [1.0, np.inf]),
    ],
)
def test_data_that_no_engine_can_use_are_refused(effect, se):
    with pytest.raises(InputError, match="effects and standard errors"):
        TwoLevelNormal(np.array(effect), np.array(se), ("a", "b"))


def test_spec_orders_its_priors_and_cannot_be_written():
    spec = ModelSpec(structure(), {"tau": TAU, "mu": MU})
    assert list(spec.priors) == ["mu", "tau"]
    with pytest.raises(TypeError):
        spec.priors["mu"] = TAU


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"mu": MU}, "prior on tau"),
        ({"mu": MU, "tau": TAU, "nu": TAU}, "mu, tau"),
        ({"mu": MU, "tau": MU}, "cannot be negative"),
        ({"mu": MU, "tau": Prior.parse("Uniform(-1, 1)")}, "cannot be negative"),
    ],
)
def test_priors_must_suit_the_parameters(priors, message):
    with pytest.raises(InputError, match=message):
        ModelSpec(structure(), priors)


def test_a_flat_prior_on_a_positive_parameter_means_flat_above_zero():
    assert ModelSpec(structure(), {"mu": MU, "tau": Prior("Flat")}).priors["tau"].text == "Flat()"


def test_geometry_must_apply():
    with pytest.raises(InputError, match="centered"):
        ModelSpec(structure(pooling="complete"), {"mu": MU}, parameterization="noncentered")
