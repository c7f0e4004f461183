"""File formats of recorded episodes: one file each."""

from exporl.data.formats.arrays import load_npz, save_npz

__all__ = ["load_npz", "save_npz"]
