"""Images of bodies: z-buffer, shading, overlay, side views."""
