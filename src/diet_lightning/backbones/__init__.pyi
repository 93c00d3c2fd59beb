from .factory import Backbone as Backbone
from .factory import create_backbone as create_backbone
