"""How a command ends that could not do what it was asked."""

import click


class Failed(click.ClickException):
    """With an exit code that says of which kind it is."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance
