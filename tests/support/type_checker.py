"""The type checker that the import hook of `conftest.py` puts on every annotated function."""

from beartype import BeartypeConf, beartype

# An int is a good float (PEP 484): eta = 1 needs no decimal point.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
