"""Every way in: our own files, Stable-Baselines3 zips, state dicts in .safetensors. None is unpickled."""

from potstill.teachers.load import load

__all__ = ["load"]
