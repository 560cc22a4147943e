"""How much of an image pool is synthetic, which images, how sure, and what to do about it.

The parts are `poolproof.audit`, `poolproof.detectors`, `poolproof.simulate` and `poolproof.watermark`;
importing this package loads none of them.
"""

__version__ = "0.1.0"
