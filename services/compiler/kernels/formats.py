"""How weights of linear layers are packed, and the products of one group of them with AVX2. Text only; no tensors.

Weights stand in blocks of 8 outputs and groups of 32 inputs, with scales for each output of each group. Inside a group
a vector holds some inputs of each of the 8 outputs in turn, so that one load and one broadcast of activations make
products of 8 outputs, and nothing is ever added across lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.compiler.kernels.text import Text

# Outputs of a block: the f32 lanes of an AVX2 register.
BLOCK: Final = 8
# Inputs that share a scale; the group of llama.cpp's formats, so that weights from GGUF stay what they were.
GROUP: Final = 32
_MADD_BYTES: Final = '"llvm.x86.avx2.pmadd.ub.sw"'
_MADD_WORDS: Final = '"llvm.x86.avx2.pmadd.wd"'
_BYTES: Final = "(vector<32xi8>, vector<32xi8>) -> vector<16xi16>"
_WORDS: Final = "(vector<16xi16>, vector<16xi16>) -> vector<8xi32>"


@dataclass(frozen=True, slots=True)
class Format:
    """A way to keep weights.

    Attributes:
        name: "w4" or "w8".
        group_bytes: of one group of one block.
        scales: f16 numbers of one group of one block.
        activation: type of the numbers that activations are rounded to.
        levels: largest of these numbers.
        step_inputs: inputs of one output in a vector.
        has_offset: whether weights are scale · q + offset, not scale · q.
    """

    name: str
    group_bytes: int
    scales: int
    activation: str
    levels: float
    step_inputs: int
    has_offset: bool

    def unpack(self, text: Text, weights: str, weights_type: str, block: str, group: str) -> list[str]:
        """The vectors of one group, ready to multiply."""
        return (_unpack_w4 if self.has_offset else _unpack_w8)(text, weights, weights_type, block, group)

    def products(self, text: Text, weights: list[str], activation: Callable[[int, int], str], rows: int) -> list[str]:
        """Sums of products of one group for each row: vector<8xi32>.

        Args:
            text: to write to.
            weights: vectors of `unpack`.
            activation: writes the vector<8xi32> of a row and a step.
            rows: how many.
        """
        return (_products_w4 if self.has_offset else _products_w8)(text, weights, activation, rows)


# Four bits and an offset, activations in 8 bits. Products of a pair are at most 2 · 15 · 127, and eight of these stay
# within 16 bits: 30,480.
W4: Final = Format("w4", BLOCK * GROUP // 2, 2 * BLOCK, "i8", 127.0, 4, True)
# Eight bits, activations in 14 bits: 32 products of 127 · 8191 stay far within 32 bits.
W8: Final = Format("w8", BLOCK * GROUP, BLOCK, "i16", 8191.0, 2, False)
FORMATS: Final = {form.name: form for form in (W4, W8)}


def _unpack_w4(text: Text, weights: str, weights_type: str, block: str, group: str) -> list[str]:
    low = text.value("arith.constant dense<15> : vector<32xi8>")
    four = text.value("arith.constant dense<4> : vector<16xi16>")
    steps = []
    for vector in range(4):
        pairs = text.read(weights, weights_type, (block, group, text.index(32 * vector)), "vector<32xi8>")
        words = text.value(f"vector.bitcast {pairs} : vector<32xi8> to vector<16xi16>")
        shifted = text.value(f"arith.shrui {words}, {four} : vector<16xi16>")
        upper = text.value(f"vector.bitcast {shifted} : vector<16xi16> to vector<32xi8>")
        steps += [text.value(f"arith.andi {half}, {low} : vector<32xi8>") for half in (pairs, upper)]
    return steps


def _products_w4(text: Text, weights: list[str], activation: Callable[[int, int], str], rows: int) -> list[str]:
    """Row by row: the eight vectors of a group stay in registers."""
    ones = text.value("arith.constant dense<1> : vector<16xi16>")
    sums = []
    for row in range(rows):
        total = ""
        for step, weight in enumerate(weights):
            numbers = text.value(f"vector.bitcast {activation(row, step)} : vector<8xi32> to vector<32xi8>")
            pair = text.value(f"llvm.call_intrinsic {_MADD_BYTES}({weight}, {numbers}) : {_BYTES}")
            total = text.value(f"arith.addi {total}, {pair} : vector<16xi16>") if total else pair
        sums.append(text.value(f"llvm.call_intrinsic {_MADD_WORDS}({total}, {ones}) : {_WORDS}"))
    return sums


def add_products_w4(text: Text, weights: str, activations: str, total: str) -> str:
    """Products of two vector<8xi32> of four numbers each, added to those of the group before ("" for none)."""
    unsigned, signed = (
        text.value(f"vector.bitcast {v} : vector<8xi32> to vector<32xi8>") for v in (weights, activations)
    )
    pair = text.value(f"llvm.call_intrinsic {_MADD_BYTES}({unsigned}, {signed}) : {_BYTES}")
    return text.value(f"arith.addi {total}, {pair} : vector<16xi16>") if total else pair


def group_sum_w4(text: Text, total: str) -> str:
    """What `add_products_w4` gave for a whole group, as vector<8xi32>."""
    ones = text.value("arith.constant dense<1> : vector<16xi16>")
    return text.value(f"llvm.call_intrinsic {_MADD_WORDS}({total}, {ones}) : {_WORDS}")


def _unpack_w8(text: Text, weights: str, weights_type: str, block: str, group: str) -> list[str]:
    return [
        text.read(weights, weights_type, (block, group, text.index(16 * vector)), "vector<16xi8>")
        for vector in range(GROUP // W8.step_inputs)
    ]


def _products_w8(text: Text, weights: list[str], activation: Callable[[int, int], str], rows: int) -> list[str]:
    """Step by step: sixteen vectors of a group do not fit in registers, sums of a few rows do."""
    sums = [""] * rows
    for step, narrow in enumerate(weights):
        weight = text.value(f"arith.extsi {narrow} : vector<16xi8> to vector<16xi16>")
        for row in range(rows):
            numbers = text.value(f"vector.bitcast {activation(row, step)} : vector<8xi32> to vector<16xi16>")
            pair = text.value(f"llvm.call_intrinsic {_MADD_WORDS}({weight}, {numbers}) : {_WORDS}")
            sums[row] = text.value(f"arith.addi {sums[row]}, {pair} : vector<8xi32>") if sums[row] else pair
    return sums
