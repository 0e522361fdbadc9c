"""Exported graphs of every family agree with the model, for any batch, and have no operator of this project."""

import io

import pytest
import torch

from models import create_model
from models.export import INPUT, OUTPUT, export_onnx, export_program
from tests.conftest import SMALL
from tests.ops.test_portable import nodes

TINY = {**SMALL, "img_size": (8, 8, 24), "depth": 1}  # 3 tokens, so that halving meets an odd length
FAMILIES = {
    "vim": {},
    "bivim2": {"contrast_dropout": 0.3},
    "bivim_mha": {"attention_layers": (0,), "scan_order": "hilbert", "pool": "last"},
}


def classifier(family: str):
    model = create_model(f"{family}_3d_small_patch8", **{**TINY, **FAMILIES[family]})
    torch.nn.init.normal_(model.get_classifier().weight)
    return model


def expected(model, volume):
    with torch.no_grad():
        return model.eval()(volume)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_holds_no_operator_of_ours(family):
    model, volume = classifier(family), torch.randn(3, 4, 8, 8, 24)
    program = export_program(model.train())
    assert model.training
    assert not [node for node in nodes(program) if "mamba_mae" in str(node.target)]
    torch.testing.assert_close(program.module()(volume), expected(model, volume), rtol=0, atol=1e-5)


def test_onnxruntime_gives_the_same_logits():
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    pytest.importorskip("onnxscript", reason="pip install -r requirements-export.txt")
    model, volume = classifier("bivim2"), torch.randn(3, 4, 8, 8, 24)
    content = export_onnx(model, {"predicts": "IDH"}).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["predicts"] == "IDH"
    (actual,) = session.run([OUTPUT], {INPUT: volume.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), expected(model, volume), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["vim", "bivim2"])
def test_training_under_torch_compile(family):
    fields = {**TINY, "decoder_depth": 1, "grad_checkpointing": True, "scan_backend": "chunked"}
    model, volume = create_model(f"mae_3d_{family}_small_patch8", **fields), torch.randn(2, 4, 8, 8, 24)
    noise = torch.rand(2, 3)

    def gradients(run):
        model.zero_grad()
        run(volume, noise=noise, mask_ratio=0.6, return_pred=False).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    torch._dynamo.reset()
    actual = gradients(torch.compile(model, backend="aot_eager", fullgraph=True))
    for name, expected in gradients(model).items():
        torch.testing.assert_close(actual[name], expected, rtol=1e-4, atol=1e-6)


def test_a_file_with_our_operators_needs_ops():
    """A program exported without portable_operators loads only in programs that import ops."""
    model = create_model("vim_3d_small_patch8", **TINY, scan_backend="chunked").eval()
    buffer = io.BytesIO()
    program = torch.export.export(model, (torch.zeros(1, 4, 8, 8, 24),))
    assert [node for node in program.graph.nodes if "mamba_mae.chunked_scan" in str(node.target)]
    torch.export.save(program, buffer)
    buffer.seek(0)
    volume = torch.randn(1, 4, 8, 8, 24)
    torch.testing.assert_close(torch.export.load(buffer).module()(volume), expected(model, volume))


def test_models_that_draw_masks_are_refused():
    with pytest.raises(ValueError, match="only classifiers are exported, this is a MaskedAutoencoder3D"):
        export_program(create_model("mae_3d_vim_small_patch8", **TINY))
