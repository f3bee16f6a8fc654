"""Laws: closed forms, recursions and small integrals that predict what the simulator does. The table: `LAWS`."""

from theory.laws.row import Law
from theory.laws.table import LAWS, law

__all__ = ["LAWS", "Law", "law"]
