"""The filtered pool as Croissant 1.1 has it: files, the decision's columns, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from poolproof import __version__
from poolproof.audit.statement import describe_decision

_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The prefixes of the format's specification, and those of PROV-O."""

_COLUMNS: Final = (
    ("row", "sc:Integer", "position in the audited pool, from 0"),
    ("key", "sc:Text", "the item's name in the audited pool"),
    ("keep", "sc:Boolean", "whether it was kept"),
    ("weight", "sc:Float", "in training; 0 where not kept"),
    ("reason", "sc:Text", "code and detail, or kept"),
)

_TYPES: Final = {".tar": "application/x-tar", ".parquet": "application/x-parquet", ".txt": "text/plain"}


def describe_croissant(
    manifest: Mapping[str, Any],
    pattern: str,
    share: Mapping[str, Any] | None,
    stated: Mapping[str, Any],
) -> dict[str, Any]:
    """The description as JSON-LD.

    It names no licence, author, date or address: the tool does not know them, and whoever publishes adds them.

    Args:
        manifest: of the filtered pool.
        pattern: where the data lie; empty where only a list was written.
        share: the report's share before filtering; None where the audit told none.
        stated: of `decision.json`; empty where there is none.
    """
    counts, policy = manifest["counts"], manifest["policy"]
    kind = policy.get("kind") if isinstance(policy, Mapping) else policy
    words = f"{counts['kept']} of {counts['audited']} audited images were kept, policy {kind}."
    files = [_file(name, digest) for name, digest in manifest["files"].items()]
    data = [
        _file(shard["name"], shard["sha256"])
        for shard in manifest["shards"]
        if "/" in shard["name"] or "." in shard["name"]
    ]
    if not data and pattern:
        data = [
            {
                "@type": "cr:FileSet",
                "@id": "pool",
                "name": "pool",
                "description": "The kept images and what lies beside them.",
                "encodingFormat": "image/*",
                "includes": pattern,
            }
        ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "filtered-image-pool",
        "description": f"{words} Every kept file has the bytes that were audited.",
        "rai:dataPreprocessingProtocol": [words, *_share(share), *_statement(stated)],
        "rai:dataBiases": [
            "The policy removes real images that look synthetic to the detector, more in some groups than in others."
        ],
        "rai:dataLimitations": [
            "That an image was kept does not say that it is real.",
        ],
        "prov:wasDerivedFrom": {
            "@type": "prov:Entity",
            "@id": f"urn:sha256:{manifest['identity']['plan']}",
            "prov:label": f"the audited pool, {counts['pool']} images; the hash is that of the list of its items",
        },
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "@id": f"urn:sha256:{manifest['identity']['decision']}",
            "prov:label": f"filtering by the policy {kind}; the hash is that of decision.parquet",
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "@id": "urn:poolproof",
                "prov:label": f"poolproof {__version__}",
            },
        },
        "distribution": [*data, *files],
        "recordSet": [_decision_records()],
    }


def _file(name: str, digest: str) -> dict[str, Any]:
    suffix = name[name.rfind(".") :] if "." in name else ""
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": _TYPES.get(suffix, "application/octet-stream"),
        "sha256": digest,
    }


def _decision_records() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "decision",
        "name": "decision",
        "description": "What was decided on every audited image.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"decision/{name}",
                "name": f"decision/{name}",
                "description": doc,
                "dataType": kind,
                "source": {"fileObject": {"@id": "decision.parquet"}, "extract": {"column": name}},
            }
            for name, kind, doc in _COLUMNS
        ],
    }


def _share(share: Mapping[str, Any] | None) -> list[str]:
    if not share:
        return ["The audit told no share of synthetic images."]
    point = "" if share.get("point") is None else f"{share['point']:.6g}, "
    return [
        f"Synthetic share before filtering: {point}interval {share['lower']:.6g} to {share['upper']:.6g}, "
        f"level {share['level']:g}, method {share['method']}."
    ]


def _statement(stated: Mapping[str, Any]) -> list[str]:
    """The decision in words, where it is of a form that is known here."""
    try:
        return [f"{label}: {text}" for label, text in describe_decision(stated)]
    except (KeyError, TypeError, AttributeError, ValueError):
        return []
