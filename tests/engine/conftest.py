import pytest

from roslin.model import Decoder
from tiny_decoders import FAMILIES, tiny_decoder


@pytest.fixture(scope="session", params=FAMILIES)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return tiny_decoder(request.param)


@pytest.fixture(scope="session")
def neox() -> Decoder:
    return tiny_decoder("gpt_neox")
