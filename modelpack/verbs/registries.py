"""Registries by their locators: how they are talked to, and by whose leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelpack.errors import Usage
from modelpack.stores import Source, Target
from modelpack.words.reference import SCHEME, Reference

if TYPE_CHECKING:  # requests costs a third of a start
    from modelpack.hands.credentials import Credential
    from modelpack.hands.registry import Registry


@dataclass(frozen=True)
class Access:
    """How registries are talked to: by https or *plain_http*, with *credentials* for whichever is named.

    *credentials* gives `user:password` or a token, when a registry asks; by default they are looked for as
    `hands.credentials.Credentials` says. *as_artifact*: models go there as a bundle's OCI artifacts.
    """

    plain_http: bool = False
    credentials: Callable[[], str] | None = field(default=None, repr=False)
    as_artifact: bool = False

    def client(self, place: Reference) -> Registry:
        """A client of the registry of *place*; Usage for credentials that are none."""
        from modelpack.hands.credentials import Credentials
        from modelpack.hands.registry import Registry

        return Registry(place.server, plain_http=self.plain_http, credentials=Credentials(self._given()))

    def _given(self) -> Credential | None:
        from modelpack.hands.credentials import Credential

        return Credential.given(self.credentials()) if self.credentials is not None else None


HTTPS = Access()


def is_registry(text: str) -> bool:
    """Whether *text* is the locator of a registry: `oci://…`."""
    return text.lower().startswith(SCHEME)


def registry_source(text: str, access: Access) -> Source:
    """The model at *text*, `oci://host[:port]/namespace/model[:tag]`; Usage where it is no such locator."""
    from modelpack.stores.registry import RegistrySource

    place = Reference.parse(text)
    return RegistrySource(access.client(place), place)


def registry_target(text: str, access: Access, *, replace: bool = False) -> Target:
    """Where models are pushed to: a registry, a namespace in it, or one model's place with its tag."""
    from modelpack.stores.registry import ArtifactTarget, RegistryTarget

    place = Reference.parse(text)
    kind = ArtifactTarget if access.as_artifact else RegistryTarget
    return kind(access.client(place), place, replace=replace)


def only_registries(text: str | None, access: Access) -> None:
    """Raise Usage where *access* asks for what is of registries alone, and *text* names none."""
    if access == HTTPS or (text is not None and is_registry(text)):
        return
    raise Usage(
        "--as-artifact, --plain-http and --credentials are for registries",
        advice="Name one: oci://HOST[:PORT]/NAMESPACE",
    )


def one_secret(texts: Sequence[str | None], access: Access) -> None:
    """Raise Usage where the secret of *access*, or of the environment, would go to two hosts of *texts*."""
    from modelpack.hands.credentials import VARIABLE

    given = access.credentials is not None
    if not given and not os.environ.get(VARIABLE):
        return
    hosts = {Reference.parse(text).server for text in texts if text is not None and is_registry(text)}
    if len(hosts) > 1:
        raise Usage(
            f"{'--credentials' if given else VARIABLE} would be told to {' and to '.join(sorted(hosts))}",
            advice="Log in to each by its name: `skopeo login` or `docker login`.",
        )
