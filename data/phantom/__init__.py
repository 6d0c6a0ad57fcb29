"""Synthetic radiographs: `render` draws one, `layouts` many, `corpus` is the default corpus."""
