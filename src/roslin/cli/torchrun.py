"""What torchrun says of this process."""

import os


def works_for_first() -> bool:
    """Whether it is one of several that hold a model together, and not the one that asks it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"
