import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import PotstillError
from potstill.networks import PAPER, NetworkSpec

SIZES = st.lists(st.integers(1, 16_384), min_size=1, max_size=4).map(tuple)

OWN = st.one_of(st.just(()), SIZES)


@given(st.one_of(
    st.builds(NetworkSpec, st.just("mlp"), st.just(()), SIZES, st.sampled_from(["relu", "tanh"]), OWN),
    st.builds(NetworkSpec, st.just("cnn"), st.tuples(*[st.integers(1, 512)] * 3), SIZES, st.just("relu"), OWN,
              st.one_of(st.none(), st.integers(1, 99))),
))  # fmt: skip
def test_a_spec_reads_back_what_it_prints(spec):
    assert NetworkSpec.parse(str(spec)) == spec


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_networks_go_by_their_names(name):
    assert str(NetworkSpec.parse(PAPER[name])) == name


@pytest.mark.parametrize(
    "text",
    ["", "net4", "mlp", "mlp:", "mlp:0", "mlp:64-", "mlp:-64", "mlp:64:gelu", "mlp:64:relu:3", "mlp:6.4", "mlp:99999",
     "mlp:16385", "cnn:16-16:64", "cnn:16-16-16", "cnn:16-16-16-16:64", "mlp:" + "-".join(["8"] * 33), "mlp:٣", "NET3",
     "mlp:8/", "mlp:/8", "mlp:8/8/8", "linear/8", "cnn:8-8-8:8/", "cnn:8-8-8/8:8", "cnn:8-8-8:8:0f", "cnn:8-8-8:8:2",
     "cnn:8-8-8:8:100f", "mlp:8:2f"],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line_that_shows_what_works(text):
    with pytest.raises(PotstillError, match="is no network: use dqn, net1") as error:
        NetworkSpec.parse(text)
    assert "\n" not in str(error.value)
