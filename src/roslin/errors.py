"""The errors that people see: each says what is wrong, where, and what to do, and knows its exit code."""


class RoslinError(Exception):
    """Something a person can mend. The command line prints its text without a traceback."""

    exit_code = 1


class InputError(RoslinError):
    """The input is bad: a record, a recipe, a model folder, a prompt. Exit code 1."""


class UsageError(RoslinError):
    """The command or call was put wrongly. Exit code 2."""

    exit_code = 2


class MachineError(RoslinError):
    """The machine cannot: memory, disk or device. Exit code 3."""

    exit_code = 3
