"""The page of findings is its template with numbers in it, and a number measured again is the one on the page."""

import re
from pathlib import Path

import pytest

from experiments.studies import findings
from experiments.studies.findings_text import HEAD, TEXTS

NUMBER = r"-?[\d,]*\.?\d+(?:e-?\d+)?"


def pattern() -> str:
    parts = [re.escape(HEAD)]
    for name in findings.MEASURES:
        text = re.escape(f"## {name}\n\n{TEXTS[name]}")
        parts.append(re.sub(r"\\\{(\w+)\\\}", lambda m, n=name: f"(?P<{n.split()[0]}_{m[1]}>{NUMBER})", text))
    return "\n".join(parts)


def on_the_page() -> dict[str, str]:
    found = re.fullmatch(pattern(), Path("docs/findings.md").read_text())
    assert found, "run make findings"
    return found.groupdict()


def test_the_page_is_its_template_with_numbers():
    assert list(TEXTS) == list(findings.MEASURES)
    assert len(on_the_page()) == sum(len(re.findall(r"\{\w+\}", text)) for text in TEXTS.values())


def test_every_section_says_what_it_must():
    for text in TEXTS.values():
        assert re.findall(r"\*\*(\w+)\.\*\*", text) == [
            "Finding", "Prediction", "Mechanism", "Regime", "Evidence", "Verdict",
        ]  # fmt: skip
        assert re.search(r"\{\w+\}", text.split("**Evidence.**")[1])


def test_a_number_measured_again_is_the_one_on_the_page():
    assert float(on_the_page()["Difficulty_idle"]) == pytest.approx(findings.idle(), abs=5e-4)


def test_the_page_says_that_independent_arms_contradict_the_papers():
    """The claims in words rest on numbers: checked against the page, whatever they come out as next time."""
    page = {name: float(value.replace(",", "")) for name, value in on_the_page().items()}
    assert page["Advantage_low_seen"] < 1 < page["Advantage_high_seen"]
    assert page["Advantage_adam_faster"] < 1.2 < page["Advantage_std_faster"]
    assert page["Negative_faster"] > 1.5  # two classes: +-1 helps
    assert page["Negative_hard_raw"] < 0.05 < 0.5 < page["Negative_hard_signed"]
    assert page["Negative_easy_negative"] < 0.05 and page["Negative_easy_raw"] < 0.05
    assert page["Negative_hard_rarest"] > 0.01 and page["Negative_easy_rarest"] < 0.3  # p* between p0 and p0
    assert page["Replay_group"] - page["Replay_replay"] < 0.2 * (page["Replay_group"] - page["Replay_raw"])
    ends = [page[f"Batch_end_{group}"] for group in (1, 2, 8, 32)]
    assert max(ends) - min(ends) < 0.01 and page["Batch_sd_1"] < page["Batch_sd_8"] < page["Batch_sd_32"]
    assert 2 <= page["Batch_best_power"] < 32
    assert (
        abs(page["Randomness_base"] - page["Randomness_easier"])
        < 0.1
        < page["Randomness_base"] - page["Randomness_smaller"]
    )
