"""The six circuits once more: every strand in every state as a species of its own, written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.integrate import solve_ivp

Parameters = Mapping[str, float]


def _transcription(k: Parameters, plasmid: float) -> float:
    return k["k_tx"] * plasmid / (k["K_tx"] + plasmid)


def constitutive(k, c):
    def f(t, y):
        r, p, _ = y
        made = k["k_tl"] * r / (k["K_tl"] + r)
        return [
            _transcription(k, c["gfp"]) - k["k_rna_deg"] * r,
            made - k["k_mat"] * p,
            k["k_mat"] * p,
        ]

    return f, 3


def _sense(k, star, i, f, p, si, sf, sp, start):
    """Sense transcripts: starting i, full f, terminated p, and each with STAR on it."""
    on, off, d = k["k_star_bind"], k["k_star_unbind"], k["k_rna_deg"]
    flow = [on * star * x - (off + d) * y for x, y in ((i, si), (f, sf), (p, sp))]
    di = start - (k["k_star_act"] + k["k_star_stop"] + d) * i - flow[0]
    df = k["k_star_act"] * i - d * f - flow[1]
    dp = k["k_star_stop"] * i - d * p - flow[2]
    dsi = flow[0] - (k["k_star_act_reg"] + k["k_star_stop_reg"] + d) * si
    dsf = flow[1] + k["k_star_act_reg"] * si - d * sf
    dsp = flow[2] + k["k_star_stop_reg"] * si - d * sp
    # STAR is set free by unbinding and by the decay of what it sits on; if it decays itself it is gone.
    free = -sum(on * star * x - (off + d) * y for x, y in ((i, si), (f, sf), (p, sp)))
    return [di, df, dp, dsi, dsf, dsp], free


def sense_star(k, c):
    def f(t, y):
        star, *s, p, _ = y
        ds, back = _sense(k, star, *s, k["k_tx_init"] * c["sense_gfp"])
        mrna = s[1] + s[4]
        return [
            _transcription(k, c["star"]) - k["k_rna_deg"] * star + back,
            *ds,
            k["k_tl"] * mrna / (k["K_tl"] + mrna) - k["k_mat"] * p,
            k["k_mat"] * p,
        ]

    return f, 9


def _duplex(k, a, b, ab, on="k_trigger_binding", off="k_trigger_unbinding"):
    """Net change of free a, free b and their duplex by binding and by decay of either strand of it."""
    d = k["k_rna_deg"]
    flow = k[on] * a * b - k[off] * ab
    return -flow + d * ab, -flow + d * ab, flow - 2 * d * ab


def _translated(k, mrna, duplex):
    return k["k_tl_unbound_toehold"] * mrna + k["k_tl_bound_toehold"] * duplex


def toehold_trigger(k, c):
    def f(t, y):
        a, b, ab, p, _ = y
        da, db, dab = _duplex(k, a, b, ab)
        d = k["k_rna_deg"]
        return [
            _transcription(k, c["trigger"]) - d * a + da,
            _transcription(k, c["toehold_gfp"]) - d * b + db,
            dab,
            _translated(k, b, ab) - k["k_mat"] * p,
            k["k_mat"] * p,
        ]

    return f, 5


def cascade(k, c):
    """Whether STAR sits on a trigger does not matter to toeholds: sites are counted apart."""

    def f(t, y):
        star, *s, a, b, ab, p, _ = y
        ds, back = _sense(k, star, *s, k["k_tx_init"] * c["sense_trigger"])
        da, db, dab = _duplex(k, a, b, ab)
        d = k["k_rna_deg"]
        return [
            _transcription(k, c["star"]) - d * star + back,
            *ds,
            k["k_star_act"] * s[0] + k["k_star_act_reg"] * s[3] - d * a + da,
            _transcription(k, c["toehold_gfp"]) - d * b + db,
            dab,
            _translated(k, b, ab) - k["k_mat"] * p,
            k["k_mat"] * p,
        ]

    return f, 12


def coherent_ffl(k, c):
    """Triggers and mRNAs have sense sites of their own, which compete for STAR."""

    def f(t, y):
        star, p, _, a, b, ab = y[:6]
        s, r = y[6:12], y[12:18]
        d = k["k_rna_deg"]
        ds, back = _sense(k, star, *s, k["k_tx_init"] * c["sense_trigger"])
        dr, more = _sense(k, star, *r, k["k_tx_init"] * c["sense_toehold_gfp"])
        da, db, dab = _duplex(k, a, b, ab)
        return [
            _transcription(k, c["star"]) - d * star + back + more,
            _translated(k, b, ab) - k["k_mat"] * p,
            k["k_mat"] * p,
            k["k_star_act"] * s[0] + k["k_star_act_reg"] * s[3] - d * a + da,
            k["k_star_act"] * r[0] + k["k_star_act_reg"] * r[3] - d * b + db,
            dab,
            *ds,
            *dr,
        ]

    return f, 18


def incoherent_ffl(k, c):
    def f(t, y):
        joined, star, trigger, b, ab, anti, caught, p, _ = y[:9]
        s = y[9:]
        d = k["k_rna_deg"]
        ds, back = _sense(k, star, *s, k["k_tx_init"] * c["sense_antitrigger"])
        da, db, dab = _duplex(k, trigger, b, ab)
        de, dn, dcaught = _duplex(k, trigger, anti, caught, "k_sequestration_bind", "k_sequestration_unbind")
        cut = k["k_csy4"] * joined
        return [
            _transcription(k, c["star_trigger"]) - d * joined - cut,
            cut - d * star + back,
            cut - d * trigger + da + de,
            _transcription(k, c["toehold_gfp"]) - d * b + db,
            dab,
            k["k_star_act"] * s[0] + k["k_star_act_reg"] * s[3] - d * anti + dn,
            dcaught,
            _translated(k, b, ab) - k["k_mat"] * p,
            k["k_mat"] * p,
            *ds,
        ]

    return f, 15


#: Each circuit's equations and the place of GFP.
WRITTEN: Mapping[str, tuple[Callable, int]] = {
    "constitutive": (constitutive, 2),
    "sense_star": (sense_star, 8),
    "toehold_trigger": (toehold_trigger, 4),
    "cascade": (cascade, 11),
    "coherent_ffl": (coherent_ffl, 2),
    "incoherent_ffl": (incoherent_ffl, 8),
}

#: Conditions: none, middle and most of what switches each circuit.
CONDITIONS: Mapping[str, tuple[dict[str, float], ...]] = {
    "constitutive": ({"gfp": 1.0}, {"gfp": 3.0}, {"gfp": 5.0}),
    "sense_star": tuple({"sense_gfp": 5.0, "star": dose} for dose in (0.0, 5.0, 15.0)),
    "toehold_trigger": tuple({"toehold_gfp": 5.0, "trigger": dose} for dose in (0.0, 2.0, 5.0)),
    "cascade": tuple({"toehold_gfp": 3.0, "sense_trigger": 5.0, "star": dose} for dose in (0.0, 5.0, 15.0)),
    "coherent_ffl": tuple(
        {"sense_toehold_gfp": 3.0, "sense_trigger": 5.0, "star": dose} for dose in (0.0, 5.0, 15.0)
    ),
    "incoherent_ffl": tuple(
        {"star_trigger": dose, "sense_antitrigger": 5.0, "toehold_gfp": 3.0} for dose in (1.0, 5.0, 15.0)
    ),
}


def curve(
    circuit: str, k: Parameters, condition: Mapping[str, float], times: np.ndarray, method: str = "LSODA"
):
    """GFP at `times` by SciPy's stiff solver."""
    written, place = WRITTEN[circuit]
    # Python's own numbers: arithmetic with NumPy's takes several times as long.
    f, size = written({name: float(value) for name, value in k.items()}, condition)
    made = solve_ivp(
        lambda t, y: f(t, y.tolist()),
        (0, times[-1]),
        np.zeros(size),
        method,
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    assert made.success
    return made.y[place]
