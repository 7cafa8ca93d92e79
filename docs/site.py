"""A hook of the documentation's build: the pages of all methods stand in the navigation, under Methods."""

from pathlib import Path


def on_config(config):
    """Puts docs/methods/*.md where the navigation has methods/index.md."""
    folder = Path(config["docs_dir"]) / "methods"

    def named(prefix):
        return [{p.stem.removeprefix(prefix): f"methods/{p.name}"} for p in sorted(folder.glob(f"{prefix}*.md"))]

    for group in (v for part in config["nav"] for v in part.values() if isinstance(v, list)):
        for entry in group:
            if entry.get("Methods") == "methods/index.md":
                entry["Methods"] = ["methods/index.md", {"Backbones and systems": named("models-")}, {"Mixing": named("mixers-")}]
    return config
