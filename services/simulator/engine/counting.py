"""Counts a deployment's traffic in windows, as gateways do for the orchestrator."""

from __future__ import annotations

from collections import deque

from services.orchestrator.core.facts.traffic import MOST_WINDOWS, WINDOW_S, DeploymentTraffic, Window
from services.simulator.engine.request import Request


class TrafficCount:
    """Sums over the newest windows; limits are those of the deployment's SLO in seconds, infinite without one.

    Attributes:
        came, gone, good: arrived, ended, and ended within the SLO, since the start.
    """

    def __init__(self, deployment_id: str, ttft_limit_s: float, tpot_limit_s: float, e2e_limit_s: float) -> None:
        self._name = deployment_id
        self._ttft_s, self._tpot_s, self._e2e_s = ttft_limit_s, tpot_limit_s, e2e_limit_s
        self._closed: deque[Window] = deque(maxlen=MOST_WINDOWS)
        self._windows: tuple[Window, ...] = ()
        self._start_s = 0.0
        self.queued = self.at_work = 0
        self.came = self.gone = self.good = 0
        self._clear()

    def _clear(self) -> None:
        self._arrivals = self._finished = self._lost = 0
        self._within = self._ttft_within = self._tpot_within = self._e2e_within = 0
        self._prompt = self._prompt_squares = self._output = self._output_squares = 0.0

    def arrived(self, request: Request, now_s: float) -> None:
        """A request came in."""
        self._roll(now_s)
        self._arrivals += 1
        self.came += 1
        self._prompt += request.prompt_tokens
        self._prompt_squares += request.prompt_tokens**2
        self.at_work += 1

    def finished(self, request: Request, now_s: float) -> None:
        """A request is done, or over."""
        self._roll(now_s)
        self.at_work -= 1
        self.gone += 1
        if not request.whole:
            self._lost += 1
            return
        self._finished += 1
        self._output += request.output_tokens
        self._output_squares += request.output_tokens**2
        first, later = request.ttft_s <= self._ttft_s, request.tpot_s <= self._tpot_s
        whole = request.e2e_s <= self._e2e_s
        self._ttft_within += first
        self._tpot_within += later
        self._e2e_within += whole
        self._within += first and later and whole
        self.good += first and later and whole

    def seen(self, now_s: float) -> DeploymentTraffic:
        """Closed windows, newest last."""
        self._roll(now_s)
        return DeploymentTraffic(self._name, self._windows, queued=self.queued, at_work=self.at_work)

    def _roll(self, now_s: float) -> None:
        if now_s < self._start_s + WINDOW_S:
            return
        while now_s >= self._start_s + WINDOW_S:
            self._closed.append(
                Window(
                    start_s=self._start_s,
                    arrivals=self._arrivals,
                    finished=self._finished,
                    lost=self._lost,
                    prompt_tokens=self._prompt,
                    prompt_squares=self._prompt_squares,
                    output_tokens=self._output,
                    output_squares=self._output_squares,
                    judged=self._finished,
                    within=self._within,
                    ttft_within=self._ttft_within,
                    tpot_within=self._tpot_within,
                    e2e_within=self._e2e_within,
                    queued=self.queued,
                    at_work=self.at_work,
                )
            )
            self._start_s += WINDOW_S
            self._clear()
        self._windows = tuple(self._closed)
