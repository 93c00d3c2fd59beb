from .folder import export_backbone as export_backbone
from .folder import load_backbone as load_backbone
from .folder import load_preprocessing as load_preprocessing
