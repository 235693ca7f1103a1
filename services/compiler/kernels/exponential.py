"""e to the power of eight numbers at once, with as few instructions as single precision allows. Text only."""

from __future__ import annotations

from math import factorial, log
from typing import Final

from services.compiler.kernels.text import Text

_EIGHT: Final = "vector<8xf32>"
_WORDS: Final = "vector<8xi32>"
# Powers of two of what lies within are normal numbers of single precision.
_LEAST, _MOST = -87.0, 88.0
# Ln 2 in two parts, the first with so few bits that its products with whole numbers are exact (Cody and Waite 1980).
_LN2_HIGH: Final = 0.693359375
_LN2_LOW: Final = log(2) - _LN2_HIGH
# Terms of the series behind the first: for |r| <= ln 2 / 2 what is left out is 1.2e-7 of the result.
_TERMS: Final = 6
# The same of powers of two, where 2.4e-6 of the result is left out: it is rounded to 13 bits.
_POWER_TERMS: Final = 5
_LEAST_POWER: Final = -125.0
_MANTISSA_BITS: Final = 23
_NEAREST: Final = '"llvm.x86.avx.cvt.ps2dq.256"'
_MAX: Final = '"llvm.x86.avx.max.ps.256"'
_PAIR: Final = f"({_EIGHT}, {_EIGHT}) -> {_EIGHT}"
_MIN: Final = '"llvm.x86.avx.min.ps.256"'


def exponential(text: Text, power: str) -> str:
    """Of vector<8xf32>, within 3e-7; powers below -87 count as -87 and those above 88 as 88."""
    low = larger(text, power, text.constant(_LEAST, _EIGHT))
    inside = text.value(f"llvm.call_intrinsic {_MIN}({low}, {text.constant(_MOST, _EIGHT)}) : {_PAIR}")
    doublings = text.value(f"arith.mulf {inside}, {text.constant(1 / log(2), _EIGHT)} : {_EIGHT}")
    whole = text.value(f"llvm.call_intrinsic {_NEAREST}({doublings}) : ({_EIGHT}) -> {_WORDS}")
    count = text.value(f"arith.sitofp {whole} : {_WORDS} to {_EIGHT}")
    rest = inside
    for part in (_LN2_HIGH, _LN2_LOW):
        rest = text.value(f"math.fma {count}, {text.constant(-part, _EIGHT)}, {rest} : {_EIGHT}")
    total = text.constant(1 / factorial(_TERMS), _EIGHT)
    for term in range(_TERMS - 1, -1, -1):
        total = text.value(f"math.fma {total}, {rest}, {text.constant(1 / factorial(term), _EIGHT)} : {_EIGHT}")
    return _doubled(text, total, whole)


def larger(text: Text, one: str, other: str) -> str:
    """The larger of each two of vector<8xf32>, by one instruction; the other where one is no number."""
    return text.value(f"llvm.call_intrinsic {_MAX}({one}, {other}) : {_PAIR}")


def power_of_two(text: Text, power: str) -> str:
    """Of vector<8xf32>, within 3e-6; powers below -125 count as -125, and none may be above 127."""
    low = larger(text, power, text.constant(_LEAST_POWER, _EIGHT))
    whole = text.value(f"llvm.call_intrinsic {_NEAREST}({low}) : ({_EIGHT}) -> {_WORDS}")
    rest = text.value(f"arith.subf {low}, {text.value(f'arith.sitofp {whole} : {_WORDS} to {_EIGHT}')} : {_EIGHT}")
    total = text.constant(log(2) ** _POWER_TERMS / factorial(_POWER_TERMS), _EIGHT)
    for term in range(_POWER_TERMS - 1, -1, -1):
        total = text.value(
            f"math.fma {total}, {rest}, {text.constant(log(2) ** term / factorial(term), _EIGHT)} : {_EIGHT}"
        )
    return _doubled(text, total, whole)


def _doubled(text: Text, numbers: str, times: str) -> str:
    """Numbers times two to whole powers, by their bits."""
    shift = text.value(f"arith.constant dense<{_MANTISSA_BITS}> : {_WORDS}")
    exponent = text.value(f"arith.shli {times}, {shift} : {_WORDS}")
    bits = text.value(
        f"arith.addi {text.value(f'vector.bitcast {numbers} : {_EIGHT} to {_WORDS}')}, {exponent} : {_WORDS}"
    )
    return text.value(f"vector.bitcast {bits} : {_WORDS} to {_EIGHT}")
