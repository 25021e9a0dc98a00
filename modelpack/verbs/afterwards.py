"""What follows a load: reading back, trying, and the receipt as a file, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.documents.receipt import Receipt
from modelpack.documents.record import SERVER
from modelpack.errors import ModelpackError, Usage
from modelpack.stores import Described, Target
from modelpack.verbs import attempt, record
from modelpack.verbs.hosts import check_readable, opened
from modelpack.verbs.prove import prove
from modelpack.verbs.registries import HTTPS, Access
from modelpack.words.digest import Digest
from modelpack.words.report import Report, silent

if TYPE_CHECKING:
    from modelpack.hands.callback import Calling


@dataclass(frozen=True)
class Aftermath:
    """What is known of the models after that; *failed* by step (`prove`, `try`, `receipt`) and full name.

    The name is empty where it is none of a single model.
    """

    receipts: list[Receipt]
    failed: Mapping[str, Mapping[str, ModelpackError]]

    @property
    def errors(self) -> list[ModelpackError]:
        """What went wrong, each said once: what --prove found comes first."""
        found = [each for errors in self.failed.values() for each in errors.values()]
        return list({str(each): each for each in found}.values())


class Afterwards:
    """*proving*, *trying* and the *receipt*, of what is loaded to *target*.

    Made before the load: what cannot be done is raised before anything moves (Unsupported where nothing can
    be tried, Refused where the receipt's file is something else, Unreachable or Unsupported where a server
    does not call back to be read, what keeps it from telling its version). *bundle* is the fingerprint of
    what is loaded; *access* and *calling* are as for the target.
    """

    def __init__(
        self,
        target: Target,
        *,
        receipt: Path | None = None,
        proving: bool = False,
        trying: bool = False,
        bundle: Digest | None = None,
        access: Access = HTTPS,
        calling: Calling | None = None,
    ) -> None:
        self._receipt, self._proving, self._trying, self._bundle = receipt, proving, trying, bundle
        self._access, self._calling = access, calling
        if not (receipt or proving or trying):
            return
        if not isinstance(target, Described):
            raise Usage("--receipt, --prove and --try are for hosts")
        self._host = record.host_of(target.described())
        if proving and self._host.kind == SERVER and calling is not None and calling.off:
            raise Usage("--prove needs the server to call back, and --no-listen opens no port for that")
        if trying:
            self._client = attempt.able(self._host)
        if receipt is not None:
            record.FILE.check(receipt)
        if proving:
            check_readable(self._host, calling)
        self._started = record.now()

    def finish(
        self, receipts: Sequence[Receipt], failed: record.Failed, report: Report = silent
    ) -> Aftermath:
        """Do it for the models that arrived; those that *failed* to load stand in the file, too.

        What is found wrong is returned, not raised: the file is written in any case; also what keeps it from
        being written, for by then the models have arrived.
        """
        done = list(receipts)
        steps: dict[str, dict[str, ModelpackError]] = {}
        if self._proving and done:
            done, steps["prove"] = self._prove(done, report)
        if self._trying and done:
            done, steps["try"] = attempt.attempts(self._client, done, report)
        if self._receipt is not None:
            made = record.record_of(
                done,
                {"load": failed, **steps},
                self._host,
                bundle=self._bundle,
                started=self._started,
                ended=record.now(),
            )
            try:
                record.write(self._receipt, made)
            except ModelpackError as error:
                error.what = f"the receipt could not be written: {error.what}"
                steps["receipt"] = {"": error}
        return Aftermath(done, steps)

    def _prove(
        self, receipts: Sequence[Receipt], report: Report
    ) -> tuple[list[Receipt], dict[str, ModelpackError]]:
        try:
            with opened(self._host, access=self._access, calling=self._calling, ours=True) as there:
                return prove(receipts, there, self._host.where, report)
        except ModelpackError as error:  # the host cannot be asked at all
            return list(receipts), {"": error}
