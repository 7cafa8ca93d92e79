"""SKEAFN beyond parity: its words, and whose statistics standardise."""

import pytest
import torch

from bench.errors import BenchError
from bench.models import skeafn
from bench.models.base import Inputs

INPUTS = Inputs((6, 8), (5, 3), (4, 2), train_size=20)
SMALL = dict(encoder="none", d=8, text_hidden=4, audio_hidden=4, vision_hidden=4, heads=2, layers=1, feed_forward=8, words=2)


def made(**params):
    return skeafn.Model(skeafn.Params(**{**SMALL, **params}), INPUTS, torch.zeros(4, 4, dtype=torch.int64))


def test_words_are_the_first_of_the_text_that_the_lexicon_has():
    model = made()
    model.node_of_piece = torch.tensor([0, 3, 0, 1, 2])
    ids = torch.tensor([[2, 4, 2, 1, 3], [2, 2, 3, 1, 0], [0, 2, 0, 0, 2]])
    mask = torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [1] * 5])
    words = model.sentiment_words({"text_bert": torch.stack([ids, mask, mask], 1)})
    assert words.tolist() == [[2, 3], [1, 0], [0, 0]]  # what is masked is no word


def test_statistics_are_the_training_splits():
    model = made()
    audio, vision = torch.randn(20, 5, 3) * 4 + 2, torch.zeros(20, 4, 2)
    model.rows_of = lambda rows: {"audio": audio[rows], "vision": vision[rows]}
    model.on_epoch_start(1)
    z = (audio - model.mean_audio) / model.spread_audio
    assert z.mean(0).abs().max() < 1e-5 and (z.std(0, correction=0) - 1).abs().max() < 1e-4
    assert torch.equal((vision - model.mean_vision) / model.spread_vision, vision)  # constant channels become 0
    assert {"mean_audio", "spread_audio"} <= model.state_dict().keys()


def test_words_need_an_encoder():
    with pytest.raises(BenchError, match="encoder cannot be 'none'"):
        skeafn.Model(skeafn.Params(**SMALL), INPUTS)
