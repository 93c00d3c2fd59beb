from .backbones.factory import create_backbone as create_backbone
from .callbacks.defaults import default_callbacks as default_callbacks
from .callbacks.embedding_writer import EmbeddingWriter as EmbeddingWriter
from .callbacks.feature_rank import FeatureRank as FeatureRank
from .callbacks.finite_guard import FiniteGuard as FiniteGuard
from .callbacks.interrupt_checkpoint import InterruptCheckpoint as InterruptCheckpoint
from .callbacks.last_blocks import LastBlocks as LastBlocks
from .callbacks.offline_evaluation import OfflineEvaluation as OfflineEvaluation
from .callbacks.online_knn import OnlineKNN as OnlineKNN
from .callbacks.online_probe import OnlineLinearProbe as OnlineLinearProbe
from .callbacks.progress_bar import FitProgressBar as FitProgressBar
from .callbacks.run_figure import RunFigure as RunFigure
from .callbacks.run_recorder import RunRecorder as RunRecorder
from .data.batch import DatumBatch as DatumBatch
from .data.datamodule import DIETDataModule as DIETDataModule
from .data.indexed import IndexedDataset as IndexedDataset
from .data.read_config import ReadConfig as ReadConfig
from .embeddings.formats import Embeddings as Embeddings
from .embeddings.formats import read_embeddings as read_embeddings
from .errors import DIETError as DIETError
from .objective.head_config import HeadConfig as HeadConfig
from .runs.checkpoint import LeanCheckpointIO as LeanCheckpointIO
from .training.module import DIETModule as DIETModule
from .training.supervised import SupervisedModule as SupervisedModule

__version__: str
