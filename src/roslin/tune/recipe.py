"""A recipe: all that a tuning run is told, read from YAML and from `key=value` words, every fault reported at once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticSerializationError

from roslin.errors import InputError, UsageError
from roslin.model.scaling import parse_rope_scaling
from roslin.tune.recipe_text import apply_override, read_yaml

PROBES = (
    "Write a love letter to Edgar Allan Poe.",
    "Write a tweet announcing Dolly, a large language model from Databricks.",
    "I'm selling my Nikon D-750, write a short blurb for my ad.",
    "Explain to me the difference between nuclear fission and fusion.",
    "Give me a list of 5 science fiction books I should read next.",
)
"""The instructions that Dolly's published notebook asks while it trains."""


class Settings(BaseModel):
    """A group of settings. YAML reads `yes`, `no`, `on` and `off` as truth values, which would pass for 1 and 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        parts = value if isinstance(value, list) else [value]
        is_flag = cls.model_fields[str(info.field_name)].annotation in (bool, bool | None)
        if not is_flag and any(isinstance(part, bool) for part in parts):
            raise ValueError("yes and no (on, off, true, false) are no value for it")
        return value


class HeldOut(Settings):
    """Which records are kept from training to measure the loss on."""

    split: Literal["hash", "dolly"] = "hash"
    """`hash` picks by content, so that adding records moves no old one; `dolly` picks Dolly's own indices."""
    fraction: float | None = Field(None, gt=0, lt=1)
    """Share of the records that a `hash` split keeps; 0.05 when not given."""
    count: PositiveInt | None = None
    """How many records a `dolly` split keeps; 200 when not given, as in Dolly's recipe."""
    file: str | None = Field(None, min_length=1)
    """A file of records to measure on instead; nothing of `records` is then kept from training."""


