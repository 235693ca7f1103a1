"""The child process of a job: reads a JSON job, writes JSON lines, leaves its files in the job's folder.

    python -m services.compiler.worker import|export|quality|windows|choosing|trial JOB.json
    python -m services.compiler.worker exports JOBS.json        several exports, see `services.compiler.jobs.forks`

Lines on standard output: {"stage": text, "share": 0…1}, and at the end {"result": …} or {"error": …}. Must not touch
the blob store, the database or the network: it handles foreign files.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tradewind.domain.errors import TradewindError, UnsupportedModel

if TYPE_CHECKING:
    from services.compiler.passes.form import Form

Job = dict[str, Any]


def import_model(job: Job) -> Job:
    """Source → the store's form, facts, and the source's answers."""
    from services.compiler.sources.detection import Form
    from services.compiler.sources.front_ends import Import, bring

    source, output, reference = (Path(job[key]) for key in ("source", "output", "reference"))
    return bring(Import(Form(job["form"]), source, output, reference, say))


def export(job: Job) -> Job:
    """The store's form → MLIR with the functions wanted and, where wanted, the weights archive."""
    if job["task"] == "infer":
        from services.compiler.infer.jobs import export_infer

        return export_infer(job, say)
    from services.compiler.export.generator import export_mlir, save_weights
    from services.compiler.export.shapes import Shapes
    from services.compiler.passes.form import form_of
    from services.compiler.search.cut import cut_layers
    from services.compiler.sources.loading import torch_type
    from services.compiler.sources.normal_form import load_generator
    from tradewind.domain.passes import NARROW_WEIGHTS

    say("loading weights", 0.05)
    narrow = NARROW_WEIGHTS in job["passes"]
    form = form_of(job["passes"], job["precision"])
    model = load_generator(Path(job["model"]), "f32" if form.rounds else job["precision"], narrow)
    if job["layers"] and not cut_layers(model, job["layers"]):
        raise UnsupportedModel(f"the model cannot be cut to its first {job['layers']} layers")
    cache_bytes = export_mlir(
        model,
        Shapes.from_sizes(job["shapes"]),
        Path(job["mlir"]),
        lambda name, share: say(f"tracing {name}", share),
        torch_type(_computed_in(job["precision"], form, narrow)),
        form,
    )
    if job["weights"]:
        say("writing weights", 0.95)
        save_weights(model, Path(job["weights"]))
    return {"cache_bytes": cache_bytes}


def _computed_in(precision: str, form: Form, narrow: bool) -> str:
    """The precision of arithmetic, and of the cache where the form does not say."""
    if form.f16:
        return "f16"
    return "f32" if narrow or form.rounds else precision


def quality(job: Job) -> Job:
    """Module and weights → figures against the reference, and the canary."""
    if job["task"] == "infer":
        from services.compiler.infer.jobs import check_infer

        return check_infer(job, say)
    from services.compiler.quality.jobs import check_variant

    return check_variant(job, say)


def windows(job: Job) -> Job:
    """The store's form → the source's answers on many windows of text."""
    from services.compiler.quality.jobs import ask_about_windows

    return ask_about_windows(job, say)


def choosing(job: Job) -> Job:
    """The store's form → the source's answers on the text for choosing."""
    from services.compiler.search.jobs import answer_for_choosing

    return answer_for_choosing(job, say)


def trial(job: Job) -> Job:
    """Module and weights → what it costs, and figures on the text for choosing."""
    if job["task"] == "infer":
        from services.compiler.infer.jobs import try_infer

        return try_infer(job, say)
    from services.compiler.search.jobs import try_candidate

    return try_candidate(job, say)


KINDS: Final[dict[str, Callable[[Job], Job]]] = {
    "import": import_model,
    "export": export,
    "quality": quality,
    "windows": windows,
    "choosing": choosing,
    "trial": trial,
}


EXPORTS: Final = "exports"
# What every job over a model of transformers loads first: PyTorch, and what all architectures share.
ASKING: Final = ("services.compiler.sources.normal_form", "transformers.models.llama.modeling_llama")
# And with turbine, what every export and import does: some four seconds of a core.
SHARED: Final = ("services.compiler.export.generator", *ASKING)
# Jobs that read what others made. Comparisons need devices, and read what our own compiler made.
CONFINED: Final = frozenset({"import", "export", "windows", "choosing"})


def _export_each(path: Path) -> None:
    """Exports of one model, one after another; confined as each of them would be, to the folders of all."""
    from services.compiler.jobs.forks import run_each

    _load(SHARED)
    jobs = json.loads(path.read_text(encoding="utf-8"))
    paths = [Path(job) for job in jobs["jobs"]]
    _confine(json.loads(paths[0].read_text(encoding="utf-8")), path.parent)
    run_each(paths, float(jobs["time_s"]), lambda job: _do("export", job), _write)


def _load(names: tuple[str, ...]) -> None:
    """Imports libraries, which make no garbage worth looking for, and keeps them out of later looks for it.

    Looking took a third of the processor time of a tiny model's import, and of its export.
    """
    gc.disable()
    for name in names:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def _libraries(kind: str, job: Job) -> tuple[str, ...]:
    """What a confined job is sure to need of this machine's libraries."""
    from services.compiler.sources.detection import Form

    if kind == "import":
        return SHARED if job["form"] in (Form.HUGGING_FACE, Form.GGUF) else ()
    if not (Path(job["model"]) / "model.safetensors").exists():
        return ()
    return SHARED if kind == "export" else ASKING


def _confine(job: Job, folder: Path) -> None:
    """Lets the job see its source, or the store's files that it names, and write its folder only.

    Raises:
        UnsupportedModel: a source that runs code, on a kernel that cannot confine it.
    """
    from services.compiler.jobs.sandbox import confine
    from services.compiler.sources.detection import LONE_FILES, RUNS_CODE, Form, file_of

    if "source" in job:
        source = file_of(Path(job["source"])).resolve()
        alone = source.is_dir() or job["form"] in LONE_FILES
        read = [source if alone else source.parent]
    else:
        read = [path.resolve() for path in Path(job["model"]).iterdir()]
    # A hub's snapshot folder links to the blobs beside it.
    read += [path.resolve() for entry in read if entry.is_dir() for path in entry.iterdir() if path.is_symlink()]
    confinement = confine(read, [folder])
    if not confinement.whole and job.get("form") in RUNS_CODE:
        raise UnsupportedModel(
            f"this machine's kernel cannot confine {Form(job['form'])} models (files: {confinement.files}, network: "
            f"{confinement.network}); Linux 5.13 or newer with Landlock and seccomp is needed"
        )


def say(stage: str, share: float) -> None:
    """Tells the parent where the work stands."""
    _write({"stage": stage, "share": share})


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main(arguments: list[str]) -> int:
    """Runs one job; the exit status."""
    kind, path = arguments[0], Path(arguments[1])
    if kind == EXPORTS:
        _export_each(path)
        return 0
    if kind in CONFINED:
        job: Job = json.loads(path.read_text(encoding="utf-8"))
        try:
            _confine(job, path.parent)
        except TradewindError as error:
            return _fail(error)
        _load(_libraries(kind, job))
    return _do(kind, path)


def _do(kind: str, path: Path) -> int:
    job: Job = json.loads(path.read_text(encoding="utf-8"))
    try:
        result = KINDS[kind](job)
    except TradewindError as error:
        return _fail(error)
    _write({"result": result})
    return 0


def _fail(error: TradewindError) -> int:
    _write({"error": {"class": type(error).__name__, "message": error.message, "metadata": error.metadata}})
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
