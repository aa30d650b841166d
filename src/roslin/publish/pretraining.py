"""What is known of the text that well-known bases were pretrained on."""

_PILE = (
    "The Pile ({base}): mostly collected from the public internet, and like most web-scale text it contains content "
    "that many people would find objectionable. The model is likely to reflect that: openly where it is asked for "
    "such content, and at times subtly, in biased or harmful associations."
)
_KNOWN = (
    (("EleutherAI/pythia-", "EleutherAI/gpt-j-6", "EleutherAI/gpt-neox-20b", "databricks/dolly-"), _PILE),
    (
        ("HuggingFaceTB/SmolLM2-",),
        "{base} was pretrained on text of the web that was filtered for its value in education, on code, and on text "
        "that other models wrote (its card names the sets). It reflects what these hold, errors and biases included.",
    ),
)

OF_THE_SMALL_BASE = (
    "Roslin's small base was pretrained on textbooks of OpenStax, samples of Wikipedia and Wikinews, books of Standard "
    "Ebooks and glosses of WordNet (see the attribution). It reflects what these hold, the views of older books among "
    "it."
)


def pretraining_of(base: str | None) -> str | None:
    """A sentence on the text behind a base of this name on the hub; None where nothing is known."""
    if base is None:
        return None
    return next((text.format(base=base) for names, text in _KNOWN if base.startswith(names)), None)
