"""Small models are faster on one thread, and two test processes then share two cores fairly."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
