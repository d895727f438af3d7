"""FATReLU for transformers: x where x is above config.hidden_act_param, else 0, in the MLPs of Llama.

transformers knows no such activation; apply(model) patches a model that is already built. It is the oracle for stoke's
"fatrelu" (the ProSparse models' activation).
"""

import types

import torch


def apply(model):
    threshold = model.config.hidden_act_param

    def forward(self, x):
        gate = self.gate_proj(x)
        return self.down_proj(torch.where(gate > threshold, gate, torch.zeros_like(gate)) * self.up_proj(x))

    for module in model.modules():
        if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
            module.forward = types.MethodType(forward, module)
