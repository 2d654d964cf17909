"""What was inferred of a file, as YAML that models.<model>.features of the configuration takes."""

from __future__ import annotations

import io

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from monitor.reference_build import FeatureOptions, Inference, InferredFeature

_EXACT = 2.0**53


def features_yaml(file: str, found: Inference) -> str:
    """Return the YAML text; every line says why, and what is left out stands above as comments."""
    document = CommentedMap()
    for name, feature in found.features.items():
        document[name] = _entry(feature)
        document.yaml_add_eol_comment(feature.why, name)
    text = io.StringIO()
    writer = YAML()
    writer.width = 1 << 16
    writer.dump(document, text)
    head = [f"{file}: {found.rows:,} rows. Edit, then paste under models.<model>.features of monitor.yaml.", *found.warnings]
    return "".join(f"# {line}\n" for line in head) + text.getvalue()


def _entry(feature: InferredFeature) -> CommentedMap:
    entry = CommentedMap(kind=feature.kind, max_missing_ratio=feature.max_missing_ratio)
    for key, value in (("minimum", feature.minimum), ("maximum", feature.maximum)):
        if value is not None:
            entry[key] = int(value) if value.is_integer() and abs(value) < _EXACT else value
    if feature.unit is not None:
        entry["unit"] = feature.unit
    if feature.kind == "category" and feature.options.max_categories != FeatureOptions().max_categories:
        entry["max_categories"] = feature.options.max_categories
    if feature.options.pii != "none":
        entry["pii"] = feature.options.pii
    entry.fa.set_flow_style()
    return entry
