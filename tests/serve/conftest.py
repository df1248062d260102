import pytest
from service import fake_predictor, running

from dpmesh.inference.predictor import Predictor
from dpmesh.serve.service import Service


@pytest.fixture
def predictor() -> Predictor:
    return fake_predictor()


@pytest.fixture
def port(predictor: Predictor):
    """Of a service with a light model."""
    with running(Service(predictor)) as (number, _):
        yield number
