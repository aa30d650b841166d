"""Recipes of the tests of tuning."""

from typing import Any

from roslin.tune import Recipe


def changed(recipe: Recipe, **values: Any) -> Recipe:
    """The recipe with some of its settings changed."""
    return Recipe.parse(recipe.model_dump() | values)
