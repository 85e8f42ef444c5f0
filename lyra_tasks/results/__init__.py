"""The results of tasks: what they return to Python code, and what their `--json` prints.

Each is frozen and has the keys of the JSON document as attributes, tuples for lists, and mappings for objects whose
keys are names. Times are in ISO 8601, sizes in bytes, durations in seconds. What Lyra reads back from disk, such as
CleanupReport, is a model of pydantic: it has lists, and `schema_` for the key `schema`. With `dry_run=True`, or with
`--dry-run` on the command line, a task returns its preview.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lyra_tasks.builds.show import BuiltImage
    from lyra_tasks.bundle.format.index import BundleEntry, BundleIndex
    from lyra_tasks.bundle.format.manifest import BundledImage
    from lyra_tasks.bundle.show import PackedBundle, PromotedBundle
    from lyra_tasks.checks.show import TestResults
    from lyra_tasks.engine.objects.ownership import OwnedObject
    from lyra_tasks.records.cleanup import CleanupReport, RecordedObject
    from lyra_tasks.records.dev import DevService
    from lyra_tasks.records.evidence import CheckResult, RuleResult, ServiceUsage
    from lyra_tasks.records.journal_entry import JournalEntry
    from lyra_tasks.results.bundle import (
        BundleComparison,
        BundleFile,
        BundleList,
        BundleState,
        ChangedValue,
        DependentPack,
        ListedBundle,
        PackPreview,
        PlannedArchive,
        Rehearsal,
        RehearsalPreview,
        RehearsedEngine,
        RehearsedStep,
        RemovedBundle,
        RemovePreview,
        Verification,
    )
    from lyra_tasks.results.configuration import InitFile, InitResult, Rule, RuleCatalogue, Setting, Severity, Todo
    from lyra_tasks.results.development import (
        ContainerEdits,
        CopiedFiles,
        CreatePreview,
        DevEnvironment,
        ParityGap,
        RestartedService,
        StoppedEnvironment,
        StopPreview,
        Upload,
        UploadSummary,
    )
    from lyra_tasks.results.documents import JsonValue, to_document
    from lyra_tasks.results.engine import (
        EngineStartPreview,
        EngineStatus,
        EngineStopPreview,
        LockedImageEntry,
        LockedImages,
        NoEngine,
        StartedEngine,
        StoppedEngine,
    )
    from lyra_tasks.results.lifecycle import (
        BakeDefinition,
        BuiltImages,
        CleanupPreview,
        GoneCheckout,
        GoneCleanupPreview,
        PromotionPreview,
        PushedTag,
        ServiceReservation,
        TestGroup,
        TestPreview,
    )
    from lyra_tasks.results.overview import (
        DeviationRow,
        DeviationState,
        Diagnosis,
        DiagnosisState,
        ExplainedItem,
        Explanation,
        ImageRow,
        ItemState,
        JournalCheck,
        LabRow,
        LabService,
        RunRow,
        RunSummary,
        RunUsage,
        Status,
        TaskResult,
        TestStatus,
    )
    from lyra_tasks.results.releases import (
        BareVersion,
        CreatedRelease,
        DecisiveCommit,
        PlannedRelease,
        ReleaseEntry,
        ReleasePreview,
        VersionDetails,
    )

__all__ = [
    "BakeDefinition",
    "BareVersion",
    "BuiltImage",
    "BuiltImages",
    "BundleComparison",
    "BundleEntry",
    "BundleIndex",
    "BundleList",
    "BundleState",
    "BundledImage",
    "ChangedValue",
    "CheckResult",
    "CleanupPreview",
    "CleanupReport",
    "ContainerEdits",
    "CopiedFiles",
    "CreatePreview",
    "CreatedRelease",
    "DecisiveCommit",
    "DependentPack",
    "DevEnvironment",
    "DevService",
    "DeviationRow",
    "DeviationState",
    "Diagnosis",
    "DiagnosisState",
    "EngineStartPreview",
    "EngineStatus",
    "EngineStopPreview",
    "ExplainedItem",
    "Explanation",
    "GoneCheckout",
    "GoneCleanupPreview",
    "ImageRow",
    "InitFile",
    "InitResult",
    "ItemState",
    "JournalCheck",
    "JournalEntry",
    "JsonValue",
    "LabRow",
    "LabService",
    "ListedBundle",
    "LockedImageEntry",
    "LockedImages",
    "NoEngine",
    "OwnedObject",
    "PackPreview",
    "PackedBundle",
    "ParityGap",
    "PlannedArchive",
    "PlannedRelease",
    "PromotedBundle",
    "PromotionPreview",
    "PushedTag",
    "RecordedObject",
    "Rehearsal",
    "RehearsalPreview",
    "RehearsedEngine",
    "RehearsedStep",
    "RemovePreview",
    "RemovedBundle",
    "ReleaseEntry",
    "ReleasePreview",
    "RestartedService",
    "Rule",
    "RuleCatalogue",
    "RuleResult",
    "RunRow",
    "RunSummary",
    "RunUsage",
    "ServiceReservation",
    "ServiceUsage",
    "Setting",
    "Severity",
    "StartedEngine",
    "Status",
    "StopPreview",
    "StoppedEngine",
    "StoppedEnvironment",
    "TaskResult",
    "TestGroup",
    "TestPreview",
    "TestResults",
    "TestStatus",
    "Todo",
    "Upload",
    "UploadSummary",
    "Verification",
    "BundleFile",
    "VersionDetails",
    "to_document",
]

_ROOMS = {
    "BuiltImage": "builds.show",
    "BundleEntry": "bundle.format.index",
    "BundleIndex": "bundle.format.index",
    "BundledImage": "bundle.format.manifest",
    "CheckResult": "records.evidence",
    "CleanupReport": "records.cleanup",
    "DevService": "records.dev",
    "JournalEntry": "records.journal",
    "OwnedObject": "engine.objects.ownership",
    "PackedBundle": "bundle.show",
    "PromotedBundle": "bundle.show",
    "RecordedObject": "records.cleanup",
    "RuleResult": "records.evidence",
    "ServiceUsage": "records.evidence",
    "TestResults": "checks.show",
}
_MODULES = ("bundle", "configuration", "development", "documents", "engine", "lifecycle", "overview", "releases")

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import a name when it is used: a command needs few of them."""
        for home in (_ROOMS[name],) if name in _ROOMS else (f"results.{module}" for module in _MODULES):
            value = getattr(import_module(f"lyra_tasks.{home}"), name, None) if name in __all__ else None
            if value is not None:
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
