"""Detectors that write files: HDF5 that grows, master and data files, NeXus, folders of TIFFs."""
