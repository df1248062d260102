"""What can be said of bodies on photographs, where no true pose is known: do they fit the detector's keypoints, and
are they possible."""
