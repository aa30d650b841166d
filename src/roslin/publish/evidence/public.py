"""Names and texts as others may read them: where things lie on somebody's machine is left out."""

import re
from pathlib import PurePath

_PATH = re.compile(r"(?<![\w.~:/-])~?/(?:[^\s/'\"`]+/)+([^\s/'\"`]*)")
"""An absolute path of two parts at least; addresses of the web are none."""


def public_name(path: str) -> str:
    """What to call a file, folder or hub name where others read it: of a path from elsewhere, the last part."""
    pure = PurePath(path)
    outside = pure.is_absolute() or path.startswith("~") or ".." in pure.parts
    return pure.name if outside and pure.name else path


def public_text(text: str) -> str:
    """A text in which every absolute path is cut to its last part."""
    return _PATH.sub(lambda found: found[1] or "…", text)


def writable(text: str) -> str:
    """A text as UTF-8 can hold it: half a surrogate pair, which a model can answer, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
