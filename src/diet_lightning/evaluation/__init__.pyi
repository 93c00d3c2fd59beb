from .neighbours import knn_probabilities as knn_probabilities
from .neighbours import nearest_neighbours as nearest_neighbours
from .probes import EvaluationConfig as EvaluationConfig
from .probes import evaluate_features as evaluate_features
from .probes import extract_features as extract_features
from .probes import fit_linear_probe as fit_linear_probe
from .rank import effective_rank as effective_rank
from .rank import rankme as rankme
