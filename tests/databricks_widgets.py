"""A stand-in for the widgets of Databricks."""


class Widgets:
    """dbutils.widgets, as far as the notebook uses it; everything that is offered, and what somebody chose."""

    def __init__(self, **chosen: str) -> None:
        self.offered: dict[str, list[str] | None] = {}
        self._values: dict[str, str] = {}
        self._chosen = chosen

    def dropdown(self, name: str, default: str, choices: list[str], label: str) -> None:
        assert label == name
        assert default in choices
        self._add(name, default, choices)

    def text(self, name: str, default: str, label: str) -> None:
        assert label == name
        self._add(name, default, None)

    def get(self, name: str) -> str:
        return self._chosen.get(name, self._values[name])

    def _add(self, name: str, default: str, choices: list[str] | None) -> None:
        self.offered[name], self._values[name] = choices, default
