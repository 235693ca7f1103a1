"""How weights of linear layers are packed, and the products of one group of them with AVX2. Text only; no tensors.

Weights stand in blocks of 8 outputs and groups of 32 inputs, with scales for each output of each group. Inside a group
a vector holds some inputs of each of the 8 outputs in turn, so that one load and one broadcast of activations make
products of 8 outputs, and nothing is ever added across lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.compiler.kernels.text import Text

# Outputs of a block: the f32 lanes of an AVX2 register.
BLOCK: Final = 8
# Inputs that share a scale; the group of llama.cpp's formats, so that weights from GGUF stay what they were.
GROUP: Final = 32
# Bytes of two steps of packed weights, in either format.
PAIR_BYTES: Final = 32
_REGISTER_BYTES: Final = 32
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
        return [
            vector
            for at in range(0, self.group_bytes, PAIR_BYTES)
            for vector in self.pair(text, weights, weights_type, (block, group), text.index(at))
        ]

    def pair(self, text: Text, weights: str, weights_type: str, place: tuple[str, str], at: str) -> list[str]:
        """Two steps of a block's group, ready to multiply, from a byte of it on."""
        return (_pair_w4 if self.has_offset else _pair_w8)(text, weights, weights_type, place, at)

    @property
    def step_shape(self) -> str:
        """Shape and element of one step's weights as the instructions take them."""
        return "32xi8" if self.has_offset else "16xi16"

    @property
    def step(self) -> str:
        """A vector of one step's weights."""
        return f"vector<{self.step_shape}>"

    @property
    def step_bytes(self) -> int:
        """Of such a vector: a register."""
        return _REGISTER_BYTES

    @property
    def sums(self) -> str:
        """The vector that sums of products of one group are kept in."""
        return "vector<16xi16>" if self.has_offset else "vector<8xi32>"

    def add_products(self, text: Text, weights: str, activations: str, total: str) -> str:
        """Products of one step's weights and vector<8xi32> of activations, added to those before ("" for none)."""
        numbers = text.value(f"vector.bitcast {activations} : vector<8xi32> to {self.step}")
        name, kinds = (_MADD_BYTES, _BYTES) if self.has_offset else (_MADD_WORDS, _WORDS)
        pair = text.value(f"llvm.call_intrinsic {name}({weights}, {numbers}) : {kinds}")
        return text.value(f"arith.addi {total}, {pair} : {self.sums}") if total else pair

    def group_sum(self, text: Text, total: str) -> str:
        """What `add_products` gave for a whole group, as vector<8xi32>."""
        if not self.has_offset:
            return total
        ones = text.value("arith.constant dense<1> : vector<16xi16>")
        return text.value(f"llvm.call_intrinsic {_MADD_WORDS}({total}, {ones}) : {_WORDS}")


# Four bits and an offset, activations in 8 bits. Products of a pair are at most 2 · 15 · 127, and eight of these stay
# within 16 bits: 30,480.
W4: Final = Format("w4", BLOCK * GROUP // 2, 2 * BLOCK, "i8", 127.0, 4, True)
# Eight bits, activations in 14 bits: 32 products of 127 · 8191 stay far within 32 bits.
W8: Final = Format("w8", BLOCK * GROUP, BLOCK, "i16", 8191.0, 2, False)
FORMATS: Final = {form.name: form for form in (W4, W8)}


def _pair_w4(text: Text, weights: str, weights_type: str, place: tuple[str, str], at: str) -> list[str]:
    low = text.value("arith.constant dense<15> : vector<32xi8>")
    four = text.value("arith.constant dense<4> : vector<16xi16>")
    pairs = text.read(weights, weights_type, (*place, at), "vector<32xi8>")
    words = text.value(f"vector.bitcast {pairs} : vector<32xi8> to vector<16xi16>")
    shifted = text.value(f"arith.shrui {words}, {four} : vector<16xi16>")
    upper = text.value(f"vector.bitcast {shifted} : vector<16xi16> to vector<32xi8>")
    return [text.value(f"arith.andi {half}, {low} : vector<32xi8>") for half in (pairs, upper)]


def _pair_w8(text: Text, weights: str, weights_type: str, place: tuple[str, str], at: str) -> list[str]:
    steps = []
    for half in range(2):
        byte = text.value(f"arith.addi {at}, {text.index(half * PAIR_BYTES // 2)} : index")
        some = text.read(weights, weights_type, (*place, byte), "vector<16xi8>")
        steps.append(text.value(f"arith.extsi {some} : vector<16xi8> to vector<16xi16>"))
    return steps
