"""Two to the power of eight numbers at once, with as few instructions as its users can tell. Text only."""

from __future__ import annotations

from math import factorial, log
from typing import Final

from services.compiler.kernels.text import Text

_EIGHT: Final = "vector<8xf32>"
_WORDS: Final = "vector<8xi32>"
# Powers of two of what lies within are normal numbers of single precision.
_LEAST: Final = -125.0
# Terms of the series behind the first: for |r| <= ln 2 / 2 what is left out is 2.4e-6 of the result. Weights and gates
# are rounded to 8, 13 or 14 bits, or averaged.
_TERMS: Final = 5
_MANTISSA_BITS: Final = 23
_NEAREST: Final = '"llvm.x86.avx.cvt.ps2dq.256"'
_MAX: Final = '"llvm.x86.avx.max.ps.256"'
_MIN: Final = '"llvm.x86.avx.min.ps.256"'
_PAIR: Final = f"({_EIGHT}, {_EIGHT}) -> {_EIGHT}"


def power_of_two(text: Text, power: str) -> str:
    """Of vector<8xf32>, within 3e-6; powers below -125 count as -125, and none may be above 127."""
    low = larger(text, power, text.constant(_LEAST, _EIGHT))
    whole = text.value(f"llvm.call_intrinsic {_NEAREST}({low}) : ({_EIGHT}) -> {_WORDS}")
    rest = text.value(f"arith.subf {low}, {text.value(f'arith.sitofp {whole} : {_WORDS} to {_EIGHT}')} : {_EIGHT}")
    factors = [text.constant(log(2) ** term / factorial(term), _EIGHT) for term in range(_TERMS + 1)]
    total = factors.pop()
    for factor in reversed(factors):
        total = text.value(f"math.fma {total}, {rest}, {factor} : {_EIGHT}")
    shift = text.value(f"arith.constant dense<{_MANTISSA_BITS}> : {_WORDS}")
    exponent = text.value(f"arith.shli {whole}, {shift} : {_WORDS}")
    bits = text.value(
        f"arith.addi {text.value(f'vector.bitcast {total} : {_EIGHT} to {_WORDS}')}, {exponent} : {_WORDS}"
    )
    return text.value(f"vector.bitcast {bits} : {_WORDS} to {_EIGHT}")


def larger(text: Text, one: str, other: str) -> str:
    """The larger of each two of vector<8xf32>, by one instruction; the other where one is no number."""
    return text.value(f"llvm.call_intrinsic {_MAX}({one}, {other}) : {_PAIR}")


def smaller(text: Text, one: str, other: str) -> str:
    """The smaller of each two of vector<8xf32>, by one instruction; the other where one is no number."""
    return text.value(f"llvm.call_intrinsic {_MIN}({one}, {other}) : {_PAIR}")
