"""The LM Evaluation Harness with the model `roslin` in it: any of its tasks on Roslin's engine.

    python -m roslin.evaluate.harness --model roslin --model_args pretrained=base,dtype=float32 --tasks piqa

is lm_eval's own command, all its options included, after `register`. It is needed because lm_eval 0.4.13, the version
that Roslin's table is held against, looks models up in a list of its own and reads no entry points. Versions to come
read those of the group `lm_eval.models` (its plugin guide), where Roslin is declared: there, `lm_eval --model roslin`
works by itself. In Python, call `register` before `lm_eval.simple_evaluate(model="roslin")`, or pass it a
`roslin.evaluate.harness_model.RoslinLM`.
"""

import sys
from collections.abc import Sequence

from roslin.errors import RoslinError, UsageError

NAME = "roslin"
NO_TASK = "Tasks not found"
"""How the harness says that."""
TARGET = "roslin.evaluate.harness_model:RoslinLM"


def register() -> None:
    """Make the harness know the model `roslin`. Raises UsageError where lm_eval is not installed."""
    try:
        import lm_eval.models  # noqa: F401  # its own: the registry adds them only while it holds none
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise UsageError("lm_eval is not installed here: pip install 'roslin[harness]'.") from None
    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


def run(arguments: Sequence[str]) -> None:
    """lm_eval's command with these arguments and the model `roslin`. Raises RoslinErrors; lm_eval exits by itself."""
    register()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]  # where its parser reads them
    try:
        cli_evaluate()
    except ValueError as error:
        if not str(error).startswith(NO_TASK):
            raise
        raise UsageError(f"{error}. `roslin harness ls tasks` lists those that the harness has.") from None


def main() -> None:
    """Run the command; a RoslinError is printed without a traceback and becomes the exit code."""
    try:
        run(sys.argv[1:])
    except RoslinError as error:
        print(f"roslin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
