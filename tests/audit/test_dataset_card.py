"""The card and its form for machines say what was done, invent nothing, and escape what strangers wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filtered_pools import decide, write_kind

from poolproof.audit.croissant import describe_croissant
from poolproof.audit.dataset_card import escape, render_card
from poolproof.audit.filter import FilterSpec, filter_pool

SHARE = {"point": 0.3021, "lower": 0.2612, "upper": 0.3478, "level": 0.95, "method": "melded"}


def manifest(tmp_path: Path, name: str = "auto", share: dict[str, Any] | None = None) -> Path:
    """A filtered pool with a report beside it."""
    run, decision = decide(write_kind(tmp_path, "webdataset"), tmp_path)
    run.report.write_text(json.dumps({"share": share}))
    filter_pool(run, decision, FilterSpec(tmp_path / "out", format=name))
    return tmp_path / "out"


def test_the_card(tmp_path: Path) -> None:
    """It names share with interval and method, what was removed and why, where the data are, and no licence."""
    card = (manifest(tmp_path, share=SHARE) / "README.md").read_text()
    front = card.split("---\n")[1]
    assert "license: unknown\n" in front
    assert '  data_files:\n  - "pool/*.tar"\n' in front
    assert "30.2 % (26.1 % to 34.8 %), level 95 %, method melded" in card
    assert "5 of 10 audited images were kept and 5 removed by poolproof, policy “by-hand”" in card
    assert "| found | 5 |" in card
    assert "does not say that it is real" in card


def test_the_front_is_yaml(tmp_path: Path) -> None:
    """The block at the top is what the hub parses, for data and for lists."""
    import yaml

    for name in ("auto", "uids", "folder"):
        out = manifest(tmp_path / name, name)
        front = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
        assert front["license"] == "unknown"
        assert front["size_categories"] == ["n<1K"]
        expected = {"auto": ["pool/*.tar"], "folder": ["pool/**/*.jpg"], "uids": None}[name]
        assert (front["configs"][0]["data_files"] if "configs" in front else None) == expected


def test_croissant(tmp_path: Path) -> None:
    """It tells files with hashes, columns of the decision, the share, and PROV-O of where the pool comes from."""
    out = manifest(tmp_path, share=SHARE)
    told = json.loads((out / "croissant.json").read_text())
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert {file["contentUrl"] for file in told["distribution"]} == {
        "pool/00000000.tar",
        "decision.parquet",
        "kept.txt",
    }
    assert any(
        "interval 0.2612 to 0.3478, level 0.95, method melded" in t
        for t in told["rai:dataPreprocessingProtocol"]
    )
    identity = json.loads((out / "filter.json").read_text())["identity"]
    assert told["prov:wasDerivedFrom"]["@id"].endswith(identity["plan"])
    assert told["prov:wasGeneratedBy"]["@id"].endswith(identity["decision"])
    assert "license" not in told


def test_no_share_is_said(tmp_path: Path) -> None:
    """Where the audit told no share, neither do card and Croissant."""
    out = manifest(tmp_path)
    assert "told no share" in (out / "README.md").read_text()
    assert "told no share" in (out / "croissant.json").read_text()


def test_a_statement_of_another_form(tmp_path: Path) -> None:
    """A decision whose statement is not known here is printed as it stands, and cannot end its block."""
    told = json.loads((manifest(tmp_path) / "filter.json").read_text())
    stated = {"statement": {"free": "```\n# not a heading", "n": 3}}
    card = render_card(told, ["pool/*.tar"], None, stated)
    block = card.split("```json\n")[1].split("\n```\n")[0]
    assert json.loads(block) == stated["statement"]
    assert describe_croissant(told, "pool/*.tar", None, stated)["rai:dataPreprocessingProtocol"][
        -1
    ].startswith("The audit")


def test_strangers_words_are_escaped(tmp_path: Path) -> None:
    """Reasons and policies cannot bring markup, columns or lines of their own into the card."""
    told = json.loads((manifest(tmp_path) / "filter.json").read_text())
    told["reasons"]["dropped"] = {"<img src=x>|\n# no": 1}
    told["policy"] = {"kind": "[a](http://b)"}
    card = render_card(told, [], None, {})
    assert "<img" not in card.replace("\\<", "")
    assert "\n# no" not in card
    assert "[a](" not in card
    assert escape("a|b\x07") == "a\\|b"