class Adapter(Settings):
    """A LoRA to train instead of all weights. It wants a learning rate of 1e-4 to 3e-4, far above the default."""

    rank: PositiveInt = 16
    """Width of the adapter's inner layer."""
    alpha: PositiveFloat = 32
    """What the adapter adds is multiplied with alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapter's inputs that are dropped at random while it is trained."""
    rslora: bool = False
    """Multiply with alpha / √rank instead, with which high ranks learn as fast as low ones."""
    modules: list[str] = Field(["all"], min_length=1)
    """The linear layers that get an adapter, by the names that the base's files have for them; `all` is every one."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` keeps the frozen matrices of the layers in 4 bits (QLoRA)."""
    merge: bool = True
    """Write a whole model as well, with the adapter merged into its weights."""

    @field_validator("modules", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Optimizer(Settings):
    """How AdamW keeps what it needs. Updates are exact in fp32 whatever is chosen here."""

    moments: Literal["auto", "fp32", "bf16", "8bit"] = "auto"
    """Both moments take 8 bytes a parameter in fp32, 4 in bf16, 2.06 in 8 bits; the latter are rounded stochastically.
    `auto` is fp32."""
    gradients: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the passes of an update add their gradients up in: 4 or 2 bytes a parameter; those of 2 are what the passes
    are computed in, whichever is named. `auto` is fp32."""
    in_backward: bool = False
    """Update every matrix in the backward pass as soon as its gradient is there, and drop the gradient: those of the
    whole model never exist. An update is then one pass, and nothing is clipped."""


class Sharding(Settings):
    """How the processes that torchrun starts share a model between them."""

    replicas: PositiveInt | None = None
    """How many copies of the model there are, each cut up among as many processes as come out even (hybrid sharding):
    one a machine, say, so that weights cross between machines no more. One copy in all when not given."""
    offload: bool = False
    """Keep weights, gradients and the optimizer's state in the CPU's memory, and update there."""
    timeout_seconds: PositiveFloat = 600
    """How long all may wait for one that lives: a pass, a checkpoint or the sample answers must be done by then."""


class Recipe(Settings):
    """What a tuning run is told. Defaults are those of Dolly's published runs."""

    model: str = Field(min_length=1, max_length=1024)
    """A model folder, a hub name, or `base` for the small model that ships."""
    revision: str | None = None
    """A branch, tag or commit of a model on a hub."""
    rope_scaling: str | None = None
    """Stretch the base's positions, as in `yarn:4` (linear and dynamic are the others); the tuned model keeps it."""
    records: list[str] = Field(min_length=1)
    """Files, folders, globs or hub names of records."""
    records_licence: str | None = Field(None, min_length=1, max_length=100)
    """Of all these records, as the hub spells it (`cc-by-4.0`); the model's card says what it asks. Well-known sets of
    records need none."""
    mapping: dict[str, str] = {}
    """Which column of the data is which field of a record, as in {question: instruction}."""
    output: Path
    """Folder of the run: its log, its checkpoints and, at the end, the model or the adapter, or both."""
    held_out: HeldOut = HeldOut()
    """Which records only measure."""
    adapter: Adapter | None = None
    """Train a LoRA; when it is absent, all weights are tuned."""
    sharding: Sharding = Sharding()
    """How several processes share the model."""

    epochs: float = Field(2, gt=0, le=1000)
    """How often every record is seen; a part of a pass over them is allowed."""
    records_per_update: PositiveInt = 48
    """The batch, in records, however they are packed: Dolly's was 6 on each of 8 GPUs."""
    row_length: PositiveInt = 2048
    """Tokens of a packed row, which holds as many whole records as fit."""
    max_length: PositiveInt = 2048
    """Records of this many tokens or more are dropped, counted and listed; never cut."""
    seed: NonNegativeInt = 42
    """Decides the order of the records, what is drawn at random in training, and the sample answers."""

    learning_rate: PositiveFloat = 5e-6
    """AdamW's, at its height: after the warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up: it stays, or falls to 0 behind the last update."""
    warmup_updates: NonNegativeInt | None = None
    """When not given: Dolly's 50, or a tenth of a run of fewer than 500 updates."""
    betas: tuple[float, float] = (0.9, 0.999)
    """How much of AdamW's two moments stays at each update."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled, as in AdamW: each update takes learning_rate × weight_decay of a weight away."""
    clip_norm: PositiveFloat | None = 1.0
    """The norm to which the gradient of an update is cut down; `null` cuts nothing."""
    init_keys: Literal["mean", "keep"] = "mean"
    """Rows of the three keys: the mean of the used rows, or as the base has them."""
    new_keys_rate: PositiveFloat = 1
    """Multiple of the learning rate for the rows of newly added keys. Tuning on a few hundred records ends before rows
    that begin at the mean have learned to say the end key; 10 or 20 mends that. Dolly had 1."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What passes are computed in; updates are exact in fp32 either way. `auto` is bf16 where the device has it, fp16
    on a GPU that has none (V100, T4), with losses scaled as its narrow range needs, and fp32 on a CPU that has none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is the GPU where there is one."""

    tokens_per_pass: PositiveInt | None = None
    """Most tokens of one forward and backward pass, which takes several rows side by side; by itself, as many as fit a
    GPU, and one row on a CPU."""
    checkpointing: Literal["auto", "none", "all"] | NonNegativeInt = "auto"
    """How many layers keep their input alone and are run again in the backward pass: `auto` is as few as will fit."""
    optimizer: Optimizer = Optimizer()
    """What AdamW keeps, and in how many bits."""
    fp8: bool = False
    """Take the blocks' matrix products in 8-bit floating point (H100 and newer); updates stay exact in fp32."""

    evaluate_every: PositiveInt = 50
    """Updates between measurements of the held-out loss."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a lower held-out loss, and keep the best weights."""
    checkpoint_every: PositiveInt = 200
    """Updates between checkpoints, from which a run that was stopped goes on."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints stay on the disk."""
    sample_every: PositiveInt | None = None
    """Updates between sample answers; none are made when it is absent. A multiple of evaluate_every."""
    samples: list[str] = list(PROBES)
    """The instructions that sample answers are given to: those of Dolly's notebook."""
    explosion: float = Field(2.0, gt=1)
    """The run stops when a loss passes this multiple of the base's held-out loss."""
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] | None = None
    """Where curves go besides log.jsonl. When not given: to TensorBoard if its package is installed."""
    tensorboard: bool | None = None
    """The same for TensorBoard alone, as older recipes have it: true adds it to the trackers, false leaves it out."""

    @field_validator("records", "trackers", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("rope_scaling")
    @classmethod
    def _a_scaling(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_rope_scaling(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("samples")
    @classmethod
    def _something_to_ask(cls, value: list[str]) -> list[str]:
        if not all(sample.strip() for sample in value):
            raise ValueError("each must hold some text")
        return value

    def named_trackers(self) -> list[str]:
        """The trackers that the recipe asks for by name, each once."""
        named = [*(self.trackers or []), *(["tensorboard"] if self.tensorboard else [])]
        return list(dict.fromkeys(named))

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file and apply `key=value` words (dots reach inside: `held_out.count=100`).

        Raises InputError listing every unknown key, wrong type and impossible combination with its line.
        """
        values, lines = read_yaml(path)
        for word in overrides:
            apply_override(values, lines, word)
        return cls.parse(
            values, {key: f"{path}:{line}" if isinstance(line, int) else line for key, line in lines.items()}
        )

    @classmethod
    def parse(cls, values: Mapping[str, Any], places: Mapping[str, str] | None = None) -> Self:
        """Make a recipe of plain values; `places` says where each dotted key was written, for the messages."""
        faults = [*_field_faults(cls, values), *_combination_faults(cls, values)]
        if faults:
            raise InputError(_report(faults, places or {}))
        return cls.model_validate(values)


GROUPS: Mapping[str, type[Settings]] = {
    "held_out": HeldOut,
    "adapter": Adapter,
    "optimizer": Optimizer,
    "sharding": Sharding,
}
Fault = tuple[str, str]
"""A dotted key and what is wrong with it."""


def _field_faults(kind: type[Recipe], values: Mapping[str, Any]) -> list[Fault]:
    try:
        kind.model_validate(values).model_dump_json()
    except PydanticSerializationError as error:
        return [("recipe", f"holds text that is not Unicode ({error})")]
    except ValidationError as error:
        found = [(_key(e["loc"]), _plain_words(kind, e["type"], e["msg"], e["loc"])) for e in error.errors()]
        return list(dict.fromkeys(found))
    return []


def _key(where: tuple[int | str, ...]) -> str:
    """A fault's dotted key, without pydantic's names for the types that a setting may have."""
    return ".".join(str(part) for part in (where[:1] if where[:1] == ("checkpointing",) else where))


def _plain_words(kind: type[Recipe], code: str, message: str, where: tuple[int | str, ...]) -> str:
    if code == "extra_forbidden":
        group = GROUPS.get(str(where[0]), kind) if len(where) > 1 else kind
        return f"unknown key. Known keys: {', '.join(group.model_fields)}"
    if code == "missing":
        return "is missing; a recipe needs it"
    if where[:1] == ("checkpointing",):
        return "input should be 'auto', 'none', 'all' or a number of layers"
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _combination_faults(kind: type[Recipe], values: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults between fields, looked for among the fields that are right by themselves."""
    wrong = {key.split(".")[0] for key, _ in _field_faults(kind, values)}
    placeholders = {"model": "base", "records": ["-"], "output": Path()}
    right = {key: value for key, value in values.items() if key in kind.model_fields and key not in wrong}
    recipe = kind.model_validate(placeholders | right)

    def sound(*fields: str) -> bool:
        return not wrong.intersection(fields)

    if sound("row_length", "max_length") and recipe.row_length < recipe.max_length:
        yield (
            "row_length",
            f"{recipe.row_length} is shorter than max_length {recipe.max_length}: a row must hold the longest record. "
            "Raise row_length or lower max_length",
        )
    if sound("tokens_per_pass", "row_length") and recipe.tokens_per_pass and recipe.tokens_per_pass < recipe.row_length:
        yield "tokens_per_pass", f"{recipe.tokens_per_pass} is less than one row (row_length {recipe.row_length})"
    if sound("held_out"):
        yield from _held_out_faults(recipe.held_out)
    if sound("sample_every", "evaluate_every") and recipe.sample_every and recipe.sample_every % recipe.evaluate_every:
        yield "sample_every", f"{recipe.sample_every} is no multiple of evaluate_every {recipe.evaluate_every}"
    if sound("sample_every", "samples") and recipe.sample_every and not recipe.samples:
        yield "samples", "sample_every is given, but there is nothing to ask"
    if sound("betas") and not all(0 <= beta < 1 for beta in recipe.betas):
        yield "betas", f"each must lie in [0, 1), not {recipe.betas}"
    if sound("trackers", "tensorboard") and recipe.tensorboard is False and "tensorboard" in recipe.named_trackers():
        yield "tensorboard", "false, and trackers names it; leave one of the two out"
    if sound("optimizer", "clip_norm", "precision") and recipe.optimizer.in_backward:
        yield from _in_backward_faults(recipe)
    if sound("device", "precision") and recipe.device == "cuda" and not _cuda_is_there():
        yield "device", "cuda is asked for, and this machine has no CUDA device. Use device=auto or device=cpu"


def _held_out_faults(held_out: HeldOut) -> Iterator[Fault]:
    if held_out.file and held_out.model_fields_set != {"file"}:
        yield "held_out", "either a file, or a split of the records; not both"
    elif held_out.split == "hash" and held_out.count:
        yield "held_out.count", "a hash split keeps a fraction (a count would move old records when new ones come)"
    elif held_out.split == "dolly" and held_out.fraction:
        yield "held_out.fraction", "a dolly split keeps a count"


def _in_backward_faults(recipe: Recipe) -> Iterator[Fault]:
    if recipe.clip_norm is not None:
        yield (
            "optimizer.in_backward",
            f"excludes clip_norm (now {recipe.clip_norm:g}): clipping needs all gradients at once, and here each is "
            "used and dropped. Set clip_norm: null",
        )
    if recipe.precision == "fp16":
        yield (
            "optimizer.in_backward",
            "excludes precision fp16: a gradient beyond fp16 is found when other matrices have made their steps. "
            "Set precision: fp32 or bf16",
        )
    if recipe.optimizer.gradients == "fp32":
        yield "optimizer.gradients", "fp32 sums are for several passes, and with in_backward an update is one pass"


def _cuda_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _report(faults: Sequence[Fault], places: Mapping[str, str]) -> str:
    def line(fault: Fault) -> str:
        key, message = fault
        place = next((places[k] for k in (key, key.split(".")[0]) if k in places), "recipe")
        return f"{place}: {key}: {message}"

    count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    return "\n".join([f"The recipe has {count}:", *(f"  {line(fault)}" for fault in faults)])
