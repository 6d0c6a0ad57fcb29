"""The vision transformer, its official weights and its checkpoints."""

from models.vit import VisionTransformer, create_model
from models.weights import LoadReport, load_pretrained

__all__ = ["VisionTransformer", "create_model", "LoadReport", "load_pretrained"]
