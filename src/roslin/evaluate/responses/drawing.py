"""How the answers that are judged are drawn."""

from dataclasses import dataclass

from roslin.answer import Settings
from roslin.answer.answer import Keywords


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn: Dolly's sampling, with a seed that is always the same unless another is given.

    Raises InputError with all that is wrong, as `Settings` does.
    """

    seed: int = 0
    greedy: bool = False
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 0.92
    top_k: int = 0

    def __post_init__(self) -> None:
        """Refuse what no answer can be drawn with."""
        Settings(**self.keywords)

    @property
    def keywords(self) -> Keywords:
        """The same as keyword arguments of `Roslin.answer_all`."""
        return {
            "seed": self.seed,
            "greedy": self.greedy,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
        }

    def __str__(self) -> str:
        """In words, for the head of a table or page."""
        if self.greedy:
            return f"greedy, at most {self.max_new_tokens} new tokens"
        return (
            f"sampled with temperature {self.temperature:g}, top_p {self.top_p:g}, top_k {self.top_k}, "
            f"seed {self.seed}, at most {self.max_new_tokens} new tokens"
        )
