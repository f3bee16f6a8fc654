"""The table of laws as a page of the documentation: `onearm study laws`."""

from __future__ import annotations

from pathlib import Path

from experiments.studies.law_agreement import read
from experiments.studies.law_trials import TRIALS
from theory.laws import LAWS

PAGE = Path("docs/laws.md")


def write(to: Path = PAGE) -> None:
    """Write the page, with the agreements as they were last measured."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(markdown())


def markdown() -> str:
    """The table of laws as a page of the documentation."""
    measured = read()
    rows = []
    for x in LAWS.values():
        found = measured.get(x.name, {}).get("agreement", "not measured")
        against = f"{found}, against {TRIALS[x.name].against}"
        rows.append(f"| `{x.name}` | {x.source} | {x.predicts} | {x.check} | {against} | {x.status} |")
    head = (
        "# The laws\n\nWritten by `make laws`; `onearm law NAME --help` names a law's parameters, "
        "`onearm law NAME --out DIR` draws it,\n`onearm law NAME --simulate --out DIR` draws it beside what holds it "
        "to account and measures how well they agree.\n\n"
        "Checked against: what its tests do. Measured agreement: the largest |law - seen| over all points of its "
        "trial\n(`experiments/studies/law_trials`), also in standard errors (se) of the mean over seeds; of a bound, "
        "how much of it is used.\n`make agreement` measures all of them again, at the parameters in\n"
        "`experiments/studies/law_trials/agreement.jsonl`. Where a law neglects terms (mean field, "
        "asymptotic) its miss is theirs,\nand may be many se of a trial with little noise.\n\n"
        "Status: exact at any size of the arguments; mean field as the step "
        "size goes to zero; asymptotic to leading order of a stated limit.\n\n"
        "| law | source | predicts | checked against | measured agreement | status |\n|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"
