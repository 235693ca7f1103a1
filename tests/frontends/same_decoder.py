"""One tiny Llama over the same weights in other frameworks: exported to ONNX by PyTorch, and written in TensorFlow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

LAYERS, HEADS, KV_HEADS, WIDTH = 2, 4, 2, 16


def names() -> tuple[list[str], list[str]]:
    """Inputs and outputs by Optimum's convention."""
    parts = [(layer, part) for layer in range(LAYERS) for part in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{n}.{p}" for n, p in parts)]
    return inputs, ["logits", *(f"present.{n}.{p}" for n, p in parts)]


def write_onnx(model_folder: Path, folder: Path) -> Path:
    """Exports with PyTorch's own exporter, weights beside the graph; the .onnx file."""
    import onnx
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager").eval()

    class WithPast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, positions: Any, *past: Any) -> Any:
            cache = DynamicCache()
            for at in range(0, len(past), 2):
                cache.update(past[at], past[at + 1], at // 2)
            answer = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            return (answer.logits, *(t for layer in answer.past_key_values.layers for t in (layer.keys, layer.values)))

    inputs, outputs = names()
    past = [torch.zeros(2, KV_HEADS, 5, WIDTH) for _ in range(2 * LAYERS)]
    ones = torch.ones(2, 3, dtype=torch.long)
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 2: "past"} for name in inputs[3:]}
    axes |= {"input_ids": {0: "batch", 1: "new"}, "position_ids": {0: "batch", 1: "new"}}
    axes["attention_mask"] = {0: "batch", 1: "all"}
    folder.mkdir()
    whole = folder / "whole.onnx"
    given = (ones, torch.ones(2, 8, dtype=torch.long), 5 + torch.arange(3)[None].repeat(2, 1), *past)
    options: dict[str, Any] = {"input_names": inputs, "output_names": outputs, "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(WithPast(), given, str(whole), opset_version=17, **options)
    onnx.save_model(
        onnx.load(whole),
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=64,
    )
    whole.unlink()
    _copy_beside(model_folder, folder)
    return folder / "model.onnx"


def merge_branches(path: Path) -> None:
    """Turns a decoder into the form of Optimum's merged ones: its nodes under one `If`, names and weights inside."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path, load_external_data=False)
    body = model.graph
    without = helper.make_graph(
        [helper.make_node("Constant", [], [o.name], value_float=0.0) for o in body.output], "without", [], body.output
    )
    branch = helper.make_graph(body.node, "with", [], body.output, body.initializer)
    switch = helper.make_node(
        "If", ["use_cache_branch"], [o.name for o in body.output], then_branch=branch, else_branch=without
    )
    flag = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    merged = helper.make_graph([switch], "merged", [*body.input, flag], body.output)
    path.write_bytes(helper.make_model(merged, opset_imports=model.opset_import).SerializeToString())


def write_saved_model(model_folder: Path, folder: Path) -> Path:
    """The same layers in TensorFlow; the SavedModel's folder."""
    import tensorflow as tf
    from safetensors.numpy import load_file

    weights = {name: tf.constant(array) for name, array in load_file(model_folder / "model.safetensors").items()}
    config = json.loads((model_folder / "config.json").read_text())
    inputs, outputs = names()
    kinds = [tf.TensorSpec((None, None), tf.int64, name=name) for name in inputs[:3]]
    kinds += [tf.TensorSpec((None, KV_HEADS, None, WIDTH), tf.float32, name=_safe(name)) for name in inputs[3:]]

    def norm(x: Any, name: str) -> Any:
        return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + config["rms_norm_eps"]) * weights[name]

    def linear(x: Any, name: str) -> Any:
        return tf.linalg.matmul(x, weights[name + ".weight"], transpose_b=True)

    def heads(x: Any, count: int) -> Any:
        shape = tf.shape(x)
        return tf.transpose(tf.reshape(x, [shape[0], shape[1], count, WIDTH]), [0, 2, 1, 3])

    def turn(x: Any, angle: Any) -> Any:
        half = tf.concat([-x[..., WIDTH // 2 :], x[..., : WIDTH // 2]], -1)
        return x * tf.cos(angle) + half * tf.sin(angle)

    def layer(x: Any, number: int, past: Any, angle: Any, seen: Any) -> Any:
        name = f"model.layers.{number}."
        rows = norm(x, name + "input_layernorm.weight")
        query = turn(heads(linear(rows, name + "self_attn.q_proj"), HEADS), angle)
        key = tf.concat([past[0], turn(heads(linear(rows, name + "self_attn.k_proj"), KV_HEADS), angle)], 2)
        value = tf.concat([past[1], heads(linear(rows, name + "self_attn.v_proj"), KV_HEADS)], 2)
        wide_key, wide_value = (tf.repeat(t, HEADS // KV_HEADS, 1) for t in (key, value))
        scores = tf.linalg.matmul(query, wide_key, transpose_b=True) / WIDTH**0.5 + seen
        mixed = tf.transpose(tf.linalg.matmul(tf.nn.softmax(scores), wide_value), [0, 2, 1, 3])
        x = x + linear(tf.reshape(mixed, tf.shape(x)), name + "self_attn.o_proj")
        rows = norm(x, name + "post_attention_layernorm.weight")
        gate = tf.nn.silu(linear(rows, name + "mlp.gate_proj")) * linear(rows, name + "mlp.up_proj")
        return x + linear(gate, name + "mlp.down_proj"), key, value

    class Decoder(tf.Module):
        @tf.function(input_signature=kinds)
        def run(
            self,
            input_ids: Any,
            attention_mask: Any,
            position_ids: Any,
            past_key_values_0_key: Any,
            past_key_values_0_value: Any,
            past_key_values_1_key: Any,
            past_key_values_1_value: Any,
        ) -> Any:
            past = [past_key_values_0_key, past_key_values_0_value, past_key_values_1_key, past_key_values_1_value]
            power = tf.range(0, WIDTH, 2, dtype=tf.float32) / WIDTH
            angle = tf.cast(position_ids, tf.float32)[:, None, :, None] / tf.pow(
                config["rope_parameters"]["rope_theta"], power
            )
            angle = tf.concat([angle, angle], -1)
            new, whole = tf.shape(input_ids)[1], tf.shape(attention_mask)[1]
            causal = tf.range(whole)[None, :] <= tf.range(whole - new, whole)[:, None]
            seen = tf.logical_and(causal[None, None], attention_mask[:, None, None, :] > 0)
            added = tf.where(seen, 0.0, -1e9)
            x, present = tf.gather(weights["model.embed_tokens.weight"], input_ids), []
            for number in range(LAYERS):
                x, key, value = layer(x, number, past[2 * number : 2 * number + 2], angle, added)
                present += [key, value]
            logits = linear(norm(x, "model.norm.weight"), "lm_head")
            return {_safe(name): value for name, value in zip(outputs, [logits, *present], strict=True)}

    decoder = Decoder()
    tf.saved_model.save(decoder, str(folder), signatures={"serving_default": decoder.run})
    _copy_beside(model_folder, folder)
    return folder


def _safe(name: str) -> str:
    """TensorFlow's arguments are Python's: no dots."""
    return name.replace(".", "_")


def _copy_beside(model_folder: Path, folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_folder / name, folder / name)
