"""Settings that do not go together are told before any work, in the words of the option that is wrong."""

import pytest

from tests.toy_examples import toy_config
from training.settings import FitConfig, check_together
from vidseq.config import RecurrentConfig
from vidseq.errors import OptionError


def test_a_bidirectional_model_has_no_state_to_carry() -> None:
    config = toy_config().model_copy(update={"recurrent": RecurrentConfig(bidirectional=True)})
    check_together(config, FitConfig())
    with pytest.raises(OptionError, match="long 'truncated' carries the state"):
        check_together(config, FitConfig(long="truncated"))


@pytest.mark.parametrize(
    ("labels", "said"), [({"several": True}, "says several actions"), ({"action_labels": ()}, "says none")]
)
def test_clips_are_drawn_by_one_action_each(labels: dict[str, object], said: str) -> None:
    check_together(toy_config(**labels), FitConfig(class_balance="weights"))
    with pytest.raises(OptionError, match=said):
        check_together(toy_config(**labels), FitConfig(class_balance="sampling"))
