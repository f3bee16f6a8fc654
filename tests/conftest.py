"""What every test stands on: types enforced, examples reproducible, JAX on the CPU.

The cache of converted models is deliberately left where the user has it (`ONEARM_CACHE`): it is keyed by
content, and converting a model again for every test run would cost more than the tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before anything imports JAX
os.environ.setdefault("ONEARM_COMPILE_CACHE", "off")  # a test's programs are nobody's to keep,
os.environ.setdefault("ONEARM_PROBE_CACHE", "off")  # and what it probes, it measures

PACKAGES = ["onearm", "theory", "bandit_sim", "llm_bridge", "experiments", "figures"]
TESTS = Path(__file__).parent
SIMULATOR_TESTS = TESTS / "bandit_sim"
COMPILING_TESTS = SIMULATOR_TESTS, TESTS / "experiments", TESTS / "theory" / "laws"

# Shapes and types of annotated arguments and results are checked at every call while tests run.
install_import_hook(PACKAGES, "type_checker.check")

settings.register_profile(
    "house",
    derandomize=True,
    deadline=None,
    max_examples=30,
    # The first example of a property pays for a compilation.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small shapes, many programs: compiling is most of the time, and XLA's optimisations are nearly half of that.

    They are left to `test_simulate.py` and the README's examples, which compile as production does, and to the files
    that override this fixture.
    """
    path = request.path
    if path.name == "test_simulate.py" or not any(folder in path.parents for folder in COMPILING_TESTS):
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _strict_dtype_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """The simulator's arrays never change dtype silently; a float32 in a float64 run is an error."""
    if SIMULATOR_TESTS not in request.path.parents:
        yield
        return
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield
