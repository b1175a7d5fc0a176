"""Small models with random weights behind the HTTP interface, in this process; needs fastapi."""

from typing import Any

import torch
from starlette.testclient import TestClient

from bionemo_core.builtin import load_registry
from bionemo_core.config.choice_params import FINETUNED
from bionemo_core.config.schema import Choice
from bionemo_core.finetuning.model import finetuned
from bionemo_core.finetuning.model.params import FineTunedParams
from bionemo_core.inference.sampling import Seq2SeqInference
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec
from bionemo_core.models.load import OpenedModel
from bionemo_core.protocols import BuildContext
from bionemo_core.tasks.serving.app import make_app
from bionemo_core.tasks.serving.engine import Engine
from bionemo_core.tasks.serving.guard import Guard
from bionemo_core.tasks.serving.limits import Limits
from bionemo_core.tasks.serving.served_model import ServedModel
from bionemo_core.tasks.serving.server_metrics import ServerMetrics
from bionemo_core.tasks.settings import Serve

ENCODER = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "ffn_hidden_size": 48, "seq_length": 64}
MOLECULES = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "hidden_steps": 2, "seq_length": 64}


def choice(group: str, name: str, params: dict) -> Choice:
    found = load_registry().get(group, name)
    return Choice(group, found.name, params, found.distribution, found.version)


def opened(model: str, tokenizer: str, sizes: dict) -> OpenedModel:
    torch.manual_seed(0)
    spec = ModelSpec(choice("model", model, sizes), choice("tokenizer", tokenizer, {}))
    registry = load_registry()
    pieces = registry.build(spec.tokenizer, context=BuildContext())
    module = registry.build(spec.model, tokenizer=pieces, context=BuildContext()).eval()
    return OpenedModel(module, pieces, spec, {}, LoadReport("random"))


def with_head(encoder: OpenedModel, kind: str, **options) -> OpenedModel:
    """A model of this kind of prediction on an encoder; its head has random weights."""
    parts = [encoder.spec.model, choice("head", "mlp", {})]
    made = [{key: getattr(part, key) for key in ("name", "params", "distribution", "version")} for part in parts]
    made_of = {"tokenizer": encoder.tokenizer, "context": BuildContext(), "registry": load_registry()}
    module = finetuned(FineTunedParams(made[0], kind, made[1], **options), **made_of)
    spec = ModelSpec(choice("model", FINETUNED, options), encoder.spec.tokenizer)
    return OpenedModel(module.eval(), encoder.tokenizer, spec, {}, LoadReport("random"))


class ServedHere:
    """A served model, and a client of it; `post` returns the content of an answer of this status."""

    def __init__(self, model: OpenedModel, token: str = "", second: OpenedModel | None = None, **keys: Any) -> None:
        limits, self.metrics = Limits(Serve(**keys)), ServerMetrics()
        self.engine = Engine(4096, self.metrics.count_pass)
        self.served = ServedModel(
            model,
            limits,
            on_gpu=False,
            embed_tokens=4096,
            score_tokens=4096,
            inference=lambda: Seq2SeqInference.of(model),
            second=second,
        )
        self.guard = Guard(make_app(self.served, self.engine, self.metrics), limits, self.metrics, token)
        self.client = TestClient(self.guard)

    def post(self, path: str, body: object, status: int = 200) -> dict[str, Any]:
        answer = self.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()
