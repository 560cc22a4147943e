"""Evidence about one image or one set of images."""
