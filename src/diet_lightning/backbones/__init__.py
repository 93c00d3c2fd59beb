"""A name, a module or a folder in, a feature extractor out."""
