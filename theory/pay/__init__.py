"""Pay: what a judged response is paid. A verifier judges; pay comes after it.

`PAYS` lists the kinds, `named_pay` reads one from a command line, `paid` applies it to responses that are text.
"""

from theory.pay.checks import check_pay, no_pay_on_text, paid
from theory.pay.kinds import (
    PAYS,
    Clean,
    Format,
    NegativeOnly,
    Noisy,
    Overlong,
    Pay,
    PaySpec,
    PlusMinus,
    Shaped,
    Term,
)
from theory.pay.names import named_pay

__all__ = [
    "PAYS",
    "Clean",
    "Format",
    "NegativeOnly",
    "Noisy",
    "Overlong",
    "Pay",
    "PaySpec",
    "PlusMinus",
    "Shaped",
    "Term",
    "check_pay",
    "named_pay",
    "no_pay_on_text",
    "paid",
]
