"""Export: a model in a format that others run, kept only if it is still the model."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from roslin.errors import InputError, MachineError, UsageError, out_of_memory
from roslin.model import find_model
from roslin.publish.export_ctranslate2 import CTranslate2Export
from roslin.publish.export_gguf import GgufExport, Quantize
from roslin.publish.export_hf import HfExport
from roslin.publish.export_source import Source, trim_rows
from roslin.publish.parity import ParityError, check_tokenizer, compare_logits, decoder_logits, parity_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch

    from roslin.model import Decoder, ModelConfig
    from roslin.publish.parity import Parity, Readback, Tolerance

FormatName = Literal["hf", "gguf", "ctranslate2", "merged"]


class Format(Protocol):
    """A format to export to: how it is written, and how what was written is run to see that it is the model."""

    @property
    def trims(self) -> bool:
        """Whether rows beyond the tokenizer are left out in any case."""
        ...

    def check(self, source: Source) -> None:
        """Raise InputError or MachineError, before any weight is loaded, if it cannot be."""
        ...

    def positions(self, config: ModelConfig) -> int:
        """How long a text may be for the export to be the same model."""
        ...

    def tolerance(self, source: Source, decoder: Decoder) -> Tolerance:
        """How far the export may be from its source."""
        ...

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        """Write everything into `folder`, which is there and empty."""
        ...

    def read(self, source: Source, written: Decoder, folder: Path, texts: Sequence[Sequence[int]]) -> Readback:
        """Run what was written, in fp32; `written` is what it was made of."""
        ...


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    folder: Path
    size: int
    """In bytes, all files together."""
    parity: Parity


def format_of(name: FormatName, dtype: torch.dtype | None = None, quantize: Quantize | None = None) -> Format:
    """The format of this name. Raises UsageError for a setting that it has not."""
    if name == "gguf":
        if dtype is not None:
            raise UsageError("--dtype is not for gguf, whose numbers --quantize chooses: f16, q8_0 or q4_0.")
        return GgufExport(quantize or "f16")
    if quantize is not None:
        raise UsageError(f"--quantize is for gguf; {name} takes --dtype float32, bfloat16 or float16.")
    return CTranslate2Export(dtype) if name == "ctranslate2" else HfExport(dtype, merged=name == "merged")


def export(
    model: str,
    folder: Path,
    how: Format,
    *,
    revision: str | None = None,
    trim: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write a model to `folder` in another format, run what was written, and give it its name if it is the model.

    `trim` leaves out the rows of embedding and head beyond the tokenizer's. Until its logits, its tokenizer and its
    weights have been compared with the source's, the export is in a folder whose name ends in `.partial`, which is
    removed if they differ by more than the format's rounding explains, or if anything else goes wrong.
    Raises ParityError then; InputError for a model that is not found or does not fit the format, and for a folder that
    holds files; MachineError for memory, disk, or a package that is missing.
    """
    check_free(folder)
    source = Source.open(find_model(model, revision))
    how.check(source)
    whole = folder.resolve()
    partial = whole.with_name(whole.name + ".partial")
    with machine_for(folder), kept_if_whole(partial, whole):
        say(f"Loading {source.path} …")
        decoder = source.load(getattr(how, "dtype", None) if source.is_adapter else None)
        tolerance = how.tolerance(source, decoder)
        if trim or how.trims:
            trim_rows(decoder, source.tokens)
        say(f"Writing {partial} …")
        how.write(source, decoder, partial)
        source.copy_notices(partial)
        say("Comparing it with its source …")
        parity = _compare(source, decoder, how, partial, tolerance)
    return Exported(folder, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()), parity)


def _compare(source: Source, written: Decoder, how: Format, partial: Path, tolerance: Tolerance) -> Parity:
    """Both models one after the other: each is in memory as fp32 alone."""
    texts = parity_ids(source.tokenizer, how.positions(source.config))
    expected_NV = decoder_logits(source.load_reference(), texts)[:, : source.tokens]
    found = how.read(source, written, partial, texts)
    check_tokenizer(source.tokenizer, found.tokenizer)
    parity = compare_logits(expected_NV, found.logits_NV[:, : source.tokens], tolerance, found.weight_error)
    if faults := parity.faults():
        told = "\n".join(f"  {fault}" for fault in faults)
        raise ParityError(
            f"The export is not the model any more, so it was not kept:\n{told}\nTry one that rounds less (--quantize "
            "q8_0 or f16, --dtype float32); if this one rounds little already, the format cannot hold the model."
        )
    return parity


def check_free(folder: Path) -> None:
    """Raise InputError for a folder that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already. Remove it, or give another folder to export to.")


@contextmanager
def kept_if_whole(partial: Path, folder: Path) -> Iterator[None]:
    """Work in a fresh folder, which takes its name at the end, on the disk itself, or is removed."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield
        for path in [*partial.rglob("*"), partial]:
            _flush(path)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def machine_for(folder: Path) -> Iterator[None]:
    """Tell what the machine lacks as a MachineError."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else error.strerror or str(error)
            raise MachineError(f"{folder} could not be written: {why}. Nothing of it was kept.") from error
        if not out_of_memory(error):
            raise
        raise MachineError(
            f"There is not enough memory to export to {folder}: beside the model's own weights it takes them once in "
            "fp32, to compare. Nothing of it was kept."
        ) from error
