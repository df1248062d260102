"""An HTTP service: images and videos in, bodies out. FastAPI and uvicorn; the model is in one thread."""
