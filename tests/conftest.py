"""What every test may use: the shared data, where it stands, and tiny models."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


# A test run that was started in the background ignores Ctrl-C, and so would every command it starts; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Kernels run in Triton's interpreter where there is no GPU, which must be said before they are first imported.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """A test that leaves its thread without gradients fails itself, instead of those that come after it."""
    yield
    import torch  # which some tests do without

    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The small GPT-NeoX base that ships with Roslin."""
    return ROOT / "src" / "roslin" / "assets" / "base"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout (dolly-15k, tokenizers). Clones without it leave these out; CI must have it."""
    if SHARED_DATA.is_dir():
        return SHARED_DATA
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, and the shared data is missing: {SHARED_DATA}")
    return pytest.skip("needs the shared data (databricks-dolly-15k, the Pythia tokenizer), which clones do not have")


@pytest.fixture(scope="session")
def dolly_15k(shared_data: Path) -> Path:
    """All of databricks-dolly-15k."""
    return shared_data / "records" / "databricks-dolly-15k.jsonl"


@pytest.fixture(scope="session")
def pythia_tokenizer(shared_data: Path) -> Path:
    """The GPT-NeoX-20B / Pythia tokenizer, as one tokenizer.json."""
    return shared_data / "tokenizer" / "20B_tokenizer.json"
