"""Each row of the table of rules, on files written by Pillow as the generators write theirs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from image_files import (
    A1111,
    AIGC,
    AIGC_MAYBE,
    AIGC_SERVICE,
    AIGC_UNLABELLED,
    FOOOCUS,
    GRAPH,
    NOVELAI,
    SWARM,
    TYPES,
    UUID,
    WORKFLOW,
    encoded,
    packet,
    png_with,
    source_type,
    trailer,
    with_credit,
    with_exif,
    with_xmp,
)

from poolproof.detectors.provenance import Finding, describe, is_declared, is_signed, read_provenance
from poolproof.detectors.rules import RULES, RULES_OF

# (source, field, file): each must give a synthetic finding that counts as declared.
STATED: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "Fooocus settings PNG": ("png-text", "parameters", lambda: png_with(parameters=FOOOCUS)),
    "Fooocus settings": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"ASCII\0\0\0" + FOOOCUS.encode()}),
    ),
    "ComfyUI comment": ("exif", "UserComment", lambda: with_exif({0x9286: b"ASCII\0\0\0" + GRAPH.encode()})),
    "ComfyUI prompt as make": ("exif", "Make", lambda: with_exif({0x010F: "prompt:" + GRAPH}, "WEBP")),
    "ComfyUI prompt as text": (
        "exif",
        "ImageDescription",
        lambda: with_exif({0x010E: "prompt:" + GRAPH}, "WEBP"),
    ),
    "ComfyUI workflow as model": (
        "exif",
        "Model",
        lambda: with_exif({0x0110: "workflow:" + WORKFLOW}, "WEBP"),
    ),
    "ComfyUI workflow elsewhere": (
        "exif",
        "ImageDescription",
        lambda: with_exif({0x010E: "workflow:" + WORKFLOW}, "WEBP"),
    ),
    "InvokeAI workflow": ("png-text", "invokeai_workflow", lambda: png_with(invokeai_workflow="{}")),
    "A1111 processing": ("png-text", "postprocessing", lambda: png_with(postprocessing=A1111)),
    "A1111 comment": ("comment", "comment", lambda: encoded("JPEG", comment=A1111.encode())),
    "NovelAI title": ("png-text", "Title", lambda: png_with(Title="NovelAI generated image")),
    "NovelAI model": ("png-text", "Source", lambda: png_with(Source="NovelAI Diffusion V4.5 4BDE2A90")),
    "NovelAI first model": ("png-text", "Source", lambda: png_with(Source="Stable Diffusion 81274D13")),
    "NovelAI settings": ("png-text", "Comment", lambda: png_with(Comment=NOVELAI)),
    "NovelAI WebP": ("exif", "Software", lambda: with_exif({0x0131: "NovelAI Diffusion V4.5"}, "WEBP")),
    "NovelAI WebP title": (
        "exif",
        "ImageDescription",
        lambda: with_exif({0x010E: "NovelAI generated image"}, "WEBP"),
    ),
    "NovelAI WebP settings": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"ASCII\0\0\0" + json.dumps({"Comment": NOVELAI}).encode()}, "WEBP"),
    ),
    "Midjourney XMP": (
        "xmp",
        "DigImageGUID",
        lambda: png_with(
            **{"XML:com.adobe.xmp": packet("", f'iptcExt:DigImageGUID="{UUID}"')},
            Description=f"a cat --v 6 Job ID: {UUID}",
            Author="someone",
            **{"Creation Time": "Wed, 01 Jan 2025 00:00:00 GMT"},
        ),
    ),
    "AIGC description": ("exif", "ImageDescription", lambda: with_exif({0x010E: AIGC})),
    "AIGC second keys": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC_SERVICE)),
    "AIGC number": ("png-text", "AIGC", lambda: png_with(AIGC='{"Label": 1, "ProduceID": "x"}')),
    "AIGC as a string": ("png-text", "AIGC", lambda: png_with(AIGC=json.dumps({"AIGC": AIGC}))),
    "version of the system": (
        "xmp",
        "AISystemVersionUsed",
        lambda: with_xmp("<q:AISystemVersionUsed>2</q:AISystemVersionUsed>"),
    ),
    "writer of the prompt": (
        "xmp",
        "AIPromptWriterName",
        lambda: with_xmp("", 'Iptc4xmpExt:AIPromptWriterName="J. Doe"'),
    ),
    "A1111 PNG": ("png-text", "parameters", lambda: png_with(parameters=A1111)),
    "A1111 extras": ("png-text", "extras", lambda: png_with(extras=A1111)),
    "A1111 JPEG": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"UNICODE\0" + A1111.encode("utf-16-be")}),
    ),
    "A1111 WebP": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"ASCII\0\0\0" + A1111.encode()}, "WEBP"),
    ),
    "A1111 GIF": ("comment", "comment", lambda: encoded("GIF", comment=A1111.encode())),
    "SD.Next": (
        "png-text",
        "parameters",
        lambda: png_with(parameters="a cat\nSteps: 20| Seed: 1| Sampler: x"),
    ),
    "ComfyUI prompt": ("png-text", "prompt", lambda: png_with(prompt=GRAPH)),
    "ComfyUI workflow": ("png-text", "workflow", lambda: png_with(workflow=WORKFLOW)),
    "ComfyUI WebP": ("exif", "Model", lambda: with_exif({0x0110: "prompt:" + GRAPH}, "WEBP")),
    "ComfyUI WebP workflow": ("exif", "Make", lambda: with_exif({0x010F: "workflow:" + WORKFLOW}, "WEBP")),
    "SwarmUI PNG": ("png-text", "parameters", lambda: png_with(parameters=SWARM)),
    "SwarmUI JPEG": ("exif", "UserComment", lambda: with_exif({0x9286: b"\0" * 8 + SWARM.encode()})),
    "Fooocus PNG": (
        "png-text",
        "fooocus_scheme",
        lambda: png_with(fooocus_scheme="fooocus", parameters="{}"),
    ),
    "Fooocus JPEG": ("exif", "Software", lambda: with_exif({0x0131: "Fooocus v2.5.5"})),
    "InvokeAI": ("png-text", "invokeai_metadata", lambda: png_with(invokeai_metadata='{"seed": 1}')),
    "InvokeAI graph": ("png-text", "invokeai_graph", lambda: png_with(invokeai_graph="{}")),
    "InvokeAI 2": ("png-text", "sd-metadata", lambda: png_with(**{"sd-metadata": '{"model": "x"}'})),
    "InvokeAI 1": ("png-text", "Dream", lambda: png_with(Dream='"a cat" -s 50 -S 1 -W 512 -H 512')),
    "NovelAI": ("png-text", "Software", lambda: png_with(Software="NovelAI", Comment="{}")),
    "Midjourney": ("png-text", "Description", lambda: png_with(Description=f"a cat --v 6 Job ID: {UUID}")),
    "FLUX": ("exif", "Software", lambda: with_exif({0x0131: "AI generated;txt2img;flux"})),
    "FLUX make": ("exif", "Make", lambda: with_exif({0x010F: "Black Forest Labs"})),
    "Grok": (
        "exif",
        "ImageDescription",
        lambda: with_exif({0x010E: "Signature: " + "aB3/" * 20, 0x013B: UUID}),
    ),
    "AIGC PNG": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC)),
    "AIGC EXIF": ("exif", "UserComment", lambda: with_exif({0x9286: b"ASCII\0\0\0" + AIGC.encode()})),
    "AIGC element": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC>{AIGC}</TC260:AIGC>")),
    "AIGC CDATA": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC><![CDATA[{AIGC}]]></TC260:AIGC>")),
    "AIGC attribute": (
        "xmp",
        "AIGC",
        lambda: with_xmp("", 'TC260:AIGC="' + AIGC.replace('"', "&quot;") + '"'),
    ),
    "source type element": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(source_type("trainedAlgorithmicMedia")),
    ),
    "source type attribute": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp("", f"iptcExt:DigitalSourceType='{TYPES}compositeSynthetic'", "WEBP"),
    ),
    "source type resource": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(f'<a.b-c:DigitalSourceType rdf:resource="{TYPES}trainedAlgorithmicMedia"/>'),
    ),
    "source type in a list": (
        "xmp",
        "DigitalSourceType",
        lambda: with_xmp(
            "<x:DigitalSourceType>\n <rdf:Bag>\n <rdf:li>"
            f"{TYPES}compositeWithTrainedAlgorithmicMedia/</rdf:li></rdf:Bag></x:DigitalSourceType>"
        ),
    ),
    "source type PNG": (
        "xmp",
        "DigitalSourceType",
        lambda: png_with(**{"XML:com.adobe.xmp": packet(source_type("trainedAlgorithmicMedia"))}),
    ),
    "system": ("xmp", "AISystemUsed", lambda: with_xmp("", 'Iptc4xmpExt:AISystemUsed="Some Model"')),
    "prompt": (
        "xmp",
        "AIPromptInformation",
        lambda: with_xmp("<Iptc4xmpExt:AIPromptInformation>a cat</Iptc4xmpExt:AIPromptInformation>"),
    ),
    "Google": ("xmp", "Credit", lambda: with_xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>")),
    "Google IIM": ("iptc", "Credit", lambda: with_credit(b"Made with Google AI")),
}

# (source, field, file): each must give a synthetic finding that is too weak to count alone.
WEAK: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "Google edit": (
        "xmp",
        "Credit",
        lambda: with_xmp("<photoshop:Credit>Edited with Google AI</photoshop:Credit>"),
    ),
    "Google edit IIM": ("iptc", "Credit", lambda: with_credit(b"Edited with Google AI")),
    "Apple edit": ("xmp", "Credit", lambda: with_xmp("", 'photoshop:Credit="Apple Photos Clean Up"')),
    "Apple edit IIM": ("iptc", "Credit", lambda: with_credit(b"Apple Photos Clean Up")),
    "upscaler of extras": ("png-text", "extras", lambda: png_with(extras="Postprocess upscale by: 4")),
    "Aphrodite make": ("exif", "Make", lambda: with_exif({0x010F: "Aphrodite AI v1.0"})),
    "FLUX model": ("exif", "Model", lambda: with_exif({0x0110: "flux-schnell"})),
    "Midjourney options": (
        "png-text",
        "Description",
        lambda: png_with(
            Description="a cat --ar 3:2 --v 6.1", Author="someone", **{"Creation Time": "Wed, 01 Jan 2025"}
        ),
    ),
    "possible description": ("exif", "ImageDescription", lambda: with_exif({0x010E: AIGC_MAYBE})),
    "possible, label 2": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC_MAYBE.replace("3", "2", 1))),
    "service": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC_UNLABELLED)),
    "service description": ("exif", "ImageDescription", lambda: with_exif({0x010E: AIGC_UNLABELLED})),
    "service comment": (
        "exif",
        "UserComment",
        lambda: with_exif({0x9286: b"ASCII\0\0\0" + AIGC_UNLABELLED.encode()}),
    ),
    "service XMP": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC>{AIGC_UNLABELLED}</TC260:AIGC>")),
    "Samsung edit": (
        "trailer",
        "PhotoEditor_Re_Edit_Data",
        lambda: encoded("JPEG") + trailer(PhotoEditor_Re_Edit_Data='{"isAI": false, "genAIType":1}'),
    ),
    "Samsung image": (
        "trailer",
        "PEg_Info",
        lambda: encoded("JPEG") + trailer(Image_UTC_Data="1", PEg_Info='{"genAIType": 5}'),
    ),
    "Midjourney software": ("exif", "Software", lambda: with_exif({0x0131: "Midjourney"})),
    "upscaler": ("png-text", "postprocessing", lambda: png_with(postprocessing="Postprocess upscale by: 4")),
    "Luma": ("png-text", "Source", lambda: png_with(Source="Luma AI")),
    "job": ("png-text", "hf-job-id", lambda: png_with(**{"hf-job-id": "12"})),
    "Ideogram": ("exif", "Make", lambda: with_exif({0x010F: "Ideogram AI"})),
    "Reve": ("exif", "Software", lambda: with_exif({0x0131: "reve.com"})),
    "Reve XMP": ("xmp", "CreatorTool", lambda: with_xmp("<xmp:CreatorTool>reve.com</xmp:CreatorTool>")),
    "Aphrodite": ("exif", "Software", lambda: with_exif({0x0131: "Aphrodite AI"})),
    "Aphrodite XMP": ("xmp", "CreatorTool", lambda: with_xmp("", 'xmp:CreatorTool="Aphrodite AI"')),
    "tool": ("xmp", "CreatorTool", lambda: with_xmp("", 'xmp:CreatorTool="Adobe Firefly"')),
    "software": ("exif", "Software", lambda: with_exif({0x0131: "ChatGPT"})),
    "PNG software": ("png-text", "Software", lambda: png_with(Software="OpenAI")),
    "possible": ("png-text", "AIGC", lambda: png_with(AIGC=AIGC_MAYBE)),
    "possible EXIF": ("exif", "UserComment", lambda: with_exif({0x9286: b"\0" * 8 + AIGC_MAYBE.encode()})),
    "possible XMP": ("xmp", "AIGC", lambda: with_xmp(f"<TC260:AIGC>{AIGC_MAYBE}</TC260:AIGC>")),
}

# Files close to a rule that state nothing synthetic.
SILENT: dict[str, Callable[[], bytes]] = {
    "GUID of another job": lambda: png_with(
        **{"XML:com.adobe.xmp": packet("", f'iptcExt:DigImageGUID="{UUID}"')}, Description="a cat"
    ),
    "options without author": lambda: png_with(Description="tar --exclude-vcs --v 6 x"),
    "author and time": lambda: png_with(
        Author="J. Doe", Description="A cat, 3:2", **{"Creation Time": "Wed, 01 Jan 2025"}
    ),
    "label that denies": lambda: png_with(AIGC=AIGC.replace('"1"', '"0"')),
    "Samsung edit without": lambda: (
        encoded("JPEG") + trailer(PhotoEditor_Re_Edit_Data='{"genAIType":0, "isAI": 1}')
    ),
    "other trailer": lambda: encoded("JPEG") + trailer(Image_UTC_Data='{"genAIType":1}'),
    "comment of an editor": lambda: png_with(Comment="Created with GIMP", Source="Stable Diffusion of salt"),
    "settings of something else": lambda: png_with(Comment='{"sampler": "Roland", "steps": 16}'),
    "a lens called flux": lambda: with_exif({0x0110: "Lumix Flux-1"}),
    "provenance in words": lambda: with_xmp("", 'dc:provenance="Estate of J. Doe"'),
    "JPEG": lambda: encoded("JPEG"),
    "PNG": lambda: encoded("PNG"),
    "camera": lambda: with_exif({0x010F: "Canon", 0x0110: "EOS R5", 0x0131: "Adobe Lightroom 12"}),
    "parameters of something else": lambda: png_with(parameters="gain=2; offset=1"),
    "prompt that is no graph": lambda: png_with(prompt="please print on A4", workflow="scan then archive"),
    "another description": lambda: png_with(Description="Job ID: 4711", Software="GIMP", Source="scanner"),
    "signature without UUID": lambda: with_exif({0x010E: "Signature: " + "aB3/" * 20, 0x013B: "J. Doe"}),
    "UUID without signature": lambda: with_exif({0x010E: "a cat", 0x013B: UUID}),
    "procedural": lambda: with_xmp(source_type("algorithmicMedia")),
    "scan": lambda: with_xmp(source_type("negativeFilm")),
    "credit": lambda: with_xmp("<photoshop:Credit>Agency</photoshop:Credit>"),
    "empty system": lambda: with_xmp("<Iptc4xmpExt:AISystemUsed></Iptc4xmpExt:AISystemUsed>"),
    "empty element before another": lambda: with_xmp(
        "<Iptc4xmpExt:AISystemUsed/><dc:title>x</dc:title><a:AISystemUsed></a:AISystemUsed><dc:x>y</dc:x>"
    ),
    "name inside a longer name": lambda: with_xmp("", 'x:NotDigitalSourceType="trainedAlgorithmicMedia"'),
    "term in a description": lambda: with_xmp("<dc:title>trainedAlgorithmicMedia</dc:title>"),
    "recipe": lambda: with_exif({0x9286: b"ASCII\0\0\0Steps: 3 to follow. Enjoy."}),
}


@pytest.mark.parametrize("case", STATED)
def test_stated_rules_declare(case: str) -> None:
    """A file of each producer is declared synthetic by the field that the producer writes."""
    source, field, build = STATED[case]
    findings = read_provenance(build())
    assert is_declared(findings)
    assert not is_signed(findings)
    assert [(f.source, f.field, f.tier, f.confidence) for f in findings if f.synthetic][:1] == [
        (source, field, "declared", "stated")
    ]


@pytest.mark.parametrize("case", WEAK)
def test_weak_rules_do_not_count_alone(case: str) -> None:
    """An unconfirmed form is reported as weak and declares nothing."""
    source, field, build = WEAK[case]
    findings = read_provenance(build())
    assert [(f.source, f.field, f.confidence, f.synthetic) for f in findings] == [
        (source, field, "weak", True)
    ]
    assert not is_declared(findings)
    assert (describe(findings) or "").startswith("declared, weak: ")


@pytest.mark.parametrize("case", SILENT)
def test_files_close_to_a_rule_are_silent(case: str) -> None:
    """A file that only resembles a rule gives no finding at all."""
    assert read_provenance(SILENT[case]()) == ()


@pytest.mark.parametrize("place", ["attribute", "element"])
def test_manifest_elsewhere_is_not_synthetic(place: str) -> None:
    """A manifest that lies with Adobe is named, weakly, and states nothing of how the image was made."""
    address = "https://cai-manifests.adobe.com/manifests/adobe-urn-uuid-1"
    forms = {
        "attribute": with_xmp("", f'dcterms:provenance="{address}"'),
        "element": with_xmp(f"<dcterms:provenance>{address}</dcterms:provenance>"),
    }
    findings = read_provenance(forms[place])
    assert findings == (Finding("declared", False, "xmp", "provenance", address, "weak"),)
    assert not is_declared(findings)


FILES: dict[str, bytes] = {name: case[2]() for table in (STATED, WEAK) for name, case in table.items()} | {
    "capture": with_xmp(source_type("digitalCapture")),
    "elsewhere": with_xmp("", 'dcterms:provenance="https://cai-manifests.adobe.com/x"'),
}


def test_every_rule_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one rule for any one of its fields, some file above is read differently."""
    expected = {name: read_provenance(data) for name, data in FILES.items()}
    idle: list[str] = []
    for rule in RULES:
        for field in rule.fields:
            kept = dict(RULES_OF[rule.source])
            kept[field] = tuple(other for other in kept[field] if other is not rule)
            monkeypatch.setitem(RULES_OF, rule.source, kept)
            names = [name for name, found in expected.items() if any(f.field == field for f in found)]
            if all(read_provenance(FILES[name]) == expected[name] for name in names):
                idle.append(f"{rule.producer}: {rule.source} {field}, {rule.confidence}")
            monkeypatch.undo()
    assert idle == []
