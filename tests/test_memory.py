from itertools import accumulate

import pytest
import torch

from cerebras_gpt.compiled import trains_here
from cerebras_gpt.data.batches import Batch
from cerebras_gpt.distributed import World
from cerebras_gpt.model import kernel, loss
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.model.loss import summed_loss
from cerebras_gpt.plan import memory
from cerebras_gpt.plan.families import standard
from cerebras_gpt.plan.memory import activation_bytes, attention_bytes, checkpoint_bytes, passing_bytes, training_memory
from cerebras_gpt.plan.sizes import architecture, small_architecture
from cerebras_gpt.train.execution import Execution, gradients

needs_kernels = pytest.mark.skipif(kernel.kernel() is None, reason="no C++ compiler, or no bfloat16 products")


def kept_bytes(shape: Architecture, batch_size: int, dtype: torch.dtype) -> int:
    """What autograd really keeps of a forward pass besides the weights and their narrow copies."""
    model = initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))
    ids = torch.randint(shape.vocab_size, (batch_size, shape.seq_len))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {tuple(parameter.shape) for parameter in model.parameters()}
    sizes |= {tuple(reversed(size)) for size in sizes}
    kept = {}

    def note(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights and tuple(x.shape) not in sizes:
            kept[storage.data_ptr()] = (storage.nbytes(), x)  # holding x keeps its address its own
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        summed_loss(model.hidden(ids, dtype=dtype), model.head_table, ids)
    return sum(n_bytes for n_bytes, _ in kept.values())


@pytest.mark.parametrize(("dtype", "n_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("shape", [Architecture(64, 3, 2, 199, 72), Architecture(128, 4, 2, 997, 384)])
def test_activations_are_what_autograd_keeps(torch_alone, shape, dtype, n_bytes):
    assert kept_bytes(shape, 4, dtype) == pytest.approx(activation_bytes(shape, 4, n_bytes), rel=0.03)


def test_a_float32_step_holds_sixteen_bytes_a_parameter():
    shape = architecture("111M")
    memory = training_memory(shape, micro_batch_size=2, compute_bytes=4)
    head = 4 * shape.vocab_size * shape.d_model
    assert memory.weights + memory.gradients + memory.optimizer == 16 * shape.n_parameters + head
    assert memory.total == 16 * shape.n_parameters + head + activation_bytes(shape, 2, 4)


def test_a_narrow_step_holds_a_copy_of_the_weights_and_smaller_activations():
    shape = architecture("111M")
    narrow, wide = training_memory(shape, 4, compute_bytes=2), training_memory(shape, 4, compute_bytes=4)
    assert narrow.weights - wide.weights == 2 * shape.n_parameters
    assert narrow.activations < wide.activations


def test_activations_grow_with_the_batch_alone():
    shape = small_architecture(128, 4096, 256)
    one, four = training_memory(shape, 1), training_memory(shape, 4)
    assert four.activations == 4 * one.activations
    assert four._replace(activations=0) == one._replace(activations=0)


def test_a_checkpoint_holds_weights_and_two_moments():
    assert checkpoint_bytes(architecture("111M")) == 12 * 111_050_496


def in_use_at_most(shape: Architecture, batch_size: int, execution: Execution) -> int:
    """The most bytes of tensors, beside weights and moments, at any moment of a real pass forward and back."""
    model = initialize(GPT(shape, standard(shape)), torch.Generator().manual_seed(0))
    ids = torch.randint(shape.vocab_size, (batch_size, shape.seq_len))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        gradients(model, Batch(ids, ids), execution, World())
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes))


STEPS = {
    "many activations": (Architecture(64, 3, 2, 4096, 512), 1),
    "a large table": (Architecture(64, 2, 2, 16384, 256), 1),
    "two micro-batches": (Architecture(64, 2, 2, 16384, 256), 2),
    "mostly weights": (Architecture(256, 4, 4, 512, 32), 1),
}


@needs_kernels
@pytest.mark.parametrize("shape", [Architecture(64, 3, 2, 199, 72), Architecture(128, 4, 2, 997, 384)])
def test_compiled_kernels_keep_no_attention_weights(shape):
    assert kept_bytes(shape, 4, torch.bfloat16) == pytest.approx(activation_bytes(shape, 4), rel=0.03)


@needs_kernels
@pytest.mark.parametrize("step", STEPS)
def test_passing_bytes_are_those_of_a_real_step_of_compiled_kernels(step):
    shape, n_micro_batches = STEPS[step]
    found = in_use_at_most(shape, 4 * n_micro_batches, Execution("bfloat16", 4))
    assert found == pytest.approx(passing_bytes(shape, 4, 2, n_micro_batches), rel=0.15)


def test_the_planner_knows_whether_kernels_are_built():
    assert trains_here() == (kernel.kernel() is not None)


def test_a_head_that_the_kernels_do_not_take_keeps_its_weights(monkeypatch):
    narrow, odd = Architecture(64, 1, 4, 99, 256), Architecture(64, 1, 8, 99, 256)
    for is_built, kept in ((True, 4 * 4 * 256), (False, 2 * 4 * 256 * 192)):
        monkeypatch.setattr(memory, "trains_here", lambda is_built=is_built: is_built)
        assert attention_bytes(narrow) == kept
        assert attention_bytes(odd) == 2 * 8 * 256 * 192
        assert attention_bytes(narrow, 4) == 4 * 4 * 256 * 192


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("step", STEPS)
def test_passing_bytes_are_those_of_a_real_step(torch_alone, step, dtype):
    shape, n_micro_batches = STEPS[step]
    execution = Execution(dtype, 4)
    found = in_use_at_most(shape, 4 * n_micro_batches, execution)
    n_bytes = execution.torch_dtype.itemsize
    assert found == pytest.approx(passing_bytes(shape, 4, n_bytes, n_micro_batches), rel=0.15)


def test_the_planner_knows_the_chunks_of_the_loss():
    assert memory.CHUNK_ELEMENTS == loss.CHUNK_ELEMENTS
    assert memory.CACHED_ELEMENTS == loss.CACHED_ELEMENTS
