"""Runs every function of a variant on real text and compares the logits. Needs no PyTorch.

The serving functions themselves are driven as the engine drives them: prompts in chunks of odd lengths into several
slots, then decode steps, teacher-forced, over the slots together. Functions of a phase take turns, so that each chunk
size, batch and bucket is compared. Where that is too little to tell the figures well enough, the widest decode goes on
through windows of more text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from services.compiler.quality.comparison import Comparison, Figures, Greedy, common_prefix
from services.compiler.quality.reference import Reference
from services.compiler.quality.session import Logits, Session
from services.compiler.quality.text import NAME
from services.compiler.quality.windows import Windows
from tradewind.domain.manifest import Canary, Function

# A piece's tokens that come after its prompt and are decoded one by one.
_DECODED_TOKENS: Final = 48
# A chunk is filled to these shares in turn, so that lengths are odd and padding is exercised.
_FILLS: Final = (1.0, 0.6, 0.85)
# A window's tokens before those that are decoded one by one.
_WINDOW_PROMPT_TOKENS: Final = 16
# Every function is called near the start of the pieces: this far behind it, this often.
_VISIT_PROMPT_TOKENS: Final = 8
_VISIT_STEPS: Final = 3
CANARY_TOKENS: Final = 16

Report = Callable[[float], None]
Enough = Callable[[Figures], bool]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        figures: against the reference.
        canary: a prompt and the variant's own greedy continuation.
        kl_by_function: mean Kullback-Leibler divergence of each function's rows, in nats.
    """

    figures: Figures
    canary: Canary
    kl_by_function: dict[str, float]


