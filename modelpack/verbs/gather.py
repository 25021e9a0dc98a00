"""What is to be packed: models of one source or several, and what is worth saying about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from modelpack.documents.config import Remark
from modelpack.documents.extras import Attachment
from modelpack.documents.gojson import parse_object
from modelpack.documents.image import Image
from modelpack.documents.model import Model, base_of, by_base
from modelpack.errors import ModelpackError, NotFound, Refused, Unsupported, Usage
from modelpack.hands.hashing import read_small
from modelpack.stores import OneWay, Scans, Source
from modelpack.stores.files import LooseFiles, LooseGguf
from modelpack.stores.models_dir import ModelsDir
from modelpack.stores.models_dir_scan import Stray
from modelpack.stores.pipe import PipeSource
from modelpack.stores.wrappers import Joined
from modelpack.verbs import locate
from modelpack.verbs.attach import attachments_of
from modelpack.verbs.installed import Installed
from modelpack.verbs.registries import HTTPS, Access, is_registry, one_secret, only_registries
from modelpack.words.blob import MODEL, TENSOR, TEXTS
from modelpack.words.name import Name
from modelpack.words.report import Report, silent

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@dataclass
class Gathered:
    """The source of *models*, and what whoever packs them should know.

    `found` are models directories in which a name was found; `left_out` are models of a whole directory or
    server that cannot be had, and why. `attached` travels along with the bundles among the sources, each with
    what its bundle is called.
    """

    source: Source
    models: list[Model]
    remarks: list[tuple[Name, Remark]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found: list[tuple[Name, str]] = field(default_factory=list)
    left_out: list[tuple[str, ModelpackError]] = field(default_factory=list)
    attached: list[tuple[Attachment, str]] = field(default_factory=list)


def gather(
    texts: Sequence[str],
    *,
    look: Installed,
    name: Name | None = None,
    quantize: str | None = None,
    access: Access = HTTPS,
    calling: Calling | None = None,
    report: Report = silent,
) -> Gathered:
    """The models that *texts* name (locators, names of installed models), as one source.

    A single one may be given another *name*. Raises Refused where two have the same name, or recipes are made
    from each other in a circle; what a model that was named raises; of a whole models directory or server
    only where nothing is left of it.
    """
    if not any(is_registry(text) for text in texts):
        only_registries(None, access)
    one_secret(texts, access)
    locate.only_servers(texts, calling)
    parts: list[tuple[Source, list[Model]]] = []
    result = Gathered(Joined(()), [])
    seen: set[str] = set()  # two models of one bundle may be named, BUNDLE#NAME each
    servers: dict[str, Source] = {}  # each is asked once whether it comes
    for text in texts:
        place = locate.Located.parse(text, look)
        store = servers.get(place.text) or locate.source(
            place.text,
            look=look,
            quantize=quantize,
            anew=True,
            access=access if is_registry(place.text) else HTTPS,
            calling=calling,
            report=report,
        )
        if locate.is_server(place.text):
            servers[place.text] = store
        if isinstance(store, OneWay) and len(texts) > 1:
            raise Usage("a pipe cannot be packed together with others", advice="Save it to a file first.")
        if isinstance(store, Scans) and place.pick is None:
            chosen = _whole(store, result, place.text)
        else:
            chosen = locate.picked(store, [place.pick] if place.pick else [], text)
            for model in chosen:
                _check_carried(store, model)
        if place.installed:
            result.found += [(model.name, place.text) for model in chosen]
        if isinstance(store, LooseFiles | LooseGguf):
            result.remarks += [(store.model.name, remark) for remark in sorted(store.remarks)]
            result.notes += store.notes
        result.attached += [(one, place.text) for one in attachments_of(store) if place.text not in seen]
        seen.add(place.text)
        if isinstance(store, PipeSource) and store.contents.attachments:
            result.notes.append("What was attached to the bundle stays out: a pipe brings it too late.")
        parts.append((store, chosen))
    if name is not None:
        if sum(len(models) for _, models in parts) > 1:
            raise Usage("--name needs a single model", advice="Pick one with SOURCE#NAME.")
        parts = [(store, [replace(model, name=name) for model in models]) for store, models in parts]
    result.source = parts[0][0] if len(parts) == 1 else Joined(parts, texts)
    result.models = _together(parts, texts)
    result.notes += _bases(result.models)
    return result


def _whole(store: Source, result: Gathered, where: str) -> list[Model]:
    """All models of a directory or a server that can be carried; the others are told of."""
    from modelpack.hands.temporary import is_temporary  # here: it brings the client along

    good: list[Model] = []
    for found in store.scan() if isinstance(store, Scans) else ():
        if isinstance(found, ModelpackError):
            if not isinstance(found, Stray):
                result.left_out.append((found.where, found))
            continue
        if is_temporary(found.name):  # a load is under way, or was killed
            continue
        try:
            _check_carried(store, found)
            twins = [one.name for one in good if one.name.folded == found.name.folded]
            if twins:
                raise Refused(f"is {twins[0]} to Ollama, which does not tell them apart", where=found.name)
            for blob in found.blobs if isinstance(store, ModelsDir) else ():  # a server would push each
                with store.open(blob):
                    pass
        except ModelpackError as error:
            result.left_out.append((str(found.name), error))
        else:
            good.append(found)
    if not good:
        raise result.left_out[0][1] if result.left_out else NotFound("holds no model", where=where)
    return good


def _check_carried(store: Source, model: Model) -> None:
    image = model.document
    if not isinstance(image, Image) or image.of_kind(MODEL, TENSOR):
        return
    what = "has no weights that modelpack knows"
    if not isinstance(store, OneWay):
        with store.open(image.config) as reader:
            config = parse_object(read_small(reader, image.config), f"{model.name}: config")
        if config.get("remote_host") or config.get("remote_model"):
            what = "has no weights of its own: it runs on another host (a cloud model)"
            raise Unsupported(f"{what}, there is nothing to carry", where=model.name)
    others = sorted({repr(layer.media_type[:100]) for layer in image.layers if layer.media_type not in TEXTS})
    if others:
        what += f", but layers of another type: {', '.join(others[:3])}" + (", …" if len(others) > 3 else "")
    raise Unsupported(what, where=model.name)


def _together(parts: Sequence[tuple[Source, Sequence[Model]]], texts: Sequence[str]) -> list[Model]:
    seen: dict[str, tuple[Model, str]] = {}
    for (_, models), text in zip(parts, texts, strict=True):
        for model in models:
            if model.name.folded in seen:
                other, place = seen[model.name.folded]
                raise Refused(
                    f"two models have the name {model.name}"
                    + (f" and {other.name}, to Ollama the same" if other.name != model.name else "")
                    + (f": of {place} and of {text}" if place != text else f" in {text}"),
                    advice="Pack one of them alone first, with --name for another name, and give that bundle "
                    "as a SOURCE.",
                )
            seen[model.name.folded] = (model, text)
    return by_base([model for model, _ in seen.values()])


def _bases(models: Sequence[Model]) -> list[str]:
    named = {model.name.folded for model in models}
    said = []
    for model in models:
        base = base_of(model)
        if base is not None and base.folded not in named:
            said.append(
                f"{model.name} is made FROM {base}, which is not packed with it: {base} must be installed on "
                "the server that it is loaded to."
            )
    return said
