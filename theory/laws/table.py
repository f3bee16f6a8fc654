"""The law table: every law of `theory.laws`, one row each. A new law is a function, a curve, a test and a row."""

from __future__ import annotations

from theory.laws import curves
from theory.laws.row import Law

_BIRTH = "derived, for the rule of arXiv 2601.14599"
_RLVE = "arXiv 2601.04411"
_MROUEH = "arXiv 2503.06639, re-derived"
_OWN = "derived"

_ROWS = [
    Law("first-success", _BIRTH, "risk that a budget ends without one success", curves.first_success,
        "simulated seeds without a reward", "exact"),
    Law("birth-chain", _BIRTH, "law over seeds of p_t: one correct arm, raw reward, one rollout", curves.birth,
        "enumeration of all draws; law of p_t over simulated seeds", "exact"),
    Law("time-to-level", _BIRTH, "law over seeds of the updates until p reaches a level", curves.time_to_level,
        "law of the passage time over simulated seeds", "exact"),
    Law("relative-spread", _BIRTH, "sd/mean over seeds of the time to learn a hard query", curves.spread,
        "exact ladder at p0 = 1e-6", "asymptotic"),
    Law("word-chain", _BIRTH, "law over seeds of p_t with several correct arms", curves.words,
        "enumeration of all draws; simulated seeds", "exact"),
    Law("two-class-drift", _OWN, "mean move of the logit per update, every signal", curves.drift,
        "enumeration of all groups through the simulator and through the rule", "exact"),
    Law("two-class-variance", _OWN, "variance of that move per rollout, every signal", curves.variance,
        "enumeration of all groups through the simulator and through the rule", "exact"),
    Law("signal-to-noise", _OWN, "squared drift over variance per rollout", curves.signal_to_noise,
        "enumeration of all groups", "exact"),
    Law("baseline-threshold", _OWN, "success probability above which a baseline adds variance", curves.threshold,
        "sign change of the enumerated variances", "exact"),
    Law("kappa", _OWN, "advantage gap of the mean-std signal in groups of G", curves.kappa,
        "enumeration of all groups; check values of the notes", "exact"),
    Law("zero-signal", "elementary", "share of groups that teach nothing", curves.zero_signal,
        "enumeration of all groups", "exact"),
    Law("two-class-success", _OWN, "learning curve q(t) of every signal", curves.success,
        "simulated mean at small steps", "mean field"),
    Law("time-to", f"derived; mean-std {_RLVE}", "updates from p0 to q, every signal", curves.time_of,
        "quadrature; birth chain as eta -> 0; simulated times", "mean field"),
    Law("escape-time", _OWN, "how the time to learn depends on difficulty p0", curves.escape,
        "closed form as p0 -> 0", "asymptotic"),
    Law("tail", f"derived; mean-std {_RLVE}", "how the last failures vanish", curves.tail,
        "closed form as t -> inf", "asymptotic"),
    Law("std-success", f"{_RLVE}, eq. 8", "learning curve q(t) of the mean-std signal", curves.std_success,
        "integration of the drift", "mean field"),
    Law("winner-takes-all", f"{_RLVE}; closed form derived", "shares of the correct arms: diversity collapses",
        curves.winner, "integration of the softmax flow; the simulator's mean step of every arm", "mean field"),
    Law("many-arms", f"{_RLVE}; one equation derived", "q(t) and the concentrations of many arms",
        curves.many_arms, "integration of the softmax flow; simulated mean; expected step", "mean field"),
    Law("near-uniform", f"{_RLVE}, eq. 17", "log-odds gained by nearly even arms", curves.near_uniform,
        "closed form: error of second order in the unevenness", "asymptotic"),
    Law("noisy-verifier", f"{_RLVE}, eqs. 5 and 6", "learning or unlearning, by the Youden index", curves.noisy,
        "enumeration of all groups and misjudgements through the simulator", "mean field"),
    Law("noisy-tail", _RLVE, "how false negatives slow the last failures", curves.noisy_tail,
        "integration to large times", "asymptotic"),
    Law("natural-kl", f"{_RLVE}, eqs. 18 and 19; number of fixed points derived",
        "where a preconditioned KL pull stops learning", curves.natural_fixed_point,
        "integration of the flow; expansion at strong KL", "mean field"),
    Law("k3-kl", _OWN, "where k3 in the loss stops raw reward", curves.k3_fixed_point,
        "enumerated expected update of the simulator; simulated stationary mean", "mean field"),
    Law("kl-recursion", _MROUEH, "success after each round of regularised policy iteration", curves.recursion,
        "numerical maximisation on the simplex", "exact"),
    Law("kl-recursion-fixed-point", f"{_MROUEH}; number of fixed points derived",
        "where the recursion ends, and whether it is stable", curves.recursion_fixed_points,
        "iteration from both sides", "exact"),
]  # fmt: skip

LAWS: dict[str, Law] = {row.name: row for row in _ROWS}


def law(name: str) -> Law:
    """The law of that name. Errors: ValueError for an unknown one."""
    if name not in LAWS:
        raise ValueError(f"law {name!r} is unknown; choose one of {', '.join(LAWS)}")
    return LAWS[name]
