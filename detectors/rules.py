"""Rules: which field of which metadata block states a synthetic image, one generator or standard a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from poolproof.detectors.findings import (
    CAPTURE_TERMS,
    SYNTHETIC_TERMS,
    Confidence,
    Source,
    name_confidence,
    vocabulary_term,
)

Test = Callable[[str, Mapping[str, str]], bool]
"""Whether a value states it, given the file's other fields: its own block's, else PNG text of that name."""


@dataclass(frozen=True)
class Rule:
    """One row of the table: which field of which block states a synthetic image, and how it is recognised."""

    producer: str
    source: Source
    fields: tuple[str, ...]
    states: Test
    confidence: Confidence = "stated"
    synthetic: bool = True


def _present(value: str, block: Mapping[str, str]) -> bool:
    return bool(value.strip())


def _equals(word: str) -> Test:
    return lambda value, block: value.strip() == word


def _starts(*heads: str) -> Test:
    return lambda value, block: value.startswith(heads)


def _has(*words: str) -> Test:
    """All words occur."""
    return lambda value, block: all(word in value for word in words)


def _finds(*patterns: str) -> Test:
    """All patterns are found. Hostile text must not slow them: no repeat without a small bound."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda value, block: all(pattern.search(value) for pattern in compiled)


def _begins_and_has(head: str, *words: str) -> Test:
    return lambda value, block: value.startswith(head) and all(word in value for word in words)


def _has_keys(*keys: str) -> Test:
    """A JSON object with all of the keys, in itself or in an object that it holds as a string."""
    compiled = [re.compile(rf'"{key}\\{{0,3}}"\s{{0,4}}:') for key in keys]
    return lambda value, block: value.startswith("{") and all(key.search(value) for key in compiled)


def _is_term(terms: frozenset[str]) -> Test:
    return lambda value, block: vocabulary_term(value).lower() in terms


_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_GROK_SIGNATURE = re.compile(r"Signature:\s{0,8}[A-Za-z0-9+/=_-]{64}")
_JOB_ID = re.compile(rf"Job ID: {{0,8}}({_UUID})")
_MIDJOURNEY_OPTION = re.compile(r"\s--(?:v|ar|niji|s|stylize|style|c|chaos|sref|profile|raw)\s")


def _grok_pair(value: str, block: Mapping[str, str]) -> bool:
    signed = _GROK_SIGNATURE.match(value) is not None
    return signed and re.fullmatch(_UUID, block.get("Artist", "").strip()) is not None


def _midjourney_job(value: str, block: Mapping[str, str]) -> bool:
    job = _JOB_ID.search(block.get("Description", ""))
    return job is not None and job.group(1).lower() == value.strip().lower()


def _midjourney_prompt(value: str, block: Mapping[str, str]) -> bool:
    dated = "Author" in block and "Creation Time" in block
    return dated and _MIDJOURNEY_OPTION.search(value) is not None


def _names_generator(value: str, block: Mapping[str, str]) -> bool:
    return name_confidence(value) is not None


# Text that Stable Diffusion web UIs write: the step count and one of the settings always written beside it.
_A1111 = _finds(r"Steps: ?\d", r"(?:Sampler|Seed|CFG scale): ?\S")
_COMFY_GRAPH = _begins_and_has("{", '"class_type"')
_FOOOCUS = _begins_and_has("{", '"metadata_scheme"', "Fooocus v")
_NOVELAI_SETTINGS = _has_keys("sampler", "uc", "steps")
# The source is the model: a name with its version, or in the first ones a hash.
_NOVELAI_MODEL = _finds(r"^(?:NovelAI Diffusion\b|Stable Diffusion (?:XL )?[0-9A-F]{8}$)")
# GB 45438-2025, annex E. Labels 2 and 3 state less than 1: possible and suspected synthesis. The second set of
# keys is seen without a label. Backslashes where the object is a string in another one.
_AIGC_LABEL = r"Label\\?\"?\s{0,4}[:=]\s{0,4}\\?\"?"
_AIGC_KEYS = r"ContentProducer|ServiceProvider|ProduceID"
_AIGC = _finds(_AIGC_LABEL + r"[^\s\"\\023]", _AIGC_KEYS)
_AIGC_MAYBE = _finds(_AIGC_LABEL + r"[23]\b", _AIGC_KEYS)
_AIGC_SERVICE = _has("ServiceProvider", "ServiceUser")
_SAMSUNG_TYPE = _finds(r"genAIType\\?\"\s{0,4}:\s{0,4}\\?\"?-?[1-9]")
_ORIGIN_TAGS = ("Make", "Model", "ImageDescription")
_COMMENT_TAGS = ("UserComment", "ImageDescription")

