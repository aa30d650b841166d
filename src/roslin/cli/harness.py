"""`roslin harness`: the LM Evaluation Harness's own command, with Roslin's engine under its tasks."""

from collections.abc import Sequence

import typer

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
"""What Typer must be told, so that every option reaches the harness."""


def harness(context: typer.Context) -> None:
    """Run any task of the LM Evaluation Harness (the extra harness): its options, Roslin's engine.

    Such as: roslin harness --model_args pretrained=base,dtype=float32 --tasks lambada_openai
    """
    from roslin.evaluate.harness import run

    run(with_model(context.args))


def with_model(words: Sequence[str]) -> list[str]:
    """The harness's arguments; where it is to run a model and none is named, it is Roslin's."""
    runs = not words or words[0] == "run" or words[0].startswith("-")
    named = any(word.split("=")[0] in ("--model", "-M", "--help", "-h") for word in words)
    return list(words) if named or not runs else [*words, "--model", "roslin"]
