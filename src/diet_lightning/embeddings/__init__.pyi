from .formats import Embeddings as Embeddings
from .formats import read_embeddings as read_embeddings
