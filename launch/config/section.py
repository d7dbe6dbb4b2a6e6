"""What every section of settings is made of: strict mappings, paths and addresses."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from stream.wire.sockets import Endpoint


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Makes a path absolute, seen from the folder of the configuration file."""
    folder = (info.context or {}).get("folder", Path.cwd())
    return (folder / path.expanduser()).resolve()


def _existing(path: Path, info: ValidationInfo) -> Path:
    path = _absolute(path, info)
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return path


OutputPath = Annotated[Path, AfterValidator(_absolute)]
InputPath = Annotated[Path, AfterValidator(_existing)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """One mapping of a configuration file: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class EndpointSection(Section):
    """An address and who may use it."""

    address: str
    """tcp://host:port or ipc://path"""
    bind: bool = False
    """whether this side owns the address and the other connects"""
    insecure: bool = False
    """allows an address that other machines can reach without encryption"""
    key: InputPath | None = None
    """own CURVE secret key file, as written by `ptychostream keys`"""
    peers: InputPath | None = None
    """public key file of the server, or with `bind` the folder of allowed clients' public keys"""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        self.endpoint().check()
        return self

    def endpoint(self) -> Endpoint:
        """Returns the address as sockets take it."""
        return Endpoint(
            address=self.address, bind=self.bind, insecure=self.insecure, key=self.key, peers=self.peers
        )
