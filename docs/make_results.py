"""Writes results.md from the results of the examples in results/, so that every number comes from a run.

    python docs/make_results.py

Copy the ``results.json`` of a run to ``results/EXAMPLE[-DATA].json`` and its figures to ``results/EXAMPLE[-DATA]*.png``.
"""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "results.md"
HEAD = """# Results

Made by `docs/make_results.py` from the results of the examples; a test compares the two. Intervals are 95 %: over seeds by
Student's t, of rank correlations by Bonett and Wright (2000). The paper's numbers, where known, are of the paper's settings. All examples ran on a CPU,
at a small size. The paper's size (`DIET_SIZE=full`) and the [configurations of the paper's tables](../examples/paper/configs/README.md) were not run.
`hf:parquet:cifar10` is a folder with CIFAR-10 in Hugging Face's format, `train.parquet` and `test.parquet`. Times are of a shared machine.
"""
TITLES = {
    "10_linear_theory": "Figures 4 and 5: the linear model reaches its closed form",
    "11_loss_predicts_probe": "Figure 1: the training loss predicts the quality of the features",
    "12_few_samples": "Figure 2: few samples, DIET against supervised learning",
    "13_ablations": "Ablations",
    "14_identifiability": "Identifiability",
    "15_continued_pretraining": "Continued pretraining, DIET-CP",
}


def page() -> str:
    """The text of results.md."""
    parts = [HEAD]
    for example, title in TITLES.items():
        files = sorted((DOCS / "results").glob(f"{example}*.json"))
        if files:
            parts.append(f"## {title}\n\nExample: [`examples/paper/{example}.py`](../examples/paper/{example}.py).\n")
        # a figure belongs to the run whose stem is the longest that its name begins with
        stems = sorted((file.stem for file in files), key=len, reverse=True)
        for file in files:
            figures = [
                figure.name
                for figure in sorted((DOCS / "results").glob(f"{file.stem}*.png"))
                if next(stem for stem in stems if figure.stem.startswith(stem)) == file.stem
            ]
            parts.append(_run(json.loads(file.read_text(encoding="utf-8")), figures))
    return "\n".join(parts)


def _run(found: dict[str, Any], figures: list[str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"**{found['setting']}.** {found['hardware']}; {versions}; {found['minutes']:g} minutes.\n"]
    lines += ["```bash", found["command"], "```\n"]
    lines += [f"![{Path(figure).stem}](results/{figure})\n" for figure in figures]
    papers = any(row["paper"] for row in found["rows"])
    lines.append("| measured | value | seeds |" + (" paper |" if papers else ""))
    lines.append("|---|---|---|" + ("---|" if papers else ""))
    for row in found["rows"]:
        cells = [row["what"].replace("|", "\\|"), _value(row), str(row["seeds"]), *([row["paper"]] if papers else [])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _value(row: dict[str, Any]) -> str:
    interval = "" if row["low"] is None else f" [{_number(row['low'], row)}, {_number(row['high'], row)}]"
    return f"{_number(row['value'], row)}{interval}{' ' if row['unit'] else ''}{row['unit']}"


def _number(value: float, row: dict[str, Any]) -> str:
    if row["unit"] == "%":
        return f"{value:.1f}"
    if row["unit"] == "nats":
        return f"{value:.4g}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
