"""Synthetic radiographs, for trying everything without a patient's image.

    render       draws one radiograph, with findings and masks of where they are
    corpus       the corpus "phantom", drawn where its folder is absent or empty
    layouts      phantoms in the tree, tables and file formats of every release
    __main__     `python -m data.phantom`: writes them
"""
