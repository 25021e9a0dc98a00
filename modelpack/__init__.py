"""modelpack: models to machines without a network.

One verb moves models, and every command names its two ends:

    from modelpack import copy, source, target

    bundle = source("qwen3.tar")
    receipts = copy(bundle, bundle.models(), target("http://127.0.0.1:11434", bundle))

The library is silent: it returns facts, raises `ModelpackError`s and reports steps to a callable. Names are
imported when they are first used, so that `import modelpack` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelpack.version import __version__

if TYPE_CHECKING:
    from modelpack import aio as aio
    from modelpack.documents.create import create_request as create_request
    from modelpack.documents.difference import Difference as Difference
    from modelpack.documents.extras import Attachment as Attachment
    from modelpack.documents.extras import Extras as Extras
    from modelpack.documents.gguf import read_gguf as read_gguf
    from modelpack.documents.gguf_header import Gguf as Gguf
    from modelpack.documents.image import Image as Image
    from modelpack.documents.inventory import Held as Held
    from modelpack.documents.inventory import Inventory as Inventory
    from modelpack.documents.model import Model as Model
    from modelpack.documents.modelfile import Modelfile as Modelfile
    from modelpack.documents.modelfile import parse_modelfile as parse_modelfile
    from modelpack.documents.receipt import Receipt as Receipt
    from modelpack.documents.receipt import Tried as Tried
    from modelpack.documents.recipe import Recipe as Recipe
    from modelpack.documents.record import Record as Record
    from modelpack.documents.volumes import Descriptor as Descriptor
    from modelpack.errors import Corrupt as Corrupt
    from modelpack.errors import Different as Different
    from modelpack.errors import Local as Local
    from modelpack.errors import ModelpackError as ModelpackError
    from modelpack.errors import NotFound as NotFound
    from modelpack.errors import Partly as Partly
    from modelpack.errors import Refused as Refused
    from modelpack.errors import Taken as Taken
    from modelpack.errors import Unchecked as Unchecked
    from modelpack.errors import Unreachable as Unreachable
    from modelpack.errors import Unsupported as Unsupported
    from modelpack.errors import Untrusted as Untrusted
    from modelpack.errors import Usage as Usage
    from modelpack.hands.answers import Details as Details
    from modelpack.hands.answers import Event as Event
    from modelpack.hands.answers import Listed as Listed
    from modelpack.hands.answers import Running as Running
    from modelpack.hands.answers import Shown as Shown
    from modelpack.hands.answers import Tensor as Tensor
    from modelpack.hands.answers import Version as Version
    from modelpack.hands.callback_address import Calling as Calling
    from modelpack.hands.credentials import Credential as Credential
    from modelpack.hands.credentials import Credentials as Credentials
    from modelpack.hands.ollama import Ollama as Ollama
    from modelpack.hands.ollama_events import Events as Events
    from modelpack.hands.registry import Registry as Registry
    from modelpack.stores import Placed as Placed
    from modelpack.stores import Reader as Reader
    from modelpack.stores import Session as Session
    from modelpack.stores import Source as Source
    from modelpack.stores import Target as Target
    from modelpack.stores.archive import Archive as Archive
    from modelpack.stores.files import LooseFiles as LooseFiles
    from modelpack.stores.files import LooseGguf as LooseGguf
    from modelpack.stores.folder import FolderBundle as FolderBundle
    from modelpack.stores.models_dir import ModelsDir as ModelsDir
    from modelpack.stores.pipe import PipeSource as PipeSource
    from modelpack.stores.pipe import PipeTarget as PipeTarget
    from modelpack.stores.plain import PlainFolder as PlainFolder
    from modelpack.stores.registry import ArtifactTarget as ArtifactTarget
    from modelpack.stores.registry import RegistrySource as RegistrySource
    from modelpack.stores.registry import RegistryTarget as RegistryTarget
    from modelpack.stores.server import ServerSource as ServerSource
    from modelpack.stores.server_create import ServerCreate as ServerCreate
    from modelpack.stores.volumes import VolumeSet as VolumeSet
    from modelpack.stores.volumes_target import VolumesTarget as VolumesTarget
    from modelpack.stores.wrappers import Joined as Joined
    from modelpack.verbs.afterwards import Afterwards as Afterwards
    from modelpack.verbs.attach import attached as attached
    from modelpack.verbs.check import Checked as Checked
    from modelpack.verbs.check import check as check
    from modelpack.verbs.collect import collect as collect
    from modelpack.verbs.create import create_model as create_model
    from modelpack.verbs.diff import diff as diff
    from modelpack.verbs.discover import Discovered as Discovered
    from modelpack.verbs.discover import Discovery as Discovery
    from modelpack.verbs.discover import Found as Found
    from modelpack.verbs.discover import discover as discover
    from modelpack.verbs.findings import Finding as Finding
    from modelpack.verbs.gather import Gathered as Gathered
    from modelpack.verbs.gather import gather as gather
    from modelpack.verbs.hashes import Hashed as Hashed
    from modelpack.verbs.hashes import hash_files as hash_files
    from modelpack.verbs.inspect import Inspected as Inspected
    from modelpack.verbs.inspect import inspect as inspect
    from modelpack.verbs.installed import Installed as Installed
    from modelpack.verbs.inventory import inventory as inventory
    from modelpack.verbs.locate import bundle_target as bundle_target
    from modelpack.verbs.locate import choose as choose
    from modelpack.verbs.locate import source as source
    from modelpack.verbs.locate import target as target
    from modelpack.verbs.modelfiles import modelfile_of as modelfile_of
    from modelpack.verbs.plans import Plan as Plan
    from modelpack.verbs.plans import plan as plan
    from modelpack.verbs.plans import settle as settle
    from modelpack.verbs.preflight import preflight as preflight
    from modelpack.verbs.registries import Access as Access
    from modelpack.verbs.remake import remake as remake
    from modelpack.verbs.repair import Mended as Mended
    from modelpack.verbs.repair import Repaired as Repaired
    from modelpack.verbs.repair import Spare as Spare
    from modelpack.verbs.repair import repair as repair
    from modelpack.verbs.script import script as script
    from modelpack.verbs.shared import shared as shared
    from modelpack.verbs.sign import sign as sign
    from modelpack.verbs.since import since as since
    from modelpack.verbs.transfer import copy as copy
    from modelpack.verbs.trust import Signed as Signed
    from modelpack.verbs.trust import Trust as Trust
    from modelpack.verbs.verdict import Remark as Remark
    from modelpack.verbs.verify import Verdict as Verdict
    from modelpack.verbs.verify import verify as verify
    from modelpack.verbs.volumes import verify_set as verify_set
    from modelpack.verbs.volumes_signed import verify_volume as verify_volume
    from modelpack.verbs.ways import Wish as Wish
    from modelpack.words.blob import Blob as Blob
    from modelpack.words.digest import Digest as Digest
    from modelpack.words.name import Name as Name
    from modelpack.words.reference import Reference as Reference
    from modelpack.words.report import Moved as Moved
    from modelpack.words.report import Note as Note
    from modelpack.words.report import Report as Report
    from modelpack.words.report import Said as Said
    from modelpack.words.report import Stage as Stage
    from modelpack.words.report import Step as Step

_HOMES = {
    "documents.create": ("create_request",),
    "documents.gguf": ("read_gguf",),
    "documents.gguf_header": ("Gguf",),
    "documents.image": ("Image",),
    "documents.model": ("Model",),
    "documents.modelfile": ("Modelfile", "parse_modelfile"),
    "documents.receipt": ("Receipt", "Tried"),
    "documents.recipe": ("Recipe",),
    "errors": (
        "Corrupt", "Different", "Local", "ModelpackError", "NotFound", "Partly", "Refused", "Taken",
        "Unchecked", "Unreachable", "Unsupported", "Untrusted", "Usage",
    ),
    "hands.ollama": ("Ollama",),
    "stores": ("Placed", "Reader", "Session", "Source", "Target"),
    "stores.archive": ("Archive",),
    "stores.files": ("LooseFiles", "LooseGguf"),
    "stores.folder": ("FolderBundle",),
    "stores.models_dir": ("ModelsDir",),
    "stores.pipe": ("PipeSource", "PipeTarget"),
    "stores.plain": ("PlainFolder",),
    "stores.server_create": ("ServerCreate",),
    "stores.wrappers": ("Joined",),
    "verbs.gather": ("Gathered", "gather"),
    "verbs.hashes": ("Hashed", "hash_files"),
    "verbs.inspect": ("Inspected", "inspect"),
    "verbs.installed": ("Installed",),
    "verbs.modelfiles": ("modelfile_of",),
    "verbs.shared": ("shared",),
    "verbs.locate": ("bundle_target", "choose", "source", "target"),
    "verbs.plans": ("Plan", "plan", "settle"),
    "verbs.transfer": ("copy",),
    "verbs.verify": ("Verdict", "verify"),
    "hands.answers": ("Details", "Event", "Listed", "Running", "Shown", "Tensor", "Version"),
    "hands.credentials": ("Credential", "Credentials"),
    "hands.ollama_events": ("Events",),
    "hands.registry": ("Registry",),
    "stores.registry": ("ArtifactTarget", "RegistrySource", "RegistryTarget"),
    "verbs.create": ("create_model",),
    "verbs.discover": ("Discovered", "Discovery", "Found", "discover"),
    "verbs.registries": ("Access",),
    "documents.difference": ("Difference",),
    "documents.inventory": ("Held", "Inventory"),
    "documents.record": ("Record",),
    "hands.callback_address": ("Calling",),
    "stores.server": ("ServerSource",),
    "verbs.afterwards": ("Afterwards",),
    "verbs.check": ("Checked", "check"),
    "verbs.diff": ("diff",),
    "verbs.findings": ("Finding",),
    "verbs.inventory": ("inventory",),
    "verbs.preflight": ("preflight",),
    "verbs.repair": ("Mended", "Repaired", "Spare", "repair"),
    "verbs.since": ("since",),
    "verbs.verdict": ("Remark",),
    "verbs.ways": ("Wish",),
    "documents.extras": ("Attachment", "Extras"),
    "documents.volumes": ("Descriptor",),
    "stores.volumes": ("VolumeSet",),
    "stores.volumes_target": ("VolumesTarget",),
    "verbs.attach": ("attached",),
    "verbs.collect": ("collect",),
    "verbs.remake": ("remake",),
    "verbs.script": ("script",),
    "verbs.sign": ("sign",),
    "verbs.trust": ("Signed", "Trust"),
    "verbs.volumes": ("verify_set",),
    "verbs.volumes_signed": ("verify_volume",),
    "words.reference": ("Reference",),
    "words.blob": ("Blob",),
    "words.digest": ("Digest",),
    "words.name": ("Name",),
    "words.report": ("Moved", "Note", "Report", "Said", "Stage", "Step"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", "aio", *sorted(_HOME)]  # noqa: PLE0604 - all of them are strings


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'modelpack' has no attribute {name!r}")
    import importlib

    if name == "aio":
        return importlib.import_module("modelpack.aio")
    return getattr(importlib.import_module(f"modelpack.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
