"""What lies beside a graph: the tokenizer of a decoder. Reads no code and no pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from services.compiler.sources.detection import check_inside, read_json
from tradewind.domain.errors import BadModelSource

# Files of a decoder that may lie beside its graph.
SIDECARS: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def find_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        BadModelSource: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadModelSource(
            f"{folder} has no tokenizer.json; a decoder needs its tokenizer beside it, in its fast form"
        )
    check_inside(folder)
    read_json(path)
    try:
        if (folder / "tokenizer_config.json").is_file():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loader: Any = PreTrainedTokenizerFast
        return loader(tokenizer_file=str(path))
    except Exception as error:
        # tokenizers raises plain Exceptions on what it cannot parse.
        raise BadModelSource(f"{path} cannot be read as a tokenizer ({error}); save it again") from error


def copy_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes tokenizer.json and, where there is one, chat_template.jinja."""
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
