"""Evaluation of frozen features: scores with intervals."""

from typing import TYPE_CHECKING

from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
    from diet_lightning.evaluation.neighbours import knn_probabilities, nearest_neighbours
    from diet_lightning.evaluation.probes import EvaluationConfig, evaluate_features, extract_features, fit_linear_probe
    from diet_lightning.evaluation.rank import effective_rank, rankme
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "EvaluationConfig": "diet_lightning.evaluation.probes",
            "effective_rank": "diet_lightning.evaluation.rank",
            "evaluate_features": "diet_lightning.evaluation.probes",
            "extract_features": "diet_lightning.evaluation.probes",
            "fit_linear_probe": "diet_lightning.evaluation.probes",
            "knn_probabilities": "diet_lightning.evaluation.neighbours",
            "nearest_neighbours": "diet_lightning.evaluation.neighbours",
            "rankme": "diet_lightning.evaluation.rank",
        },
    )

__all__ = [
    "EvaluationConfig",
    "effective_rank",
    "evaluate_features",
    "extract_features",
    "fit_linear_probe",
    "knn_probabilities",
    "nearest_neighbours",
    "rankme",
]
