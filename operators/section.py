"""The base of everything that is set: strict mappings with defaults, bounds and a meaning for each field."""

from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """One mapping of settings: unknown names are refused, values never change.

    The text below a field is its meaning: errors and the reference show it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is wanted: pydantic, as Python, takes them for 1 and 0."""
        if isinstance(value, bool) and not _takes_truth(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("truth", "something else than true or false")
        return value

    def changed(self, **changes: Any) -> Self:
        """Returns the same settings but for `changes`, which are checked as if they had been given.

        Raises
        ------
        pydantic.ValidationError
            A `ValueError` that names each setting, what was wanted and what came.
        """
        return self.model_validate({name: getattr(self, name) for name in type(self).model_fields} | changes)


def _takes_truth(annotation: Any) -> bool:
    return (
        annotation in (bool, Any)
        or isinstance(annotation, bool)
        or any(map(_takes_truth, get_args(annotation)))
    )
