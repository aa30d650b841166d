"""Puts the files of `notebooks/` beside the page that includes its README, so that its links lead to them."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = "how-to"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs' event: add the notebooks."""
    for path in sorted((Path(config.config_file_path).parent / "notebooks").iterdir()):
        if path.suffix in (".ipynb", ".py"):
            files.append(File.generated(config, f"{FOLDER}/{path.name}", abs_src_path=str(path)))
    return files
