"""The gate: what rounding explains is admitted, what it does not is rejected with the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from services.compiler.quality.comparison import Comparison, Figures, common_prefix
from services.compiler.quality.evaluation import Evaluator
from services.compiler.quality.reference import GREEDY_TOKENS, Reference
from services.compiler.quality.session import Logits
from services.compiler.quality.text import Part, cut_pieces, pieces_of, read_text, windows_of
from services.compiler.quality.thresholds import TABLE, Check, judge, precise_enough, token_slack_nats
from services.compiler.quality.windows import Windows
from tradewind.domain.manifest import Function

VOCABULARY = 50
WINDOWS = 10
FUNCTIONS = (
    Function("prefill_t16_c64", "prefill", 16, 1, 64),
    Function("prefill_t64_c256", "prefill", 64, 1, 256),
    Function("decode_b1_c64", "decode", 1, 1, 64),
    Function("decode_b1_c256", "decode", 1, 1, 256),
    Function("decode_b4_c256", "decode", 1, 4, 256),
)


def logits_of(tokens: Sequence[int]) -> Logits:
    """A language model in one line: logits that depend on every token so far and its place."""
    state = sum((at + 1) * (token + 7) for at, token in enumerate(tokens))
    rows: Logits = np.random.default_rng(state).normal(0, 3, VOCABULARY).astype(np.float32)
    return rows


def reference() -> Reference:
    random = np.random.default_rng(5)
    pieces = [tuple(random.integers(0, VOCABULARY, n).tolist()) for n in (61, 93, 155, 107)]
    logits = [np.stack([logits_of(piece[: at + 1]) for at in range(len(piece))]) for piece in pieces]
    prompt, continuation = pieces[0][:16], []
    for _ in range(24):
        continuation.append(int(logits_of((*prompt, *continuation)).argmax()))
    return Reference(tuple(pieces), tuple(logits), prompt, tuple(continuation))


def more_text() -> Windows:
    tokens = np.random.default_rng(6).integers(0, VOCABULARY, (WINDOWS, 40))
    logits = np.stack([[logits_of(text[: at + 1].tolist()) for at in range(40)] for text in tokens])
    of_next = np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]
    likelihoods = of_next - np.log(np.exp(logits[:, :-1]).sum(axis=2))
    return Windows(tokens, logits.argmax(axis=2).astype(np.int32), likelihoods)


class SlotModel:
    """Answers as `logits_of` through slots, and checks that it is driven as the ABI allows."""

    def __init__(self, functions: tuple[Function, ...] = FUNCTIONS, *, wrong: str = "") -> None:
        self.functions = functions
        self._wrong = wrong
        self._slots: list[dict[int, int]] = [{} for _ in range(4)]

    def prefill(self, function: Function, tokens: Sequence[int], slot: int, start: int) -> Logits:
        assert 0 < len(tokens) <= function.tokens
        assert start + len(tokens) <= function.context
        self._slots[slot] |= {start + at: token for at, token in enumerate(tokens)}
        return self._answer(function, slot, start + len(tokens))

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        assert len(tokens) == len(positions) == function.batch
        assert max(positions) < function.context
        rows = []
        for slot, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            self._slots[slot][position] = token
            rows.append(self._answer(function, slot, position + 1))
        return np.stack(rows)

    def _answer(self, function: Function, slot: int, length: int) -> Logits:
        row = logits_of([self._slots[slot].get(at, 0) for at in range(length)])
        return row[::-1].copy() if function.name == self._wrong else row


def test_every_function_is_compared_and_the_exact_model_is_exact() -> None:
    evaluation = Evaluator(SlotModel(), reference(), 4).run()  # type: ignore[arg-type]
    figures = evaluation.figures
    assert figures.top1_agreement == figures.top5_agreement == 1
    assert figures.max_logit_error == 0
    assert figures.perplexity == pytest.approx(figures.reference_perplexity)
    assert figures.greedy_prefix_tokens == 24
    assert evaluation.kl_by_function == dict.fromkeys((f.name for f in FUNCTIONS), 0.0)
    assert judge("f32", figures, evaluation.kl_by_function)[0]


@pytest.mark.parametrize("wrong", [function.name for function in FUNCTIONS])
def test_one_wrong_function_of_five_is_enough_to_be_rejected(wrong: str) -> None:
    found = Evaluator(SlotModel(wrong=wrong), reference(), 4).run()  # type: ignore[arg-type]
    for precision in TABLE:
        admitted, why, failed = judge(precision, found.figures, found.kl_by_function)
        assert not admitted
        assert "rejected on" in why
        assert f"worst function {wrong} KL" in why and Check.FUNCTION in failed


def rounded(row: Logits, seed: int) -> Logits:
    """A row with the error of a coarse precision."""
    noisy: Logits = row + np.random.default_rng(seed).normal(0, 0.1, VOCABULARY).astype(np.float32)
    return noisy


class Swaps(SlotModel):
    """Puts another token before the likeliest, at one length, by that much; nowhere but in a greedy answer."""

    def __init__(self, length: int, gap_nats: float) -> None:
        super().__init__()
        self._length, self._gap_nats = length, gap_nats
        self._source = reference()

    def _answer(self, function: Function, slot: int, length: int) -> Logits:
        row = super()._answer(function, slot, length)
        if length == self._length and self._of_the_source(slot, length):
            row[(int(row.argmax()) + 1) % VOCABULARY] = row.max() + self._gap_nats
        return row

    def _of_the_source(self, slot: int, length: int) -> bool:
        whole = (*self._source.prompt, *self._source.continuation)
        return all(self._slots[slot].get(at) == token for at, token in enumerate(whole[:length]))


@pytest.mark.parametrize(("gap_nats", "agreed"), [(0.02, 24), (0.1, 4)])
def test_a_greedy_answer_goes_on_behind_a_tie_and_ends_at_a_difference(gap_nats: float, agreed: int) -> None:
    model = Swaps(16 + 4, gap_nats)
    found = Evaluator(model, reference(), 4, slack_nats=0.025).run()  # type: ignore[arg-type]
    figures = found.figures
    assert (figures.greedy_prefix_tokens, figures.greedy_agreed_tokens, figures.greedy_tokens) == (4, agreed, 24)
    own, source = found.canary.continuation, reference().continuation
    assert own[:4] == source[:4] and own[4] != source[4], "the canary is the variant's own answer"
    for precision, limits in TABLE.items():
        admitted, why, failed = judge(precision, figures, found.kl_by_function)
        assert admitted == (agreed / 24 >= limits.greedy_least) and failed == (() if admitted else (Check.GREEDY,))
        assert f"greedy tokens {agreed} of 24 but for ties" in why
    assert TABLE["f32"].greedy_least == 1


class Coarse(SlotModel):
    """Answers with an error of its own at each position."""

    def _answer(self, function: Function, slot: int, length: int) -> Logits:
        return rounded(super()._answer(function, slot, length), 1000 * slot + length)


def test_windows_are_read_until_the_figures_are_precise_enough() -> None:
    seen: list[Figures] = []

    def enough(figures: Figures) -> bool:
        seen.append(figures)
        return figures.positions > 300

    figures = Evaluator(Coarse(), reference(), 4, more_text(), enough).run().figures  # type: ignore[arg-type]
    assert figures.positions == seen[-1].positions > seen[-2].positions
    whole = Evaluator(Coarse(), reference(), 4, more_text()).run().figures  # type: ignore[arg-type]
    assert whole.positions == seen[0].positions + WINDOWS * (40 - FUNCTIONS[0].tokens)
    assert whole.perplexity_increase_error < seen[0].perplexity_increase_error


def test_the_error_of_paired_differences_is_what_other_texts_show() -> None:
    """Of many texts the increases spread as much as each says of itself, and far less than the perplexities."""
    increases, errors, losses = [], [], []
    for text in range(60):
        random, comparison = np.random.default_rng(text), Comparison()
        for at in range(400):
            row = random.normal(0, 3, VOCABULARY).astype(np.float32)
            comparison.add(row, rounded(row, 10_000 * text + at), int(random.integers(VOCABULARY)), at // 40)
        figures = comparison.figures("t")
        increases.append(figures.perplexity_increase)
        errors.append(figures.perplexity_increase_error)
        losses.append(math.log(figures.reference_perplexity))
    assert np.mean(errors) == pytest.approx(np.std(increases), rel=0.35)
    assert np.std(losses) > 10 * np.std(increases)


def test_stretches_that_go_together_make_the_error_larger() -> None:
    alone, together = Comparison(), Comparison()
    row = np.zeros(VOCABULARY, np.float32)
    for at in range(400):
        other = row.copy()
        other[0] = 0.1 * (-1) ** (at // 20)
        alone.add_known(0, -math.log(VOCABULARY), other, 0, at)
        together.add_known(0, -math.log(VOCABULARY), other, 0, at // 20)
    ratio = together.figures("t").perplexity_increase_error / alone.figures("t").perplexity_increase_error
    assert ratio == pytest.approx(math.sqrt(20), rel=0.1)


def test_a_short_context_is_evaluated_within_its_bounds() -> None:
    short = (Function("prefill_t16_c64", "prefill", 16, 1, 64), Function("decode_b4_c64", "decode", 1, 4, 64))
    assert Evaluator(SlotModel(short), reference(), 4).run().figures.top1_agreement == 1  # type: ignore[arg-type]


def test_values_that_are_no_numbers_are_rejected() -> None:
    comparison = Comparison()
    row = logits_of([1])
    comparison.add(row, row, 3)
    comparison.add(row, np.full_like(row, np.nan), 3)
    figures = comparison.figures("text")
    assert math.isinf(figures.kl_divergence_nats)
    assert not judge("bf16", figures, {"f": comparison.kl_divergence_nats})[0]


def test_figures_of_a_known_pair() -> None:
    comparison = Comparison()
    two, one = np.log(np.array([0.8, 0.1, 0.04, 0.03, 0.02, 0.01], np.float32)), np.zeros(6, np.float32)
    comparison.add(two, one, 0)
    figures = comparison.figures("text")
    expected = sum(p * math.log(p * 6) for p in (0.8, 0.1, 0.04, 0.03, 0.02, 0.01))
    assert figures.kl_divergence_nats == pytest.approx(expected, rel=1e-5)
    assert figures.perplexity == pytest.approx(6)
    assert figures.reference_perplexity == pytest.approx(1 / 0.8, rel=1e-5)


def test_bf16_rounding_is_within_its_thresholds_and_more_is_not() -> None:
    fine = Figures(0.96, 1.0, 0.005, 30.1, 30.0, 0.4, 200, "t", 20)
    assert judge("bf16", fine, {"f": 0.01})[0]
    assert not judge("f32", fine, {"f": 0.0})[0]
    coarse = Figures(0.96, 1.0, 0.5, 30.1, 30.0, 0.4, 200, "t", 20)
    admitted, why, failed = judge("bf16", coarse, {"f": 0.01})
    assert not admitted
    assert "KL 0.5 nats where bf16 needs ≤ 0.03" in why and failed == (Check.KL_DIVERGENCE,)


def test_the_documented_table_is_the_one_that_judges() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compiler.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.split(" | ")[0].strip("| ") in TABLE]
    documented = {row[0]: [float(cell.strip("≥≤ %")) for cell in (*row[1:4], *row[5:7])] for row in rows}
    assert documented == {
        name: [
            limits.top1_least,
            limits.kl_most_nats,
            limits.perplexity_increase_most * 100,
            limits.greedy_least * GREEDY_TOKENS,
            float(f"{token_slack_nats(name):.2g}"),
        ]
        for name, limits in TABLE.items()
    }


def test_near_the_limit_a_variant_has_to_prove_that_it_is_below() -> None:
    sure = Figures(0.97, 1.0, 0.003, 30.24, 30.0, 0.4, 5000, "t", 20, perplexity_increase_error=0.001)
    assert judge("w4", sure, {"f": 0.01})[0]
    vague = Figures(0.97, 1.0, 0.003, 30.24, 30.0, 0.4, 200, "t", 20, perplexity_increase_error=0.005)
    admitted, why, failed = judge("w4", vague, {"f": 0.01})
    assert not admitted
    assert "perplexity increase +0.80% ± 0.50% where w4 needs ≤ 1.0% with 95 % confidence" in why
    assert failed == (Check.PERPLEXITY,)
    assert precise_enough("w4", sure) and not precise_enough("w4", vague)
    assert precise_enough("bf16", replace(vague, perplexity_increase_error=0.002, positions=2000))
    assert not precise_enough("w8", replace(sure, positions=500)), "its agreement is vague"
    assert precise_enough("w4", replace(vague, kl_divergence_nats=0.5)), "no text makes up for that"


def test_the_two_parts_of_the_text_share_nothing_and_are_the_same_everywhere() -> None:
    stories = {part: read_text(part) for part in Part}
    assert {part: sha256(text.encode()).hexdigest()[:12] for part, text in stories.items()} == {
        Part.CHOOSING: "dcbb947d5253",
        Part.REPORTING: "36ae209504db",
    }
    choosing, reporting = ({line for line in text.split("\n\n") if len(line) > 40} for text in stories.values())
    assert min(len(choosing), len(reporting)) > 100 and not choosing & reporting


def by_character(text: str, **_: object) -> dict[str, list[int]]:
    return {"input_ids": [ord(character) for character in text]}


def test_windows_fit_the_context_and_hold_nothing_of_the_pieces() -> None:
    windows = windows_of(by_character, Part.REPORTING, 64)
    texts = ["".join(map(chr, window)) for window in windows]
    assert {len(window) for window in windows} == {64}
    assert all(text in read_text(Part.REPORTING) for text in texts)
    assert len(set(texts)) == 48 == 2 * len(windows_of(by_character, Part.CHOOSING, 64))
    pieces = ["".join(map(chr, piece)) for piece in pieces_of(by_character, Part.REPORTING, 64)]
    story = read_text(Part.REPORTING)
    assert max(map(story.index, pieces)) + 64 <= min(map(story.index, texts))


def test_tokens_of_whole_lines_give_fewer_windows() -> None:
    def by_line(text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": list(range(text.count("\n")))}

    windows = windows_of(by_line, Part.REPORTING, 64)
    assert 0 < len(windows) < 48 and {len(window) for window in windows} == {64}


def test_pieces_are_cut_from_all_over_the_text() -> None:
    pieces = cut_pieces(list(range(1000)), (10, 20))
    assert pieces == [list(range(10)), list(range(500, 520))]
    with pytest.raises(ValueError, match="cannot give pieces"):
        cut_pieces([1, 2], (3,))


def test_a_reference_survives_its_file(tmp_path: Path) -> None:
    made = reference()
    made.save(tmp_path / "r.safetensors")
    read = Reference.load(tmp_path / "r.safetensors")
    assert (read.pieces, read.prompt, read.continuation) == (made.pieces, made.prompt, made.continuation)
    assert all(np.array_equal(a, b) for a, b in zip(read.logits, made.logits, strict=True))


def test_windows_survive_their_file(tmp_path: Path) -> None:
    made = more_text()
    made.save(tmp_path / "w.safetensors")
    read = Windows.load(tmp_path / "w.safetensors")
    for name in ("tokens", "best", "log_likelihoods"):
        assert np.array_equal(getattr(read, name), getattr(made, name))


def test_common_prefix() -> None:
    assert common_prefix((1, 2, 3), (1, 2, 4)) == 2
    assert common_prefix((), (1,)) == 0
    assert common_prefix((1, 2), (1, 2, 3)) == 2
