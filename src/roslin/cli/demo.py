"""`roslin demo`: the whole way on a laptop, told in plain words."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import progress_console, result_console

if TYPE_CHECKING:
    from roslin.tune import Callbacks, EvaluationLog, UpdateLog
    from roslin.tune import Progress as TuningProgress
    from roslin.workflows.demo import Result, Screen, Shown


DEFAULT_FOLDER = Path("roslin-demo")


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the demo keeps its records, run and model.")
    ] = DEFAULT_FOLDER,
    again: Annotated[
        bool, typer.Option("--again", help="Start over instead of showing or finishing what is there.")
    ] = False,
) -> None:
    """Tune the small base that ships with Roslin on the starter records, and see by how much it got better."""
    progress = progress_console()
    _say_what_is_there(folder, again, progress)
    result = _run(folder, progress)
    _show(result, folder, result_console())


def _say_what_is_there(folder: Path, again: bool, console: Console) -> None:
    from roslin.workflows.demo import load_result, start_over, state

    if again:
        start_over(folder)
        _say(console, f"Starting over in {folder}.")
    elif state(folder) == "current":
        if load_result(folder) is None:
            _say(console, f"{folder} holds an unfinished demo: going on where it was.")
        else:
            _say(
                console,
                f"{folder} holds a finished demo: shown again, not run again. Start over: {_again(folder)}",
            )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False)


def command() -> str:
    """How this person can type `roslin`: by name if it is on the path, else as it was called."""
    if shutil.which("roslin"):
        return "roslin"
    called = Path(sys.argv[0])
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) else str(called)


def _again(folder: Path) -> str:
    where = "" if folder == DEFAULT_FOLDER else f"--folder {shlex.quote(str(folder))} "
    return f"{command()} demo {where}--again"


def _run(folder: Path, console: Console) -> "Result":
    from roslin.tune import Interrupted
    from roslin.workflows.demo import demo as run

    with TuningBar(console) as bar:
        try:
            return run(folder, _screen(console, bar))
        except (Interrupted, KeyboardInterrupt):
            bar.stop()
            console.print("\nStopped; what is done is kept. The same command goes on from here.")
            raise typer.Exit(130) from None


def _screen(console: Console, bar: "TuningBar") -> "Screen":
    from roslin.workflows.demo import Screen

    return Screen(
        step=lambda title, words: console.print(Text.assemble("\n", (f"{title}.", "bold"), f" {words}")),
        note=lambda text: _say(console, f"  {text}"),
        tuning=bar.callbacks,
    )


class TuningBar:
    """Tuning as a bar: loss, held-out loss, speed, time left. Where stderr is no terminal, a line every ten updates."""

    LINES_EVERY = 10

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("  update {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "TuningBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()

    def callbacks(self) -> "Callbacks":
        """What tuning is to call."""
        from roslin.tune import Callbacks

        return Callbacks(
            on_start=self._start, on_step=self._step, on_evaluate=self._evaluate, on_finish=lambda _: self.stop()
        )

    def _start(self, progress: "TuningProgress", updates: int) -> None:
        if progress.update:
            self._console.print(f"  Goes on from update {progress.update}.")
        if self._console.is_terminal:
            self._task = self._bar.add_task("", total=updates, completed=progress.update, figures="")
            self._bar.start()

    def _step(self, log: "UpdateLog") -> None:
        if self._task is not None:
            from roslin.tune.log import clock

            figures = f"loss {log.loss:.3f} · held-out {log.held_out:.3f} · {log.tokens_per_second:,.0f} tokens/s"
            left = f" · at most {clock(log.seconds_left)} left"
            self._bar.update(self._task, completed=log.update, figures=figures + left)
        elif log.update % self.LINES_EVERY == 0:
            _say(self._console, f"  {log.line()}")

    def _evaluate(self, log: "EvaluationLog", _: object) -> None:
        mark = ", the lowest so far" if log.best else ""
        self._console.print(f"  held-out loss {log.held_out.loss:.3f} at update {log.update}{mark}")


def _show(result: "Result", folder: Path, console: Console) -> None:
    console.print()
    for shown in result.shown:
        console.print(_side_by_side(shown, console.width))
    console.print(_losses(result))
    console.print(_categories(result))
    console.print(_words(result), soft_wrap=True)
    console.print(_next(folder), soft_wrap=True, markup=False)


def _side_by_side(shown: "Shown", width: int) -> Panel:
    columns = Table.grid(padding=(0, 2), expand=True)
    columns.add_column("before", ratio=1)
    columns.add_column("after", ratio=1)
    columns.add_row(Text("before tuning", style="dim"), Text("after tuning", style="bold green"))
    columns.add_row(Text(_shortened(shown.before), style="dim"), Text(shown.after))
    parts = [Text(f"{shown.context}\n", style="italic"), columns] if shown.context else [columns]
    return Panel(Group(*parts), title=Text(shown.instruction), title_align="left", width=min(width, 110))


def _shortened(text: str, limit: int = 320) -> str:
    return text if len(text) <= limit else f"{text[:limit]} …"


def _losses(result: "Result") -> Table:
    table = Table(
        title="Loss on held-out responses (nats a token, lower is better; 95 % intervals)", title_justify="left"
    )
    for name in ("", "before", "after", "change"):
        table.add_column(name)
    table.add_row("end key counted", *(Text(str(loss)) for loss in result.loss))
    table.add_row("end key left out", *(Text(str(loss)) for loss in result.loss_without_end))
    return table


def _categories(result: "Result") -> Table:
    table = Table(title="By category", title_justify="left")
    for name in ("category", "before", "after"):
        table.add_column(name)
    rows = [*result.by_category.items(), ("about Roslin itself", result.about_roslin)]
    for name, (before, after) in rows:
        table.add_row(Text(name), f"{before:.3f}", f"{after:.3f}")
    return table


def _words(result: "Result") -> str:
    share = result.stop_share
    change = result.loss_without_end[2]
    proof = "proves the fall" if change.high < 0 else "does not prove a fall"
    return (
        f"The answers above are the most probable ones, to questions that tuning never saw. Drawn with Dolly's "
        f"sampling defaults, {result.stopped} of {result.judged} held-out answers ended by themselves at the end key "
        f"({share.estimate:.0%}; 95 % interval {share.low:.0%} to {share.high:.0%}). "
        f"The interval of the paired change {proof}.\n"
        f"Of {result.reworded} questions whose answers tuning was taught under other questions, {result.recalled} are "
        f"answered word for word.\n"
        f"Tuned for {result.epochs:.1f} epochs in {result.tuning_seconds:.0f} s; the whole demo took "
        f"{result.seconds:.0f} s.\n\n"
        f"A model this small ({result.parameters / 1e6:.0f} million parameters) learns the [bold]form[/bold] of an "
        "answer, not facts: it responds to the instruction and stops. It can repeat what it was told many times, here "
        "about Roslin; whatever else it states is mostly invented. `roslin tune` does the same with Pythia, a hundred "
        "times larger and more, whose answers are worth reading."
    )


def _next(folder: Path) -> str:
    roslin, model = command(), shlex.quote(str(folder / "model"))
    lines = [
        (f"{roslin} chat {model}", "talk to it"),
        (f'{roslin} ask {model} "What is Roslin?"', "one answer"),
        (f"{roslin} serve {model}", "a chat page, and OpenAI's interface"),
        (f"{roslin} records check my-records.jsonl", "check your own records"),
        *_tune_pythia(roslin),
        (_again(folder), "start over"),
    ]
    width = max(len(line) for line, _ in lines)
    return "\nNext:\n" + "\n".join(f"  {line:<{width}}   {words}" for line, words in lines)


def _tune_pythia(roslin: str) -> list[tuple[str, str]]:
    """The recipe of the next step, where Roslin runs from a clone: only clones have the recipes."""
    recipe = Path(__file__).resolve().parents[3] / "recipes" / "dolly-v2-3b.yaml"
    if not recipe.is_file():
        return []
    shown = recipe.relative_to(Path.cwd()) if recipe.is_relative_to(Path.cwd()) else recipe
    return [(f"{roslin} tune {shlex.quote(str(shown))}", "Pythia on databricks-dolly-15k, on one H100")]
