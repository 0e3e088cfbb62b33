"""RNA circuits in cell-free expression (TXTL): parameters and six circuits, each a short declaration.

Amounts are nM, times minutes. A species is the total of an RNA, bound and free; every strand decays with
``k_rna_deg`` wherever it is, and sets its partner free. So totals are exact and only what is bound is not.

References
----------
Kuzembayeva, Marlhens, Kubaczka, Ergenlioğlu and Koeppl, Engineering RNA-based Feedforward Loops in TXTL,
TU Darmstadt; mechanism and prior medians from its modeling suite, github.com/jmarlhens/RNA_dynamics
(circuits/modules, data/prior/model_parameters_priors_092025_correction.csv).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hbm_core.models.kinetics.mechanism import Mechanism, Parameter

PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        parameter.name: parameter
        for parameter in (
            Parameter("k_tx", 90, 0.25, "nM/min", "transcription at saturation"),
            Parameter("K_tx", 15, 0.25, "nM", "plasmid at half of the fastest transcription"),
            Parameter("k_rna_deg", 0.00078, 1, "1/min", "decay of RNA"),
            Parameter("k_tl", 16.1, 0.5, "nM/min", "translation at saturation"),
            Parameter("K_tl", 65.8, 0.5, "nM", "mRNA at half of the fastest translation"),
            Parameter("k_mat", 0.2, 1, "1/min", "maturation of GFP"),
            Parameter("k_tx_init", 1, 1, "1/min", "start of a regulated transcript, per plasmid"),
            Parameter("k_star_bind", 0.078, 0.75, "1/(nM min)", "binding of STAR and sense RNA"),
            Parameter("k_star_unbind", 1, 1, "1/min", "unbinding of STAR and sense RNA"),
            Parameter("k_star_act", 1, 1, "1/min", "elongation without STAR"),
            Parameter("k_star_act_reg", 0.1, 1, "1/min", "elongation with STAR bound"),
            Parameter("k_star_stop", 1, 1, "1/min", "termination without STAR"),
            Parameter("k_star_stop_reg", 0.1, 1, "1/min", "termination with STAR bound"),
            Parameter("k_trigger_binding", 0.078, 0.75, "1/(nM min)", "binding of trigger and toehold"),
            Parameter("k_trigger_unbinding", 1, 1, "1/min", "unbinding of trigger and toehold"),
            Parameter(
                "k_tl_unbound_toehold", 0.0025, 0.75, "1/min", "translation of a closed toehold switch"
            ),
            Parameter("k_tl_bound_toehold", 0.25, 0.75, "1/min", "translation of an open toehold switch"),
            Parameter("k_csy4", 2.9, 0.25, "1/min", "cleavage of joined transcripts by Csy4"),
            Parameter(
                "k_sequestration_bind", 0.078, 0.75, "1/(nM min)", "binding of an RNA and its anti-RNA"
            ),
            Parameter("k_sequestration_unbind", 1, 1, "1/min", "unbinding of an RNA and its anti-RNA"),
        )
    }
)

_MATURATION = """
    immature -> gfp : k_mat * immature
"""
_TRANSLATION = """
    -> immature : k_tl * mrna / (K_tl + mrna)
"""


def _transcribed(rna: str, plasmid: str) -> str:
    return f"""
    -> {rna} : k_tx * [{plasmid}] / (K_tx + [{plasmid}])
    {rna} -> : k_rna_deg * {rna}
"""


def _star(star: str, full: str, plasmids: tuple[str, ...], starts: str) -> str:
    """Sense transcripts of `plasmids` that `star` opens; `full` are the elongated ones started by `starts`.

    Sites for STAR are on all of them: starting (init, held when STAR is bound), elongated or terminated.
    """
    lines = "".join(f"\n    -> sites : k_tx_init * [{plasmid}]" for plasmid in plasmids)
    return (
        lines
        + f"""
    sites -> : k_rna_deg * sites
    -> bound : k_star_bind * (sites - bound) * ({star} - bound)
    bound -> : k_star_unbind * bound
    bound -> : 2 * k_rna_deg * bound
    -> init : {starts}
    init -> held : k_star_bind * init * ({star} - bound)
    held -> init : k_star_unbind * held
    held -> init : k_rna_deg * held
    init -> {full} : k_star_act * init
    held -> {full} : k_star_act_reg * held
    init -> : k_star_stop * init
    held -> : k_star_stop_reg * held
    init -> : k_rna_deg * init
    held -> : k_rna_deg * held
    {full} -> : k_rna_deg * {full}
"""
    )


def _toehold(free: str, mrna: str) -> str:
    """Toehold switch: `free` is the trigger that nothing holds."""
    return f"""
    -> duplex : k_trigger_binding * ({free} - duplex) * ({mrna} - duplex)
    duplex -> : k_trigger_unbinding * duplex
    duplex -> : 2 * k_rna_deg * duplex
    -> immature : k_tl_unbound_toehold * ({mrna} - duplex)
    -> immature : k_tl_bound_toehold * duplex
"""


def _circuit(id: str, label: str, *parts: str) -> Mechanism:
    return Mechanism(id, label, "".join(parts) + _MATURATION, PARAMETERS, "gfp")


CIRCUITS: Mapping[str, Mechanism] = MappingProxyType(
    {
        circuit.id: circuit
        for circuit in (
            _circuit("constitutive", "Constitutive GFP", _transcribed("mrna", "gfp"), _TRANSLATION),
            _circuit(
                "sense_star",
                "Sense and STAR",
                _transcribed("star", "star"),
                _star("star", "mrna", ("sense_gfp",), "k_tx_init * [sense_gfp]"),
                _TRANSLATION,
            ),
            _circuit(
                "toehold_trigger",
                "Toehold switch and trigger",
                _transcribed("trigger", "trigger"),
                _transcribed("mrna", "toehold_gfp"),
                _toehold("trigger", "mrna"),
            ),
            _circuit(
                "cascade",
                "Cascade: STAR, then toehold switch",
                _transcribed("star", "star"),
                _star("star", "trigger", ("sense_trigger",), "k_tx_init * [sense_trigger]"),
                _transcribed("mrna", "toehold_gfp"),
                _toehold("trigger", "mrna"),
            ),
            # Trigger and mRNA start at rates proportional to their plasmids: `full` is either per nM.
            _circuit(
                "coherent_ffl",
                "Coherent feed-forward loop, type 1, AND",
                _transcribed("star", "star"),
                _star("star", "full", ("sense_trigger", "sense_toehold_gfp"), "k_tx_init"),
                _toehold("[sense_trigger] * full", "[sense_toehold_gfp] * full"),
            ),
            # STAR and trigger are cut from one transcript, so their totals are one species.
            _circuit(
                "incoherent_ffl",
                "Incoherent feed-forward loop, type 1, by anti-trigger",
                """
    -> joined : k_tx * [star_trigger] / (K_tx + [star_trigger])
    joined -> : k_rna_deg * joined
    joined -> cut : k_csy4 * joined
    cut -> : k_rna_deg * cut
""",
                _star("cut", "anti", ("sense_antitrigger",), "k_tx_init * [sense_antitrigger]"),
                _transcribed("mrna", "toehold_gfp"),
                """
    -> caught : k_sequestration_bind * (cut - duplex - caught) * (anti - caught)
    caught -> : k_sequestration_unbind * caught
    caught -> : 2 * k_rna_deg * caught
""",
                _toehold("cut - caught", "mrna"),
            ),
        )
    }
)
