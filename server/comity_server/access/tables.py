"""A table of the policy file. Of one that is wrong in several ways all is said at once: what a field must not be, and
what does not fit together."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class Table(BaseModel):
    """A table of the file. Those that have fields to fit together say so by `unfit`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def unfit(cls, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What does not fit together: each time a field, and what is wrong with it. What the fields are is not known
        to be right."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, said: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        wrong: list[InitErrorDetails] = []
        table: Self | None = None
        try:
            table = validate(said)
        except ValidationError as error:
            wrong = [
                InitErrorDetails(type=each["type"], loc=each["loc"], input=each["input"], ctx=each.get("ctx", {}))
                for each in error.errors()
            ]
        if isinstance(said, dict):
            wrong += [
                InitErrorDetails(type="value_error", loc=(field,), input=None, ctx={"error": ValueError(why)})
                for field, why in cls.unfit(said)
            ]
        if table is None or wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return table


def texts(said: Any) -> list[str]:
    """Those of a list that is not known to be one of texts."""
    return [each for each in said if isinstance(each, str)] if isinstance(said, list) else []
