"""A pair: one instruction and two answers to it, side by side, as a judge sees them."""

from pydantic import BaseModel, ConfigDict


class Pair(BaseModel):
    """What a judge is shown. Nothing in it tells which model gave which answer."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    number: int
    """Its place in the sheet, from 1."""
    instruction: str
    context: str
    reference: str | None
    """The record's own response, where the sheet shows it."""
    left: str
    right: str
