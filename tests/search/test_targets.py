"""Targets without their hardware: they compile, and the built module says that it is for them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.compiler.built_module import check_built_for, read_built_for
from services.compiler.export.generator import export_mlir
from services.compiler.export.shapes import Shapes
from services.compiler.host_cpu import cpu_flags
from services.compiler.passes.form import form_of
from services.compiler.recipes import check_runs, find_recipe, offered_recipes
from services.compiler.search.cut import cut_layers
from services.compiler.targets import Format, Target, choose_targets, find_target, known_targets
from services.compiler.toolchain import find_iree_compile
from tests.tiny_model import write_tiny_model
from tradewind.domain.errors import CompileFailed, InvalidField

TARGETS = known_targets("test")
# What a module built for each says of its processor.
COMPILED = {
    "cpu:x86-64-v4": "x86-64-v4",
    "cpu:neoverse-n1": "neoverse-n1",
    "cuda:sm_80": "sm_80",
    "cuda:sm_90": "sm_89",
    "rocm:gfx942": "gfx942",
    "vulkan:ampere": "sm_80",
    "vulkan:baseline": "",
    "metal": "apple",
    "vmvx": "",
}


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The first layer of the tiny model, one prefill and one decode."""
    import transformers

    folder = tmp_path_factory.mktemp("one-layer")
    model = transformers.AutoModelForCausalLM.from_pretrained(write_tiny_model(folder / "tiny")).eval()
    assert cut_layers(model, 1)
    assert not cut_layers(model, 1), "there is nothing left to cut"
    export_mlir(model, Shapes((16,), (1,), (64,), 2), folder / "one.mlir", lambda _name, _share: None)
    yield folder / "one.mlir"


@pytest.mark.parametrize("name", COMPILED)
def test_it_compiles_and_says_what_for(one_layer: Path, name: str) -> None:
    target = find_target(name, TARGETS)
    module = one_layer.parent / f"{target.name.replace(':', '-')}.vmfb"
    flags = (*target.flags, *target.optimisation)
    subprocess.run([find_iree_compile(), one_layer, *flags, "-o", module], check=True, capture_output=True, timeout=120)
    check_built_for(module, target.executables)
    processors = read_built_for(module).processors
    assert {COMPILED[name]} & processors or not COMPILED[name]
    other = Format.PTX if target.executables is not Format.PTX else Format.VMVX
    with pytest.raises(CompileFailed, match=f"of format {target.executables} where {other} was wanted"):
        check_built_for(module, other)


def test_the_recipe_for_gpus_computes_in_16_bits(one_layer: Path) -> None:
    """Whole as the book has it, for the tiny model: what its passes make compiles, and multiplies halves."""
    import torch
    import transformers

    recipe, target = find_recipe("f16-gpu").facts, find_target("cuda:sm_80", TARGETS)
    model = transformers.AutoModelForCausalLM.from_pretrained(one_layer.parent / "tiny", dtype=torch.float16).eval()
    source, module = one_layer.with_name("f16.mlir"), one_layer.with_name("f16.vmfb")
    form = form_of(recipe.passes, recipe.precision)
    export_mlir(model, Shapes((16,), (), (64,), 2), source, lambda _name, _share: None, torch.float16, form)
    flags = (*target.flags, *target.optimisation, *recipe.compiler_flags)
    subprocess.run([find_iree_compile(), source, *flags, "-o", module], check=True, capture_output=True, timeout=120)
    check_built_for(module, target.executables)
    built = module.read_bytes()
    assert b"f16xf16" in built and b"f32xf32xf32" not in built, "matrix products of halves only"


def test_what_was_asked_and_what_is_compiled_for_are_both_known() -> None:
    asked = find_target("cuda:sm_90", TARGETS)
    assert (asked.name, asked.resolved) == ("cuda:sm_90", "cuda:sm_89")
    assert [t.name for t in choose_targets(("vmvx", "metal", "metal:default"), TARGETS)] == [
        "vmvx:portable",
        "metal:default",
    ]
    with pytest.raises(InvalidField, match=r"no target named 'cuda:sm_100'.*cuda:sm_80"):
        choose_targets(("cuda:sm_100",), TARGETS)


def test_kernels_are_offered_only_where_their_instructions_are() -> None:
    names = {t.name: {r.name for r in offered_recipes(t.name, t.features)} for t in TARGETS}
    assert "w4-kernels" in names["cpu:x86-64-v3"] & names["cpu:x86-64-v4"]
    assert not {"w4-kernels", "w8-kernels"} & (names["cpu:x86-64-v2"] | names["cpu:aarch64"] | names["cuda:sm_80"])
    assert all(names.values()), "every target has a recipe"
    with pytest.raises(InvalidField, match="needs avx2, f16c, fma, which cpu:x86-64-v2 does not have"):
        check_runs(find_recipe("w4-kernels"), "cpu:x86-64-v2", find_target("cpu:x86-64-v2", TARGETS).features)


def test_the_host_has_a_level_that_it_runs() -> None:
    levels: list[Target] = [t for t in TARGETS if t.name.startswith("cpu:x86-64-v")]
    if "avx2" in cpu_flags():
        assert {t.name for t in levels if t.runnable_here} >= {"cpu:x86-64-v2", "cpu:x86-64-v3"}


def test_vulkan_runs_on_the_software_device_where_there_is_one(one_layer: Path) -> None:
    import iree.runtime as rt

    try:
        devices = rt.get_driver("vulkan").query_available_devices()
    except Exception as error:  # noqa: BLE001  the driver says in whatever class it likes that there is no loader
        pytest.skip(f"no Vulkan here: {str(error).splitlines()[0]}; install mesa-vulkan-drivers for llvmpipe")
    if not devices:
        pytest.skip("a Vulkan loader without a device; install mesa-vulkan-drivers for llvmpipe")
    target = find_target("vulkan:baseline", TARGETS)
    module = one_layer.parent / "llvmpipe.vmfb"
    flags = (*target.flags, *target.optimisation)
    subprocess.run([find_iree_compile(), one_layer, *flags, "-o", module], check=True, capture_output=True, timeout=120)
    config = rt.Config("vulkan")
    assert rt.VmModule.mmap(config.vm_instance, str(module)).function_names
