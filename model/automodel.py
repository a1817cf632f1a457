"""The network as `transformers.AutoModel` finds and loads it: imported by nothing that forecasts.

`PreTrainedModel` brings half of transformers with it (three CPU-seconds, among them sklearn and
torch's compiler), and none of that is needed to forecast.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, PreTrainedModel

from freshet.model.network import FreshetConfig, FreshetNetwork


class FreshetModel(FreshetNetwork, PreTrainedModel):  # type: ignore[misc, no-untyped-call]
    """The network with what transformers adds: `from_pretrained` and `save_pretrained`."""

    config_class = FreshetConfig
    base_model_prefix = "freshet"
    main_input_name = "target_BT"

    def __init__(self, config: FreshetConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.build(config)
        self.post_init()  # type: ignore[no-untyped-call]


AutoConfig.register(FreshetConfig.model_type, FreshetConfig, exist_ok=True)
AutoModel.register(FreshetConfig, FreshetModel, exist_ok=True)
