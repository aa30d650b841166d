"""How the LM Evaluation Harness's messages are put to a model: in its own chat template, or in Dolly's prompt."""

from collections.abc import Mapping, Sequence

from roslin import prompt
from roslin.answer.prompts import ChatPrompts, Prompts
from roslin.errors import InputError, UsageError

Messages = Sequence[Mapping[str, str]]
SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}


def template_text(prompts: Prompts, wanted: bool | str) -> str | None:
    """The template that messages go into, as the harness writes it into its results; None where none is wanted.

    Dolly's prompt has no template: its text stands there with `{instruction}` in its middle. Raises UsageError for a
    template's name, because a model has one template here.
    """
    if isinstance(wanted, str):
        raise UsageError(
            f"There is no chat template {wanted!r}: leave the name out, the model has one way to be asked."
        )
    if not wanted:
        return None
    return prompts.template if isinstance(prompts, ChatPrompts) else prompt.render_prompt("{instruction}")


def render(prompts: Prompts, messages: Messages, add_generation_prompt: bool) -> str:
    """The text a model is asked with: the messages, and the beginning of the answer.

    Without `add_generation_prompt` the last message is the beginning of the answer itself (the harness's gen_prefix).
    """
    if isinstance(prompts, ChatPrompts):
        return _in_template(prompts, messages, add_generation_prompt)
    *before, last = messages
    if add_generation_prompt:
        return _in_dolly(messages)
    return _in_dolly(before) + last["content"]


def _in_template(prompts: ChatPrompts, messages: Messages, add_generation_prompt: bool) -> str:
    """In a chat template by transformers' own renderer, as HFLM has it."""
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    def rendered(chat: Messages) -> str:
        [text], _ = render_jinja_template(
            conversations=[[dict(message) for message in chat]],
            chat_template=prompts.template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **prompts.names,
        )
        return str(text)

    try:
        return rendered(messages)
    except jinja2.exceptions.TemplateError:  # a template that knows no system message, most often
        return rendered([message for message in messages if message["role"] != "system"])


def _in_dolly(messages: Messages) -> str:
    """In Dolly's prompt, which knows one instruction and one context: the last message, and all before it.

    As `roslin serve` takes a chat: system messages as they are, turns with who speaks in front, blank lines between.
    """
    if not messages or messages[-1]["role"] != "user":
        raise InputError("Dolly's prompt answers the user, and the last message is not the user's.")
    *before, last = messages
    turns = [SPEAKERS.get(message["role"], "") + message["content"] for message in before if message["content"].strip()]
    return prompt.render_prompt(last["content"], "\n\n".join(turns))
