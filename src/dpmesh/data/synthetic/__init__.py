"""A seeded generator of people: pictures, or keypoints alone, with everything known about them."""

from dpmesh.data.synthetic.people import SyntheticPeople

__all__ = ["SyntheticPeople"]
