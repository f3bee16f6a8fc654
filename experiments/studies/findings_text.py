"""The words of docs/findings.md; every {number} is measured by `experiments.studies.findings`."""

HEAD = """# What theory says about the papers' findings

Written by `make findings`, which runs every simulation below again and fills in the numbers. The findings are
those of arXiv 2601.14599 (one query) and arXiv 2601.22532 (batches of queries), as digests of the two papers
report them; the papers' own tables and figures were not available here. The simulated policies are softmax
bandits: what they contradict is contradicted for bandits, and what they show is a mechanism, not a proof that
a language model learns by it. A time is the mean number of rounds until p = 1/2; ± is one standard error;
spread is sd over mean across seeds. Laws are those of [laws.md](laws.md).
"""

TEXTS = {
    "Advantage": """\
**Finding.** A GRPO-like advantage does not improve test success and makes training less stable (one query);
its gain is limited (batches).

**Prediction.** A baseline leaves the mean step of raw reward unchanged (`two-class-drift`). It lowers the
variance of a round only below p = {threshold} in groups of 8, 2/3 for a known value (`baseline-threshold`),
and raises it above. Dividing by the standard deviation is a larger step where p is small (`kappa`).

**Mechanism.** At small p nearly all rewards are 0 and the baseline subtracts nearly nothing. At large p raw
reward moves little, as the pulled arms are already likely; the baseline makes every rare failure a push.

**Regime.** Two classes, SGD; the sign of the effect depends on p alone.

**Evidence.** Variance of a round, leave-one-out over raw, 8 rollouts: {low_seen} at p = .1 (law {low_law}),
{high_seen} at p = .9 (law {high_law}). From p0 = .05: raw {raw} ± {raw_error} rounds, spread {raw_spread};
leave-one-out {loo} ± {loo_error}, spread {loo_spread}. Mean-std is {std_faster} times as fast as raw under
SGD (law {std_law}), and {adam_faster} times under Adam, the papers' optimiser, which takes the larger scale
back.

**Verdict.** Agrees: little is gained, and stability is lost late. With SGD at one step size theory
contradicts "limited gain" for mean-std; the optimiser explains it.
""",
    "Rollouts": """\
**Finding.** More rollouts do not improve generalisation much (one query); limited gain (batches).

**Prediction.** The mean step of raw reward does not depend on the number n of rollouts; more of them narrow
the spread over seeds by sqrt(n) (`time-spread`) and cost n times as much.

**Mechanism.** A round averages its rollouts: the same drift, less noise.

**Regime.** Small steps. At large steps single rollouts lag behind the mean field, and rollouts buy speed too.

**Evidence.** p0 = .05, raw reward, step .2 (mean field {law} rounds): n = 1: {mean_1} ± {error_1}, spread
{spread_1}; n = 8: {mean_8} ± {error_8}, spread {spread_8}; n = 64: {mean_64} ± {error_64}, spread
{spread_64}. At step 2 (mean field {large_law}): n = 1: {large_1}, n = 8: {large_8}.

**Verdict.** Agrees for small steps. Per round more rollouts did not hurt; per rollout they are a loss.
""",
    "Negative reward": """\
**Finding.** Negative reward makes training fail, and generalisation with it (one query).

**Prediction.** With two classes it should help: reward +-1 doubles the drift (`two-class-drift`). Where
responses share features, what falls is the typical seed: below p* = eta V / (2 kappa) it loses success in
every round (`rarest-that-learns`), and raw reward has no such p*.

**Mechanism.** Every failure scatters the scores of responses that share features with it, correct ones too.
That loss is of second order in the step but paid in nearly every round of a hard query; the gain comes with
p.

**Regime.** Hard queries, large steps, overlapping responses, few rollouts.

**Evidence.** Two arms, p0 = .05: raw {raw} rounds, +-1 {signed}: {faster} times as fast. Tree with overlaps,
step 1, after 300 rounds, share of seeds below half of p0. At p0 = .01 (p* = {hard_rarest}): raw {hard_raw},
+-1 {hard_signed}, -1 on failures {hard_negative}. At p0 = .3 (p* = {easy_rarest}): raw {easy_raw}, +-1
{easy_signed}, -1 on failures {easy_negative}.

**Verdict.** Independent arms contradict the finding; shared parameters reproduce it where p0 lies below p*,
and not where it lies above. Raw reward collapses nowhere.
""",
    "Difficulty": """\
**Finding.** Extremely hard samples fail to generalise (one query).

**Prediction.** The time to learn grows like 1/(eta p0) (`escape-time`), and (1 - p0)^T of the seeds never
start in T rollouts (`first-success`). Dividing by the standard deviation turns p0^-1 into p0^-1/2, but only
for groups that hold a success, G p0 >> 1.

**Mechanism.** Without a success nothing moves, whatever the signal that compares rewards within a group.

**Regime.** Any number of arms; a budget of rounds that is short against 1/p0.

**Evidence.** Raw reward, step 1: {easy_seen} ± {easy_error} rounds at p0 = .1 (exact law {easy_law}),
{middle_seen} ± {middle_error} at .01 (law {middle_law}), {hard_seen} ± {hard_error} at .001 (law {hard_law}).
At p0 = .001 a share {idle} of the seeds had no success in 300 rounds (law {idle_law}). Exponent of the time
in 1/p0 for mean-std between p0 = .02 and .005: {std_8} in groups of 8, {std_256} in groups of 256.

**Verdict.** Agrees, for training. That success on a learned hard query would not carry over is a question of
shared features (`transfer`), which difficulty alone does not answer.
""",
    "Randomness": """\
**Finding.** Training and generalisation differ from run to run in the minimalist configuration (one query).

**Prediction.** The spread of a hard query's time is sqrt(tanh(C eta / 2)) (`relative-spread`): set by the
step size, not by the difficulty; n rollouts divide it by about sqrt(n).

**Mechanism.** The first few successes decide when the climb begins, and each waits a geometric time.

**Regime.** One correct response, or correct responses that share their features.

**Evidence.** Spread at step 1: {base} at p0 = .01, {easier} at p0 = .04 (law {law}); at step .1: {smaller}
(law {law_smaller}); at step 1 with 8 rollouts: {grouped}.

**Verdict.** Agrees, and says what to do: a smaller step or more rollouts, not an easier query.
""",
    "Replay": """\
**Finding.** Comparing a single rollout with the rewards remembered of its query approximates the best
combination of batch and rollouts (batches).

**Prediction.** The window estimates the query's own success from past rounds, so it stands in for a group as
long as p changes little within the window; and 32 queries a round instead of 4 leave less variance between
queries (`batch-split`).

**Mechanism.** The baseline's noise comes from the past and costs no rollouts now.

**Regime.** Queries are visited again within the window's memory: in every round here, once an epoch in the
paper.

**Evidence.** 32 queries of mean success {start}, 32 rollouts a round, step .5, after 40 rounds: 4 groups of
8, mean-std: {group} ± {group_error} (sd over seeds {group_sd}); 32 x 1 against a window of 8: {replay} ±
{replay_error} (sd {replay_sd}); 32 x 1, raw reward: {raw} ± {raw_error} (sd {raw_sd}).

**Verdict.** Agrees: one rollout against remembered rewards comes near groups of 8. Raw reward lags, as it
does under SGD in the section on advantage; whether Adam takes that back here was not run. A memory as old as
an epoch, as in the paper, is not simulated.
""",
    "Batch against rollouts": """\
**Finding.** Of 256 rollouts a round, 32 queries of 8 rollouts are the best split (batches).

**Prediction.** With a leave-one-out baseline the error of a round's gradient is c1/B + c2/(BG) +
c3/(BG(G-1)), least at an interior group size; with raw reward c3 = 0, and one rollout per query is best
(`batch-split`).

**Mechanism.** Small groups pay for the baseline they estimate, small batches for the queries they leave out.

**Regime.** Small steps; the constants are those of the policy at the start.

**Evidence.** 32 queries, 32 rollouts a round: c1 = {c1}, c2 = {c2}, c3 = {c3}; best group {best} without
regard to the pool, {best_power} among the powers of two with it. Error of the gradient: {mse_best} there,
{mse_raw} with raw reward and one rollout. Success after 100 rounds at step .5: 32 x 1 raw {end_1} ± {error_1}
(sd {sd_1}), 16 x 2 {end_2} ± {error_2} (sd {sd_2}), 4 x 8 {end_8} ± {error_8} (sd {sd_8}), 1 x 32 {end_32} ±
{error_32} (sd {sd_32}).

**Verdict.** Agrees in part: the estimated baseline has an interior optimum, as predicted. But the split
changes the scatter over seeds, not the mean success after a number of rounds, and raw reward with one rollout
per query scatters least of all: for a bandit under SGD theory and simulator contradict an advantage of 32 x 8
over 256 x 1. What else the paper's runs differ by (mean-std, Adam, tokens, the lengths of responses) is not
in this simulation.
""",
}
