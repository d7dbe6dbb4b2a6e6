"""The base of everything that is set: strict mappings with defaults, bounds and a meaning for each field."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

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

    def changed(self, **changes: Any) -> Self:
        """Returns the same settings but for `changes`, which are checked as if they had been given.

        Raises
        ------
        pydantic.ValidationError
            A `ValueError` that names each setting, what was wanted and what came.
        """
        return self.model_validate({name: getattr(self, name) for name in type(self).model_fields} | changes)
