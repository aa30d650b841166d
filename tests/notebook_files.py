"""The notebooks, executed; run by itself it executes them anew and writes what they put out.

python tests/notebook_files.py [NAME…], after a change to a notebook.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("tune_your_own_records", "ask_and_compare", "evaluate")
UNWANTED = {
    "a path of the machine": re.compile(r"""(?:^|[\s"'(=])/(?:[\w.-]+/)+[\w.-]*""", re.MULTILINE),
    "a time of day": re.compile(r"\b\d\d\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b"),
    "a progress bar or a colour": re.compile("[\r\x1b]|%\\|"),
}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def read(name: str) -> NotebookNode:
    return nbformat.read(path_of(name), as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(name: str, folder: Path, *more: str) -> NotebookNode:
    """The notebook with the outputs of a fresh kernel that works in `folder`; `more` are cells that follow its own.

    Raises nbclient's CellExecutionError when a cell fails.
    """
    notebook = read(name)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    return client.execute()


def texts(notebook: NotebookNode) -> Iterator[str]:
    """All that is put out as text."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            yield from (value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))


def unwanted(notebook: NotebookNode) -> list[str]:
    """What of the outputs should not be committed, in words."""
    failures = [output for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]
    found = [f"an error: {failure.ename}: {failure.evalue}" for failure in failures]
    for text in texts(notebook):
        found += [f"{what}: {match[0]!r}" for what, sign in UNWANTED.items() for match in sign.finditer(text)]
    return found


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        with TemporaryDirectory() as working_folder:
            done = executed(name, Path(working_folder))
        done.metadata.language_info = {"name": "python"}
        if faults := unwanted(done):
            sys.exit(f"{name}: {'; '.join(faults)}")
        nbformat.write(done, path_of(name))
