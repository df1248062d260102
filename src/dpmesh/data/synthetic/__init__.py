"""A seeded generator of people: images, or keypoints alone, with everything known about them."""

from dpmesh.data.synthetic.generator import SyntheticPeople

__all__ = ["SyntheticPeople"]