class Evaluator:
    """One evaluation of one session."""

    def __init__(
        self,
        session: Session,
        reference: Reference,
        slots: int,
        windows: Windows | None = None,
        enough: Enough = lambda _figures: False,
        slack_nats: float = 0.0,
    ) -> None:
        """Takes at most as many pieces of text as the cache has slots.

        Args:
            session: the module.
            reference: what the source answers.
            slots: of the cache.
            windows: more text to read on in; None when the pieces tell enough.
            enough: whether figures are precise enough, so that no more windows are needed.
            slack_nats: by how much another token than the source's may be likelier in a greedy answer and be a tie.
        """
        self._session, self._reference = session, reference
        self._windows, self._enough, self._slack_nats = windows, enough, slack_nats
        # One row stays free: a slot whose piece has ended writes there.
        longest = max(function.context for function in session.functions) - 1
        self._pieces = [piece[:longest] for piece in reference.pieces[:slots]]
        self._comparison = Comparison()
        self._by_function = {function.name: Comparison() for function in session.functions}

    def run(self, report: Report = lambda _share: None) -> Evaluation:
        """Evaluates; `report` hears the share done."""
        self._visit_all()
        report(0.1)
        positions = {piece: self._prefill(piece) for piece in range(len(self._pieces))}
        report(0.3)
        self._decode(positions, report)
        if self._windows is not None:
            self._widen(self._windows, report)
        taken, greedy = self._answer()
        report(1.0)
        figures = self._comparison.figures(NAME, greedy)
        kl = {name: comparison.kl_divergence_nats for name, comparison in self._by_function.items()}
        return Evaluation(figures, Canary(self._reference.prompt, taken[:CANARY_TOKENS]), kl)

    def _visit_all(self) -> None:
        """Calls each function a few times near the start of the pieces, where every bucket reaches."""
        for slot, function in enumerate(self._functions("prefill")):
            piece = slot % len(self._pieces)
            length = min(function.tokens, len(self._pieces[piece]))
            row = self._session.prefill(function, self._pieces[piece][:length], piece, 0)
            self._compare(function, piece, length - 1, row)
        shortest = self._functions("prefill")[0]
        length = min(shortest.tokens, _VISIT_PROMPT_TOKENS)
        for piece, tokens in enumerate(self._pieces):
            self._compare(shortest, piece, length - 1, self._session.prefill(shortest, tokens[:length], piece, 0))
        for function in self._functions("decode"):
            for at in range(length, length + _VISIT_STEPS):
                batch = range(function.batch)
                taken = [self._token(slot, dict.fromkeys(batch, at)) for slot in batch]
                rows = self._session.decode(function, taken, [at] * function.batch)
                for piece in range(min(function.batch, len(self._pieces))):
                    self._compare(function, piece, at, rows[piece])

    def _prefill(self, piece: int) -> int:
        """Writes a piece's prompt into its slot; the position reached."""
        tokens = self._pieces[piece]
        end = max(1, len(tokens) - _DECODED_TOKENS)
        turns, fills, start = cycle(self._functions("prefill")), cycle(_FILLS[piece % 3 :] + _FILLS[: piece % 3]), 0
        while start < end:
            function = self._next(turns, end)
            length = min(end - start, max(1, int(function.tokens * next(fills))))
            row = self._session.prefill(function, tokens[start : start + length], piece, start)
            start += length
            self._compare(function, piece, start - 1, row)
        return start

    def _decode(self, positions: dict[int, int], report: Report) -> None:
        """Decodes all pieces to their ends, functions in turn; a slot whose piece has ended stands still."""
        turns = cycle(self._functions("decode"))
        total = sum(len(self._pieces[p]) - at for p, at in positions.items())
        done = 0
        while any(at < len(self._pieces[p]) for p, at in positions.items()):
            function = self._next(turns, max(positions.values()) + 1)
            active = [p for p in positions if p < function.batch and positions[p] < len(self._pieces[p])]
            if not active:
                function = self._widest_decode(max(positions.values()) + 1)
                active = [p for p in positions if p < function.batch and positions[p] < len(self._pieces[p])]
            if not active:
                return
            tokens = [self._token(p, positions) for p in range(function.batch)]
            # A slot that takes no part is written at the row after its last, which nothing reads.
            rows = self._session.decode(function, tokens, [positions.get(p, 0) for p in range(function.batch)])
            for p in active:
                self._compare(function, p, positions[p], rows[p])
                positions[p] += 1
                done += 1
            report(0.3 + 0.2 * done / max(1, total))

    def _widen(self, windows: Windows, report: Report) -> None:
        """Goes through windows, as many together as a decode takes, until the figures are precise enough."""
        length = min(windows.tokens.shape[1], max(function.context for function in self._session.functions))
        decode = self._widest_decode(length)
        for first in range(0, len(windows.tokens), decode.batch):
            if self._enough(self._comparison.figures(NAME)):
                return
            self._window_round(windows, decode, range(first, min(first + decode.batch, len(windows.tokens))), length)
            report(0.5 + 0.4 * first / len(windows.tokens))

    def _window_round(self, windows: Windows, decode: Function, round_: range, length: int) -> None:
        """Decodes some windows side by side; a slot without one writes its first row again and again."""
        tokens = windows.tokens
        prefill = self._functions("prefill")[0]
        start = min(_WINDOW_PROMPT_TOKENS, prefill.tokens, length - 1)
        for slot, window in enumerate(round_):
            row = self._session.prefill(prefill, tokens[window, :start].tolist(), slot, 0)
            self._compare_known(windows, window, start - 1, row)
        free = [0] * (decode.batch - len(round_))
        for at in range(start, length - 1):
            rows = self._session.decode(decode, [*tokens[round_, at].tolist(), *free], [at] * len(round_) + free)
            for slot, window in enumerate(round_):
                self._compare_known(windows, window, at, rows[slot])

    def _compare_known(self, known: Windows, window: int, at: int, row: Logits) -> None:
        stretch = len(self._pieces) + window
        best, likelihood = int(known.best[window, at]), float(known.log_likelihoods[window, at])
        self._comparison.add_known(best, likelihood, row, int(known.tokens[window, at + 1]), stretch)

    def _answer(self) -> tuple[tuple[int, ...], Greedy]:
        """The variant's own greedy answer, and how long it is the source's.

        A tie does not end the agreement: behind it the variant is asked along the source's answer.
        """
        wanted = self._reference.continuation
        taken, gaps_nats = self._greedy(along=False)
        prefix = common_prefix(taken, wanted)
        if prefix < len(wanted):
            _, gaps_nats = self._greedy(along=True)
        agreed = next((at for at, gap in enumerate(gaps_nats) if not gap <= self._slack_nats), len(wanted))
        return taken, Greedy(len(wanted), prefix, agreed)

    def _greedy(self, *, along: bool) -> tuple[tuple[int, ...], list[float]]:
        """The likeliest tokens after the reference's prompt, and by how much each is likelier than the source's.

        Args:
            along: whether the source's tokens are gone on with, in place of the variant's own.
        """
        prefill, decode = self._functions("prefill")[0], self._functions("decode")[0]
        prompt, taken, gaps_nats = self._reference.prompt, list[int](), list[float]()
        for start in range(0, len(prompt), prefill.tokens):
            row = self._session.prefill(prefill, prompt[start : start + prefill.tokens], 0, start)
        free = [0] * (decode.batch - 1)
        for at, wanted in enumerate(self._reference.continuation):
            if at:
                token = self._reference.continuation[at - 1] if along else taken[-1]
                row = self._session.decode(decode, [token, *free], [len(prompt) + at - 1, *free])[0]
            taken.append(int(row.argmax()))
            gaps_nats.append(float(row[taken[-1]] - row[wanted]))
        return tuple(taken), gaps_nats

    def _token(self, piece: int, positions: dict[int, int]) -> int:
        tokens = self._pieces[piece] if piece < len(self._pieces) else ()
        at = positions.get(piece, 0)
        return tokens[at] if at < len(tokens) else 0

    def _compare(self, function: Function, piece: int, at: int, row: Logits) -> None:
        tokens = self._pieces[piece]
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        wanted = self._reference.logits[piece][at]
        self._comparison.add(wanted, row, following, piece)
        self._by_function[function.name].add(wanted, row, following)

    def _functions(self, phase: str) -> list[Function]:
        return [function for function in self._session.functions if function.phase == phase]

    def _next(self, turns: cycle[Function], rows: int) -> Function:
        """The next function of the turn whose bucket holds that many rows; the largest bucket holds any piece."""
        return next(function for function in turns if function.context >= rows)

    def _widest_decode(self, rows: int) -> Function:
        fitting = [f for f in self._functions("decode") if f.context >= rows]
        return max(fitting, key=lambda function: function.batch)
