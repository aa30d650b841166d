"""A record: one instruction and the response a person would want to it."""

from pydantic import BaseModel, ConfigDict

DOLLY_CATEGORIES = (
    "brainstorming",
    "classification",
    "closed_qa",
    "creative_writing",
    "general_qa",
    "information_extraction",
    "open_qa",
    "summarization",
)


class Record(BaseModel):
    """One instruction, its optional context, the response, and a category (any of Dolly's eight, or your own)."""

    model_config = ConfigDict(frozen=True, strict=True)

    instruction: str
    context: str = ""
    response: str
    category: str = ""
