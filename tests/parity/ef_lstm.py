"""EF-LSTM against M-SENA's, batch statistics in training mode too."""

from bench.models import ef_lstm
from tests.parity.harness import Fixture, Reference


def build(fixture: Fixture) -> ef_lstm.Model:
    c = fixture.config
    params = ef_lstm.Params(hidden=c["hidden_dims"], layers=c["num_layers"], dropout=0.0)
    return ef_lstm.Model(params, fixture.inputs("text"))


REFERENCES = {"ef_lstm": Reference(build, [
    (r"((?:norm|linear|out)\..*)", r"\1"), (r"lstm\.(.*_l)(\d)", r"lstm.\2.\g<1>0"),
])}
