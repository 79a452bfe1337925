import numpy as np
import pytest

from cerebras_gpt.data.example_batches import LENGTHS, ExampleBatches, by_length, padded, sample, shortened
from cerebras_gpt.data.examples import Example
from cerebras_gpt.model.loss import IGNORED
from cerebras_gpt.text.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["some plain words to learn from"], 257)
EXAMPLES = [Example("ab" * (1 + n % 7), f" {n}") for n in range(50)]
SAMPLES = [sample(example, TOKENIZER, 32) for example in EXAMPLES]
END = TOKENIZER.end_of_text


def test_only_the_answer_and_the_end_are_learned():
    batch = padded([sample(Example("ab", " cd"), TOKENIZER, 16)], END, 16)
    assert TOKENIZER.decode(batch.ids[0].tolist()) == "ab cd"
    learned = batch.targets[0][batch.targets[0] != IGNORED].tolist()
    assert learned == [*TOKENIZER.encode(" cd"), END]


def test_padding_is_never_learned():
    short, long = sample(Example("a", "b"), TOKENIZER, 16), sample(Example("aaaaaa", "b"), TOKENIZER, 16)
    alone, beside = padded([short], END, 16), padded([short, long], END, 16)
    assert (beside.targets[0] != IGNORED).sum() == (alone.targets[0] != IGNORED).sum() == 2


def test_a_long_prompt_loses_its_middle_and_never_its_answer():
    made = sample(Example("x" * 10 + "y" * 10, " yes"), TOKENIZER, 11)
    assert TOKENIZER.decode(made.ids) == "xxxyyyy yes"
    assert (len(made.ids), made.n_cut) == (12, 13)


def test_an_answer_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="the answer has 20 tokens"):
        sample(Example("x", "y" * 20), TOKENIZER, 12)


def test_shortened_keeps_what_fits():
    assert shortened([1, 2, 3], 3) == [1, 2, 3]


def test_a_batch_depends_on_seed_and_step_alone():
    once, again, other = (ExampleBatches(SAMPLES, 8, seed, END) for seed in (3, 3, 4))
    again.rows(0, range(8))  # history must not matter
    assert (once.rows(17, range(8)).ids == again.rows(17, range(8)).ids).all()
    assert any(not np.array_equal(once.rows(s, range(8)).ids, other.rows(s, range(8)).ids) for s in range(3))


def test_an_epoch_shows_every_example():
    batches = ExampleBatches(SAMPLES, 8, 0, END)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = {tuple(row[row != IGNORED].tolist()) for s in steps for row in batches.rows(s, range(8)).targets}
        assert len(seen) == len(EXAMPLES)


def test_rows_of_two_processes_are_the_global_batch():
    batches = ExampleBatches(SAMPLES, 8, 0, END)
    whole, odd = batches.rows(5, range(8)), batches.rows(5, range(1, 8, 2))
    width = odd.ids.shape[1]
    assert (whole.ids[1::2, :width] == odd.ids).all()


def test_rows_of_like_length_go_together_in_few_lengths():
    samples = [sample(Example("ab" * (1 + n % 60), " x"), TOKENIZER, 120) for n in range(300)]
    batches = ExampleBatches(samples, 5, 0, END)
    shapes = [batches.rows(step, range(5)).ids.shape for step in range(batches.steps_per_epoch)]
    longest = max(len(one.ids) - 1 for one in samples)
    assert {T for _, T in shapes} <= {*range(LENGTHS, longest, LENGTHS), longest}
    assert sum(B * T for B, T in shapes) < sum(len(one.ids) - 1 + 0.7 * LENGTHS for one in samples)


def test_held_out_batches_show_each_example_once():
    assert sum(len(batch.ids) for batch in by_length(SAMPLES, 8, END)) == len(SAMPLES)
