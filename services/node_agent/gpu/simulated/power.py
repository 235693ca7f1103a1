"""Power of a simulated board: draws by load, cap and clock, and counts energy."""

from __future__ import annotations

from typing import Final

from services.node_agent.gpu.simulated.products import Product

# The counter of a real board shows a new value about this often.
REFRESH_S: Final = 0.1


class PowerRail:
    """What a board draws, as a step function of time.

    Args:
        product: gives idle power, caps, clocks.
        now_s: when it starts.
    """

    def __init__(self, product: Product, now_s: float) -> None:
        self._product = product
        self.cap_mw = product.power.default_mw
        self.other_limit_mw: int | None = None
        self.locked_mhz: int | None = None
        self.counter_absent = self.counter_frozen = False
        self._load, self._last_s, self._energy_mj = 0.0, now_s, 0.0
        self._shown_mj, self._shown_at = 0, self._refreshes(now_s)

    @property
    def enforced_mw(self) -> int:
        """The least of all limiters."""
        return min(self.cap_mw, self.other_limit_mw or self.cap_mw)

    @property
    def capped(self) -> bool:
        """Whether the cap holds the board down now."""
        return self._wanted_mw() > self.enforced_mw

    @property
    def power_mw(self) -> int:
        """Drawn now."""
        return round(min(self._wanted_mw(), self.enforced_mw))

    @property
    def clock_mhz(self) -> int:
        """SM clock now."""
        clocks = self._product.sm_clocks_mhz
        return self.locked_mhz or (clocks[-1] if self._load else clocks[0])

    def set_load(self, load: float, now_s: float) -> None:
        """The share of the board's multiprocessors at work from now on."""
        self.advance(now_s)
        self._load = load

    def advance(self, now_s: float) -> None:
        """Counts up to now. To be called before anything that changes the power."""
        self._energy_mj += self.power_mw * max(0.0, now_s - self._last_s)
        self._last_s = max(now_s, self._last_s)

    def energy_mj(self, now_s: float) -> int | None:
        """What the counter shows; None without one."""
        self.advance(now_s)
        if self.counter_absent:
            return None
        if not self.counter_frozen and self._refreshes(now_s) > self._shown_at:
            self._shown_mj, self._shown_at = int(self._energy_mj), self._refreshes(now_s)
        return self._shown_mj

    def reset_counter(self, now_s: float) -> None:
        """The counter begins again."""
        self.advance(now_s)
        self._energy_mj, self._shown_mj = 0.0, 0

    def _wanted_mw(self) -> float:
        span_mw = self._product.power.most_mw - self._product.idle_mw
        slowed = (self.locked_mhz or self._product.most_clock_mhz) / self._product.most_clock_mhz
        return self._product.idle_mw + span_mw * self._load * slowed

    @staticmethod
    def _refreshes(now_s: float) -> int:
        return int(now_s / REFRESH_S + 1e-6)
