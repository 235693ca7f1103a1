"""Dispatches written by hand in MLIR, where IREE's own code generation leaves most of the machine idle.

A kernel is text: pure functions of shapes give one `util.func` each, which `lowering` puts in place of the torch
operators of `operators`. Vectors and the AVX2 instructions named in them are all that is fixed; bufferisation, register
allocation and scheduling stay the compiler's. See docs/adr/0017-kernels-in-mlir.md.
"""