RULES: tuple[Rule, ...] = (
    # XMP properties, by local name: the prefix differs between writers.
    Rule("IPTC", "xmp", ("DigitalSourceType",), _is_term(SYNTHETIC_TERMS)),
    Rule("IPTC", "xmp", ("DigitalSourceType",), _is_term(CAPTURE_TERMS), synthetic=False),
    Rule("IPTC 2025.1", "xmp", ("AISystemUsed", "AISystemVersionUsed"), _present),
    Rule("IPTC 2025.1", "xmp", ("AIPromptInformation", "AIPromptWriterName"), _present),
    Rule("Google", "xmp", ("Credit",), _has("Made with Google AI")),
    Rule("Google", "iptc", ("Credit",), _has("Made with Google AI")),
    # Edits of a photograph, however small.
    Rule("Google Photos", "xmp", ("Credit",), _has("Edited with Google AI"), "weak"),
    Rule("Google Photos", "iptc", ("Credit",), _has("Edited with Google AI"), "weak"),
    Rule("Apple Photos", "xmp", ("Credit",), _has("Apple Photos Clean Up"), "weak"),
    Rule("Apple Photos", "iptc", ("Credit",), _has("Apple Photos Clean Up"), "weak"),
    Rule("Midjourney", "xmp", ("DigImageGUID",), _midjourney_job),
    Rule("GB 45438", "xmp", ("AIGC",), _AIGC),
    Rule("GB 45438", "xmp", ("AIGC",), _AIGC_MAYBE, "weak"),
    Rule("GB 45438", "xmp", ("AIGC",), _AIGC_SERVICE, "weak"),
    Rule("Reve", "xmp", ("CreatorTool",), _has("reve.com"), "weak"),
    Rule("Aphrodite", "xmp", ("CreatorTool",), _has("Aphrodite AI"), "weak"),
    Rule("named generator", "xmp", ("CreatorTool",), _names_generator, "weak"),
    # The manifest lies with Adobe, found again by a soft binding. Photographs have such manifests too.
    Rule("Adobe", "xmp", ("provenance",), _has("cai-manifests.adobe.com"), "weak", synthetic=False),
    # EXIF tags.
    Rule("FLUX", "exif", ("Software",), _starts("AI generated;")),
    Rule("FLUX", "exif", ("Make",), _starts("Black Forest Labs")),
    Rule("FLUX", "exif", ("Model",), _starts("flux-", "flux."), "weak"),
    Rule("Fooocus", "exif", ("Software",), _starts("Fooocus ")),
    Rule("Fooocus", "exif", ("UserComment",), _FOOOCUS),
    Rule("Grok", "exif", ("ImageDescription",), _grok_pair),
    Rule("A1111, Forge, SD.Next", "exif", ("UserComment",), _A1111),
    Rule("SwarmUI", "exif", ("UserComment",), _has('"sui_image_params"')),
    Rule("ComfyUI", "exif", _ORIGIN_TAGS, _begins_and_has("prompt:", '"class_type"')),
    Rule("ComfyUI", "exif", _ORIGIN_TAGS, _begins_and_has("workflow:", '"nodes"')),
    Rule("ComfyUI", "exif", ("UserComment",), _COMFY_GRAPH),
    Rule("NovelAI", "exif", ("Software",), _starts("NovelAI")),
    Rule("NovelAI", "exif", ("ImageDescription",), _equals("NovelAI generated image")),
    Rule("NovelAI", "exif", ("UserComment",), _NOVELAI_SETTINGS),
    Rule("GB 45438", "exif", _COMMENT_TAGS, _AIGC),
    Rule("GB 45438", "exif", _COMMENT_TAGS, _AIGC_MAYBE, "weak"),
    Rule("GB 45438", "exif", _COMMENT_TAGS, _AIGC_SERVICE, "weak"),
    Rule("Ideogram", "exif", ("Make",), _has("Ideogram AI"), "weak"),
    Rule("Reve", "exif", ("Software",), _has("reve.com"), "weak"),
    Rule("Aphrodite", "exif", ("Make", "Software"), _has("Aphrodite AI"), "weak"),
    Rule("named generator", "exif", ("Software",), _names_generator, "weak"),
    # PNG text keywords.
    Rule("A1111, Forge, SD.Next", "png-text", ("parameters", "postprocessing", "extras"), _A1111),
    # An upscaler's settings alone may belong to a photograph.
    Rule("A1111, Forge, SD.Next", "png-text", ("postprocessing", "extras"), _present, "weak"),
    Rule("SwarmUI", "png-text", ("parameters",), _has('"sui_image_params"')),
    Rule("Fooocus", "png-text", ("parameters",), _FOOOCUS),
    Rule("Fooocus", "png-text", ("fooocus_scheme",), _present),
    Rule("ComfyUI", "png-text", ("prompt",), _COMFY_GRAPH),
    Rule("ComfyUI", "png-text", ("workflow",), _begins_and_has("{", '"nodes"')),
    Rule("InvokeAI", "png-text", ("invokeai_metadata", "invokeai_graph", "invokeai_workflow"), _present),
    Rule("InvokeAI before 3", "png-text", ("sd-metadata", "Dream"), _present),
    Rule("NovelAI", "png-text", ("Software",), _equals("NovelAI")),
    Rule("NovelAI", "png-text", ("Title",), _equals("NovelAI generated image")),
    Rule("NovelAI", "png-text", ("Source",), _NOVELAI_MODEL),
    Rule("NovelAI", "png-text", ("Comment",), _NOVELAI_SETTINGS),
    Rule("Midjourney", "png-text", ("Description",), _finds(_JOB_ID.pattern)),
    Rule("Midjourney", "png-text", ("Description",), _midjourney_prompt, "weak"),
    Rule("GB 45438", "png-text", ("AIGC",), _AIGC),
    Rule("GB 45438", "png-text", ("AIGC",), _AIGC_MAYBE, "weak"),
    Rule("GB 45438", "png-text", ("AIGC",), _AIGC_SERVICE, "weak"),
    Rule("Luma", "png-text", ("Source",), _has("Luma AI"), "weak"),
    # The number of a job on a host, which need not be a generator's. Two hosts are named for it.
    Rule("Higgsfield or Hugging Face", "png-text", ("hf-job-id",), _present, "weak"),
    Rule("named generator", "png-text", ("Software",), _names_generator, "weak"),
    # Comments of JPEG and GIF.
    Rule("A1111, Forge, SD.Next", "comment", ("comment",), _A1111),
    # Samsung's editor. Not documented, and also written after an edit of a part.
    Rule("Samsung", "trailer", ("PhotoEditor_Re_Edit_Data", "PEg_Info"), _SAMSUNG_TYPE, "weak"),
)
"""What states a synthetic image outside C2PA. The first matching row of a field counts."""

_SOURCES: tuple[Source, ...] = ("xmp", "exif", "png-text", "comment", "iptc", "trailer")

RULES_OF: dict[Source, Mapping[str, tuple[Rule, ...]]] = {
    source: {
        field: tuple(rule for rule in RULES if rule.source == source and field in rule.fields)
        for field in dict.fromkeys(field for rule in RULES if rule.source == source for field in rule.fields)
    }
    for source in _SOURCES
}
"""The same rows by block and field."""
