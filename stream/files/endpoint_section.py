"""An address in a configuration: a section, or what a section is made of."""

from dataclasses import fields
from typing import Self

from pydantic import (
    model_validator,
)

from operators.section import Section
from stream.files.paths import InputPath
from stream.wire.sockets import Endpoint


class EndpointSection(Section):
    """An address and who may use it."""

    address: str
    """tcp://host:port or ipc://path"""
    bind: bool = Endpoint.bind
    """whether this side owns the address and the other connects"""
    insecure: bool = Endpoint.insecure
    """allows an address that other machines can reach without encryption"""
    key: InputPath | None = Endpoint.key
    """own CURVE secret key file, as written by `ptychostream keys`"""
    peers: InputPath | None = Endpoint.peers
    """public key file of the server, or with `bind` the folder of allowed clients' public keys"""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        self.endpoint().check()
        return self

    def endpoint(self) -> Endpoint:
        """Returns the address as sockets take it."""
        return Endpoint(**{field.name: getattr(self, field.name) for field in fields(Endpoint)})
