"""Pairs of whole numbers in words of 32 bits: AVX2 multiplies two of each word and adds them up at once. Text only."""

from __future__ import annotations

from math import ceil
from typing import Final

from services.compiler.kernels.text import Text

LANES: Final = 8
EIGHT: Final = "vector<8xf32>"
WORDS: Final = "vector<8xi32>"
PAIRS: Final = "vector<16xi16>"
# Largest of them. 32 products of these stay within 32 bits.
LEVELS: Final = 8191
_MOST: Final = (1 << 31) - 1
_HALF_BITS: Final = 16
_NEAREST: Final = '"llvm.x86.avx.cvt.ps2dq.256"'
_MADD: Final = '"llvm.x86.avx2.pmadd.wd"'


def pairs_of(width: int) -> int:
    """Words that a row of this width takes: those of each two vectors of eight numbers side by side."""
    return ceil(width / (2 * LANES)) * LANES


def levels_of(width: int) -> int:
    """Largest whole number so that a row's products of such and of `LEVELS` stay within 32 bits."""
    return min(LEVELS, _MOST // (LEVELS * 2 * pairs_of(width)))


def nearest(text: Text, eight: str) -> str:
    """Whole numbers, halves to even ones: vector<8xi32>."""
    return text.value(f"llvm.call_intrinsic {_NEAREST}({eight}) : ({EIGHT}) -> {WORDS}")


def rounded(text: Text, eight: str, inverse: str) -> str:
    """Whole numbers nearest to eight times what their scale is the inverse of."""
    return nearest(text, text.value(f"arith.mulf {eight}, {inverse} : {EIGHT}"))


def paired(text: Text, numbers: list[str]) -> str:
    """Words whose lower halves are the first vector's whole numbers and upper ones the second's, or 0."""
    lower = text.value(f"arith.constant dense<{(1 << _HALF_BITS) - 1}> : {WORDS}")
    low = text.value(f"arith.andi {numbers[0]}, {lower} : {WORDS}")
    if len(numbers) == 1:
        return low
    half = text.value(f"arith.constant dense<{_HALF_BITS}> : {WORDS}")
    return text.value(f"arith.ori {low}, {text.value(f'arith.shli {numbers[1]}, {half} : {WORDS}')} : {WORDS}")


def as_pairs(text: Text, words: str) -> str:
    """The same bits as `multiplied` takes them."""
    return text.value(f"vector.bitcast {words} : {WORDS} to {PAIRS}")


def multiplied(text: Text, one: str, other: str) -> str:
    """Sums of the two products of each word."""
    return text.value(f"llvm.call_intrinsic {_MADD}({one}, {other}) : ({PAIRS}, {PAIRS}) -> {WORDS}")
