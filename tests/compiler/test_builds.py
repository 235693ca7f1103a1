"""Builds that go wrong: reasons are typed, nothing stays behind, other recipes go on."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.compiler.built_module import read_built_for
from services.compiler.host_cpu import read_host_device
from services.compiler.importing import StoredModel
from services.compiler.jobs.limits import JobLimits
from services.compiler.order import Order
from services.compiler.recipes import find_recipe
from services.compiler.targets import find_target
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, silent
from tests.real_model import smollm2
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TINY_RECIPE
from tradewind.domain.errors import BadModelSource
from tradewind.v1 import compiler_pb2

# A compile takes 10 to 30 s on an idle core; several share one on a busy machine.
pytestmark = pytest.mark.timeout(900)

SMALL = replace(TINY_RECIPE, name="small", prefill_chunks=(16,), decode_batches=(1,), context_buckets=(64,), slots=2)


async def opened(state: Path, folder: Path, limits: JobLimits = LIMITS) -> tuple[Workshop, StoredModel]:
    workshop = Workshop(state, limits)
    return workshop, await workshop.importer.import_model(folder, silent)


@pytest.fixture
def state(imported_state: Path, tmp_path: Path) -> Path:
    """A copy of a state folder that has imported the tiny model."""
    return Path(shutil.copytree(imported_state, tmp_path / "state"))


async def test_a_recipe_that_crashes_fails_alone_and_is_tried_again(state: Path, tiny_folder: Path) -> None:
    workshop, model = await opened(state, tiny_folder)
    host = workshop.targets[0]
    bad = Order(model, replace(SMALL, name="bad", compiler_flags=("--no-such-flag",)), host)
    good = Order(model, SMALL, host)
    failed, built, twice = await asyncio.gather(*(workshop.builder.build(order, silent) for order in (bad, good, good)))
    assert failed.state == compiler_pb2.VARIANT_STATE_FAILED
    assert "no-such-flag" in failed.state_reason
    assert not failed.files
    assert built.state == compiler_pb2.VARIANT_STATE_ADMITTED, built.state_reason
    assert list(built.ran_on) == [read_host_device()] and not built.failed_checks
    assert twice.variant_id == built.variant_id, "two wishes for one variant build it once"
    assert workshop.builder.find(bad) is None
    assert workshop.builder.find(good) is not None
    assert list((state / "work").iterdir()) == []
    assert list((state / "index" / "windows").iterdir()) == [], "only variants of few bits read more text"
    workshop.close()


@pytest.mark.parametrize(
    ("limits", "says"),
    [(JobLimits(0.5, 6 << 30), "past its limit"), (JobLimits(120, 64 << 20), "64 MiB are allowed")],
)
async def test_limits_become_reasons(state: Path, tiny_folder: Path, limits: JobLimits, says: str) -> None:
    workshop, model = await opened(state, tiny_folder, limits)
    variant = await workshop.builder.build(Order(model, SMALL, workshop.targets[0]), silent)
    assert variant.state == compiler_pb2.VARIANT_STATE_FAILED
    assert says in variant.state_reason
    assert list((state / "work").iterdir()) == []
    workshop.close()


async def test_a_target_that_cannot_run_here_is_stored_unchecked(state: Path, tiny_folder: Path) -> None:
    workshop, model = await opened(state, tiny_folder)
    elsewhere = find_target("cuda:sm_90", workshop.targets)
    variant = await workshop.builder.build(Order(model, SMALL, elsewhere), silent)
    assert variant.state == compiler_pb2.VARIANT_STATE_UNCHECKED, variant.state_reason
    assert not variant.HasField("quality")
    assert variant.memory_bytes > 0
    (module,) = (workshop.blobs.existing(file.digest) for file in variant.files if file.name.endswith(".vmfb"))
    asked, compiled, ran = variant.target, variant.compiled_target, list(variant.ran_on)
    assert (asked, compiled, ran) == ("cuda:sm_90", "cuda:sm_89", []), "asked, compiled for and ran are told apart"
    assert read_built_for(module).processors == {"sm_89"}
    workshop.close()


async def test_variants_of_one_precision_share_one_file_of_weights(state: Path, tiny_folder: Path) -> None:
    workshop, model = await opened(state, tiny_folder)
    elsewhere = replace(workshop.targets[0], name="cpu:elsewhere", runnable_here=False)
    # Prompts only: where nothing is run, a function is enough.
    short = replace(SMALL, name="short", decode_batches=())
    weights, added = [], []
    for recipe in (short, replace(short, name="long", prefill_chunks=(32,))):
        before = stored_in(state)
        variant = await workshop.builder.build(Order(model, recipe, elsewhere), silent)
        assert variant.state == compiler_pb2.VARIANT_STATE_UNCHECKED, variant.state_reason
        (archive,) = (file for file in variant.files if file.name.endswith(".irpa"))
        weights.append(archive.digest.removeprefix("sha256:"))
        added.append(stored_in(state) - before)
    assert weights[0] == weights[1]
    assert weights[0] in added[0]
    assert len(added[1]) == len(added[0]) - 1, "all but the weights"
    assert len(list((state / "index" / "weights").iterdir())) == 1, "and were not exported again to find that out"
    workshop.close()


def stored_in(state: Path) -> set[str]:
    """Names of the blobs."""
    return {path.name for path in (state / "blobs").rglob("*") if path.is_file()}


async def test_a_recipe_that_is_fast_and_wrong_is_rejected_with_its_figures(tmp_path: Path) -> None:
    """Data tiling at dispatch creation compiles, runs, and gives garbage in decode, at the width of SmolLM2."""
    wide = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    folder = write_tiny_model(tmp_path / "wide", head_dim=64, **wide)
    workshop, model = await opened(tmp_path / "state", folder)
    wrong = replace(SMALL, name="wrong", compiler_flags=find_recipe("bf16-early-data-tiling").facts.compiler_flags)
    variant = await workshop.builder.build(Order(model, wrong, workshop.targets[0]), silent)
    assert variant.state == compiler_pb2.VARIANT_STATE_REJECTED, variant.state_reason
    assert "decode_b1_c64" in variant.state_reason
    assert "where f32 needs" in variant.state_reason
    assert variant.quality.max_logit_error > 1
    assert compiler_pb2.QUALITY_CHECK_GREEDY in variant.failed_checks, variant.state_reason
    assert variant.files, "kept and listed, never served"
    workshop.close()


@pytest.mark.smollm2
async def test_a_real_gguf_that_was_cut_is_refused(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "state", LIMITS)
    cut = tmp_path / "cut.gguf"
    shutil.copy(smollm2(), cut)
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(BadModelSource, match="fetch it again"):
        await workshop.importer.import_model(cut, silent)
    assert list((tmp_path / "state" / "work").iterdir()) == []
    workshop.close()
