"""One-compartment absorption of a drug: one subject per unit, the worked example of another field.

References
----------
Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, section 8.2.1, the model of theophylline.
"""

from __future__ import annotations

from hbm_core.models.kinetics.mechanism import Mechanism, Parameter

PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("ka", 1.5, 0.3, "1/h", "absorption from the gut"),
        Parameter("ke", 0.08, 0.15, "1/h", "elimination"),
        Parameter("Cl", 0.04, 0.15, "L/h/kg", "clearance"),
    )
}

#: The volume is Cl/ke, so a dose of [dose] mg/kg is worth [dose] ke/Cl mg/L.
ABSORPTION = Mechanism(
    "absorption",
    "One-compartment absorption",
    """
    gut -> blood : ka * gut
    blood -> : ke * blood
    """,
    PARAMETERS,
    "blood",
    initial={"gut": "[dose] * ke / Cl"},
    unit="mg/L",
    time="h",
)
