"""Declarations of mechanisms: what is read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hbm_core.errors import InputError
from hbm_core.models.kinetics.absorption import ABSORPTION
from hbm_core.models.kinetics.mechanism import Mechanism, Parameter
from hbm_core.models.kinetics.program import Experiment, program
from hbm_core.models.kinetics.rna import CIRCUITS

K = {"k": Parameter("k", 0.1, 0.5, "1/min", "a rate"), "K": Parameter("K", 5, 0.5, "nM", "a constant")}


def test_circuits_know_their_parameters_and_plasmids() -> None:
    assert CIRCUITS["constitutive"].names == ("k_tx", "K_tx", "k_rna_deg", "k_tl", "K_tl", "k_mat")
    assert CIRCUITS["cascade"].inputs == ("star", "sense_trigger", "toehold_gfp")
    assert len(CIRCUITS["incoherent_ffl"].names) == 18
    assert ABSORPTION.names == ("ka", "ke", "Cl")


def test_every_circuit_conserves_what_it_declares() -> None:
    """A reaction's text says what its parsed changes do."""
    for circuit in CIRCUITS.values():
        for reaction in circuit.parsed:
            left, _, right = reaction.text.partition(":")[0].partition("->")
            for name, change in reaction.changes:
                assert change == (name in right.split()) - (name in left.split())


@pytest.mark.parametrize(
    "reactions, initial, part",
    [
        ("x : k * x", {}, "'a -> b : k \\* a'"),
        ("x -> : k * z", {}, "a parameter, a species"),
        ("x -> : k * x * x * x", {}, "at most two species"),
        ("x -> : k * x / (x + K)", {}, "a division like"),
        ("y -> : k * y", {}, "an observed species"),
        ("x -> 2y! : k * x", {}, "names of species"),
    ],
)
def test_what_is_no_mechanism_is_refused(reactions: str, initial: dict, part: str) -> None:
    with pytest.raises(InputError, match=part):
        _ = Mechanism("m", "M", reactions, K, "x", initial).parsed


def test_experiments_refuse_odd_times_and_inputs() -> None:
    with pytest.raises(InputError, match="ascend"):
        Experiment(ABSORPTION, ({"dose": 4.0},), np.array([1.0, 1.0]))
    with pytest.raises(InputError, match="dose"):
        Experiment(ABSORPTION, ({"does": 4.0},), np.array([1.0]))
    with pytest.raises(InputError, match="from 0"):
        Experiment(ABSORPTION, ({"dose": -4.0},), np.array([1.0]))
    with pytest.raises(InputError, match="a column for ke"):
        program([Experiment(ABSORPTION, ({"dose": 4.0},), np.array([1.0]))], ("ka", "Cl"))
